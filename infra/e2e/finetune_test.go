//go:build e2e

package e2e

import (
	"context"
	"syscall"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"

	"github.com/duratune/duratune/infra/stack"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/workflows"
)

// TestFineTuneSurvivesAKill runs the tutorial's data on MiniLM, kills the GPU worker in the middle of an epoch, and looks
// at what Temporal, MLflow and S3 hold afterwards.
func TestFineTuneSurvivesAKill(t *testing.T) {
	w := shared
	w.sharedFile(t, "sms_spam/SMSSpamCollection")
	const id = "finetune/e2e/sms-spam-minilm"
	run := w.start(t, id, w.recipe(t, "sms-spam-minilm.json", map[string]any{
		"train": map[string]any{"epochs": 1}, "checkpoint": map[string]any{"every_steps": 100},
	}))
	w.pending(t, id, "step 150 of the first epoch", func(a *workflowpb.PendingActivityInfo) bool {
		return a.GetActivityType().GetName() == "TrainEpoch" && heartbeat(a).Step >= 150
	})
	if err := w.Signal(stack.GPUWorker, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	retried := w.pending(t, id, "the second attempt", func(a *workflowpb.PendingActivityInfo) bool {
		return a.GetActivityType().GetName() == "TrainEpoch" && a.GetAttempt() >= 2 && heartbeat(a).Step >= 100 && a.GetState() == enumspb.PENDING_ACTIVITY_STATE_STARTED
	})
	t.Logf("attempt %d goes on at step %d", retried.GetAttempt(), heartbeat(retried).Step)

	var res workflows.Result
	if err := run.Get(t.Context(), &res); err != nil {
		t.Fatal(err)
	}
	t.Logf("epochs %+v, load test %+v", res.Epochs, res.LoadTest)
	if last := res.Epochs[len(res.Epochs)-1]; last.Accuracy < 0.98 {
		t.Errorf("accuracy %.4f, want at least 0.98", last.Accuracy)
	}
	checkTemporal(t, w, id)
	checkMLflow(t, w, res)
	checkSecrets(t, w, id)
}

// checkTemporal looks for the retry and at the size of the history.
func checkTemporal(t *testing.T, w *world, id string) {
	t.Helper()
	events, bytes := w.history(t, id)
	t.Logf("history: %d events, %d bytes", len(events), bytes)
	if bytes > 256<<10 {
		t.Errorf("history has %d bytes, want at most 256 KiB", bytes)
	}
	retried := false
	for _, e := range events {
		if s := e.GetActivityTaskStartedEventAttributes(); s.GetAttempt() > 1 {
			retried = true
		}
	}
	if !retried {
		t.Error("no activity was retried")
	}
}

// checkMLflow looks at run, points, model, version and alias.
func checkMLflow(t *testing.T, w *world, res workflows.Result) {
	t.Helper()
	ctx := t.Context()
	run, err := w.tracking.GetRun(ctx, res.MLflowRunID)
	if err != nil {
		t.Fatal(err)
	}
	if run.Status != mlflow.Finished || run.Tags["gate"] != "passed" {
		t.Errorf("run is %s with gate %q, want FINISHED and passed", run.Status, run.Tags["gate"])
	}
	for key, value := range map[string]string{"learning_rate": "5e-05", "num_train_epochs": "1", "per_device_train_batch_size": "8"} {
		if run.Params[key] != value {
			t.Errorf("param %s = %q, want %q", key, run.Params[key], value)
		}
	}
	checkPoints(ctx, t, w, res.MLflowRunID)
	if len(run.Models) != 1 || run.Models[0] != res.ModelID {
		t.Errorf("models of the run: %v, want %s alone", run.Models, res.ModelID)
	}
	model, err := w.tracking.GetModel(ctx, res.ModelID)
	if err != nil {
		t.Fatal(err)
	}
	if model.Name != "fine_tuned" || model.RunID != res.MLflowRunID || model.Status != mlflow.ModelReady {
		t.Errorf("model %+v, want fine_tuned of run %s, ready", model, res.MLflowRunID)
	}
	version, err := w.tracking.GetAlias(ctx, res.RegisteredModel, res.Alias)
	if err != nil {
		t.Fatal(err)
	}
	if version.ModelID != res.ModelID || version.Version != res.Version {
		t.Errorf("alias %s points to version %s of %s, want %s of %s", res.Alias, version.Version, version.ModelID, res.Version, res.ModelID)
	}
}

// checkPoints expects one point a logging step and key, as Trainer logs them.
func checkPoints(ctx context.Context, t *testing.T, w *world, runID string) {
	t.Helper()
	for _, key := range []string{"loss", "grad_norm", "learning_rate", "epoch"} {
		history, err := w.tracking.MetricHistory(ctx, runID, key)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[int64]bool{}
		for _, p := range history {
			if seen[p.Step] || p.Step%8 != 0 {
				t.Errorf("%s at step %d stands twice or off the logging steps", key, p.Step)
			}
			seen[p.Step] = true
		}
		if len(seen) != 558/8 {
			t.Errorf("%s has %d points, want %d", key, len(seen), 558/8)
		}
		if key == "learning_rate" && len(history) > 0 && history[0].Step == 8 {
			peak, steps := 5e-5, 558.0 // variables: as Trainer rounds, where constants would be exact
			if got, want := history[0].Value, peak*((steps-7)/steps); got != want {
				t.Errorf("learning_rate at step 8 = %v, want %v", got, want)
			}
		}
	}
	for _, key := range []string{"eval_loss", "eval_accuracy", "eval_f1", "eval_runtime", "train_runtime", "train_loss"} {
		history, err := w.tracking.MetricHistory(ctx, runID, key)
		if err != nil {
			t.Fatal(err)
		}
		if len(history) != 1 || history[0].Step != 558 {
			t.Errorf("%s: %+v, want one point at step 558", key, history)
		}
	}
}

// TestTrackingAwayAtStart starts a run while MLflow is down: the state is visible, and the run goes on when it is back.
func TestTrackingAwayAtStart(t *testing.T) {
	w := shared
	if err := w.Halt(t.Context(), stack.MLflow); err != nil {
		t.Fatal(err)
	}
	const id = "finetune/e2e/tracking-away"
	run := w.start(t, id, w.recipe(t, "quickstart.json", map[string]any{"data": map[string]any{"source": "file:no/such/file"}}))
	a := w.pending(t, id, "Plan failing for want of MLflow", func(a *workflowpb.PendingActivityInfo) bool {
		return a.GetLastFailure().GetApplicationFailureInfo().GetType() == "TrackingUnavailable"
	})
	t.Logf("visible: %s", a.GetLastFailure().GetMessage())
	began := time.Now()
	if err := w.Resume(t.Context(), stack.MLflow); err != nil {
		t.Fatal(err)
	}
	if app := failure(t, run); app.Type() != "DatasetInvalid" { // that is, Plan went through
		t.Errorf("ended with %s: %s, want DatasetInvalid", app.Type(), app.Message())
	}
	t.Logf("went on %.1f s after MLflow was told to start", time.Since(began).Seconds())
}
