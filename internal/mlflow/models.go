package mlflow

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// LoggedModel is a model as the server holds it; its files lie below ArtifactURI.
type LoggedModel struct {
	ID           string
	ExperimentID string
	Name         string
	RunID        string // the run that made it
	ArtifactURI  string
	Status       ModelStatus
	Created      int64 // Unix milliseconds
	Tags         map[string]string
	Params       map[string]string
}

// wireModel is a logged model in replies.
type wireModel struct {
	Info struct {
		ID           string      `json:"model_id"`
		ExperimentID string      `json:"experiment_id"`
		Name         string      `json:"name"`
		RunID        string      `json:"source_run_id"`
		ArtifactURI  string      `json:"artifact_uri"`
		Status       ModelStatus `json:"status"`
		Created      int64       `json:"creation_timestamp_ms"`
		Tags         []pair      `json:"tags"`
	} `json:"info"`
	Data struct {
		Params []pair `json:"params"`
	} `json:"data"`
}

func (w wireModel) model() LoggedModel {
	return LoggedModel{
		ID: w.Info.ID, ExperimentID: w.Info.ExperimentID, Name: w.Info.Name, RunID: w.Info.RunID, ArtifactURI: w.Info.ArtifactURI,
		Status: w.Info.Status, Created: w.Info.Created, Tags: unpair(w.Info.Tags), Params: unpair(w.Data.Params),
	}
}

// ModelSpec is what a logged model is created with.
type ModelSpec struct {
	ExperimentID string
	RunID        string // the run it becomes an output of
	Name         string // without / : . % " '
	Key          string // value of KeyTag, without quotes; unique to this model
	Step         int64  // of the training, shown beside the model
	Params       map[string]string
	Tags         map[string]string
}

// EnsureModel returns the logged model that carries spec.Key, created (pending) if missing, and makes it an output of
// the run exactly once. Upload its files below the ArtifactURI, then call [Client.FinalizeModel].
func (c *Client) EnsureModel(ctx context.Context, spec ModelSpec) (LoggedModel, error) {
	const op = "logged-models"
	if err := quotable(op, "key", spec.Key); err != nil {
		return LoggedModel{}, err
	}
	if spec.Name == "" || strings.ContainsAny(spec.Name, `/:.%"'`) {
		return LoggedModel{}, invalid(op, `name: got %q, want one without / : . %% " '`, spec.Name)
	}
	params := make(map[string]string, len(spec.Params))
	for k, v := range spec.Params {
		params[CleanName(k)] = cut(v, maxParamValue)
	}
	body := map[string]any{
		"experiment_id": spec.ExperimentID, "name": spec.Name, "model_type": "", "source_run_id": spec.RunID,
		"params": pairs(params), "tags": tagPairs(spec.Tags, spec.Key),
	}
	model, err := ensure(ctx, c, ensurer[LoggedModel]{
		find: func(ctx context.Context) ([]LoggedModel, error) {
			return c.searchModels(ctx, spec.ExperimentID, And("source_run_id = '"+spec.RunID+"'", TagIs(KeyTag, spec.Key)))
		},
		create: func(ctx context.Context) (LoggedModel, error) {
			var reply struct {
				Model wireModel `json:"model"`
			}
			err := c.once(ctx, http.MethodPost, op, nil, body, &reply)
			return reply.Model.model(), err
		},
		remove: func(ctx context.Context, m LoggedModel) error {
			return c.send(ctx, http.MethodDelete, op+"/"+url.PathEscape(m.ID), nil, nil)
		},
		id: func(m LoggedModel) string { return m.ID },
	})
	if err != nil {
		return LoggedModel{}, err
	}
	return model, c.linkOutput(ctx, spec.RunID, model.ID, spec.Step)
}

// linkOutput makes the model an output of the run. The server refuses a second link with an SQL error, so the run is
// read first, and again if the call fails: it may have been done all the same.
func (c *Client) linkOutput(ctx context.Context, runID, modelID string, step int64) error {
	body := map[string]any{"run_id": runID, "models": []any{map[string]any{"model_id": modelID, "step": step}}}
	return c.retry(ctx, func(ctx context.Context) error {
		run, err := c.GetRun(ctx, runID)
		if err != nil || slices.Contains(run.Models, modelID) {
			return err
		}
		if err = c.once(ctx, http.MethodPost, "runs/outputs", nil, body, nil); err == nil {
			return nil
		}
		if run, again := c.GetRun(ctx, runID); again == nil && slices.Contains(run.Models, modelID) {
			return nil
		}
		return err
	})
}

// GetModel reads a logged model.
func (c *Client) GetModel(ctx context.Context, id string) (LoggedModel, error) {
	var reply struct {
		Model wireModel `json:"model"`
	}
	err := c.get(ctx, "logged-models/"+url.PathEscape(id), nil, &reply)
	return reply.Model.model(), err
}

// searchModels reads all pages, oldest first; equal times are ordered by id.
func (c *Client) searchModels(ctx context.Context, experimentID, filter string) ([]LoggedModel, error) {
	body := map[string]any{"experiment_ids": []string{experimentID}, "filter": filter}
	var out []LoggedModel
	for {
		var page struct {
			Models []wireModel `json:"models"`
			Next   string      `json:"next_page_token"`
		}
		if err := c.once(ctx, http.MethodPost, "logged-models/search", nil, body, &page); err != nil {
			return nil, err
		}
		for _, w := range page.Models {
			out = append(out, w.model())
		}
		if page.Next == "" {
			break
		}
		body["page_token"] = page.Next
	}
	slices.SortStableFunc(out, func(a, b LoggedModel) int { return cmp.Or(cmp.Compare(a.Created, b.Created), cmp.Compare(a.ID, b.ID)) })
	return out, nil
}

// FinalizeModel says that the files are complete (ModelReady) or given up (ModelFailed).
func (c *Client) FinalizeModel(ctx context.Context, id string, status ModelStatus) error {
	body := map[string]any{"model_id": id, "status": status}
	return c.send(ctx, http.MethodPatch, "logged-models/"+url.PathEscape(id), body, nil)
}

// SetModelTags sets or replaces tags of a logged model.
func (c *Client) SetModelTags(ctx context.Context, id string, tags map[string]string) error {
	return c.send(ctx, http.MethodPatch, "logged-models/"+url.PathEscape(id)+"/tags", map[string]any{"tags": tagPairs(tags, "")}, nil)
}

// DeleteModel removes a logged model, so that runs:/ no longer finds it. One that is gone already is no error.
func (c *Client) DeleteModel(ctx context.Context, id string) error {
	err := c.send(ctx, http.MethodDelete, "logged-models/"+url.PathEscape(id), nil, nil)
	if hasCode(err, codeNotFound) {
		return nil
	}
	return err
}
