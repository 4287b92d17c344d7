//go:build e2e

package e2e

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/duratune/duratune/activities"
)

// TestDivergedRunIsReplayed trains at a rate and an epsilon with which no weights survive: the run fails at once with a
// capsule, and its step, done again, gives the same numbers.
func TestDivergedRunIsReplayed(t *testing.T) {
	w := shared
	const id = "finetune/e2e/diverged"
	app := failure(t, w.start(t, id, w.recipe(t, "quickstart.json", map[string]any{
		"data": map[string]any{"source": w.small(t, "diverged.jsonl", 60)}, "train": map[string]any{"learning_rate": 1, "adam_epsilon": 1e-300},
	})))
	t.Logf("%s: %s", app.Type(), app.Message())
	if app.Type() != activities.TypeLossNotFinite || !app.NonRetryable() {
		t.Fatalf("ended with %s (retried: %v), want LossNotFinite, not retried", app.Type(), !app.NonRetryable())
	}
	_, capsule, found := strings.Cut(app.Message(), "CAPSULE=")
	if !found {
		t.Fatal("the message does not name the capsule")
	}
	events, _ := w.history(t, id)
	for _, e := range events {
		if s := e.GetActivityTaskStartedEventAttributes(); s.GetAttempt() > 1 && s.GetLastFailure().GetApplicationFailureInfo().GetType() == activities.TypeLossNotFinite {
			t.Error("the diverged epoch was tried again")
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "tool", "task", "--silent", "replay:step", "CAPSULE="+capsule)
	cmd.Dir, cmd.Env = w.root, append(cmd.Environ(), w.ClientEnv()...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("replay: %v\n%s", err, out)
	}
	t.Logf("%s", out)
	_, recorded, _ := strings.Cut(string(out), "recorded ")
	recorded, replayed, _ := strings.Cut(recorded, "\nreplayed ")
	if recorded == "" || recorded != strings.TrimSpace(replayed) {
		t.Errorf("recorded %q, replayed %q, want the same", recorded, replayed)
	}
}
