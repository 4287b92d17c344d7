//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"github.com/duratune/duratune/activities"
	"github.com/duratune/duratune/infra/setup"
	"github.com/duratune/duratune/infra/stack"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/workflows"
)

// Planted secrets: the S3 keys are the stack's own, these come on top.
const (
	plantedUser     = "planted-user"
	plantedPassword = "planted-password-5e1f"
	plantedToken    = "hf_plantedtoken77c1"
)

// world is the stack that all tests share: starting it takes longer than most of them.
type world struct {
	*stack.Stack
	root     string // of the checkout
	paths    setup.Paths
	tracking *mlflow.Client
}

var shared *world

func TestMain(m *testing.M) {
	code, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func runTests(m *testing.M) (code int, err error) {
	ctx := context.Background()
	root, err := setup.FindRoot(".")
	if err != nil {
		return 1, err
	}
	paths, err := setup.Run(ctx, setup.Options{Root: root, Out: os.Stderr})
	if err != nil {
		return 1, err
	}
	state := os.Getenv("DURATUNE_E2E_STATE") // kept where it is named, for a look afterwards
	if state == "" {
		if state, err = os.MkdirTemp("", "duratune-e2e-"); err != nil {
			return 1, err
		}
		defer func() {
			if code == 0 && err == nil {
				err = os.RemoveAll(state)
			} else {
				fmt.Fprintln(os.Stderr, "e2e: logs are in", filepath.Join(state, "log"))
			}
		}()
	}
	if err := setup.BuildWorkers(ctx, paths, filepath.Join(state, "bin"), os.Stderr); err != nil {
		return 1, err
	}
	// The credentials are wrong on purpose: a server without authentication ignores them, and they must appear nowhere.
	env := []string{"DURATUNE_DATA_ROOTS=" + strings.Join([]string{paths.Assets, filepath.Join(root, "..", "shared", "data"), filepath.Join(state, "data")}, ":"),
		"MLFLOW_TRACKING_USERNAME=" + plantedUser, "MLFLOW_TRACKING_PASSWORD=" + plantedPassword, "HF_TOKEN=" + plantedToken, "DURATUNE_RECONCILE_EVERY=5s"}
	if err := os.MkdirAll(filepath.Join(state, "data"), 0o755); err != nil {
		return 1, err
	}
	hubEnv, stopHub, err := startHub(filepath.Join(state, "hub"), filepath.Join(paths.Assets, "all-minilm-l6-v2"), filepath.Join(root, "..", "shared", "data", "sms_spam", "SMSSpamCollection"))
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, stopHub()) }()
	env = append(env, hubEnv...)
	s, err := stack.Start(ctx, stack.Config{State: state, Ports: &stack.Ports{}, Paths: paths, Workers: filepath.Join(state, "bin"), WorkerEnv: env})
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	tracking, err := mlflow.New(mlflow.Config{TrackingURI: s.MLflowURL(), Timeout: time.Minute, MaxRetries: 3})
	if err != nil {
		return 1, err
	}
	shared = &world{Stack: s, root: root, paths: paths, tracking: tracking}
	return m.Run(), nil
}

// recipe reads a recipe of the project with some of its keys changed, as maps: {"train": {"epochs": 2}}. How busy this
// machine is decides no test: the load test's limit is out of reach unless a test sets its own.
func (w *world) recipe(t *testing.T, name string, changes map[string]any) map[string]any {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(w.root, "workflows", "recipes", name))
	if err != nil {
		t.Fatal(err)
	}
	var r map[string]any
	if err := json.Unmarshal(body, &r); err != nil {
		t.Fatal(err)
	}
	merge(r, map[string]any{"load_test": map[string]any{"max_p99": "60s"}})
	merge(r, changes)
	return r
}

// merged is a with the changes of b.
func merged(a, b map[string]any) map[string]any {
	out := maps.Clone(a)
	merge(out, b)
	return out
}

func merge(into, changes map[string]any) {
	for k, v := range changes {
		if sub, ok := v.(map[string]any); ok {
			if have, ok := into[k].(map[string]any); ok {
				have = maps.Clone(have)
				merge(have, sub)
				into[k] = have
				continue
			}
		}
		into[k] = v
	}
}

// start begins a fine-tune.
func (w *world) start(t *testing.T, id string, recipe any) client.WorkflowRun {
	t.Helper()
	run, err := w.Client().ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: id, TaskQueue: activities.Queue}, workflows.FineTuneType, recipe)
	if err != nil {
		t.Fatal(err)
	}
	return run
}

// failure waits for the end of a run that must fail, and returns its application error.
func failure(t *testing.T, run client.WorkflowRun) *temporal.ApplicationError {
	t.Helper()
	err := run.Get(t.Context(), nil)
	var app *temporal.ApplicationError
	if !errors.As(err, &app) {
		t.Fatalf("workflow ended with %v, want an application error", err)
	}
	return app
}

// pending waits until a pending activity of the run satisfies the condition.
func (w *world) pending(t *testing.T, id, what string, ok func(*workflowpb.PendingActivityInfo) bool) *workflowpb.PendingActivityInfo {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); <-tick.C {
		d, err := w.Client().DescribeWorkflowExecution(t.Context(), id, "")
		if err != nil {
			t.Logf("waiting for %s: %v", what, err) // a busy server may answer the next time
			continue
		}
		for _, a := range d.GetPendingActivities() {
			if ok(a) {
				return a
			}
		}
		if s := d.GetWorkflowExecutionInfo().GetStatus(); s != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
			t.Fatalf("workflow is %s, still waiting for: %s", s, what)
		}
	}
	t.Fatalf("not seen in time: %s", what)
	return nil
}

// heartbeat decodes the last heartbeat of a pending activity.
func heartbeat(a *workflowpb.PendingActivityInfo) activities.Heartbeat {
	var h activities.Heartbeat
	if err := converter.GetDefaultDataConverter().FromPayloads(a.GetHeartbeatDetails(), &h); err != nil {
		return activities.Heartbeat{}
	}
	return h
}

// history reads all events of a run, and their size in bytes as Temporal counts it.
func (w *world) history(t *testing.T, id string) (events []*historypb.HistoryEvent, bytes int64) {
	t.Helper()
	it := w.Client().GetWorkflowHistory(t.Context(), id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for it.HasNext() {
		e, err := it.Next()
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	d, err := w.Client().DescribeWorkflowExecution(t.Context(), id, "")
	if err != nil {
		t.Fatal(err)
	}
	return events, d.GetWorkflowExecutionInfo().GetHistorySizeBytes()
}

// sharedFile is a file of ../shared/data, or skips the test.
func (w *world) sharedFile(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(w.root, "..", "shared", "data", name)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("shared: %s not found", name)
	}
	return path
}
