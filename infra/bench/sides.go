package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/duratune/duratune/internal/plot"
	"github.com/duratune/duratune/internal/train"
)

// plan is the order of the rows and the learning rates, of both sides.
func (b *accuracy) plan(seed int64) train.Plan {
	s := b.settings
	p := train.Plan{NumRows: len(b.train), Epochs: s.Epochs, BatchSize: s.Batch, Seed: seed, LoggingSteps: s.LoggingSteps}
	p.Schedule = train.Schedule{Kind: "linear", Peak: s.LearningRate, Total: p.TotalSteps()}
	return p
}

// ours trains with engine and loop, without a store: what an activity does between two checkpoints.
func (b *accuracy) ours(ctx context.Context, seed int64, precision string) (o outcome, err error) {
	// TrainingArguments' own defaults, spelled out.
	eng, err := open(ctx, train.Spec{
		ModelDir: b.model, Labels: labels, MaxLength: b.settings.MaxLength, Padding: "longest", BatchSize: b.settings.Batch, EvalBatch: evalBatch,
		Precision: precision, Seed: seed, AdamBeta1: 0.9, AdamBeta2: 0.999, AdamEpsilon: 1e-8, MaxGradNorm: 1,
	})
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, eng.Close()) }()
	o.identity = eng.Identity()
	hooks := train.Hooks{Now: time.Now, Progress: func(train.Progress) {}, Points: func(points []train.Point) {
		for _, p := range points {
			if p.Key == "loss" {
				o.Loss = append(o.Loss, plot.Point{Step: p.Step, Value: p.Value})
			}
		}
	}}
	start := time.Now()
	var st train.State
	for epoch := range b.settings.Epochs {
		if st, err = train.Epoch(ctx, eng, b.plan(seed), b.train, epoch, st, hooks); err != nil {
			return o, err
		}
	}
	o.Seconds = time.Since(start).Seconds()
	var inputs []train.Sequence
	var truth []int64
	for _, r := range b.test {
		inputs, truth = append(inputs, train.Sequence{IDs: r.IDs}), append(truth, r.Label)
	}
	logits, err := eng.Logits(ctx, inputs, nil)
	if err != nil {
		return o, err
	}
	m, err := train.Score(logits, truth, len(labels))
	o.Accuracy, o.F1, o.EvalLoss = m.Accuracy, m.F1, m.Loss
	return o, err
}

// evalBatch does not change the numbers.
const evalBatch = 32

// The rows' files, in the folder that the peer reads.
const (
	trainFile = "train.jsonl"
	testFile  = "test.jsonl"
)

// peer has Trainer take the same rows in the same order. Its dropout and its new head come from its own generator.
func (b *accuracy) peer(ctx context.Context, dir string, seed int64) (outcome, error) {
	in := func(name string) string { return filepath.Join(dir, name) }
	plan := b.plan(seed)
	var order [][]int32
	for epoch := range plan.Epochs {
		order = append(order, train.Order(seed, epoch, plan.NumRows))
	}
	text, err := json.Marshal(order)
	orders := in(fmt.Sprintf("order-%d.json", seed))
	if err := errors.Join(err, os.WriteFile(orders, text, 0o644)); err != nil {
		return outcome{}, err
	}
	cmd := exec.CommandContext(ctx, b.python, filepath.Join(b.root, "internal", "py", "trainer_curve.py"),
		"--model", b.model, "--rows", in(trainFile), "--eval-rows", in(testFile), "--order", orders,
		"--labels", strconv.Itoa(len(labels)), "--epochs", strconv.Itoa(plan.Epochs), "--batch", strconv.Itoa(plan.BatchSize), "--eval-batch", strconv.Itoa(evalBatch),
		"--lr", strconv.FormatFloat(plan.Schedule.Peak, 'g', -1, 64), "--logging-steps", strconv.FormatInt(plan.LoggingSteps, 10),
		"--dropout", "on", "--seed", strconv.FormatInt(seed, 10), "--threads", strconv.Itoa(runtime.GOMAXPROCS(0)))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return outcome{}, fmt.Errorf("trainer_curve.py: %w\n%s", err, stderr.Bytes())
	}
	return parse(out)
}

// parse reads what trainer_curve.py prints.
func parse(out []byte) (o outcome, err error) {
	var curve struct {
		Versions map[string]string `json:"versions"`
		Seconds  float64           `json:"seconds"`
		History  []struct {
			Step     int64    `json:"step"`
			Loss     *float64 `json:"loss"`
			EvalLoss *float64 `json:"eval_loss"`
			Accuracy float64  `json:"eval_accuracy"`
			F1       float64  `json:"eval_f1"`
			Runtime  float64  `json:"eval_runtime"`
		} `json:"log_history"`
	}
	if err := json.Unmarshal(out, &curve); err != nil {
		return o, fmt.Errorf("trainer_curve.py printed %q: %w", out, err)
	}
	o.versions, o.Seconds = curve.Versions, curve.Seconds
	for _, h := range curve.History {
		if h.Loss != nil {
			o.Loss = append(o.Loss, plot.Point{Step: h.Step, Value: *h.Loss})
		}
		if h.EvalLoss != nil { // the last one stands
			o.EvalLoss, o.Accuracy, o.F1 = *h.EvalLoss, h.Accuracy, h.F1
			o.Seconds -= h.Runtime
		}
	}
	if o.Accuracy == 0 {
		return o, errors.New("trainer_curve.py: no evaluation in its log_history")
	}
	return o, nil
}
