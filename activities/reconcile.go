package activities

import (
	"context"
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
	for _, run := range runs {
		res.Looked++
		status, ended, err := c.Cluster.Outcome(ctx, run.Tags[tagWorkflowID], run.Tags[tagWorkflowRunID])
		if err != nil {
			return res, fmt.Errorf("outcome of %s: %w", run.Tags[tagWorkflowID], err)
		}
		if !ended {
			continue
		}
		in := CloseRunInput{Run: Run{Key: run.Tags[mlflow.KeyTag], MLflowRunID: run.ID}, Status: status, Error: "closed after its workflow had ended"}
		if err := c.closeRun(ctx, in); err != nil {
			return res, err
		}
		res.Closed++
		activity.RecordHeartbeat(ctx, res)
	}
	return res, nil
}
