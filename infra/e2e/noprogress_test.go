//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	workflowpb "go.temporal.io/api/workflow/v1"

	"github.com/duratune/duratune/activities"
	"github.com/duratune/duratune/infra/stack"
	"github.com/duratune/duratune/internal/mlflow"
)

// TestNoProgress breaks the GPU worker's disk under a run and kills the worker: each attempt of its successor fails at the
// checkpoint that it is to go on from, and the third of them ends the run.
func TestNoProgress(t *testing.T) {
	w := shared
	const id = "finetune/e2e/no-progress"
	// One long epoch: the kill must not find the run between two.
	run := w.start(t, id, w.forkable(t, map[string]any{"data": map[string]any{"source": w.small(t, "no-progress.jsonl", 1)},
		"train": map[string]any{"epochs": 1}, "checkpoint": map[string]any{"every_steps": 25}}))
	w.pending(t, id, "a checkpoint within an epoch", func(a *workflowpb.PendingActivityInfo) bool {
		return a.GetActivityType().GetName() == "TrainEpoch" && strings.Contains(heartbeat(a).Checkpoint.URI, "/step-")
	})
	models := filepath.Join(w.State, "cache", "models") // the base model, which a new worker opens first
	if err := os.Rename(models, models+".away"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(models); err != nil {
			t.Error(err)
		}
		if err := os.Rename(models+".away", models); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(models, nil, 0o600); err != nil { // no folder
		t.Fatal(err)
	}
	if err := w.Signal(stack.GPUWorker, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	app := failure(t, run)
	t.Logf("%s: %s", app.Type(), app.Message())
	if app.Type() != activities.TypeNoProgress || !app.NonRetryable() {
		t.Errorf("ended with %s, want NoProgress, not retried", app.Type())
	}
	if !strings.Contains(app.Message(), "3 attempts from step ") || !strings.Contains(app.Message(), "not a directory") {
		t.Errorf("%q does not say from which step and why", app.Message())
	}
	w.becomes(t, w.runOf(t, run.GetRunID()), mlflow.Failed)
}
