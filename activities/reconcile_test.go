package activities

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/testsuite"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/mlflow/mlflowtest"
)

// outcomes is a cluster whose workflows ended as it says; those that it does not name run.
type outcomes map[string]string

func (outcomes) ID(context.Context) (string, error)                           { return "here", nil }
func (outcomes) Pollers(context.Context, string) (int, error)                 { return 1, nil }
func (outcomes) HasSearchAttributes(context.Context, ...string) (bool, error) { return false, nil }
func (o outcomes) Outcome(_ context.Context, id, _ string) (string, bool, error) {
	return o[id], o[id] != "", nil
}

// reconciler is a worker, and MLflow's runs of the workflows of these ids, each RUNNING. The one named "elsewhere" belongs to
// another cluster.
func reconciler(t *testing.T, server *mlflowtest.Server, ids ...string) (*CPU, *testsuite.TestActivityEnvironment, map[string]mlflow.Run) {
	t.Helper()
	cpu := &CPU{Store: artifact.NewMem(), Tracking: newTracking(t, server), Logger: slog.New(slog.DiscardHandler)}
	experiment, err := cpu.Tracking.EnsureExperiment(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	runs := map[string]mlflow.Run{}
	for _, id := range ids {
		cluster := map[bool]string{true: "there", false: "here"}[id == "elsewhere"]
		runs[id], err = cpu.Tracking.EnsureRun(t.Context(), mlflow.RunSpec{ExperimentID: experiment.ID, Name: id, Key: "key-" + id, StartTime: 1,
			Tags: map[string]string{tagCluster: cluster, tagNamespace: "default-test-namespace", tagWorkflowID: id, tagWorkflowRunID: "r"}})
		if err != nil {
			t.Fatal(err)
		}
	}
	env := (&testsuite.WorkflowTestSuite{}).NewTestActivityEnvironment()
	env.RegisterActivity(cpu)
	return cpu, env, runs
}

// ending is a cluster whose workflows close their runs, and end, while they are asked for.
type ending struct {
	outcomes
	end func(id string)
}

func (e ending) Outcome(_ context.Context, id, _ string) (string, bool, error) {
	e.end(id)
	return RunFailed, true, nil
}

// TestReconcileLeavesAClosedRunAlone: a run that its own workflow closed after the reconciliation had found it RUNNING keeps
// what that said of it. A workflow whose model missed a limit, for one, fails, and its run is FINISHED.
func TestReconcileLeavesAClosedRunAlone(t *testing.T) {
	cpu, env, runs := reconciler(t, mlflowtest.New(t, mlflowtest.Options{}), "gated")
	run := runs["gated"]
	cpu.Cluster = ending{end: func(string) {
		if err := cpu.Tracking.SetTerminated(t.Context(), run.ID, mlflow.Finished, 2); err != nil {
			t.Error(err)
		}
	}}
	if _, err := env.ExecuteActivity(cpu.ReconcileRuns); err != nil {
		t.Fatal(err)
	}
	got, err := cpu.Tracking.GetRun(t.Context(), run.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got.Status != mlflow.Finished || got.Tags[tagError] != "" {
		t.Errorf("run is %s with error %q, want it FINISHED, as its workflow left it", got.Status, got.Tags[tagError])
	}
}

// TestReconcileGoesOnBehindABrokenRun: runs whose workflows have ended get the status that fits, also behind one that cannot
// be closed; runs of living workflows and of other clusters are left alone.
func TestReconcileGoesOnBehindABrokenRun(t *testing.T) {
	server := mlflowtest.New(t, mlflowtest.Options{})
	cpu, env, _ := reconciler(t, server, "broken", "terminated", "timed-out", "living", "elsewhere")
	cpu.Cluster = outcomes{"broken": RunFailed, "terminated": RunKilled, "timed-out": RunFailed, "elsewhere": RunKilled}
	if _, err := cpu.Store.Put(t.Context(), Run{Key: "key-broken"}.metrics()+"/steps/000000000000.json", strings.NewReader("no JSON"), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := env.ExecuteActivity(cpu.ReconcileRuns); err == nil || !strings.Contains(err.Error(), "of workflow broken") {
		t.Errorf("error = %v, want one that names the workflow", err)
	}
	got := map[string]string{}
	for _, run := range server.Runs() {
		got[run.Tags[tagWorkflowID]] = run.Status
	}
	want := map[string]string{"broken": "RUNNING", "terminated": RunKilled, "timed-out": RunFailed, "living": "RUNNING", "elsewhere": "RUNNING"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}
