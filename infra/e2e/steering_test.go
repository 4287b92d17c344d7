//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"

	"github.com/duratune/duratune/activities"
)

// documented reads the commands of docs/steering.md: exactly what a user copies.
func (w *world) documented(t *testing.T) map[string]string {
	t.Helper()
	page, err := os.ReadFile(w.root + "/docs/steering.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^temporal (workflow update execute .*--name ([a-z-]+).*)$`).FindAllStringSubmatch(string(page), -1) {
		commands[m[2]] = m[1]
	}
	return commands
}

// steer runs a documented command for another workflow id.
func (w *world) steer(t *testing.T, id, name string) string {
	t.Helper()
	command, ok := w.documented(t)[name]
	if !ok {
		t.Fatalf("docs/steering.md has no command for %s", name)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", w.paths.Temporal+" "+strings.ReplaceAll(command, "finetune/sms-spam", id))
	cmd.Env = append(os.Environ(), w.ClientEnv()...)
	out, err := cmd.CombinedOutput()
	t.Logf("%s: %s", name, out)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestSteering pauses a run in the middle of an epoch, skips its promotion, stops it after the epoch and resumes it, all by
// the documented commands. The epoch is long, so that the pause finds it, and the rest is asked for during the pause.
func TestSteering(t *testing.T) {
	w := shared
	scraped := w.startPrometheus(t)
	const id = "finetune/e2e/steered"
	run := w.start(t, id, w.duel(t, map[string]any{"data": map[string]any{"source": w.small(t, "steered.jsonl", 2)},
		"train": map[string]any{"epochs": 4}, "tracking": map[string]any{"registered_model": "steered"}}))
	at := heartbeat(w.pending(t, id, "step 10", func(a *workflowpb.PendingActivityInfo) bool {
		return a.GetActivityType().GetName() == "TrainEpoch" && heartbeat(a).Step >= 10
	})).Step
	began := time.Now()
	w.steer(t, id, "pause")
	w.idle(t, id)
	t.Logf("the device was free %.1f s after the pause at about step %d", time.Since(began).Seconds(), at)
	w.steer(t, id, "skip-promotion")
	w.steer(t, id, "stop")
	w.steer(t, id, "resume")
	res := w.finish(t, run)
	var epoch activities.TrainEpochResult
	w.activityResult(t, id, "TrainEpoch", &epoch)
	if epoch.ResumedFrom < at || epoch.ResumedFrom >= epoch.Step {
		t.Errorf("went on at step %d of %d, want at least %d: the pause lost steps", epoch.ResumedFrom, epoch.Step, at)
	}
	if len(res.Epochs) != 1 || len(res.Steering) != 4 || res.Version != "" {
		t.Errorf("result %+v, want one epoch, four requests and no version", res)
	}
	mlrun, err := w.tracking.GetRun(t.Context(), res.MLflowRunID)
	if err != nil {
		t.Fatal(err)
	}
	if got := mlrun.Tags["duratune.steering"]; got != strings.Join(res.Steering, "\n") {
		t.Errorf("tag duratune.steering = %q, want %q", got, res.Steering)
	}
	if note := mlrun.Tags["mlflow.note.content"]; !strings.Contains(note, "stopped by hand after 1 of 4 epochs") {
		t.Errorf("the description does not say that it was stopped:\n%s", note)
	}
	if h, err := w.tracking.MetricHistory(t.Context(), res.MLflowRunID, "train_runtime"); err != nil || len(h) != 1 {
		t.Errorf("train_runtime has %d points, want 1 (%v)", len(h), err)
	}
	events, _ := w.history(t, id)
	updates := 0
	for _, e := range events {
		if e.GetEventType() == enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED {
			updates++
		}
	}
	if updates != 4 {
		t.Errorf("%d updates in the history, want 4", updates)
	}
	panels := w.checkDashboard(t)
	t.Run("dashboard in Prometheus", func(t *testing.T) { scraped.checkPanels(t, panels) })
}

// idle waits until no activity of the run holds the device.
func (w *world) idle(t *testing.T, id string) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); <-tick.C { // a busy disk takes its time for the checkpoint
		d, err := w.Client().DescribeWorkflowExecution(t.Context(), id, "")
		if err != nil {
			t.Fatal(err)
		}
		busy := false
		for _, a := range d.GetPendingActivities() {
			busy = busy || a.GetActivityType().GetName() == "TrainEpoch"
		}
		if !busy {
			return
		}
	}
	t.Fatal("the device is not free in time after the pause")
}
