package mlflow

import (
	"context"
	"errors"
	"net/http"
	"net/url"
)

// Experiment is a named group of runs.
type Experiment struct {
	ID               string `json:"experiment_id"`
	Name             string `json:"name"`
	ArtifactLocation string `json:"artifact_location"`
	Stage            string `json:"lifecycle_stage"` // active or deleted
}

// EnsureExperiment returns the experiment of that name, created if missing. A deleted one is ErrRejected: MLflow
// keeps its name taken.
func (c *Client) EnsureExperiment(ctx context.Context, name string) (Experiment, error) {
	var out Experiment
	err := c.retry(ctx, func(ctx context.Context) error {
		var err error
		out, err = c.experimentByName(ctx, name)
		if !errors.Is(err, ErrNotFound) {
			return err
		}
		err = c.once(ctx, http.MethodPost, "experiments/create", nil, map[string]string{"name": name}, nil)
		if err != nil && !hasCode(err, codeExists) {
			return err
		}
		out, err = c.experimentByName(ctx, name) // ours, or that of whoever was quicker
		return err
	})
	if err == nil && out.Stage != "active" {
		err = invalid("experiments/get-by-name", "experiment %q is deleted: restore it in MLflow or choose another name", name)
	}
	return out, err
}

func (c *Client) experimentByName(ctx context.Context, name string) (Experiment, error) {
	var reply struct {
		Experiment Experiment `json:"experiment"`
	}
	err := c.once(ctx, http.MethodGet, "experiments/get-by-name", url.Values{"experiment_name": {name}}, nil, &reply)
	return reply.Experiment, err
}

// Experiments lists the active experiments.
func (c *Client) Experiments(ctx context.Context) ([]Experiment, error) {
	var all []Experiment
	q := url.Values{"max_results": {"1000"}}
	for {
		var page struct {
			Experiments []Experiment `json:"experiments"`
			Next        string       `json:"next_page_token"`
		}
		if err := c.get(ctx, "experiments/search", q, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Experiments...)
		if page.Next == "" {
			return all, nil
		}
		q.Set("page_token", page.Next)
	}
}
