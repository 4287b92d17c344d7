package activities

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.temporal.io/sdk/testsuite"

	"github.com/duratune/duratune/dataset"
	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/mlflow/mlflowtest"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/safetensors"
	"github.com/duratune/duratune/internal/train"
)

// fakeEngine has one weight and one moment, and every step mixes in all that decides it: order, batch, rate, step.
type fakeEngine struct {
	weight, moment float32
	stats          []train.StepStats
	hook           func(step int64) error // before a step; may be nil
	nanAt          int64                  // step whose loss is NaN; -1: none
	closed         bool
}

func (f *fakeEngine) Step(_ context.Context, step int64, lr float64, b train.Batch) error {
	if f.hook != nil {
		if err := f.hook(step); err != nil {
			return err
		}
	}
	finite := step != f.nanAt
	if finite {
		for i, in := range b.Inputs {
			f.moment = f.moment*0.9 + float32(in.IDs[0])*float32(i+1)
		}
		f.weight += float32(lr) * f.moment
	}
	stats := train.StepStats{Step: step, Loss: f.weight, GradNorm: f.moment, Finite: finite}
	if !finite {
		stats.Loss, stats.GradNorm = float32(math.NaN()), float32(math.Inf(1))
	}
	f.stats = append(f.stats, stats)
	return nil
}

func (f *fakeEngine) Sync(context.Context) ([]train.StepStats, error) {
	s := f.stats
	f.stats = nil
	return s, nil
}

func (f *fakeEngine) Logits(_ context.Context, inputs []train.Sequence, _ func(int)) ([][]float32, error) {
	out := make([][]float32, len(inputs))
	for i, in := range inputs {
		out[i] = []float32{float32(in.IDs[0]%2) * 2, 1 + f.weight*0}
	}
	return out, nil
}

type fakeSnapshot struct{ weight, moment []byte }

func float32Bytes(v float32) []byte {
	return binary.LittleEndian.AppendUint32(nil, math.Float32bits(v))
}

func tensor(name string, data []byte) []safetensors.Tensor {
	return []safetensors.Tensor{{Name: name, DType: "F32", Shape: []int64{1}, Data: data}}
}

func (s fakeSnapshot) Weights() ([]safetensors.Tensor, error) { return tensor("w", s.weight), nil }
func (s fakeSnapshot) Optimizer() ([]safetensors.Tensor, error) {
	return tensor("exp_avg.w", s.moment), nil
}
func (s fakeSnapshot) Release() {}

func (f *fakeEngine) Snapshot(context.Context) (train.Snapshot, error) {
	return fakeSnapshot{float32Bytes(f.weight), float32Bytes(f.moment)}, nil
}

func (f *fakeEngine) Restore(_ context.Context, weights, optimizer *safetensors.File) error {
	read := func(file *safetensors.File, name string) (float32, error) {
		t, err := file.Tensor(name)
		if err != nil {
			return 0, err
		}
		return math.Float32frombits(binary.LittleEndian.Uint32(t.Data)), nil
	}
	var err, err2 error
	f.weight, err = read(weights, "w")
	f.moment, err2 = read(optimizer, "exp_avg.w")
	return errors.Join(err, err2)
}

func (f *fakeEngine) Identity() train.Identity {
	return train.Identity{Device: "fake", Precision: "fp32"}
}
func (f *fakeEngine) Usage() train.Usage { return train.Usage{PeakHost: 1 << 20, Padding: 0.25} }
func (f *fakeEngine) Close() error       { f.closed = true; return nil }

// bench is a GPU worker over an in-memory store, a fake MLflow and fake engines.
type bench struct {
	gpu     *GPU
	store   artifact.Store
	mlflow  *mlflowtest.Server
	run     Run
	engines []*fakeEngine
	prepare func(*fakeEngine) // called for each engine that is opened; may be nil
	input   TrainEpochInput
}

const testRows = 83 // 11 steps of 8, the last with 3 rows

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{store: artifact.NewMem(), mlflow: mlflowtest.New(t, mlflowtest.Options{})}
	tracking := newTracking(t, b.mlflow)
	experiment, err := tracking.EnsureExperiment(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	b.run = Run{Key: "0123abcd", WorkflowRunID: "default-test-run-id", ExperimentID: experiment.ID}
	run, err := tracking.EnsureRun(t.Context(), mlflow.RunSpec{ExperimentID: experiment.ID, Name: "test", Key: b.run.Key, StartTime: 1})
	if err != nil {
		t.Fatal(err)
	}
	b.run.MLflowRunID = run.ID
	b.gpu = &GPU{Store: b.store, Tracking: tracking, CacheDir: t.TempDir(), Scratch: t.TempDir(), Logger: slog.New(slog.DiscardHandler),
		Open: func(context.Context, train.Spec) (train.Engine, error) {
			e := &fakeEngine{weight: 1, nanAt: -1}
			if b.prepare != nil {
				b.prepare(e)
			}
			b.engines = append(b.engines, e)
			return e, nil
		}}
	b.input = TrainEpochInput{Session: Session{Run: b.run, Epoch: 1, Labels: []string{"ham", "spam"}, MicroStep: 8,
		Tokenizer: recipe.Tokenizer{MaxLength: 16},
		Train:     recipe.Train{Epochs: 2, BatchSize: 8, EvalBatchSize: 8, LearningRate: 1e-3, Schedule: "linear", LoggingSteps: 4, Seed: 42}}}
	b.input.Model = b.putFolder(t)
	b.input.Tokens = b.putTokens(t)
	return b
}

func newTracking(t *testing.T, s *mlflowtest.Server) *mlflow.Client {
	t.Helper()
	c, err := mlflow.New(mlflow.Config{TrackingURI: s.URL()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// putFolder stores a base model that only fake engines can open.
func (b *bench) putFolder(t *testing.T) artifact.Ref {
	t.Helper()
	file, err := b.store.Put(t.Context(), "model/config.json", bytes.NewReader([]byte("{}")), nil)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := putManifest(t.Context(), b.store, "model", Folder{Files: map[string]artifact.Ref{"config.json": file}})
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// constantEncoder gives each text a token that is its row number.
type constantEncoder struct{}

func (constantEncoder) AppendIDs(dst []int32, text string, _ int) []int32 {
	var n int32
	if _, err := fmt.Sscan(text, &n); err != nil {
		n = -1
	}
	return append(dst, n)
}

func (e constantEncoder) AppendPair(ids []int32, types []int8, text, _ string, _ int) ([]int32, []int8) {
	return e.AppendIDs(ids, text, 0), append(types, 0)
}

// putTokens stores the tokens of a share of testRows rows.
func (b *bench) putTokens(t *testing.T) artifact.Ref {
	t.Helper()
	rows := make([]dataset.Row, testRows)
	for i := range rows {
		rows[i] = dataset.Row{Index: int64(i), Text: fmt.Sprint(i), Label: i % 2}
	}
	path := filepath.Join(t.TempDir(), "tokens.arrow")
	writeTokens(t, path, rows)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	shard, err := b.store.Put(t.Context(), "tokens/00000.arrow", f, nil)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := putManifest(t.Context(), b.store, "tokens", Shards{Shards: []artifact.Ref{shard}})
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// env runs activities; each call is a first attempt.
func (b *bench) env(t *testing.T) *testsuite.TestActivityEnvironment {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.RegisterActivity(b.gpu)
	return env
}

// train runs one attempt at an epoch on a fresh worker.
func (b *bench) train(t *testing.T, in TrainEpochInput) (TrainEpochResult, error) {
	t.Helper()
	b.gpu.drop()
	v, err := b.env(t).ExecuteActivity(b.gpu.TrainEpoch, in)
	var res TrainEpochResult
	if err == nil {
		err = v.Get(&res)
	}
	return res, err
}

// weights is the digest of a checkpoint's weights and moments.
func (b *bench) weights(t *testing.T, ref artifact.Ref) string {
	t.Helper()
	c, err := train.Load(t.Context(), b.store, ref)
	if err != nil {
		t.Fatal(err)
	}
	return c.Weights.SHA256 + c.Optimizer.SHA256
}

// history is MLflow's points as "key step" → number of points, without those of the machine: an epoch that takes longer
// than a second sends some.
func (b *bench) history() map[string]int {
	seen := map[string]int{}
	for _, m := range b.mlflow.Runs()[0].Metrics {
		if !strings.HasPrefix(m.Key, "system/") {
			seen[fmt.Sprint(m.Key, " ", m.Step)]++
		}
	}
	return seen
}

// writeTokens writes rows as a token file whose ids are the rows' numbers.
func writeTokens(t *testing.T, path string, rows []dataset.Row) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seq := func(yield func(dataset.Row, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
	}
	if _, err := dataset.Tokenize(t.Context(), seq, constantEncoder{}, 16, f, nil); err != nil {
		t.Fatal(err)
	}
}
