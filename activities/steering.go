package activities

import (
	"context"
	"strings"

	"go.temporal.io/sdk/activity"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/metriclog"
	"github.com/duratune/duratune/internal/train"
)

// tagSteering lists what people asked of a run while it ran, a line for each request.
const tagSteering = "duratune.steering"

// NoteSteeringInput is what people asked of a run so far.
type NoteSteeringInput struct {
	Run Run      `json:"run"`
	Log []string `json:"log"`
}

// NoteSteering shows in the MLflow run what people asked of it. A longer list that is there already stays: notes may
// overtake one another.
func (c *CPU) NoteSteering(ctx context.Context, in NoteSteeringInput) (err error) {
	defer func() { err = edge(err) }()
	if err := in.Run.guard(ctx); err != nil {
		return err
	}
	run, err := c.Tracking.GetRun(ctx, in.Run.MLflowRunID)
	if err != nil {
		return err
	}
	text := strings.Join(in.Log, "\n")
	if len(run.Tags[tagSteering]) >= len(text) {
		return nil
	}
	return c.Tracking.SetTags(ctx, run.ID, map[string]string{tagSteering: text})
}

// Paused asks the workflow that an activity belongs to whether people paused it. "No" is also the answer where nobody
// answers in time.
type Paused func(ctx context.Context, workflowID, runID string) bool

// pausable gives an epoch the context to work in, and the channel that closes when people paused the run, which arrives as
// a cancellation: the epoch then checkpoints and stops. Any other cancellation ends the context at once.
func (g *GPU) pausable(ctx context.Context) (working context.Context, paused <-chan struct{}, done func()) {
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ask := make(chan struct{})
	release := context.AfterFunc(ctx, func() {
		run := activity.GetInfo(ctx).WorkflowExecution
		if g.Paused != nil && g.Paused(working, run.ID, run.RunID) {
			close(ask)
			return
		}
		cancel()
	})
	return working, ask, func() { release(); cancel() }
}

// EarlyEnd is a training that ended before its last epoch.
type EarlyEnd struct {
	Checkpoint artifact.Ref `json:"checkpoint"` // of the last trained epoch
	Samples    int          `json:"samples"`    // training rows seen, each as often as it was
}

// points are what Trainer logs once, when training ends.
func (e EarlyEnd) points(st train.State, now int64) []train.Point {
	seconds := max(st.Seconds, 1e-9)
	var out []train.Point
	for _, m := range []struct {
		key   string
		value float64
	}{
		{"train_runtime", st.Seconds}, {"train_samples_per_second", float64(e.Samples) / seconds},
		{"train_steps_per_second", float64(st.Step) / seconds}, {"train_loss", st.TotalLoss / float64(st.Step)},
	} {
		out = append(out, train.Point{Key: m.key, Value: m.value, Step: st.Step, Timestamp: now})
	}
	if st.TotalFLOs > 0 { // else a checkpoint of before they were counted
		out = append(out, train.Point{Key: "total_flos", Value: st.TotalFLOs, Step: st.Step, Timestamp: now})
	}
	return out
}

// endOfTraining stores in the metric log what the last epoch of a whole training stores there.
func (c *CPU) endOfTraining(ctx context.Context, run Run, end EarlyEnd, now int64) error {
	checkpoint, err := train.Load(ctx, c.Store, end.Checkpoint)
	if err != nil {
		return err
	}
	_, err = metriclog.Once(ctx, c.Store, run.metrics(), "train", end.points(checkpoint.State, now))
	return err
}
