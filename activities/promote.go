package activities

import (
	"context"

	"github.com/duratune/duratune/internal/mlflow"
)

// PromoteInput is a tested model to register.
type PromoteInput struct {
	Run             Run    `json:"run"`
	ModelID         string `json:"model_id"`
	RegisteredModel string `json:"registered_model"`
	Alias           string `json:"alias,omitempty"`
}

// PromoteResult is where it stands in the registry.
type PromoteResult struct {
	Version string `json:"version"`
	Alias   string `json:"alias,omitempty"`
}

// Promote registers a tested model as a version, found by the run's key if an earlier attempt made it, and moves the
// alias to it. It runs in the workflow promote/<model>, one at a time.
func (c *CPU) Promote(ctx context.Context, in PromoteInput) (res PromoteResult, err error) {
	defer func() { err = edge(err) }()
	if err := c.Tracking.EnsureRegisteredModel(ctx, in.RegisteredModel, "", nil); err != nil {
		return res, err
	}
	version, err := c.Tracking.EnsureVersion(ctx, mlflow.VersionSpec{Name: in.RegisteredModel, ModelID: in.ModelID, RunID: in.Run.MLflowRunID,
		Key: in.Run.Key + "/version", Tags: map[string]string{tagGate: "passed"}})
	if err != nil {
		return res, err
	}
	res.Version = version.Version
	if in.Alias != "" {
		res.Alias = in.Alias
		return res, c.Tracking.SetAlias(ctx, in.RegisteredModel, in.Alias, version.Version)
	}
	return res, nil
}
