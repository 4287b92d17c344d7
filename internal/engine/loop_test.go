//go:build torch

package engine

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/duratune/duratune/internal/train"
)

// TestLoopMatchesTrainer: what an epoch logs, window by window, is what Trainer logs on the same rows in the same order.
//
// Ours may take a batch in parts and computes the same. Trainer with gradient_accumulation_steps does so where it is told to
// divide by their number; what 5.17 does otherwise is in TestTrainersAccumulationSums.
func TestLoopMatchesTrainer(t *testing.T) {
	tests := []struct {
		name   string
		change func(*train.Spec, *train.Plan)
		flags  []string
	}{
		{"linear", func(*train.Spec, *train.Plan) {}, nil},
		{
			"cosine, warm-up, decay, no clipping, in two parts",
			func(s *train.Spec, p *train.Plan) {
				p.NumRows = 88 // full batches: Trainer's epoch counts parts
				s.MicroStep, s.WeightDecay, s.MaxGradNorm = 4, 0.01, 0
				p.Schedule.Kind, p.Schedule.Warmup = "cosine", train.WarmupSteps(0, 0.2, p.TotalSteps())
			},
			[]string{"--batch", "4", "--accumulate", "2", "--divide", "--schedule", "cosine", "--warmup", "0.2", "--weight-decay", "0.01", "--max-grad-norm", "0"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := readGolden(t, "testdata/bert").spec()
			spec.BatchSize, spec.MicroStep, spec.WeightDecay, spec.MaxGradNorm, spec.LabelSmoothing = 8, 8, 0, 1, 0
			spec.AdamBeta1, spec.AdamBeta2, spec.AdamEpsilon = 0.9, 0.999, 1e-8
			// 11 steps an epoch: every third window spans the epochs' border, and the last batch has three rows.
			plan := train.Plan{NumRows: 83, Epochs: 2, BatchSize: 8, Seed: 42, LoggingSteps: 4}
			plan.Schedule = train.Schedule{Kind: "linear", Peak: 1e-3, Total: plan.TotalSteps()}
			tt.change(&spec, &plan)
			rows := drawRows(plan.NumRows, len(spec.Labels))
			want := runTrainer(t, spec, plan, rows, tt.flags)
			got, st := runLoop(t, spec, plan, rows)
			compareLogs(t, got, want)
			total := want[len(want)-1].TrainLoss
			if d := math.Abs(st.TotalLoss/float64(st.Step) - total); d > 1e-5 {
				t.Errorf("mean loss of the run differs by %v from train_loss %v", d, total)
			}
		})
	}
}

// TestTrainersAccumulationSums holds down what Trainer 5.17 does with gradient_accumulation_steps and we do not: a classifier's
// loss and gradients are sums over the parts, twice the mean for two (huggingface/transformers#47688). docs/fidelity.md has why.
func TestTrainersAccumulationSums(t *testing.T) {
	spec := readGolden(t, "testdata/bert").spec()
	spec.BatchSize, spec.MicroStep, spec.LabelSmoothing = 8, 4, 0
	plan := train.Plan{NumRows: 8, Epochs: 1, BatchSize: 8, Seed: 42, LoggingSteps: 1}
	plan.Schedule = train.Schedule{Kind: "linear", Peak: 1e-3, Total: 1}
	rows := drawRows(plan.NumRows, len(spec.Labels))
	theirs := runTrainer(t, spec, plan, rows, []string{"--batch", "4", "--accumulate", "2"})[0]
	points, _ := runLoop(t, spec, plan, rows)
	ours := points[1]
	if r := theirs.Loss / ours["loss"]; math.Abs(r-2) > 1e-5 {
		t.Errorf("Trainer logs %v times our loss, want 2", r)
	}
	if r := theirs.GradNorm / ours["grad_norm"]; math.Abs(r-2) > 1e-4 {
		t.Errorf("Trainer's gradients are %v times ours, want 2", r)
	}
}

// entry is one of Trainer's log_history. The last one describes the run.
type entry struct {
	Step         int64   `json:"step"`
	Loss         float64 `json:"loss"`
	GradNorm     float64 `json:"grad_norm"`
	LearningRate float64 `json:"learning_rate"`
	Epoch        float64 `json:"epoch"`
	TrainLoss    float64 `json:"train_loss"`
}

// compareLogs takes the points of the loop and all of Trainer's entries.
func compareLogs(t *testing.T, got map[int64]map[string]float64, want []entry) {
	t.Helper()
	if len(got) != len(want)-1 || len(got) != 5 {
		t.Fatalf("%d logging steps, Trainer has %d, want 5", len(got), len(want)-1)
	}
	var loss, norm float64
	for _, w := range want[:len(want)-1] {
		g := got[w.Step]
		loss = math.Max(loss, math.Abs(g["loss"]-w.Loss))
		norm = math.Max(norm, math.Abs(g["grad_norm"]-w.GradNorm)/w.GradNorm)
		if g["learning_rate"] != w.LearningRate {
			t.Errorf("step %d: learning rate %v, want %v", w.Step, g["learning_rate"], w.LearningRate)
		}
		if math.Abs(g["epoch"]-w.Epoch) > 1e-9*w.Epoch {
			t.Errorf("step %d: epoch %v, want %v", w.Step, g["epoch"], w.Epoch)
		}
	}
	t.Logf("largest difference of losses %.1e, norms %.1e", loss, norm)
	if !(loss <= 1e-5) || !(norm <= 1e-4) {
		t.Errorf("losses differ by %v, norms by %v of themselves", loss, norm)
	}
}

// rows are sequences in memory as a train.Rows.
type rows []struct {
	IDs   []int32 `json:"input_ids"`
	Label int64   `json:"label"`
}

type rowSource struct{ rows }

func (r rowSource) NumRows() int      { return len(r.rows) }
func (r rowSource) IDs(i int) []int32 { return r.rows[i].IDs }
func (r rowSource) Types(int) []int8  { return nil }
func (r rowSource) Label(i int) int64 { return r.rows[i].Label }
func (r rowSource) Row(i int) int64   { return int64(i) }

// drawRows makes sequences of all lengths that the small models take, without padding tokens in them.
func drawRows(n, labels int) rows {
	rng := rand.New(rand.NewPCG(7, 11))
	out := make(rows, n)
	for i := range out {
		out[i].Label = rng.Int64N(int64(labels))
		for range 1 + rng.IntN(32) {
			out[i].IDs = append(out[i].IDs, 2+rng.Int32N(94))
		}
	}
	return out
}

// runLoop trains with the loop and returns the points by step and key.
func runLoop(t *testing.T, spec train.Spec, plan train.Plan, data rows) (map[int64]map[string]float64, train.State) {
	t.Helper()
	e := openEngine(t, spec)
	points := map[int64]map[string]float64{}
	hooks := train.Hooks{Now: time.Now, Progress: func(train.Progress) {}, Points: func(ps []train.Point) {
		for _, p := range ps {
			if points[p.Step] == nil {
				points[p.Step] = map[string]float64{}
			}
			points[p.Step][p.Key] = p.Value
		}
	}}
	var st train.State
	for epoch := range plan.Epochs {
		var err error
		if st, err = train.Epoch(t.Context(), e, plan, rowSource{data}, epoch, st, hooks); err != nil {
			t.Fatal(err)
		}
	}
	return points, st
}

// runTrainer has Trainer take the same rows in the same order, and returns its log_history.
func runTrainer(t *testing.T, spec train.Spec, plan train.Plan, data rows, flags []string) []entry {
	t.Helper()
	python := os.Getenv("DURATUNE_PEERS")
	if python == "" {
		t.Skip("peers: DURATUNE_PEERS not set")
	}
	dir := t.TempDir()
	var lines bytes.Buffer
	for _, row := range data {
		if err := json.NewEncoder(&lines).Encode(row); err != nil {
			t.Fatal(err)
		}
	}
	var order [][]int32
	for epoch := range plan.Epochs {
		order = append(order, train.Order(plan.Seed, epoch, plan.NumRows))
	}
	orders, err := json.Marshal(order)
	if err != nil {
		t.Fatal(err)
	}
	rowFile, orderFile := filepath.Join(dir, "rows.jsonl"), filepath.Join(dir, "order.json")
	for path, content := range map[string][]byte{rowFile: lines.Bytes(), orderFile: orders} {
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	args := append([]string{
		"../py/trainer_curve.py", "--model", spec.ModelDir, "--rows", rowFile, "--order", orderFile, "--labels", strconv.Itoa(len(spec.Labels)),
		"--epochs", strconv.Itoa(plan.Epochs), "--batch", "8", "--lr", "1e-3", "--logging-steps", strconv.FormatInt(plan.LoggingSteps, 10),
	}, flags...) // a later flag wins
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), python, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.Bytes())
	}
	var result struct {
		History []entry `json:"log_history"`
	}
	if err := json.Unmarshal(out, &result); err != nil || len(result.History) == 0 {
		t.Fatalf("%v\n%s", err, out)
	}
	return result.History
}
