package workers

import (
	"context"
	"fmt"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
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
