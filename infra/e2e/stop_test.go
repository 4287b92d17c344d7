//go:build e2e

package e2e

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/duratune/duratune/activities"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/workflows"
)

// training starts a run that is not over by itself and waits until steps are done; it returns the id of its MLflow run.
func (w *world) training(t *testing.T, id string) (run client.WorkflowRun, mlflowRun string) {
	t.Helper()
	started := w.start(t, id, w.recipe(t, "quickstart.json", map[string]any{"train": map[string]any{"epochs": 100}}))
	w.pending(t, id, "the first steps", func(a *workflowpb.PendingActivityInfo) bool {
		return a.GetActivityType().GetName() == "TrainEpoch" && heartbeat(a).Step >= 2
	})
	return started, w.runOf(t, started.GetRunID())
}

// runOf is the one MLflow run of a workflow execution.
func (w *world) runOf(t *testing.T, workflowRun string) string {
	t.Helper()
	ids := w.runsOf(t, workflowRun)
	if len(ids) != 1 {
		t.Fatalf("%d MLflow runs of the workflow", len(ids))
	}
	return ids[0]
}

// runsOf lists the MLflow runs of a workflow execution.
func (w *world) runsOf(t *testing.T, workflowRun string) (found []string) {
	t.Helper()
	experiments, err := w.tracking.Experiments(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, e := range experiments {
		ids = append(ids, e.ID)
	}
	runs, err := w.tracking.FindRuns(t.Context(), ids, mlflow.TagIs("duratune.workflow_run_id", workflowRun))
	if err != nil {
		t.Fatal(err)
	}
	for _, run := range runs {
		found = append(found, run.ID)
	}
	return found
}

// becomes waits until the MLflow run has the status, and returns how long it took.
func (w *world) becomes(t *testing.T, runID string, want mlflow.Status) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for time.Since(began) < 2*time.Minute {
		run, err := w.tracking.GetRun(t.Context(), runID)
		if err != nil {
			t.Fatal(err)
		}
		if run.Status == want {
			return time.Since(began)
		}
		<-tick.C
	}
	t.Fatalf("MLflow run %s is not %s after two minutes", runID, want)
	return 0
}

// TestCancelFreesTheDevice cancels a training run: the workflow ends as cancelled once the device is free, and MLflow
// says KILLED.
func TestCancelFreesTheDevice(t *testing.T) {
	w := shared
	const id = "finetune/e2e/cancelled"
	_, mlflowRun := w.training(t, id)
	began := time.Now()
	if err := w.Client().CancelWorkflow(t.Context(), id, ""); err != nil {
		t.Fatal(err)
	}
	if err := w.Client().GetWorkflow(t.Context(), id, "").Get(t.Context(), nil); !temporal.IsCanceledError(err) {
		t.Errorf("workflow ended with %v, want cancellation", err)
	}
	t.Logf("device free and workflow closed after %.1f s", time.Since(began).Seconds())
	w.becomes(t, mlflowRun, mlflow.Killed)
}

// TestTerminatedRunIsReconciled terminates a training run, which then cannot close its own MLflow run: the schedule does.
func TestTerminatedRunIsReconciled(t *testing.T) {
	w := shared
	const id = "finetune/e2e/terminated"
	_, mlflowRun := w.training(t, id)
	began := time.Now()
	if err := w.Client().TerminateWorkflow(t.Context(), id, "", "test"); err != nil {
		t.Fatal(err)
	}
	t.Logf("KILLED after %.1f s", w.becomes(t, mlflowRun, mlflow.Killed).Seconds())
	_, next := w.training(t, id+"-next") // the device is free for another run
	t.Logf("next run trains %.1f s after the termination", time.Since(began).Seconds())
	if err := w.Client().CancelWorkflow(t.Context(), id+"-next", ""); err != nil {
		t.Fatal(err)
	}
	w.becomes(t, next, mlflow.Killed)
}

// TestTimedOutRunIsReconciled gives a run less time than it needs, by Temporal's own means: MLflow says FAILED. How long it
// takes to open the MLflow run is the machine's matter: the time grows until that was enough.
func TestTimedOutRunIsReconciled(t *testing.T) {
	w := shared
	recipe := w.recipe(t, "quickstart.json", map[string]any{"train": map[string]any{"epochs": 100}})
	for _, limit := range []time.Duration{20 * time.Second, time.Minute, 4 * time.Minute} {
		run, err := w.Client().ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: "finetune/e2e/timed-out", TaskQueue: activities.Queue, WorkflowRunTimeout: limit},
			workflows.FineTuneType, recipe)
		if err != nil {
			t.Fatal(err)
		}
		var late *temporal.TimeoutError
		if err := run.Get(t.Context(), nil); !errors.As(err, &late) {
			t.Fatalf("workflow ended with %v, want a time-out", err)
		}
		if ids := w.runsOf(t, run.GetRunID()); len(ids) == 1 {
			t.Logf("FAILED after %.1f s", w.becomes(t, ids[0], mlflow.Failed).Seconds())
			return
		}
	}
	t.Fatal("no run was in MLflow before its time was over")
}

// TestResetIsRefused resets a run, while it trains and after its end: the copy may not touch what belongs to the original,
// whose MLflow run ends as KILLED, and says what to do instead.
func TestResetIsRefused(t *testing.T) {
	w := shared
	const id = "finetune/e2e/reset"
	original, mlflowRun := w.training(t, id)
	for _, to := range []string{"LastWorkflowTask", "FirstWorkflowTask"} {
		cmd := exec.CommandContext(t.Context(), w.paths.Temporal, "workflow", "reset", "--workflow-id", id, "--run-id", original.GetRunID(), "--type", to, "--reason", "test")
		cmd.Env = append(os.Environ(), w.ClientEnv()...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("reset to %s: %v\n%s", to, err, out)
		}
		app := failure(t, w.Client().GetWorkflow(t.Context(), id, ""))
		t.Logf("%s: %s: %s", to, app.Type(), app.Message())
		if app.Type() != activities.TypeForkByReset || !app.NonRetryable() {
			t.Errorf("reset to %s ended with %s, want ForkByReset", to, app.Type())
		}
		for _, word := range []string{original.GetRunID(), `"run": "` + mlflowRun + `"`, "temporal workflow start"} {
			if !strings.Contains(app.Message(), word) {
				t.Errorf("%q does not say %q", app.Message(), word)
			}
		}
		w.becomes(t, mlflowRun, mlflow.Killed)
	}
}
