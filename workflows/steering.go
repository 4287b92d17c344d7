package workflows

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/duratune/duratune/activities"
)

// Updates that steer a running fine-tune. Each is refused, with a reason, where it can have no effect, and leaves a trace in
// the history and in the MLflow run.
const (
	StopUpdate          = "stop"           // takes [Stop]
	PauseUpdate         = "pause"          // no argument
	ResumeUpdate        = "resume"         // no argument
	SkipPromotionUpdate = "skip-promotion" // no argument
)

// Checkpoints that a stopped run may go on with.
const (
	keepLast = "last"
	keepBest = "best"
)

// Stop is the argument of [StopUpdate]: training ends after the epoch that is running, and the run goes on with a model.
type Stop struct {
	Keep string `json:"keep,omitempty"` // last, or best: by the recipe's selection.metric, or by accuracy; left out: best where the recipe selects, else last
}

// steering is what people asked of a run while it ran.
type steering struct {
	stop          string // "", or the checkpoint to keep
	paused        bool
	skipPromotion bool
	log           []string            // a line for each request
	yield         workflow.CancelFunc // takes the running activity off the device; nil: none runs

	trained   bool // training is over
	promoting bool // it is too late to skip the promotion
	closing   bool // it is too late for anything
}

// listen answers queries and updates from the first task of the workflow on.
func (r *run) listen(ctx workflow.Context) error {
	err := workflow.SetQueryHandler(ctx, StatusQuery, func() (Status, error) { return r.status, nil })
	plain := func(name string, check func() error, do func(ctx workflow.Context) string) {
		handler := func(ctx workflow.Context) (string, error) { return r.steered(ctx, name, do(ctx)), nil }
		err = errors.Join(err, workflow.SetUpdateHandlerWithOptions(ctx, name, handler, workflow.UpdateHandlerOptions{Validator: check}))
	}
	plain(PauseUpdate, r.mayPause, r.pause)
	plain(ResumeUpdate, r.mayResume, r.unpause)
	plain(SkipPromotionUpdate, r.maySkip, r.skip)
	stop := func(ctx workflow.Context, in Stop) (string, error) {
		return r.steered(ctx, StopUpdate, r.stop(in)), nil
	}
	return errors.Join(err, workflow.SetUpdateHandlerWithOptions(ctx, StopUpdate, stop, workflow.UpdateHandlerOptions{Validator: r.mayStop}))
}

// steered notes a request where people look for it, and returns what it did.
func (r *run) steered(ctx workflow.Context, name, effect string) string {
	r.steering.log = append(r.steering.log, fmt.Sprintf("%s %s: %s", workflow.Now(ctx).UTC().Format(time.RFC3339), name, effect))
	r.say(ctx, r.status.Phase)
	// Not waited for: an update must not hang on MLflow. The run's end writes the same lines again.
	if r.id.MLflowRunID != "" {
		workflow.ExecuteActivity(background(ctx, "note "+name), cpuActivity.NoteSteering, activities.NoteSteeringInput{Run: r.id, Log: r.steering.log})
	}
	return effect
}

func (r *run) mayStop(in Stop) error {
	switch {
	case in.Keep != "" && in.Keep != keepLast && in.Keep != keepBest:
		return fmt.Errorf("keep: got %q, want %s or %s", in.Keep, keepLast, keepBest)
	case r.steering.trained || r.steering.closing:
		return errors.New("training is over")
	case r.steering.stop != "":
		return fmt.Errorf("training ends after this epoch already, with the %s checkpoint", r.steering.stop)
	}
	return nil
}

func (r *run) stop(in Stop) string {
	r.steering.stop = in.Keep
	switch {
	case in.Keep == "" && r.recipe.Selection.Metric != "":
		r.steering.stop = keepBest
	case in.Keep == "":
		r.steering.stop = keepLast
	}
	return fmt.Sprintf("training ends after epoch %d; the %s checkpoint is kept", max(1, r.status.Epoch), r.steering.stop)
}

func (r *run) mayPause() error {
	switch {
	case r.steering.paused:
		return errors.New("the run is paused already")
	case r.steering.promoting || r.steering.closing:
		return errors.New("the run needs the device no more")
	}
	return nil
}

// pause takes what runs off the device: an epoch checkpoints first, anything else is done again.
func (r *run) pause(workflow.Context) string {
	r.steering.paused, r.status.Paused = true, true
	if r.steering.yield != nil {
		r.steering.yield()
	}
	return "the device is released until resume; limits.max_wall_time goes on"
}

func (r *run) mayResume() error {
	if !r.steering.paused {
		return errors.New("the run is not paused")
	}
	return nil
}

func (r *run) unpause(workflow.Context) string {
	r.steering.paused, r.status.Paused = false, false
	return "the run goes on"
}

func (r *run) maySkip() error {
	switch {
	case r.steering.skipPromotion:
		return errors.New("the promotion is skipped already")
	case r.recipe.Name != "" && r.recipe.Tracking.RegisteredModel == "":
		return errors.New("the recipe registers no model")
	case r.steering.promoting || r.steering.closing:
		return errors.New("the promotion has begun")
	}
	return nil
}

func (r *run) skip(workflow.Context) string {
	r.steering.skipPromotion = true
	return "the model will be logged and tested, but not registered"
}

// onDevice runs a GPU activity, once the run is not paused, and again if a pause took it off the device.
func (r *run) onDevice(ctx workflow.Context, summary string, activity, in, out any) error {
	for {
		if err := r.hold(ctx); err != nil {
			return err
		}
		actx, yield := workflow.WithCancel(gpu(ctx, summary, r.recipe.Limits.MaxStepTime))
		r.steering.yield = yield
		err := workflow.ExecuteActivity(actx, activity, in).Get(actx, out)
		r.steering.yield = nil
		if temporal.IsCanceledError(err) && ctx.Err() == nil {
			continue
		}
		return err
	}
}

// hold waits while the run is paused.
func (r *run) hold(ctx workflow.Context) error {
	if !r.steering.paused {
		return nil
	}
	phase := r.status.Phase
	r.say(ctx, "paused, before: "+phase)
	err := workflow.Await(ctx, func() bool { return !r.steering.paused })
	r.say(ctx, phase)
	return err
}
