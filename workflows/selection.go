package workflows

import (
	"fmt"

	"go.temporal.io/sdk/workflow"

	"github.com/duratune/duratune/activities"
	"github.com/duratune/duratune/internal/artifact"
)

// candidate is an epoch whose checkpoint may become the model.
type candidate struct {
	epoch      int
	checkpoint artifact.Ref // manifest
	step       int64
	value      float64 // of the metric, the higher the better
}

// sealed reports whether epochs are evaluated on a share of their own, so that the test rows are seen once, at the end.
func (r *run) sealed() bool { return r.split.Validation.NumRows > 0 }

// first is the first epoch to be trained: those before it come from another run.
func (r *run) first() int { return r.recipe.ResumeFrom.Epoch + 1 }

// trains reports whether the epoch is to be trained: until the last one, until someone stops the training, or until
// patience is over.
func (r *run) trains(epoch int) bool {
	return epoch == r.first() || epoch <= r.recipe.Train.Epochs && r.steering.stop == "" && !r.impatient()
}

// impatient reports whether the last epochs brought nothing better.
func (r *run) impatient() bool {
	patience := r.recipe.Selection.Patience
	return patience > 0 && r.status.Epoch-r.best.epoch >= patience
}

// choose ends the training with the checkpoint that becomes the model: the last one, or the best, as the recipe or whoever
// stopped the run says. It is evaluated (again), unless the last epoch's evaluation was on the test share with the examples.
func (r *run) choose(ctx workflow.Context) error {
	r.steering.trained = true
	chosen := candidate{epoch: r.status.Epoch, checkpoint: r.checkpoint, step: r.step}
	if r.takesBest() {
		chosen = r.best
	}
	r.chosen = chosen.epoch
	if chosen.checkpoint == r.checkpoint && r.tried {
		return nil
	}
	r.checkpoint, r.step = chosen.checkpoint, chosen.step
	in := activities.ValidateInput{Session: r.session(ctx, chosen.epoch), Tokens: r.test.Tokens, Sealed: r.sealed()}
	if err := r.evaluate(ctx, fmt.Sprintf("test the checkpoint of epoch %d", chosen.epoch), in, true); err != nil {
		return err
	}
	return r.missed(ctx)
}

// takesBest reports whether the best checkpoint becomes the model, and not the last one.
func (r *run) takesBest() bool {
	return r.steering.stop == keepBest || r.steering.stop == "" && r.recipe.Selection.Metric != ""
}

// choice describes what choose did.
func (r *run) choice() activities.Choice {
	c := activities.Choice{Epoch: r.chosen, Trained: len(r.result.Epochs), Planned: r.recipe.Train.Epochs, Sealed: r.sealed()}
	if r.takesBest() {
		c.Metric = r.metric()
	}
	switch {
	case r.steering.stop != "":
		c.Stopped = "by hand"
	case r.impatient():
		c.Stopped = fmt.Sprintf("early, without a better %s in %d epochs,", r.metric(), r.recipe.Selection.Patience)
	}
	return c
}

// metric is what the best epoch is the best by.
func (r *run) metric() string {
	if m := r.recipe.Selection.Metric; m != "" {
		return m
	}
	return "eval_accuracy"
}

// stopped is what a training that ended early has left; nil if it went to its end, or had not begun.
func (r *run) stopped() *activities.EarlyEnd {
	if r.steering.stop == "" && !r.impatient() || len(r.latest) == 0 {
		return nil
	}
	return &activities.EarlyEnd{Checkpoint: r.latest[len(r.latest)-1], Samples: r.train.NumRows * len(r.result.Epochs)}
}

// retain keeps the best checkpoint and the latest ones, and has the others removed while the run goes on.
func (r *run) retain(ctx workflow.Context, epoch int) {
	r.status.BestAccuracy = max(r.status.BestAccuracy, r.last.Accuracy)
	if value := r.value(); r.best.epoch == 0 || value > r.best.value {
		r.best = candidate{epoch, r.checkpoint, r.step, value}
	}
	r.latest = append(r.latest, r.checkpoint)
	r.latest = r.latest[max(0, len(r.latest)-max(1, r.recipe.Checkpoint.Keep)):]
	in := activities.SweepInput{Run: r.id, Through: epoch, Keep: append([]artifact.Ref{r.best.checkpoint}, r.latest...)}
	r.swept = workflow.ExecuteActivity(background(ctx, fmt.Sprintf("sweep through epoch %d", epoch)), cpuActivity.Sweep, in)
}

// value is the metric of the last evaluation, turned so that more is better.
func (r *run) value() float64 {
	v := map[string]float64{"eval_loss": r.last.Loss, "eval_accuracy": r.last.Accuracy, "eval_f1": r.last.F1, "eval_precision": r.last.Precision, "eval_recall": r.last.Recall}[r.metric()]
	if r.recipe.Selection.Mode == "min" {
		return -v
	}
	return v
}
