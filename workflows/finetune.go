package workflows

import (
	"encoding/json"

	"go.temporal.io/sdk/workflow"

	"github.com/duratune/duratune/activities"
)

// FineTuneType is the workflow's name on the wire.
const FineTuneType = "FineTune"

// Result is what a completed fine-tune returns.
type Result struct {
	MLflowRunID     string                    `json:"mlflow_run_id"`
	MLflowRunURL    string                    `json:"mlflow_run_url"`
	ExperimentID    string                    `json:"experiment_id"`
	ModelURI        string                    `json:"model_uri"` // models:/m-…
	ModelID         string                    `json:"model_id"`
	RegisteredModel string                    `json:"registered_model,omitempty"`
	Version         string                    `json:"version,omitempty"`
	Alias           string                    `json:"alias,omitempty"`     // "": it did not move to this version
	Promotion       string                    `json:"promotion,omitempty"` // whether the alias moved, and why
	Epochs          []Epoch                   `json:"epochs"`
	LoadTest        activities.LoadTestResult `json:"load_test"`
	Steering        []string                  `json:"steering,omitempty"` // what people asked of the run meanwhile
}

// Epoch is one row of the result table.
type Epoch = activities.Epoch

// FineTune carries a recipe (raw JSON) to a fine-tuned, tested and registered text classifier.
//
// The recipe reaches Plan untouched and only the frozen recipe that Plan returns is typed, so that a later build with
// stricter rules or other defaults still replays old histories.
func FineTune(ctx workflow.Context, raw json.RawMessage) (res Result, err error) {
	r, err := newRun(ctx)
	if err != nil {
		return Result{}, err
	}
	defer func() { res.Steering, err = r.steering.log, r.close(ctx, err) }()

	if err := r.plan(ctx, raw); err != nil {
		return Result{}, err
	}
	ctx, release := r.bounded(ctx)
	defer release()
	if err := r.prepare(ctx); err != nil { // FetchModel, LoadSplit, Tokenize
		return Result{}, err
	}
	for epoch := r.first(); r.trains(epoch); epoch++ {
		if err := r.trainEpoch(ctx, epoch); err != nil {
			return Result{}, err
		}
		if err := r.validate(ctx, epoch); err != nil {
			return Result{}, err
		}
	}
	if err := r.choose(ctx); err != nil {
		return Result{}, err
	}
	if err := r.inferSignature(ctx); err != nil {
		return Result{}, err
	}
	if err := r.logModel(ctx); err != nil {
		return Result{}, err
	}
	if err := r.loadTest(ctx); err != nil {
		return Result{}, err
	}
	if err := r.report(ctx); err != nil {
		return Result{}, err
	}
	if err := r.promote(ctx); err != nil {
		return Result{}, err
	}
	return r.result, nil
}
