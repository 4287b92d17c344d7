//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/client"

	"github.com/duratune/duratune/activities"
	"github.com/duratune/duratune/infra/stack"
)

// TestRollingDeploy starts a run on workers of build one, makes build two the current one, and starts a second run: each
// ends on the workers that it started on. Both train until they are told to stop, so that neither can be over too soon.
func TestRollingDeploy(t *testing.T) {
	w := shared
	recipe := w.recipe(t, "quickstart.json", map[string]any{
		"data": map[string]any{"source": w.small(t, "rolling.jsonl", 60)}, "examples": []any{}, "tokenizer": map[string]any{"max_length": 16},
		"train": map[string]any{"epochs": 1000}, "tracking": map[string]any{"registered_model": "", "alias": ""}, "load_test": map[string]any{"duration": "1s"},
	})
	t.Cleanup(func() { w.deploy(t, "") }) // the other tests' runs belong to the workers without a build
	runs, pids := map[string]client.WorkflowRun{}, map[string]string{}
	for _, build := range []string{"one", "two"} {
		pids[build] = w.startBuild(t, build)
		w.deploy(t, build)
		id := "finetune/e2e/rolling-" + build
		runs[build] = w.start(t, id, recipe)
		w.pending(t, id, "its first steps", func(a *workflowpb.PendingActivityInfo) bool {
			return a.GetActivityType().GetName() == "TrainEpoch" && a.GetHeartbeatDetails() != nil
		})
	}
	for build, run := range runs {
		w.steer(t, run.GetID(), "stop")
		w.finish(t, run)
		d, err := w.Client().DescribeWorkflowExecution(t.Context(), run.GetID(), "")
		if err != nil {
			t.Fatal(err)
		}
		if got := d.GetWorkflowExecutionInfo().GetVersioningInfo().GetDeploymentVersion().GetBuildId(); got != build {
			t.Errorf("%s ended on build %q, want %q", run.GetID(), got, build)
		}
		events, _ := w.history(t, run.GetID())
		for _, e := range events {
			if who := e.GetActivityTaskStartedEventAttributes().GetIdentity(); who != "" && !strings.Contains(pids[build], " "+strings.Split(who, "@")[0]+" ") {
				t.Errorf("event %d of %s was done by process %s, want one of%s", e.GetEventId(), run.GetID(), who, pids[build])
			}
		}
	}
}

// startBuild starts a CPU and a GPU worker of a build beside the stack's own, with their environment, and returns their
// process ids, each between two spaces. They end with the test.
func (w *world) startBuild(t *testing.T, build string) (pids string) {
	t.Helper()
	pids = " "
	for name, like := range map[string]string{"cpu": stack.CPUWorker, "gpu": stack.GPUWorker} {
		cmd := exec.Command(filepath.Join(w.State, "bin", name))
		for _, p := range w.Status() {
			if p.Name == like {
				env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.PID))
				if err != nil {
					t.Fatal(err)
				}
				cmd.Env = append(strings.Split(strings.TrimRight(string(env), "\x00"), "\x00"), "DURATUNE_BUILD_ID="+build, "DURATUNE_METRICS_ADDRESS=")
			}
		}
		log, err := os.Create(filepath.Join(w.State, "log", name+"-"+build+".log"))
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM) // it may have died
			if err := cmd.Wait(); err != nil {
				t.Errorf("%s worker of build %s: %v, see %s", name, build, err, log.Name())
			}
			log.Close()
		})
		pids += fmt.Sprint(cmd.Process.Pid, " ")
	}
	return pids
}

// deploy makes a build the one that new runs start on, once its workers poll all queues: an activity of a queue that the
// build does not poll goes to whoever polls it. "" is the workers without a build.
func (w *world) deploy(t *testing.T, build string) {
	t.Helper()
	ctx, handle := context.WithoutCancel(t.Context()), w.Client().WorkerDeploymentClient().GetHandle("duratune")
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var err error
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); <-tick.C {
		if err = polled(ctx, handle, build); err != nil {
			continue
		}
		if _, err = handle.SetCurrentVersion(ctx, client.WorkerDeploymentSetCurrentVersionOptions{BuildID: build, IgnoreMissingTaskQueues: build == ""}); err == nil {
			return
		}
	}
	t.Fatalf("deploy build %q: %v", build, err)
}

// polled is nil when the server knows workers of the build on each queue.
func polled(ctx context.Context, handle client.WorkerDeploymentHandle, build string) error {
	if build == "" {
		return nil
	}
	d, err := handle.DescribeVersion(ctx, client.WorkerDeploymentDescribeVersionOptions{BuildID: build})
	if err != nil {
		return err
	}
	for _, want := range []client.WorkerDeploymentTaskQueueInfo{
		{Name: activities.Queue, Type: client.TaskQueueTypeWorkflow}, {Name: activities.Queue, Type: client.TaskQueueTypeActivity},
		{Name: activities.GPUQueue, Type: client.TaskQueueTypeActivity},
	} {
		if !slices.Contains(d.Info.TaskQueuesInfos, want) {
			return fmt.Errorf("no worker of it polls %s yet, only %v", want.Name, d.Info.TaskQueuesInfos)
		}
	}
	return nil
}
