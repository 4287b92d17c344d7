package workflows

import (
	"go.temporal.io/sdk/workflow"

	"github.com/duratune/duratune/activities"
)

// PromoteType is the workflow's name on the wire.
const PromoteType = "Promote"

// Promote registers a tested model as a new version and moves the alias to it. Its workflow id is promote/<model>, so
// that one promotion of a registered model runs at a time: MLflow's aliases know no compare-and-set.
func Promote(ctx workflow.Context, in activities.PromoteInput) (activities.PromoteResult, error) {
	var res activities.PromoteResult
	var a *activities.CPU
	err := workflow.ExecuteActivity(quick(ctx, "register "+in.RegisteredModel), a.Promote, in).Get(ctx, &res)
	return res, err
}
