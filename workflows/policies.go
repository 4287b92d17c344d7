package workflows

import (
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/duratune/duratune/activities"
	"github.com/duratune/duratune/internal/recipe"
)

// Retryability is decided where an error is made (activities/errors.go), never here: no policy lists error types or
// limits attempts, since a drained or preempted worker spends an attempt too.

// retry backs off quickly to ten seconds: an outage is noticed to be over soon, and the slot is free meanwhile.
var retry = &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: 10 * time.Second}

// startTimeout is how long Plan may find store or tracking unreachable before the run fails.
const startTimeout = 10 * time.Minute

// quick is for calls of seconds that must not hang the start or the end of a run.
func quick(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: activities.Queue, Summary: summary, RetryPolicy: retry,
		StartToCloseTimeout: time.Minute, ScheduleToCloseTimeout: startTimeout,
	})
}

// bulk is for work on data or files on a CPU worker: long, with a heartbeat from its progress.
func bulk(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: activities.Queue, Summary: summary, RetryPolicy: retry,
		StartToCloseTimeout: 12 * time.Hour, HeartbeatTimeout: time.Minute, WaitForCancellation: true,
	})
}

// reportTimeout ends the wait for a report: a model that is trained and tested must not be lost to one.
const reportTimeout = 2 * time.Hour

// reporting is bulk work that the run can do without.
func reporting(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithScheduleToCloseTimeout(bulk(ctx, summary), reportTimeout)
}

// background is for housekeeping beside the run, whose failure is not the run's.
func background(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: activities.Queue, Summary: summary, RetryPolicy: retry,
		StartToCloseTimeout: time.Hour, ScheduleToCloseTimeout: 2 * time.Hour, HeartbeatTimeout: time.Minute,
	})
}

// gpu is for work on a device, which beats at least every maxStep (recipes of older builds do not say it: a minute).
// limits.max_wall_time bounds it; a cancelled run waits until the device is free.
func gpu(ctx workflow.Context, summary string, maxStep recipe.Duration) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: activities.GPUQueue, Summary: summary, RetryPolicy: retry,
		StartToCloseTimeout: 7 * 24 * time.Hour, HeartbeatTimeout: max(time.Minute, time.Duration(maxStep)), WaitForCancellation: true,
	})
}

// cleanup runs whatever happened to the workflow, also after it was cancelled.
func cleanup(ctx workflow.Context, summary string) (workflow.Context, workflow.CancelFunc) {
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: activities.Queue, Summary: summary, RetryPolicy: retry,
		StartToCloseTimeout: time.Minute, ScheduleToCloseTimeout: time.Hour,
	}), cancel
}

// promotion makes the child workflow that owns a registered model while it changes: its id admits one at a time.
func promotion(ctx workflow.Context, model string) workflow.Context {
	return workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID: "promote/" + model, TaskQueue: activities.Queue,
		WorkflowIDReusePolicy: enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WaitForCancellation:   true, StaticSummary: "register and alias " + model,
	})
}
