//go:build e2e

package e2e

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/duratune/duratune/activities"
	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/train"
	"github.com/duratune/duratune/workflows"
)

// forkable is the quickstart on few rows, with a rate that does not depend on the number of epochs.
func (w *world) forkable(t *testing.T, changes map[string]any) map[string]any {
	t.Helper()
	r := w.recipe(t, "quickstart.json", map[string]any{
		"data": map[string]any{"source": "file:fork.jsonl"}, "examples": []any{}, "tokenizer": map[string]any{"max_length": 16},
		"train":    map[string]any{"epochs": 2, "batch_size": 4, "logging_steps": 4, "schedule": "constant"},
		"tracking": map[string]any{"registered_model": "", "alias": ""}, "load_test": map[string]any{"duration": "1s"},
	})
	merge(r, changes)
	return r
}

// from is a change of a recipe that goes on from an epoch of another run.
func from(run string, epoch int, rest map[string]any) map[string]any {
	changes := map[string]any{"resume_from": map[string]any{"run": run, "epoch": epoch}}
	merge(changes, rest)
	return changes
}

// TestFork trains two epochs, goes on from them in other runs, and compares with a run that trained three epochs at once.
func TestFork(t *testing.T) {
	w := shared
	w.small(t, "fork.jsonl", 60)
	parent := w.finish(t, w.start(t, "finetune/e2e/fork-parent", w.forkable(t, map[string]any{"checkpoint": map[string]any{"keep": 2}})))
	straight := w.finish(t, w.start(t, "finetune/e2e/fork-straight", w.forkable(t, map[string]any{"train": map[string]any{"epochs": 3}})))

	t.Run("more epochs", func(t *testing.T) {
		const id = "finetune/e2e/fork-epochs"
		fork := w.finish(t, w.start(t, id, w.forkable(t, from(parent.MLflowRunID, 2, map[string]any{"train": map[string]any{"epochs": 3}}))))
		w.checkFork(t, id, fork, parent, 2, 3)
		got, want := w.checkpoints(t, fork.MLflowRunID)[0], w.checkpoints(t, straight.MLflowRunID)[0]
		if got.Weights.SHA256 != want.Weights.SHA256 || got.Optimizer.SHA256 != want.Optimizer.SHA256 || got.State.TotalLoss != want.State.TotalLoss {
			t.Errorf("the fork's third epoch ends with %+v, that of three epochs at once with %+v", got.Checkpoint, want.Checkpoint)
		}
	})
	t.Run("another rate", func(t *testing.T) {
		const id = "finetune/e2e/fork-rate"
		fork := w.finish(t, w.start(t, id, w.forkable(t, from(parent.MLflowRunID, 1, map[string]any{"train": map[string]any{"learning_rate": 1e-5}}))))
		w.checkFork(t, id, fork, parent, 1, 2)
		for step, rate := range w.points(t, fork.MLflowRunID, "learning_rate") {
			if rate != 1e-5 {
				t.Errorf("learning_rate at step %d = %v, want 1e-05", step, rate)
			}
		}
	})
	w.refusedForks(t, parent, straight)
}

// checkFork expects that a fork trained the epochs behind the parent's alone, and says where it comes from.
func (w *world) checkFork(t *testing.T, id string, fork, parent workflows.Result, reused, epochs int) {
	t.Helper()
	var trained []int
	for _, e := range fork.Epochs {
		trained = append(trained, e.Epoch)
	}
	if len(trained) != epochs-reused || trained[0] != reused+1 {
		t.Errorf("trained epochs %v, want %d to %d", trained, reused+1, epochs)
	}
	var first activities.TrainEpochResult
	w.activityResult(t, id, "TrainEpoch", &first)
	perEpoch := first.Step / int64(reused+1)
	if first.ResumedFrom != int64(reused)*perEpoch {
		t.Errorf("the first epoch began at step %d and ended at %d", first.ResumedFrom, first.Step)
	}
	run, err := w.tracking.GetRun(t.Context(), fork.MLflowRunID)
	if err != nil {
		t.Fatal(err)
	}
	if run.Status != mlflow.Finished || run.Tags["mlflow.parentRunId"] != parent.MLflowRunID || !strings.Contains(run.Tags["duratune.resumed_from"], parent.MLflowRunID) {
		t.Errorf("run is %s with tags %v, want FINISHED and its parent %s", run.Status, run.Tags, parent.MLflowRunID)
	}
	loss := w.points(t, fork.MLflowRunID, "loss")
	if earliest := slices.Min(slices.Collect(maps.Keys(loss))); earliest <= int64(reused)*perEpoch {
		t.Errorf("loss begins at step %d, which the parent trained", earliest)
	}
}

// refusedForks go on from what is not there, or was made of something else. straight keeps its best and its last epoch only.
func (w *world) refusedForks(t *testing.T, parent, straight workflows.Result) {
	t.Helper()
	kept, swept := map[int]bool{}, 0
	for _, c := range w.checkpoints(t, straight.MLflowRunID) {
		kept[c.Epoch] = true
	}
	for epoch := 1; epoch <= 3; epoch++ {
		if !kept[epoch] {
			swept = epoch
		}
	}
	if !kept[3] || swept == 0 || len(kept) > 2 {
		t.Errorf("checkpoints of epochs %v are left, want the best and the last one", kept)
	}
	longer := map[string]any{"train": map[string]any{"epochs": 5}}
	for _, tt := range []struct {
		name    string
		changes map[string]any
		says    string
	}{
		{"no such run", from(strings.Repeat("0", 32), 1, nil), "is not in MLflow"},
		{"no such epoch", from(parent.MLflowRunID, 4, longer), "keeps no checkpoint of epoch 4, only of epochs [1 2]"},
		{"swept epoch", from(straight.MLflowRunID, swept, longer), "checkpoint.keep"},
		{"other data", from(parent.MLflowRunID, 1, map[string]any{"data": map[string]any{"source": w.small(t, "fork-other.jsonl", 50)}}), "data.source must be as in the run"},
		{"other model", from(parent.MLflowRunID, 1, map[string]any{"model": map[string]any{"base": "file:other"}}), "model.base must be as in the run"},
		{"other length", from(parent.MLflowRunID, 1, map[string]any{"tokenizer": map[string]any{"max_length": 32}}), "tokenizer.max_length must be as in the run to go on from: was 16, is 32"},
		{"other seed", from(parent.MLflowRunID, 1, map[string]any{"train": map[string]any{"seed": 7}}), "train.seed must be as in the run to go on from: was 42, is 7"},
	} {
		t.Run(tt.name, func(t *testing.T) { w.refusedFork(t, tt.name, tt.changes, tt.says) })
	}
	t.Run("other rows in the same file", func(t *testing.T) {
		path := filepath.Join(w.State, "data", "fork.jsonl")
		body, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, []byte(strings.Replace(string(body), "the", "a", 1)), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		w.refusedFork(t, "other rows", from(parent.MLflowRunID, 1, nil), "the rows or their tokens are not those")
	})
}

// refusedFork expects a run to fail at once for its resume_from, with a text that says why.
func (w *world) refusedFork(t *testing.T, name string, changes map[string]any, says string) {
	t.Helper()
	app := failure(t, w.start(t, "finetune/e2e/fork/"+strings.ReplaceAll(name, " ", "-"), w.forkable(t, changes)))
	t.Logf("%s: %s", app.Type(), app.Message())
	if app.Type() != activities.TypeResumeRefused || !app.NonRetryable() || !strings.Contains(app.Message(), says) {
		t.Errorf("ended with %s: %s, want ResumeRefused, not retried: %s", app.Type(), app.Message(), says)
	}
}

// store opens the store of the runs.
func (w *world) store(t *testing.T) artifact.Store {
	t.Helper()
	config := aws.Config{Region: "us-east-1", BaseEndpoint: aws.String(w.S3URL()), Credentials: credentials.NewStaticCredentialsProvider(w.AccessKey, w.SecretKey, "")}
	s, err := artifact.Open(t.Context(), "s3://duratune/runs", artifact.Config{AWS: &config, Addressing: "path"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// checkpoints lists what a run has left, the latest step first.
func (w *world) checkpoints(t *testing.T, mlflowRun string) []train.Found {
	t.Helper()
	run, err := w.tracking.GetRun(t.Context(), mlflowRun)
	if err != nil {
		t.Fatal(err)
	}
	key := run.Tags[mlflow.KeyTag]
	found, err := train.Find(t.Context(), w.store(t), key, key)
	if err != nil || len(found) == 0 {
		t.Fatalf("%d checkpoints of run %s: %v", len(found), mlflowRun, err)
	}
	return found
}
