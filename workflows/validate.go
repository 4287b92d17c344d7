package workflows

import (
	"encoding/json"

	"go.temporal.io/sdk/workflow"

	"github.com/duratune/duratune/activities"
	"github.com/duratune/duratune/internal/recipe"
)

// ValidateType is the workflow's name on the wire.
const ValidateType = "Validate"

// Validate plans a recipe without side effects and returns it frozen, with every default filled in.
func Validate(ctx workflow.Context, raw json.RawMessage) (recipe.Recipe, error) {
	var a *activities.CPU
	var plan activities.PlanResult
	in := activities.PlanInput{Recipe: raw, Run: identify(ctx), DryRun: true}
	err := workflow.ExecuteActivity(quick(ctx, "validate"), a.Plan, in).Get(ctx, &plan)
	return plan.Recipe, err
}
