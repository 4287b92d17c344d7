package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/metriclog"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/train"
)

// TrainEpochInput is one epoch to train.
type TrainEpochInput struct {
	Session
	Tokens     artifact.Ref      `json:"tokens"`              // manifest of the training share
	Checkpoint artifact.Ref      `json:"checkpoint,omitzero"` // of the epoch before; zero: the base model
	Every      recipe.Checkpoint `json:"every"`               // checkpoints within the epoch
}

// TrainEpochResult names the checkpoint at the epoch's end.
type TrainEpochResult struct {
	Checkpoint       artifact.Ref   `json:"checkpoint"`
	Step             int64          `json:"step"`
	TrainLoss        float64        `json:"train_loss"` // mean over all steps of the run so far
	Seconds          float64        `json:"seconds"`    // of this epoch's steps, on whichever workers did them
	SamplesPerSecond float64        `json:"samples_per_second"`
	Identity         train.Identity `json:"identity"`
	Lineage          int            `json:"lineage"`
	ResumedFrom      int64          `json:"resumed_from"` // step this attempt began at
	Unsent           int            `json:"unsent"`       // points that MLflow will be sent later
	Usage            train.Usage    `json:"usage"`        // by this attempt's worker
}

// TrainEpoch trains one epoch from the newest verified checkpoint: of an earlier attempt at this epoch, else of the
// epoch before. Failed attempts are retried by Temporal and go on where the last checkpoint stands.
func (g *GPU) TrainEpoch(ctx context.Context, in TrainEpochInput) (res TrainEpochResult, err error) {
	e := &epoch{GPU: g, in: in, pulse: pulse{beat: lastBeat(ctx)}}
	defer func() { err = edge(e.fail(ctx, err)) }()
	if err := in.Run.guard(ctx); err != nil {
		return res, err
	}
	tokens, err := g.tokens(ctx, in.Tokens)
	if err != nil {
		return res, err
	}
	defer tokens.Close()
	e.plan = in.plan(tokens.NumRows())
	if err := e.resume(ctx); err != nil {
		return res, err
	}
	unsent := 0
	if !e.from.Complete || e.from.Epoch != in.Epoch { // complete: an attempt's whose answer was lost, or the epoch before
		if unsent, err = e.run(ctx, tokens); err != nil {
			return res, err
		}
	}
	if in.Epoch == e.plan.Epochs { // as often as asked: whoever committed the last checkpoint may have died before this
		if err := e.finish(ctx); err != nil {
			return res, err
		}
	}
	return e.result(unsent), nil
}

// epoch is one attempt at TrainEpoch.
type epoch struct {
	*GPU
	in   TrainEpochInput
	plan train.Plan

	engine  train.Engine
	from    train.Checkpoint // where this attempt began; zero at the first step of the run
	last    committed        // the last checkpoint
	saving  <-chan error     // of the upload that runs; nil: none
	giveUp  context.CancelCauseFunc
	pulse   pulse
	track   *tracker
	began   time.Time // of the attempt
	synced  time.Time // of the last progress
	counted int64     // steps up to then
}

// resume opens an engine at the newest checkpoint whose tensors verify.
func (e *epoch) resume(ctx context.Context) error {
	candidates, err := train.Find(ctx, e.Store, e.in.Run.epoch(e.in.Epoch), e.in.Run.Key)
	if err != nil {
		return err
	}
	for _, c := range candidates {
		if c.Complete { // its tensors are read by whoever needs them
			e.from = c.Checkpoint
			e.last.set(c.Ref, c.Checkpoint)
			return nil
		}
		err := e.open(ctx, c.Ref)
		if err == nil || !corrupt(err) {
			return err
		}
		e.Logger.Warn("checkpoint does not verify, walking back", "checkpoint", c.Ref.URI, "error", err)
	}
	return e.open(ctx, e.in.Checkpoint)
}

func corrupt(err error) bool {
	var tensor *train.TensorError
	return errors.Is(err, artifact.ErrCorrupt) || errors.Is(err, artifact.ErrNotFound) || errors.As(err, &tensor)
}

// open positions engine and state at a checkpoint; the zero Ref is the base model.
func (e *epoch) open(ctx context.Context, ref artifact.Ref) error {
	err := e.position(ctx, ref)
	if errors.Is(err, artifact.ErrNotFound) && !ref.IsZero() && !strings.Contains(ref.URI, e.in.Run.Key) {
		return &resumeError{"the checkpoint is gone: the run that it belongs to has gone on and keeps no more than its checkpoint.keep says; name a later epoch, or wait for that run's end"}
	}
	return err
}

func (e *epoch) position(ctx context.Context, ref artifact.Ref) (err error) {
	if !ref.IsZero() {
		if e.from, err = train.Load(ctx, e.Store, ref); err != nil {
			return err
		}
	}
	if e.from.Version > 0 && e.from.RunKey != e.in.Run.Key && e.from.Tokens != e.in.Tokens.SHA256 {
		return &resumeError{"the rows or their tokens are not those that the run to go on from was trained on"}
	}
	e.last.set(ref, e.from)
	if e.engine, err = e.GPU.engine(ctx, e.in.Session, ref, true); err == nil {
		e.plan.Parameters = e.resident.parameters
	}
	return err
}

// run trains the steps that are left, and tells how many points MLflow missed.
func (e *epoch) run(ctx context.Context, tokens train.Rows) (unsent int, err error) {
	e.began = time.Now()
	state := e.from.State
	e.synced, e.counted = e.began, state.Step
	asked := ctx
	ctx, paused, done := e.pausable(ctx)
	defer done()
	begun, _ := e.last.get()
	e.beat(ctx, func(h *Heartbeat) {
		*h = Heartbeat{Phase: "train", Epoch: e.in.Epoch, Epochs: e.plan.Epochs, Step: state.Step, Steps: e.plan.TotalSteps(),
			Checkpoint: begun, Failures: h.Failures}
	})
	log, err := metriclog.Open(ctx, e.Store, e.in.Run.metrics(), state.Step)
	if err != nil {
		return 0, err
	}
	e.track = startTracker(ctx, log, push(e.Tracking, e.in.Run), e.Logger, trackInterval)
	stop := e.observe(ctx, systemInterval)
	e.resident.checkpoint = "" // between two checkpoints until the epoch is committed
	err = e.train(ctx, tokens, state, paused)
	stop()
	idle(ctx)
	if errors.Is(err, train.ErrInterrupted) && asked.Err() != nil { // paused, and checkpointed
		err = asked.Err()
	}
	unsent = e.track.close(ctx)
	if err != nil {
		return 0, err
	}
	ref, _ := e.last.get()
	e.resident.checkpoint = ref.SHA256
	return unsent, nil
}

// train runs the steps and returns once every checkpoint that it began, the one at the epoch's end included, is committed
// or has failed.
func (e *epoch) train(ctx context.Context, tokens train.Rows, state train.State, paused <-chan struct{}) error {
	training, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	e.giveUp = giveUp
	state, err := train.Epoch(training, e.engine, e.plan, tokens, e.in.Epoch-1, state, train.Hooks{
		Points: e.track.add, Progress: func(p train.Progress) { e.progress(ctx, p) },
		Checkpoint:  func(_ context.Context, st train.State) error { return e.save(ctx, st, false) },
		Interrupted: activity.GetWorkerStopChannel(ctx), Paused: paused, Every: int64(e.in.Every.EverySteps), Interval: time.Duration(e.in.Every.Every), Now: time.Now,
	})
	if err == nil {
		err = e.save(ctx, state, true)
	}
	if failed := e.saved(); failed != nil {
		err = failed // what ended the training, or what makes its interruption no clean one
	}
	if diverged, ok := errors.AsType[*train.NotFiniteError](err); ok {
		err = e.keepCapsule(ctx, state, diverged)
	}
	return err
}

// progress beats from completed steps.
func (e *epoch) progress(ctx context.Context, p train.Progress) {
	e.measure(ctx, p)
	e.beat(ctx, func(h *Heartbeat) {
		h.Phase, h.Step, h.Percent = "train", p.Step, p.Percent
		h.SamplesPerSecond, h.ETASeconds = p.SamplesPerSecond, p.ETA.Seconds()
	})
}

// finish logs what Trainer logs once, when training ends.
func (e *epoch) finish(ctx context.Context) error {
	_, last := e.last.get()
	end := EarlyEnd{Samples: e.plan.NumRows * e.plan.Epochs}
	points, err := metriclog.Once(ctx, e.Store, e.in.Run.metrics(), "train", end.points(last.State, time.Now().UnixMilli()))
	if err != nil {
		return err
	}
	if err := push(e.Tracking, e.in.Run)(ctx, points); err != nil {
		e.Logger.Warn("metrics not sent, will be sent later", "error", err)
	}
	return nil
}

// result describes the committed end of the epoch.
func (e *epoch) result(unsent int) TrainEpochResult {
	ref, c := e.last.get()
	st := c.State
	res := TrainEpochResult{Checkpoint: ref, Step: st.Step, TrainLoss: st.TotalLoss / float64(st.Step), Seconds: st.EpochSeconds,
		SamplesPerSecond: float64(e.plan.NumRows) / max(st.EpochSeconds, 1e-9), Identity: c.Identity, Lineage: c.Lineage,
		ResumedFrom: e.from.State.Step, Unsent: unsent}
	if e.engine != nil {
		res.Usage = e.engine.Usage()
	}
	return res
}

// fail drops an engine whose state is unknown and counts failures from the same step.
func (e *epoch) fail(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	e.drop()
	_, c := e.last.get()
	return counted(ctx, err, fmt.Sprintf("from step %d", c.State.Step), func() (failures []int64) {
		e.beat(ctx, func(h *Heartbeat) {
			failures = append(slices.Clone(h.Failures), c.State.Step)
			h.Failures = failures
		})
		return failures
	})
}
