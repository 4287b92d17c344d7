package workers

import (
	"context"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/duratune/duratune/activities"
	"github.com/duratune/duratune/workflows"
)

// cluster answers Plan's questions to the Temporal server.
type cluster struct {
	client    client.Client
	namespace string
}

// Pollers counts the workers that polled a queue for activities within the last minutes.
func (c cluster) Pollers(ctx context.Context, queue string) (int, error) {
	res, err := c.client.WorkflowService().DescribeTaskQueue(ctx, &workflowservice.DescribeTaskQueueRequest{
		Namespace: c.namespace, TaskQueue: &taskqueuepb.TaskQueue{Name: queue}, TaskQueueType: enumspb.TASK_QUEUE_TYPE_ACTIVITY,
	})
	if err != nil {
		return 0, fmt.Errorf("describe task queue %s: %w", queue, err)
	}
	return len(res.GetPollers()), nil
}

// ID is the cluster's id.
func (c cluster) ID(ctx context.Context) (string, error) {
	res, err := c.client.WorkflowService().GetClusterInfo(ctx, &workflowservice.GetClusterInfoRequest{})
	if err != nil {
		return "", fmt.Errorf("cluster info: %w", err)
	}
	return res.GetClusterId(), nil
}

// outcomes maps how an execution ended to the status of its MLflow run.
var outcomes = map[enumspb.WorkflowExecutionStatus]string{
	enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED:  activities.RunFinished,
	enumspb.WORKFLOW_EXECUTION_STATUS_FAILED:     activities.RunFailed,
	enumspb.WORKFLOW_EXECUTION_STATUS_TIMED_OUT:  activities.RunFailed,
	enumspb.WORKFLOW_EXECUTION_STATUS_CANCELED:   activities.RunKilled,
	enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED: activities.RunKilled,
}

// Outcome describes an execution.
func (c cluster) Outcome(ctx context.Context, workflowID, runID string) (string, bool, error) {
	res, err := c.client.DescribeWorkflow(ctx, workflowID, runID)
	var gone *serviceerror.NotFound
	if errors.As(err, &gone) {
		return activities.RunKilled, true, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("describe %s: %w", workflowID, err)
	}
	status, ended := outcomes[res.Status]
	return status, ended, nil
}

// pausedTimeout is how long a cancelled activity waits to hear why: its device must be free soon if nobody answers, but a
// pause that is taken for a cancellation costs the steps since the last checkpoint, and a busy machine may stall for seconds.
const pausedTimeout = 10 * time.Second

// Paused asks a workflow, by its status query, whether people paused it; it is an [activities.Paused].
func (b *Base) Paused(ctx context.Context, workflowID, runID string) bool {
	ctx, cancel := context.WithTimeout(ctx, pausedTimeout)
	defer cancel()
	var status workflows.Status
	answer, err := b.Temporal.QueryWorkflow(ctx, workflowID, runID, workflows.StatusQuery)
	if err == nil {
		err = answer.Get(&status)
	}
	if err != nil {
		b.Logger.Warn("the workflow does not say why it cancels; taken as no pause", "workflow", workflowID, "error", err)
	}
	return status.Paused
}

// HasSearchAttributes reports whether the namespace knows all of the names. A server that does not let us ask (a cloud
// namespace without that permission) counts as one that does not.
func (c cluster) HasSearchAttributes(ctx context.Context, names ...string) (bool, error) {
	res, err := c.client.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: c.namespace})
	if err != nil {
		return false, nil //nolint:nilerr // absence of search attributes never stops a run
	}
	for _, name := range names {
		if _, ok := res.GetCustomAttributes()[name]; !ok {
			return false, nil
		}
	}
	return true, nil
}
