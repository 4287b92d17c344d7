//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/duratune/duratune/activities"
	"github.com/duratune/duratune/infra/setup"
	"github.com/duratune/duratune/infra/stack"
	"github.com/duratune/duratune/internal/mlflow"
)

// Who may do what on the server with authentication.
const (
	adminPassword = "planted-admin-password-91"
	tunerPassword = "planted-tuner-password-42"
)

// TestOlderServerWithAuth runs against an MLflow of an older release that asks for a password: a whole run passes, what the
// user may not do fails at once and says so, and no password appears anywhere.
func TestOlderServerWithAuth(t *testing.T) {
	w := withAuth(t)
	admin, err := mlflow.New(mlflow.Config{TrackingURI: w.MLflowURL(), Timeout: time.Minute, MaxRetries: 3, Username: "admin", Password: mlflow.NewSecret(adminPassword)})
	if err != nil {
		t.Fatal(err)
	}
	version, err := admin.CheckHealth(t.Context())
	if err != nil || strings.HasPrefix(version, "3.17") {
		t.Fatalf("MLflow %s, %v; want an older one", version, err)
	}
	t.Logf("MLflow %s with basic authentication", version)
	w.makeUser(t, "tuner", tunerPassword)
	if _, err := admin.EnsureExperiment(t.Context(), "closed"); err != nil {
		t.Fatal(err)
	}
	if err := admin.EnsureRegisteredModel(t.Context(), "taken", "", nil); err != nil {
		t.Fatal(err)
	}
	few := map[string]any{"data": map[string]any{"source": w.small(t, "few.jsonl", 24)}} // every request costs 0.2 s here
	const id = "finetune/e2e/auth"
	t.Run("passes", func(t *testing.T) {
		res := w.finish(t, w.start(t, id, w.duel(t, few)))
		holder, err := admin.GetAlias(t.Context(), "duel", "champion")
		if err != nil || holder.Version != res.Version || res.Alias != "champion" {
			t.Errorf("the alias is at %+v (%v), the result %+v", holder, err, res)
		}
		run, err := admin.GetRun(t.Context(), res.MLflowRunID)
		if err != nil || run.Status != mlflow.Finished || run.Tags["gate"] != "passed" || !strings.Contains(run.Tags["mlflow.note.content"], "Promotion") {
			t.Errorf("run %+v, %v", run, err)
		}
	})
	t.Run("experiment of others", func(t *testing.T) {
		app := failure(t, w.start(t, "finetune/e2e/denied-experiment", w.duel(t, merged(few, map[string]any{"experiment": "closed"}))))
		t.Logf("%s: %s", app.Type(), app.Message())
		if app.Type() != activities.TypeTrackingRejected || !app.NonRetryable() || !strings.Contains(app.Message(), "403: Permission denied (this user may not: ask for the permission EDIT on the experiment)") {
			t.Errorf("%s: %s, want %s that says 403, why and what to do", app.Type(), app.Message(), activities.TypeTrackingRejected)
		}
	})
	t.Run("registered model of others", func(t *testing.T) { w.promoteLater(t, admin, few) })
	checkSecrets(t, w, id)
}

// promoteLater: a run that may not register its model completes and says so; the command that it prints promotes the model
// once the permission is there.
func (w *world) promoteLater(t *testing.T, admin *mlflow.Client, few map[string]any) {
	res := w.finish(t, w.start(t, "finetune/e2e/denied-promotion", w.duel(t, merged(few, map[string]any{"tracking": map[string]any{"registered_model": "taken"}}))))
	t.Log(res.Promotion)
	said, command, _ := strings.Cut(res.Promotion, "To promote it when that is settled: ")
	if res.Version != "" || res.Alias != "" || !strings.Contains(said, "passed the gate") || !strings.Contains(said, "403: Permission denied (this user may not: ask for the permission EDIT on the registered model)") {
		t.Fatalf("a run that may not promote: %+v", res)
	}
	run, err := admin.GetRun(t.Context(), res.MLflowRunID)
	if err != nil || run.Status != mlflow.Finished || run.Tags["gate"] != "passed" || run.Tags["duratune.promotion"] != res.Promotion {
		t.Errorf("run %+v, %v", run, err)
	}
	w.asAdmin(t, "registered-models/permissions/create", map[string]string{"name": "taken", "username": "tuner", "permission": "EDIT"})
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", command)
	cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), w.ClientEnv()...)
	cmd.Env = append(cmd.Env, "MLFLOW_TRACKING_USERNAME=tuner", "MLFLOW_TRACKING_PASSWORD="+tunerPassword, "PATH="+w.commands(t)+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var promoted activities.PromoteResult
	if err := w.Client().GetWorkflow(t.Context(), "promote/taken", "").Get(t.Context(), &promoted); err != nil {
		t.Fatal(err)
	}
	t.Log(promoted.Verdict)
	if holder, err := admin.GetAlias(t.Context(), "taken", "champion"); err != nil || holder.ModelID != res.ModelID || promoted.Alias != "champion" {
		t.Errorf("promoted later: %+v; the alias is at %+v (%v), want %s", promoted, holder, err, res.ModelID)
	}
}

// commands is a folder of the two programs that users have on their PATH.
func (w *world) commands(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	shim := "#!/bin/sh\nexec '" + w.paths.MLflow + "' -m mlflow \"$@\"\n"
	if err := errors.Join(os.Symlink(w.paths.Temporal, filepath.Join(dir, "temporal")), os.WriteFile(filepath.Join(dir, "mlflow"), []byte(shim), 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// withAuth starts a stack whose MLflow is an older one with basic authentication; its workers are the user "tuner".
func withAuth(t *testing.T) *world {
	t.Helper()
	python, err := setup.Tool(t.Context(), setup.Options{Root: shared.root, Out: os.Stderr}, "mlflow-older")
	if err != nil {
		t.Fatal(err)
	}
	state := t.TempDir()
	ini := filepath.Join(state, "auth.ini")
	text := "[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///" + filepath.Join(state, "auth.db") +
		"\nadmin_username = admin\nadmin_password = " + adminPassword + "\nauthorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
	if err := os.WriteFile(ini, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(state, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	paths := shared.paths
	paths.MLflow = python
	s, err := stack.Start(context.WithoutCancel(t.Context()), stack.Config{State: state, Ports: &stack.Ports{}, Paths: paths, Workers: filepath.Join(shared.State, "bin"),
		WorkerEnv:  []string{"DURATUNE_DATA_ROOTS=" + paths.Assets + ":" + filepath.Join(state, "data"), "MLFLOW_TRACKING_USERNAME=tuner", "MLFLOW_TRACKING_PASSWORD=" + tunerPassword},
		MLflowArgs: []string{"--app-name", "basic-auth"},
		MLflowEnv:  []string{"MLFLOW_AUTH_CONFIG_PATH=" + ini, "MLFLOW_FLASK_SERVER_SECRET_KEY=" + plantedToken},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return &world{Stack: s, root: shared.root, paths: paths}
}

// makeUser adds a user to the server.
func (w *world) makeUser(t *testing.T, name, password string) {
	t.Helper()
	w.asAdmin(t, "users/create", map[string]string{"username": name, "password": password})
}

// asAdmin calls the server's API of users and permissions, which only its administrator may.
func (w *world) asAdmin(t *testing.T, call string, in map[string]string) {
	t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.MLflowURL()+"/api/2.0/mlflow/"+call, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.SetBasicAuth("admin", adminPassword)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", call, resp.Status)
	}
}
