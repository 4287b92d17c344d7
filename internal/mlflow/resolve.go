package mlflow

import (
	"context"
	"net/http"
	"net/url"
	"path"
	"strings"
)

// ModelRef is where a model URI points.
type ModelRef struct {
	ArtifactURI string // the folder that holds MLmodel
	ModelID     string // "" for a model that was logged as plain artifacts of a run
	Name        string // registered model, if the URI went through one
	Version     string
}

// ResolveModelURI resolves models:/m-…, models:/name/1, models:/name/latest, models:/name@alias and runs:/id/name, as
// Python's loaders do: runs:/ finds the newest logged model of that name, else the run's own artifacts.
func (c *Client) ResolveModelURI(ctx context.Context, uri string) (ModelRef, error) {
	const op = "resolve model"
	scheme, rest, _ := strings.Cut(uri, ":")
	first, second, _ := strings.Cut(strings.Trim(rest, "/"), "/")
	name, alias, hasAlias := strings.Cut(first, "@")
	switch {
	case scheme == "models" && strings.HasPrefix(first, "m-") && second == "":
		m, err := c.GetModel(ctx, first)
		return ModelRef{ArtifactURI: m.ArtifactURI, ModelID: m.ID}, err
	case scheme == "models" && hasAlias && name != "" && alias != "" && second == "":
		v, err := c.GetAlias(ctx, name, alias)
		return c.refVersion(ctx, v, err)
	case scheme == "models" && !hasAlias && name != "" && second != "" && !strings.Contains(second, "/"):
		v, err := c.GetVersion(ctx, name, second)
		return c.refVersion(ctx, v, err)
	case scheme == "runs" && cleanRel(second):
		return c.refRun(ctx, first, second)
	}
	return ModelRef{}, invalid(op, "got %q, want models:/m-<id>, models:/<name>/<version>, models:/<name>@<alias> or runs:/<id>/<name>", uri)
}

// refVersion asks where the files of a version lie.
func (c *Client) refVersion(ctx context.Context, v Version, err error) (ModelRef, error) {
	if err != nil {
		return ModelRef{}, err
	}
	var reply struct {
		URI string `json:"artifact_uri"`
	}
	err = c.get(ctx, "model-versions/get-download-uri", url.Values{"name": {v.Name}, "version": {v.Version}}, &reply)
	return ModelRef{ArtifactURI: reply.URI, ModelID: v.ModelID, Name: v.Name, Version: v.Version}, err
}

func (c *Client) refRun(ctx context.Context, runID, name string) (ModelRef, error) {
	const op = "resolve model"
	run, err := c.GetRun(ctx, runID)
	if err != nil {
		return ModelRef{}, err
	}
	if err := quotable(op, "name", name); err != nil {
		return ModelRef{}, err
	}
	var models []LoggedModel
	err = c.retry(ctx, func(ctx context.Context) error {
		models, err = c.searchModels(ctx, run.ExperimentID, And("name = '"+name+"'", "source_run_id = '"+runID+"'"))
		return err
	})
	if err != nil {
		return ModelRef{}, err
	}
	if n := len(models); n > 0 {
		return ModelRef{ArtifactURI: models[n-1].ArtifactURI, ModelID: models[n-1].ID}, nil
	}
	files, err := c.ListArtifacts(ctx, run.ArtifactURI, name)
	if err != nil {
		return ModelRef{}, err
	}
	for _, f := range files {
		if f.Path == path.Join(name, "MLmodel") {
			return ModelRef{ArtifactURI: run.ArtifactURI + "/" + name}, nil
		}
	}
	return ModelRef{}, &Error{Op: op, Status: http.StatusNotFound, Code: codeNotFound, Message: "run " + runID + " has no model " + name}
}
