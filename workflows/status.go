package workflows

import (
	"fmt"
	"strings"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// StatusQuery is the name of the query that answers with [Status].
const StatusQuery = "status"

// Status is the answer to the status query.
type Status struct {
	Name         string  `json:"name"`
	Phase        string  `json:"phase"`
	Epoch        int     `json:"epoch"` // 1-based; 0 before training
	Epochs       int     `json:"epochs"`
	BestAccuracy float64 `json:"best_accuracy"`
	MLflowRunID  string  `json:"mlflow_run_id"`
	Warning      string  `json:"warning,omitempty"`
	Paused       bool    `json:"paused,omitempty"`
}

// Search attributes, used only where the server has them registered.
var (
	searchModel    = temporal.NewSearchAttributeKeyKeyword("DuratuneModel")
	searchAccuracy = temporal.NewSearchAttributeKeyFloat64("DuratuneAccuracy")
)

// say sets the phase and shows it with the epoch table as the workflow's current details in the Web UI.
func (r *run) say(ctx workflow.Context, phase string) {
	r.status.Phase = phase
	workflow.SetCurrentDetails(ctx, r.details())
}

// details is Markdown.
func (r *run) details() string {
	parts := []string{"**" + r.status.Phase + "**"}
	if r.status.Warning != "" {
		parts = append(parts, r.status.Warning)
	}
	if n := len(r.steering.log); n > 0 {
		parts = append(parts, r.steering.log[n-1])
	}
	if n := r.split.Train.NumRows + r.split.Test.NumRows + r.split.Validation.NumRows; n > 0 {
		parts = append(parts, fmt.Sprintf("%d rows: %d train, %d test, %d validation; %d duplicates; texts also in train: %d test rows, %d validation rows", n,
			r.split.Train.NumRows, r.split.Test.NumRows, r.split.Validation.NumRows, r.split.Duplicates, r.split.Overlap, r.split.ValidationOverlap))
	}
	if r.split.Deduped > 0 {
		parts = append(parts, fmt.Sprintf("%d rows left out because another has the same text, %d of them with another label", r.split.Deduped, r.split.Conflicts))
	}
	if rejected := r.split.Rejected; rejected != nil {
		parts = append(parts, rejected.String()+"; the first: "+rejected.First[0])
	}
	if len(r.result.Epochs) > 0 {
		table := "| epoch | train loss | eval loss | accuracy | F1 | seconds |\n| ---: | ---: | ---: | ---: | ---: | ---: |"
		for _, e := range r.result.Epochs {
			table += fmt.Sprintf("\n| %d | %.4f | %.4f | %.4f | %.4f | %.1f |", e.Epoch, e.TrainLoss, e.EvalLoss, e.Accuracy, e.F1, e.Seconds)
		}
		parts = append(parts, table)
	}
	if r.result.MLflowRunURL != "" {
		parts = append(parts, "[MLflow run]("+r.result.MLflowRunURL+")")
	}
	return strings.Join(parts, "\n\n")
}

// remember stores what people look for where they look for it: memo and, if registered, search attributes.
func (r *run) remember(ctx workflow.Context) error {
	memo := map[string]any{"recipe": r.recipe.Name, "mlflow_run_id": r.id.MLflowRunID, "best_accuracy": r.status.BestAccuracy}
	if err := workflow.UpsertMemo(ctx, memo); err != nil {
		return err
	}
	if !r.searchAttrs {
		return nil
	}
	return workflow.UpsertTypedSearchAttributes(ctx, searchModel.ValueSet(r.recipe.Name), searchAccuracy.ValueSet(r.status.BestAccuracy))
}
