package workflows

import (
	"go.temporal.io/sdk/workflow"

	"github.com/duratune/duratune/activities"
)

// PromoteType is the workflow's name on the wire.
const PromoteType = "Promote"

// contests bounds how often a candidate is compared anew because someone moved the alias meanwhile.
const contests = 3

// Promote registers a tested model as a new version and moves the alias to it, after a contest with the version that holds
// it where one is asked for. Its workflow id is promote/<model>, so that one promotion of a registered model runs at a
// time: MLflow's aliases know no compare-and-set.
func Promote(ctx workflow.Context, in activities.PromoteInput) (res activities.PromoteResult, err error) {
	for try := 1; ; try++ {
		if in.Contest != nil {
			challenge := activities.CompareChampionInput{Contest: *in.Contest, RegisteredModel: in.RegisteredModel, Alias: in.Alias, ModelID: in.ModelID}
			summary := "compare with " + in.RegisteredModel + "@" + in.Alias
			if err := workflow.ExecuteActivity(gpu(ctx, summary, in.Contest.MaxStep), gpuActivity.CompareChampion, challenge).Get(ctx, &in.Comparison); err != nil {
				return res, err
			}
			in.LastTry = try == contests
		}
		res = activities.PromoteResult{}
		err := workflow.ExecuteActivity(quick(ctx, "register "+in.RegisteredModel), cpuActivity.Promote, in).Get(ctx, &res)
		if err != nil || res.Overtaken == "" || in.LastTry {
			return res, err
		}
	}
}
