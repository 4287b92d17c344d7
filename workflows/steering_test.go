package workflows

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"

	"github.com/duratune/duratune/activities"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/train"
)

// reply is what came of an update.
type reply struct {
	rejected, failed error
	result           any
}

// update sends an update when the run is that old. In these tests an epoch trains for a minute and is evaluated for ten
// seconds. While any other activity is under way the test environment goes by the real clock, so that what is due within
// a second or two may come during Plan on a machine that stalls.
func (w *world) update(at time.Duration, name string, args ...any) *reply {
	r := &reply{}
	w.RegisterDelayedCallback(func() {
		w.UpdateWorkflow(name, name+at.String(), &testCallbacks{r}, args...)
	}, at)
	return r
}

type testCallbacks struct{ *reply }

func (c *testCallbacks) Accept()                        {}
func (c *testCallbacks) Reject(err error)               { c.rejected = err }
func (c *testCallbacks) Complete(result any, err error) { c.result, c.failed = result, err }

func (r *reply) refused(t *testing.T, says string) {
	t.Helper()
	if r.rejected == nil || !strings.Contains(r.rejected.Error(), says) {
		t.Errorf("update gave %+v, want it refused, saying %q", r, says)
	}
}

func (r *reply) taken(t *testing.T, says string) {
	t.Helper()
	if text, _ := r.result.(string); r.rejected != nil || r.failed != nil || !strings.Contains(text, says) {
		t.Errorf("update gave %+v, want it taken, saying %q", r, says)
	}
}

// slow is a world of five epochs that take their time; the second is the best.
func slow(t *testing.T) (w *world, validated *[]activities.ValidateInput, logged *[]activities.LogModelInput) {
	w = newWorld(t)
	w.recipe.Train.Epochs = 5
	validated, logged = &[]activities.ValidateInput{}, &[]activities.LogModelInput{}
	slowTraining(w)
	w.OnActivity(gpuActivity.Validate, mock.Anything, mock.Anything).After(10 * time.Second).Return(func(_ context.Context, in activities.ValidateInput) (activities.ValidateResult, error) {
		*validated = append(*validated, in)
		return activities.ValidateResult{Metrics: train.Metrics{Accuracy: []float64{0, 0.5, 0.9, 0.6, 0.7, 0.8}[in.Epoch]}}, nil
	})
	w.OnActivity(cpuActivity.LogModel, mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.LogModelInput) (activities.LogModelResult, error) {
		*logged = append(*logged, in)
		return activities.LogModelResult{ModelID: "m-1", ModelURI: "models:/m-1"}, nil
	}).Maybe()
	return w, validated, logged
}

// slowTraining takes a minute an epoch.
func slowTraining(w *world) {
	w.OnActivity(gpuActivity.TrainEpoch, mock.Anything, mock.Anything).After(time.Minute).Return(func(_ context.Context, in activities.TrainEpochInput) (activities.TrainEpochResult, error) {
		return activities.TrainEpochResult{Checkpoint: ref("checkpoint" + string(rune('0'+in.Epoch))), Step: int64(10 * in.Epoch)}, nil
	})
}

func TestStop(t *testing.T) {
	tests := []struct {
		name      string
		at        time.Duration
		arg       Stop
		validated []string // checkpoints
		choice    activities.Choice
	}{
		{"while it trains", 3*time.Minute - 15*time.Second, Stop{}, []string{"checkpoint1", "checkpoint2", "checkpoint3"},
			activities.Choice{Epoch: 3, Trained: 3, Planned: 5, Stopped: "by hand"}},
		{"while it is evaluated: the examples were not tried", 3*time.Minute + 25*time.Second, Stop{Keep: "last"}, []string{"checkpoint1", "checkpoint2", "checkpoint3", "checkpoint3"},
			activities.Choice{Epoch: 3, Trained: 3, Planned: 5, Stopped: "by hand"}},
		{"keep the best", 3*time.Minute - 15*time.Second, Stop{Keep: "best"}, []string{"checkpoint1", "checkpoint2", "checkpoint3", "checkpoint2"},
			activities.Choice{Epoch: 2, Trained: 3, Planned: 5, Stopped: "by hand", Metric: "eval_accuracy"}},
		{"before it trains", 0, Stop{}, []string{"checkpoint1"}, activities.Choice{Epoch: 1, Trained: 1, Planned: 5, Stopped: "by hand"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w, validated, logged := slow(t)
			w.happy()
			stop := w.update(tt.at, StopUpdate, tt.arg)
			again := w.update(tt.at+time.Second, StopUpdate, Stop{})
			w.run()
			require.NoError(t, w.GetWorkflowError())
			stop.taken(t, "training ends after epoch")
			again.refused(t, "already")
			var got []string
			for _, in := range *validated {
				got = append(got, in.Checkpoint.SHA256)
			}
			if diff := cmp.Diff(tt.validated, got); diff != "" {
				t.Errorf("validated (-want +got):\n%s", diff)
			}
			require.Len(t, *logged, 1)
			if in := (*logged)[0]; in.Choice != tt.choice || in.Checkpoint != ref("checkpoint"+string(rune('0'+tt.choice.Epoch))) {
				t.Errorf("logged %s, chosen as %+v, want %+v", in.Checkpoint.SHA256, in.Choice, tt.choice)
			}
			w.ended(t, activities.RunFinished, "passed")
			if c := w.closed[0]; len(c.Steering) != 1 || c.Stopped == nil || c.Stopped.Checkpoint != ref("checkpoint"+string(rune('0'+tt.choice.Trained))) {
				t.Errorf("closed with %+v", c)
			}
		})
	}
}

// TestPause takes a training epoch off the device: the activity is cancelled, nothing runs until resume, and the epoch is
// given to a worker again.
func TestPause(t *testing.T) {
	w, validated, _ := slow(t)
	w.recipe.Train.Epochs = 2
	started := map[time.Duration]int{}
	begin := w.Now()
	w.OnActivity(cpuActivity.NoteSteering, mock.Anything, mock.Anything).Return(nil).Times(2)
	w.SetOnActivityStartedListener(func(info *activity.Info, _ context.Context, _ converter.EncodedValues) {
		if info.ActivityType.Name == "TrainEpoch" {
			started[w.Now().Sub(begin).Truncate(time.Minute)]++
		}
	})
	w.happy()
	pause := w.update(30*time.Second, PauseUpdate)
	twice := w.update(40*time.Second, PauseUpdate)
	var status Status
	w.RegisterDelayedCallback(func() {
		v, err := w.QueryWorkflow(StatusQuery)
		if err == nil {
			err = v.Get(&status)
		}
		require.NoError(t, err)
	}, 20*time.Minute)
	resume := w.update(30*time.Minute, ResumeUpdate)
	late := w.update(30*time.Minute+time.Second, ResumeUpdate)
	w.run()
	require.NoError(t, w.GetWorkflowError())
	pause.taken(t, "released")
	twice.refused(t, "paused already")
	resume.taken(t, "goes on")
	late.refused(t, "not paused")
	if !status.Paused || !strings.HasPrefix(status.Phase, "paused, before: train epoch 1/2") {
		t.Errorf("status while paused: %+v", status)
	}
	require.Len(t, *validated, 2)
	if started[0] != 1 || started[30*time.Minute] != 1 || len(started) > 3 {
		t.Errorf("epochs started at %v", started)
	}
	if n := len(w.closed[0].Steering); n != 2 {
		t.Errorf("%d lines of steering, want 2: %q", n, w.closed[0].Steering)
	}
}

// TestPausedRunCanBeCancelled: a pause does not outlive the run.
func TestPausedRunCanBeCancelled(t *testing.T) {
	w, _, _ := slow(t)
	w.happy()
	w.update(30*time.Second, PauseUpdate)
	w.RegisterDelayedCallback(w.CancelWorkflow, 10*time.Minute)
	w.run()
	require.Error(t, w.GetWorkflowError())
	w.ended(t, activities.RunKilled, "")
}

func TestSkipPromotion(t *testing.T) {
	w, _, _ := slow(t)
	w.recipe.Train.Epochs = 1
	w.OnActivity(cpuActivity.Promote, mock.Anything, mock.Anything).Return(activities.PromoteResult{}, errors.New("promoted")).Never()
	w.happy()
	skip := w.update(30*time.Second, SkipPromotionUpdate)
	again := w.update(31*time.Second, SkipPromotionUpdate)
	w.run()
	require.NoError(t, w.GetWorkflowError())
	skip.taken(t, "not registered")
	again.refused(t, "already")
	var res Result
	require.NoError(t, w.GetWorkflowResult(&res))
	if res.Version != "" || res.Alias != "" || res.ModelURI != "models:/m-1" || len(res.Steering) != 1 {
		t.Errorf("result %+v", res)
	}
}

func TestUpdatesThatCanHaveNoEffect(t *testing.T) {
	w, _, _ := slow(t)
	w.recipe.Train.Epochs = 1
	w.recipe.Tracking.RegisteredModel, w.recipe.Tracking.Alias = "", ""
	w.OnActivity(gpuActivity.LoadTest, mock.Anything, mock.Anything).After(time.Minute).Return(activities.LoadTestResult{Passed: true}, nil)
	w.happy()
	odd := w.update(30*time.Second, StopUpdate, Stop{Keep: "first"})
	skip := w.update(40*time.Second, SkipPromotionUpdate)
	late := w.update(100*time.Second, StopUpdate, Stop{})
	w.run()
	require.NoError(t, w.GetWorkflowError())
	odd.refused(t, `keep: got "first"`)
	skip.refused(t, "registers no model")
	late.refused(t, "training is over")
	if len(w.closed[0].Steering) != 0 || w.closed[0].Stopped != nil {
		t.Errorf("refused updates left a trace: %+v", w.closed[0])
	}
}

// TestSelection trains with a validation share: epochs are evaluated on it, training ends when patience is over, and the
// test share is seen once, with the best checkpoint.
func TestSelection(t *testing.T) {
	tests := []struct {
		name      string
		selection recipe.Selection
		stop      *Stop // in the second epoch; nil: none
		trained   int
		choice    activities.Choice
	}{
		{"the last", recipe.Selection{}, nil, 5, activities.Choice{Epoch: 5, Trained: 5, Planned: 5, Sealed: true}},
		{"the best", recipe.Selection{Metric: "eval_accuracy", Mode: "max"}, nil, 5, activities.Choice{Epoch: 2, Trained: 5, Planned: 5, Sealed: true, Metric: "eval_accuracy"}},
		{"the lowest", recipe.Selection{Metric: "eval_loss", Mode: "min"}, nil, 5, activities.Choice{Epoch: 4, Trained: 5, Planned: 5, Sealed: true, Metric: "eval_loss"}},
		{"patience", recipe.Selection{Metric: "eval_accuracy", Mode: "max", Patience: 2}, nil, 4,
			activities.Choice{Epoch: 2, Trained: 4, Planned: 5, Sealed: true, Metric: "eval_accuracy", Stopped: "early, without a better eval_accuracy in 2 epochs,"}},
		{"stopped by hand", recipe.Selection{Metric: "eval_loss", Mode: "min"}, &Stop{}, 2, activities.Choice{Epoch: 2, Trained: 2, Planned: 5, Sealed: true, Metric: "eval_loss", Stopped: "by hand"}},
		{"stopped by hand with the last", recipe.Selection{Metric: "eval_loss", Mode: "min"}, &Stop{Keep: "last"}, 2, activities.Choice{Epoch: 2, Trained: 2, Planned: 5, Sealed: true, Stopped: "by hand"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.recipe.Train.Epochs, w.recipe.Selection = 5, tt.selection
			w.recipe.Examples = []recipe.Example{{Text: "hi", Label: "ham"}}
			w.OnActivity(cpuActivity.LoadSplit, mock.Anything, mock.Anything).Return(activities.LoadSplitResult{
				Train: activities.Share{Name: "train"}, Test: activities.Share{Name: "test"}, Validation: activities.Share{Name: "validation", NumRows: 9}}, nil)
			w.OnActivity(cpuActivity.Tokenize, mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.TokenizeInput) (activities.TokenizeResult, error) {
				return activities.TokenizeResult{Tokens: ref(in.Share.Name)}, nil
			})
			slowTraining(w)
			var tested, validated []activities.ValidateInput
			w.OnActivity(gpuActivity.Validate, mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.ValidateInput) (activities.ValidateResult, error) {
				if in.Tokens == ref("test") {
					tested = append(tested, in)
				} else {
					validated = append(validated, in)
				}
				return activities.ValidateResult{Metrics: train.Metrics{Accuracy: []float64{0, 0.5, 0.9, 0.6, 0.7, 0.8}[in.Epoch], Loss: []float64{0, 5, 4, 3, 2, 3}[in.Epoch]}}, nil
			})
			w.happy()
			if tt.stop != nil {
				w.update(90*time.Second, StopUpdate, *tt.stop)
			}
			w.run()
			require.NoError(t, w.GetWorkflowError())
			require.Len(t, validated, tt.trained)
			require.Len(t, tested, 1)
			if in := tested[0]; !in.Sealed || len(in.Examples) != 1 || in.Checkpoint != ref("checkpoint"+string(rune('0'+tt.choice.Epoch))) {
				t.Errorf("tested with %+v", in)
			}
			for _, in := range validated {
				if in.Sealed || len(in.Examples) > 0 || in.Tokens != ref("validation") {
					t.Errorf("validated with %+v", in)
				}
			}
			require.Len(t, w.reports, 1)
			if in := w.reports[0]; in.Choice != tt.choice || len(in.Tokens) != 3 {
				t.Errorf("reported %+v, want %+v", in.Choice, tt.choice)
			}
			if stopped := w.closed[0].Stopped != nil; stopped != (tt.trained < 5) {
				t.Errorf("closed with an early end: %v", stopped)
			}
		})
	}
}
