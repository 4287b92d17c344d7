package activities

import (
	"context"
	"errors"
	"fmt"

	"go.temporal.io/sdk/activity"

	"github.com/duratune/duratune/internal/mlflow"
)

// Reconciled counts what ReconcileRuns did.
type Reconciled struct {
	Looked int `json:"looked"` // RUNNING runs of this cluster and namespace
	Closed int `json:"closed"`
}

// ReconcileRuns closes MLflow runs that still say RUNNING although their workflow has ended: one that was terminated or
// timed out could not close its own. Runs of another cluster or namespace are left alone.
func (c *CPU) ReconcileRuns(ctx context.Context) (res Reconciled, err error) {
	defer func() { err = edge(err) }()
	cluster, err := c.Cluster.ID(ctx)
	if err != nil {
		return res, fmt.Errorf("cluster id: %w", err)
	}
	experiments, err := c.experimentIDs(ctx)
	if err != nil {
		return res, err
	}
	runs, err := c.Tracking.FindRuns(ctx, experiments, mlflow.And(mlflow.StatusIs(mlflow.Running), mlflow.TagIs(tagCluster, cluster),
		mlflow.TagIs(tagNamespace, activity.GetInfo(ctx).Namespace)))
	if err != nil {
		return res, err
	}
	var failed error
	for _, run := range runs {
		res.Looked++
		closed, err := c.reconcile(ctx, run)
		if closed {
			res.Closed++
		}
		if err != nil { // of this run alone: the others are not to wait for it
			failed = errors.Join(failed, fmt.Errorf("run %s of workflow %s: %w", run.ID, run.Tags[tagWorkflowID], err))
		}
		activity.RecordHeartbeat(ctx, res)
	}
	return res, failed
}

// reconcile closes one run, if its workflow has ended.
func (c *CPU) reconcile(ctx context.Context, run mlflow.Run) (closed bool, err error) {
	status, ended, err := c.Cluster.Outcome(ctx, run.Tags[tagWorkflowID], run.Tags[tagWorkflowRunID])
	if err != nil || !ended {
		return false, err
	}
	if now, err := c.Tracking.GetRun(ctx, run.ID); err != nil || now.Status != mlflow.Running { // it closed its run before it ended
		return false, err
	}
	in := CloseRunInput{Run: Run{Key: run.Tags[mlflow.KeyTag], MLflowRunID: run.ID}, Status: status, Error: "closed after its workflow had ended"}
	err = c.closeRun(ctx, in)
	return err == nil, err
}
