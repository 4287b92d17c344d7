package activities

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/train"
)

// Tags of a run that goes on from another one's epoch.
const (
	tagParent      = "mlflow.parentRunId"    // nests it in MLflow's UI
	tagResumedFrom = "duratune.resumed_from" // run and epoch
)

// resumeError says that an epoch of another run is nothing that this run can go on from.
type resumeError struct{ problem string }

func (e *resumeError) Error() string { return "resume_from: " + e.problem }

// resumeFrom finds the checkpoint that resume_from names; the zero Ref where it names none. What decides the order and the
// content of the rows must be as it was: only then are the earlier epochs those of this recipe, too.
func (c *CPU) resumeFrom(ctx context.Context, r recipe.Recipe) (artifact.Ref, error) {
	from := r.ResumeFrom
	if from.Run == "" {
		return artifact.Ref{}, nil
	}
	parent, err := c.Tracking.GetRun(ctx, from.Run)
	if errors.Is(err, mlflow.ErrNotFound) {
		return artifact.Ref{}, &resumeError{fmt.Sprintf("run %s is not in MLflow at %s", from.Run, c.Tracking.TrackingURI())}
	}
	if err != nil {
		return artifact.Ref{}, err
	}
	key := parent.Tags[mlflow.KeyTag]
	if key == "" {
		return artifact.Ref{}, &resumeError{fmt.Sprintf("run %s is not a fine-tune of this system: it has no tag %s", from.Run, mlflow.KeyTag)}
	}
	var body bytes.Buffer
	if _, err := c.Tracking.DownloadArtifact(ctx, parent.ArtifactURI, recipePath, &body, nil); err != nil {
		return artifact.Ref{}, fmt.Errorf("recipe of run %s: %w", from.Run, err)
	}
	old, err := recipe.Decode(body.Bytes())
	if err != nil {
		return artifact.Ref{}, &resumeError{fmt.Sprintf("the recipe of run %s: %v", from.Run, err)}
	}
	if err := fits(old, r); err != nil {
		return artifact.Ref{}, err
	}
	return c.endOfEpoch(ctx, key, from)
}

// endOfEpoch is the checkpoint at the end of a run's epoch.
func (c *CPU) endOfEpoch(ctx context.Context, key string, from recipe.ResumeFrom) (artifact.Ref, error) {
	found, err := train.Find(ctx, c.Store, key, key)
	if err != nil {
		return artifact.Ref{}, err
	}
	var kept []int
	for _, f := range found {
		if f.Complete && f.Epoch == from.Epoch {
			return f.Ref, nil
		}
		if f.Complete {
			kept = append(kept, f.Epoch)
		}
	}
	slices.Sort(kept)
	return artifact.Ref{}, &resumeError{fmt.Sprintf("run %s keeps no checkpoint of epoch %d, only of epochs %v (checkpoint.keep says how many stay)", from.Run, from.Epoch, kept)}
}

// fits compares two recipes in what a checkpoint depends on.
func fits(old, r recipe.Recipe) error {
	decisive := func(r recipe.Recipe) map[string]any {
		return map[string]any{
			"data": r.Data, "model": r.Model, "tokenizer": r.Tokenizer, "train.seed": r.Train.Seed,
			"train.batch_size × train.gradient_accumulation_steps": r.Train.BatchSize * r.Train.GradientAccumulationSteps,
		}
	}
	was, err := leaves(decisive(old))
	if err != nil {
		return err
	}
	is, err := leaves(decisive(r))
	if err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(is)) {
		if was[path] != is[path] {
			return &resumeError{fmt.Sprintf("%s must be as in the run to go on from: was %s, is %s", path, was[path], is[path])}
		}
	}
	return nil
}

// leaves are the values of a JSON object, in JSON, by their paths.
func leaves(object map[string]any) (map[string]string, error) {
	all := map[string]string{}
	for name, v := range object {
		body, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("recipe: %w", err)
		}
		var inner map[string]any
		if json.Unmarshal(body, &inner) != nil || inner == nil { // a leaf
			all[name] = string(body)
			continue
		}
		below, err := leaves(inner)
		if err != nil {
			return nil, err
		}
		for path, value := range below {
			all[name+"."+path] = value
		}
	}
	return all, nil
}
