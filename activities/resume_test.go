package activities

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/recipe"
)

// forkable is a bench whose run has trained two epochs of r, and the CPU worker beside it.
func forkable(t *testing.T) (b *bench, cpu *CPU, r recipe.Recipe, ends []artifact.Ref) {
	t.Helper()
	b = newBench(t)
	for epoch := 1; epoch <= 2; epoch++ {
		in := b.input
		in.Epoch = epoch
		if epoch > 1 {
			in.Checkpoint = ends[0]
		}
		res, err := b.train(t, in)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, res.Checkpoint)
	}
	r, err := recipe.Decode([]byte(`{"name": "x", "data": {"source": "file:rows.csv", "labels": ["ham", "spam"]}, "model": {"base": "file:model"}}`))
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	run, err := b.gpu.Tracking.GetRun(t.Context(), b.run.MLflowRunID)
	if err != nil {
		t.Fatal(err)
	}
	if err := upload(t.Context(), b.gpu.Tracking, run.ArtifactURI, recipePath, body); err != nil {
		t.Fatal(err)
	}
	return b, &CPU{Store: b.store, Tracking: b.gpu.Tracking}, r, ends
}

// TestForkGoesOnWithTheSameBits: the second epoch of a fork is that of the run it comes from.
func TestForkGoesOnWithTheSameBits(t *testing.T) {
	b, cpu, r, ends := forkable(t)
	r.ResumeFrom = recipe.ResumeFrom{Run: b.run.MLflowRunID, Epoch: 1}
	r.Train.Epochs, r.Train.LearningRate = 9, 1e-2
	from, err := cpu.resumeFrom(t.Context(), r)
	if err != nil || from != ends[0] {
		t.Fatalf("resumes from %v (%v), want %v", from, err, ends[0])
	}
	fork := b.input
	fork.Run.Key, fork.Epoch, fork.Checkpoint = "feed", 2, from
	res, err := b.train(t, fork)
	if err != nil {
		t.Fatal(err)
	}
	if b.weights(t, res.Checkpoint) != b.weights(t, ends[1]) || res.Checkpoint == ends[1] {
		t.Error("the fork's second epoch is not a copy of the original's")
	}
	other := fork
	other.Run.Key, other.Tokens.SHA256 = "beef", strings.Repeat("0", 64)
	e := &epoch{GPU: b.gpu, in: other}
	var refused *resumeError
	if err := e.open(t.Context(), from); !errors.As(err, &refused) {
		t.Errorf("other rows: %v, want a refusal", err)
	}
}

// TestForkOfALivingRunLosesItsCheckpoint: the run to go on from sweeps the epoch before the fork has read it.
func TestForkOfALivingRunLosesItsCheckpoint(t *testing.T) {
	for _, name := range []string{"manifest.json", "weights.safetensors"} {
		b, _, _, ends := forkable(t)
		fork := b.input
		fork.Run.Key, fork.Epoch, fork.Checkpoint = "feed", 2, ends[0]
		for key := range keys(t, b.store) {
			if strings.HasPrefix(key, b.run.epoch(1)) && strings.HasSuffix(key, name) {
				if err := b.store.Delete(t.Context(), key); err != nil {
					t.Fatal(err)
				}
			}
		}
		_, err := b.train(t, fork)
		wantType(t, err, TypeResumeRefused, false)
	}
}

func TestForkIsRefused(t *testing.T) {
	b, cpu, r, _ := forkable(t)
	r.ResumeFrom = recipe.ResumeFrom{Run: b.run.MLflowRunID, Epoch: 1}
	for name, tt := range map[string]struct {
		change func(*recipe.Recipe)
		says   string
	}{
		"no such run":   {func(r *recipe.Recipe) { r.ResumeFrom.Run = strings.Repeat("0", 32) }, "is not in MLflow"},
		"no such epoch": {func(r *recipe.Recipe) { r.ResumeFrom.Epoch = 3 }, "no checkpoint of epoch 3, only of epochs [1 2]"},
		"other data":    {func(r *recipe.Recipe) { r.Data.Source = "file:other.csv" }, `data.source must be as in the run to go on from: was "file:rows.csv", is "file:other.csv"`},
		"other model":   {func(r *recipe.Recipe) { r.Model.Base = "file:other" }, `model.base must be as in the run`},
		"other seed":    {func(r *recipe.Recipe) { r.Train.Seed = 1 }, "train.seed must be as in the run to go on from: was 42, is 1"},
		"other batches": {func(r *recipe.Recipe) { r.Train.BatchSize = 16 }, "was 8, is 16"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := r
			tt.change(&changed)
			_, err := cpu.resumeFrom(t.Context(), changed)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("error = %v, want %q", err, tt.says)
			}
			wantType(t, edge(err), TypeResumeRefused, false)
		})
	}
	same := r
	same.Train.BatchSize, same.Train.GradientAccumulationSteps = 4, 2 // the same rows a step
	if _, err := cpu.resumeFrom(t.Context(), same); err != nil {
		t.Error(err)
	}
}
