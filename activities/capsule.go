package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/train"
)

// Capsule is all that one step takes to be done again: what a run whose loss was not finite keeps of that step.
type Capsule struct {
	Session                         // model, hyperparameters and seed
	Tokens     artifact.Ref         `json:"tokens"`              // manifest of the training share
	Checkpoint artifact.Ref         `json:"checkpoint,omitzero"` // state before the step; zero: the base model
	Identity   train.Identity       `json:"identity"`            // of the device that did it
	Failure    train.NotFiniteError `json:"failure"`             // step, loss, norm, learning rate and rows
}

// CapsulePath is where a diverged run's capsule lies among its artifacts in MLflow.
const CapsulePath = "failure/capsule.json"

// tagDiverged is the step whose loss was not finite.
const tagDiverged = "duratune.diverged_at_step"

// divergedError says that a step was not finite, and how to do it again.
type divergedError struct {
	*train.NotFiniteError
	run string // in MLflow
}

func (e *divergedError) Error() string {
	return fmt.Sprintf("%v, at rows %v; to do that step again: go tool task replay:step CAPSULE=%s", e.NotFiniteError, e.Rows, e.run)
}

func (e *divergedError) Unwrap() error { return e.NotFiniteError }

// keepCapsule keeps the state before a step that was not finite, and what the step was, and marks the run. An outage meanwhile
// is the error: the next attempt begins at that state, and has only this step to do.
func (e *epoch) keepCapsule(ctx context.Context, before train.State, failure *train.NotFiniteError) error {
	if _, c := e.last.get(); c.State.Step != before.Step {
		if err := errors.Join(e.save(ctx, before, false), e.saved()); err != nil {
			return err
		}
	}
	ref, _ := e.last.get()
	body, err := json.MarshalIndent(Capsule{Session: e.in.Session, Tokens: e.in.Tokens, Checkpoint: ref, Identity: e.engine.Identity(), Failure: *failure}, "", "  ")
	if err != nil {
		return fmt.Errorf("failure capsule: %w", err)
	}
	run, err := e.Tracking.GetRun(ctx, e.in.Run.MLflowRunID)
	if err != nil {
		return err
	}
	if err := upload(ctx, e.Tracking, run.ArtifactURI, CapsulePath, body); err != nil {
		return err
	}
	if err := e.Tracking.SetTags(ctx, run.ID, map[string]string{tagDiverged: strconv.FormatInt(failure.Step, 10)}); err != nil {
		return err
	}
	return &divergedError{failure, run.ID}
}

// Replay does the step of a capsule again, with the store and the engines of g, and returns its numbers and the device.
func Replay(ctx context.Context, g *GPU, c Capsule) (train.StepStats, train.Identity, error) {
	none := train.Identity{}
	tokens, err := g.tokens(ctx, c.Tokens)
	if err != nil {
		return train.StepStats{}, none, err
	}
	defer tokens.Close()
	var batch train.Batch
	for _, row := range c.Failure.Rows {
		i, found := rowAt(tokens, row)
		if !found {
			return train.StepStats{}, none, fmt.Errorf("replay: row %d is not in %s", row, c.Tokens.URI)
		}
		batch.Inputs, batch.Labels, batch.Rows = append(batch.Inputs, train.Input(tokens, i)), append(batch.Labels, tokens.Label(i)), append(batch.Rows, row)
	}
	defer g.drop()
	eng, err := g.engine(ctx, c.Session, c.Checkpoint, true)
	if err != nil {
		return train.StepStats{}, none, err
	}
	if err := eng.Step(ctx, c.Failure.Step, c.Failure.LearningRate, batch); err != nil {
		return train.StepStats{}, none, fmt.Errorf("replay: %w", err)
	}
	stats, err := eng.Sync(ctx)
	if err != nil {
		return train.StepStats{}, none, fmt.Errorf("replay: %w", err)
	}
	return stats[len(stats)-1], eng.Identity(), nil
}

// rowAt finds the stored place of a row of the data set.
func rowAt(rows train.Rows, row int64) (int, bool) {
	for i := range rows.NumRows() {
		if rows.Row(i) == row {
			return i, true
		}
	}
	return 0, false
}
