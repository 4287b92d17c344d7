package workflows

import (
	"go.temporal.io/sdk/workflow"

	"github.com/duratune/duratune/activities"
)

// ReconcileType is the workflow's name on the wire.
const ReconcileType = "Reconcile"

// Reconcile closes MLflow runs whose workflow ended without closing them. A Temporal Schedule, made by the CPU worker,
// starts it every few minutes.
func Reconcile(ctx workflow.Context) (activities.Reconciled, error) {
	var res activities.Reconciled
	err := workflow.ExecuteActivity(quick(ctx, "close runs whose workflow has ended"), cpuActivity.ReconcileRuns).Get(ctx, &res)
	return res, err
}
