package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
}

// TrainEpoch trains one epoch from the newest verified checkpoint: of an earlier attempt at this epoch, else of the
// epoch before. Failed attempts are retried by Temporal and go on where the last checkpoint stands.
func (g *GPU) TrainEpoch(ctx context.Context, in TrainEpochInput) (res TrainEpochResult, err error) {
	e := &epoch{GPU: g, in: in, prior: lastBeat(ctx)}
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
	if e.from.Complete && e.from.Epoch == in.Epoch { // not the epoch before, which this one begins at
		return e.result(e.ref, e.from.State.Step, 0), nil
	}
	return e.run(ctx, tokens)
}

// epoch is one attempt at TrainEpoch.
type epoch struct {
	*GPU
	in    TrainEpochInput
	plan  train.Plan
	prior Heartbeat

	engine train.Engine
	from   train.Checkpoint // where this attempt began; zero at the first step of the run
	ref    artifact.Ref     // last committed checkpoint
	saved  train.Checkpoint // its manifest
	beat   Heartbeat
	track  *tracker
	began  time.Time // of the attempt
	synced time.Time // of the last progress
}

// resume opens an engine at the newest checkpoint whose tensors verify.
func (e *epoch) resume(ctx context.Context) error {
	candidates, err := train.Find(ctx, e.Store, e.in.Run.epoch(e.in.Epoch), e.in.Run.Key)
	if err != nil {
		return err
	}
	for _, c := range candidates {
		if c.Complete { // its tensors are read by whoever needs them
			e.from, e.ref, e.saved = c.Checkpoint, c.Ref, c.Checkpoint
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
func (e *epoch) open(ctx context.Context, ref artifact.Ref) (err error) {
	if !ref.IsZero() {
		if e.from, err = train.Load(ctx, e.Store, ref); err != nil {
			return err
		}
	}
	e.ref, e.saved = ref, e.from
	e.engine, err = e.GPU.engine(ctx, e.in.Session, ref, true)
	return err
}

// run trains the steps that are left.
func (e *epoch) run(ctx context.Context, tokens train.Rows) (TrainEpochResult, error) {
	e.began = time.Now()
	e.synced = e.began
	state := e.from.State
	asked := ctx
	ctx, paused, done := e.pausable(ctx)
	defer done()
	e.beat = Heartbeat{Phase: "train", Epoch: e.in.Epoch, Epochs: e.plan.Epochs, Step: state.Step, Steps: e.plan.TotalSteps(),
		Checkpoint: e.ref, Failures: e.prior.Failures}
	beat(ctx, e.beat)
	log, err := metriclog.Open(ctx, e.Store, e.in.Run.metrics(), state.Step)
	if err != nil {
		return TrainEpochResult{}, err
	}
	e.track = startTracker(ctx, log, push(e.Tracking, e.in.Run), e.Logger, trackInterval)
	stop := e.observe(ctx, systemInterval)
	e.resident.checkpoint = "" // between two checkpoints until the epoch is committed
	state, err = train.Epoch(ctx, e.engine, e.plan, tokens, e.in.Epoch-1, state, train.Hooks{
		Points: e.track.add, Progress: func(p train.Progress) { e.progress(ctx, p) }, Checkpoint: e.checkpoint,
		Interrupted: activity.GetWorkerStopChannel(ctx), Paused: paused, Every: int64(e.in.Every.EverySteps), Now: time.Now,
	})
	stop()
	idle(ctx)
	if errors.Is(err, train.ErrInterrupted) && asked.Err() != nil { // paused, and checkpointed
		err = asked.Err()
	}
	if err == nil {
		err = e.commit(ctx, state, true)
	}
	if err == nil && e.in.Epoch == e.plan.Epochs {
		err = e.finish(ctx, state)
	}
	unsent := e.track.close(ctx)
	if err != nil {
		return TrainEpochResult{}, err
	}
	e.resident.checkpoint = e.ref.SHA256
	return e.result(e.ref, e.from.State.Step, unsent), nil
}

// progress beats from completed steps.
func (e *epoch) progress(ctx context.Context, p train.Progress) {
	e.measure(ctx, p)
	e.beat.Phase, e.beat.Step, e.beat.Percent = "train", p.Step, p.Percent
	e.beat.SamplesPerSecond, e.beat.ETASeconds = p.SamplesPerSecond, p.ETA.Seconds()
	beat(ctx, e.beat)
}

// checkpoint is called within the epoch.
func (e *epoch) checkpoint(ctx context.Context, st train.State) error {
	return e.commit(ctx, st, false)
}

// commit writes a checkpoint. The points before it go into the metric log first: a later attempt starts behind them.
func (e *epoch) commit(ctx context.Context, st train.State, complete bool) error {
	if err := e.track.flush(ctx, st.Step); err != nil {
		return err
	}
	began := time.Now()
	snap, err := e.engine.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("checkpoint at step %d: %w", st.Step, err)
	}
	c := train.Checkpoint{RunKey: e.in.Run.Key, Epoch: e.in.Epoch, Complete: complete, State: st, Identity: e.engine.Identity(), Lineage: e.from.Lineage}
	if e.from.Version > 0 && e.from.Identity != c.Identity {
		c.Lineage++
	}
	prefix := fmt.Sprintf("%s/step-%09d", e.in.Run.attempt(ctx, e.in.Run.epoch(e.in.Epoch)), st.Step)
	ref, err := train.Save(ctx, e.Store, prefix, snap, &c, func(int64) {
		e.beat.Phase = "checkpoint"
		beat(ctx, e.beat)
	})
	if err != nil {
		return err
	}
	e.ref, e.saved = ref, c
	measureCheckpoint(ctx, c, time.Since(began))
	e.beat.Checkpoint, e.beat.Failures = ref, nil // progress: earlier failures count no more
	beat(ctx, e.beat)
	return nil
}

// finish logs what Trainer logs once, when training ends.
func (e *epoch) finish(ctx context.Context, st train.State) error {
	end := EarlyEnd{Samples: e.plan.NumRows * e.plan.Epochs}
	points, err := metriclog.Once(ctx, e.Store, e.in.Run.metrics(), "train", end.points(st, time.Now().UnixMilli()))
	if err != nil {
		return err
	}
	if err := push(e.Tracking, e.in.Run)(ctx, points); err != nil {
		e.Logger.Warn("metrics not sent, will be sent later", "error", err)
	}
	return nil
}

// result describes the committed end of the epoch.
func (e *epoch) result(ref artifact.Ref, from int64, unsent int) TrainEpochResult {
	st := e.saved.State
	return TrainEpochResult{Checkpoint: ref, Step: st.Step, TrainLoss: st.TotalLoss / float64(st.Step), Seconds: st.EpochSeconds,
		SamplesPerSecond: float64(e.plan.NumRows) / max(st.EpochSeconds, 1e-9), Identity: e.saved.Identity, Lineage: e.saved.Lineage,
		ResumedFrom: from, Unsent: unsent}
}

// noProgressLimit is how many failures from one step, with no checkpoint between them, end the run.
const noProgressLimit = 3

// fail drops an engine whose state is unknown and counts failures from the same step. Outages, interruptions and
// cancellation are nobody's fault and do not count; a killed worker never comes here.
func (e *epoch) fail(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	e.drop()
	if excused(err) || ctx.Err() != nil {
		return err
	}
	e.beat.Failures = append(slices.Clone(e.beat.Failures), e.saved.State.Step)
	beat(ctx, e.beat)
	if n := len(e.beat.Failures); n >= noProgressLimit && retryable(err) {
		return &noProgressError{step: e.saved.State.Step, attempts: n, err: err}
	}
	return err
}
