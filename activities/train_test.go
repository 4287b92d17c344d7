package activities

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/mlflow/mlflowtest"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/train"
)

var errBoom = errors.New("boom")

// straight is the digest at the end of an undisturbed first epoch.
func straight(t *testing.T) string {
	t.Helper()
	b := newBench(t)
	res, err := b.train(t, b.input)
	if err != nil {
		t.Fatal(err)
	}
	return b.weights(t, res.Checkpoint)
}

func wantType(t *testing.T, err error, kind string, retried bool) {
	t.Helper()
	var app *temporal.ApplicationError
	if !errors.As(err, &app) || app.Type() != kind || app.NonRetryable() == retried {
		t.Errorf("error = %v, want type %s, retried: %v", err, kind, retried)
	}
}

// TestTrainEpochGoesOn: the epoch before is complete, but it is not this one.
func TestTrainEpochGoesOn(t *testing.T) {
	b := newBench(t)
	first, err := b.train(t, b.input)
	if err != nil {
		t.Fatal(err)
	}
	second := b.input
	second.Epoch, second.Checkpoint = 2, first.Checkpoint
	for call := range 2 { // the second call finds the epoch done
		res, err := b.train(t, second)
		if err != nil {
			t.Fatal(err)
		}
		if call == 0 && res.Usage.Padding != 0.25 {
			t.Errorf("usage is %+v, want the engine's", res.Usage)
		}
		if res.Step != 22 || res.Checkpoint == first.Checkpoint || b.weights(t, res.Checkpoint) == b.weights(t, first.Checkpoint) {
			t.Errorf("the second epoch ended at step %d with %s, want step 22 with weights of its own", res.Step, res.Checkpoint.URI)
		}
	}
	if n := b.history()["loss 20"]; n != 1 {
		t.Errorf("%d points of loss at step 20, want 1", n)
	}
}

func TestTrainEpochEndsAtItsCheckpoint(t *testing.T) {
	b := newBench(t)
	res, err := b.train(t, b.input)
	if err != nil {
		t.Fatal(err)
	}
	if res.Step != 11 || res.ResumedFrom != 0 || res.Unsent != 0 {
		t.Errorf("result %+v, want step 11 from step 0 with nothing unsent", res)
	}
	want := map[string]int{}
	for _, key := range []string{"loss", "grad_norm", "learning_rate", "epoch"} {
		want[key+" 4"], want[key+" 8"] = 1, 1
	}
	if diff := cmp.Diff(want, b.history()); diff != "" {
		t.Errorf("points in MLflow (-want +got):\n%s", diff)
	}
	if got := b.weights(t, res.Checkpoint); got != straight(t) {
		t.Error("two undisturbed epochs differ")
	}
}

func TestTrainEpochResumesWhereItFailed(t *testing.T) {
	want := straight(t)
	for failAt := int64(1); failAt < 11; failAt++ {
		t.Run(fmt.Sprintf("step %d", failAt), func(t *testing.T) {
			b := newBench(t)
			b.input.Every = recipe.Checkpoint{EverySteps: 3}
			b.prepare = func(e *fakeEngine) {
				e.hook = func(step int64) error {
					if step == failAt && len(b.engines) == 1 {
						return errBoom
					}
					return nil
				}
			}
			if _, err := b.train(t, b.input); err == nil {
				t.Fatal("the first attempt did not fail")
			}
			res, err := b.train(t, b.input)
			if err != nil {
				t.Fatal(err)
			}
			if from := failAt / 3 * 3; res.ResumedFrom != from {
				t.Errorf("resumed from step %d, want %d", res.ResumedFrom, from)
			}
			if b.weights(t, res.Checkpoint) != want {
				t.Error("weights and moments differ from an undisturbed epoch's")
			}
			for point, n := range b.history() {
				if n != 1 {
					t.Errorf("%s stands %d times in MLflow", point, n)
				}
			}
			if n := len(b.history()); n != 8 {
				t.Errorf("%d points in MLflow, want 8", n)
			}
		})
	}
}

func TestTrainEpochFindsItsFinishedWork(t *testing.T) {
	b := newBench(t)
	first, err := b.train(t, b.input)
	if err != nil {
		t.Fatal(err)
	}
	opened := len(b.engines)
	again, err := b.train(t, b.input) // the completion was lost on its way
	if err != nil {
		t.Fatal(err)
	}
	if again.Checkpoint != first.Checkpoint || len(b.engines) != opened {
		t.Errorf("checkpoint %v with %d engines opened, want %v and no other engine", again.Checkpoint, len(b.engines)-opened, first.Checkpoint)
	}
}

// nothingOnce is a store that is away for the points of training's end.
type nothingOnce struct{ artifact.Store }

func (s nothingOnce) PutIfAbsent(ctx context.Context, key string, body []byte) (artifact.Ref, error) {
	if strings.Contains(key, "/once/") {
		return artifact.Ref{}, &artifact.Error{Op: "put", URI: key, Err: artifact.ErrUnavailable}
	}
	return s.Store.PutIfAbsent(ctx, key, body)
}

// TestEndOfTrainingIsLoggedAfterItsCheckpoint: the attempt that committed the last checkpoint did not live to log train_loss.
func TestEndOfTrainingIsLoggedAfterItsCheckpoint(t *testing.T) {
	b := newBench(t)
	b.input.Train.Epochs = 1
	b.gpu.Store = nothingOnce{b.store}
	_, err := b.train(t, b.input)
	wantType(t, err, TypeStoreUnavailable, true)
	b.gpu.Store = b.store
	for range 2 {
		res, err := b.train(t, b.input)
		if err != nil {
			t.Fatal(err)
		}
		if res.Step != 11 || res.ResumedFrom != 11 {
			t.Errorf("step %d from step %d, want the checkpoint that is there", res.Step, res.ResumedFrom)
		}
		if n := b.history()["train_loss 11"]; n != 1 {
			t.Errorf("train_loss stands %d times in MLflow, want once", n)
		}
	}
}

func TestTrainEpochWalksBackFromACorruptCheckpoint(t *testing.T) {
	want := straight(t)
	b := newBench(t)
	b.input.Every = recipe.Checkpoint{EverySteps: 3}
	b.prepare = func(e *fakeEngine) {
		e.hook = func(step int64) error {
			if step == 8 && len(b.engines) == 1 {
				return errBoom
			}
			return nil
		}
	}
	if _, err := b.train(t, b.input); err == nil {
		t.Fatal("the first attempt did not fail")
	}
	for info, err := range b.store.List(t.Context(), b.run.epoch(1)) {
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(info.Key, "step-000000006/weights.safetensors") {
			if _, err := b.store.Put(t.Context(), info.Key, bytes.NewReader([]byte("half")), nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.input.Every = recipe.Checkpoint{} // the test environment counts no attempts: do not write below the same prefix
	res, err := b.train(t, b.input)
	if err != nil {
		t.Fatal(err)
	}
	if res.ResumedFrom != 3 || b.weights(t, res.Checkpoint) != want {
		t.Errorf("resumed from step %d, want 3 and the undisturbed bits", res.ResumedFrom)
	}
}

func TestTrainEpochUsesTheResidentStateOnlyIfItIsTheCheckpoint(t *testing.T) {
	b := newBench(t)
	first, err := b.train(t, b.input)
	if err != nil {
		t.Fatal(err)
	}
	second := b.input
	second.Epoch, second.Checkpoint = 2, first.Checkpoint
	env := b.env(t)
	if _, err := env.ExecuteActivity(b.gpu.TrainEpoch, second); err != nil {
		t.Fatal(err)
	}
	if len(b.engines) != 1 {
		t.Errorf("%d engines opened, want the first one to go on", len(b.engines))
	}
	third := b.input // another run's epoch: the resident state is not its own
	third.Run.Key = "ffff"
	if _, err := env.ExecuteActivity(b.gpu.TrainEpoch, third); err != nil {
		t.Fatal(err)
	}
	if len(b.engines) != 2 || !b.engines[0].closed {
		t.Errorf("%d engines opened, first closed: %v, want a second one and the first closed", len(b.engines), b.engines[0].closed)
	}
}

func TestTrackingAwayNeverStopsTraining(t *testing.T) {
	b := newBench(t)
	b.mlflow.Inject("log-batch", repeat(mlflowtest.Fault{Status: 503}, 100)...)
	res, err := b.train(t, b.input)
	if err != nil {
		t.Fatal(err)
	}
	if res.Unsent != 8 {
		t.Errorf("%d points unsent, want all 8", res.Unsent)
	}
}

func repeat(f mlflowtest.Fault, n int) []mlflowtest.Fault {
	faults := make([]mlflowtest.Fault, n)
	for i := range faults {
		faults[i] = f
	}
	return faults
}

func TestTrainEpochInterruptedHandsOver(t *testing.T) {
	want := straight(t)
	b := newBench(t)
	stop := make(chan struct{})
	b.prepare = func(e *fakeEngine) {
		e.hook = func(step int64) error {
			if step == 5 && len(b.engines) == 1 {
				close(stop)
			}
			return nil
		}
	}
	env := b.env(t)
	env.SetWorkerStopChannel(stop)
	_, err := env.ExecuteActivity(b.gpu.TrainEpoch, b.input)
	wantType(t, err, TypeInterrupted, true)
	res, err := b.train(t, b.input)
	if err != nil {
		t.Fatal(err)
	}
	if res.ResumedFrom != 6 || b.weights(t, res.Checkpoint) != want {
		t.Errorf("resumed from step %d, want 6 and the undisturbed bits", res.ResumedFrom)
	}
}

func TestThreeFailuresFromOneStepAreNoProgress(t *testing.T) {
	b := newBench(t)
	b.prepare = func(e *fakeEngine) { e.hook = func(int64) error { return errBoom } }
	env := b.env(t)
	env.SetHeartbeatDetails(Heartbeat{Failures: []int64{0, 0}})
	b.gpu.drop()
	_, err := env.ExecuteActivity(b.gpu.TrainEpoch, b.input)
	wantType(t, err, TypeNoProgress, false)
}

// TestThreeFailuresOfAnEvaluationAreNoProgress: what has no checkpoints fails for good after as many attempts, each of which
// leaves its mark for the next, and an outage does not count.
func TestThreeFailuresOfAnEvaluationAreNoProgress(t *testing.T) {
	b := newBench(t)
	trained, err := b.train(t, b.input)
	if err != nil {
		t.Fatal(err)
	}
	b.gpu.drop()
	var last Heartbeat
	in := ValidateInput{Session: b.input.Session, Tokens: b.input.Tokens, Checkpoint: trained.Checkpoint}
	for i, tt := range []struct {
		fails error
		kind  string
	}{{errBoom, "Error"}, {artifact.ErrUnavailable, TypeStoreUnavailable}, {errBoom, "Error"}, {errBoom, TypeNoProgress}} {
		b.gpu.Open = func(context.Context, train.Spec) (train.Engine, error) { return nil, tt.fails }
		env := b.env(t)
		env.SetHeartbeatDetails(last)
		env.SetOnActivityHeartbeatListener(func(_ *activity.Info, details converter.EncodedValues) {
			if err := details.Get(&last); err != nil {
				t.Error(err)
			}
		})
		_, err := env.ExecuteActivity(b.gpu.Validate, in)
		wantType(t, err, tt.kind, tt.kind != TypeNoProgress)
		if i == 3 && !strings.Contains(err.Error(), "3 attempts of Validate failed without progress, the last one with: boom") {
			t.Errorf("%v does not say what failed, and why", err)
		}
	}
}

func TestResetIsRefused(t *testing.T) {
	b := newBench(t)
	b.input.Run.WorkflowRunID = "the-original-execution"
	_, err := b.train(t, b.input)
	wantType(t, err, TypeForkByReset, false)
	if err != nil && !(strings.Contains(err.Error(), "temporal workflow start") && strings.Contains(err.Error(), `"run": "`+b.run.MLflowRunID+`"`)) {
		t.Errorf("%v does not say what to do instead", err)
	}
}

func TestEdgeDecidesEachKindOnce(t *testing.T) {
	tests := []struct {
		err     error
		kind    string
		retried bool
	}{
		{&train.NotFiniteError{}, TypeLossNotFinite, false},
		{train.ErrInterrupted, TypeInterrupted, true},
		{train.ErrOutOfMemory, TypeDeviceOutOfMemory, false},
		{train.ErrDevice, TypeDeviceLost, true},
		{train.ErrNoLibtorch, TypeLibtorchMissing, false},
		{artifact.ErrCorrupt, TypeArtifactCorrupt, true},
		{artifact.ErrNotFound, TypeArtifactMissing, false},
		{artifact.ErrDenied, TypeStoreDenied, false},
		{artifact.ErrUnavailable, TypeStoreUnavailable, true},
		{&train.TensorError{File: "f", Tensor: "t"}, TypeModelIncompatible, false},
		{&train.ConfigError{File: "f", Field: "t"}, TypeModelIncompatible, false},
		{errBoom, "Error", true},
	}
	for _, tt := range tests {
		t.Run(tt.kind, func(t *testing.T) { wantType(t, edge(fmt.Errorf("while at work: %w", tt.err)), tt.kind, tt.retried) })
	}
	if err := edge(context.Canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("cancellation became %v", err)
	}
}

func TestErrorsCarryNoSecrets(t *testing.T) {
	err := edge(fmt.Errorf("get https://user:hunter2@host/path?X-Amz-Signature=abc#frag: refused")) //nolint:err113 // any text
	for _, secret := range []string{"hunter2", "Signature", "frag"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%v holds %s", err, secret)
		}
	}
	if !strings.Contains(err.Error(), "https://host/path") {
		t.Errorf("%v lost the place", err)
	}
}

// TestValidateNamesTheShare: epochs are eval_*, the sealed test share is test_*, each logged once.
func TestValidateNamesTheShare(t *testing.T) {
	b := newBench(t)
	trained, err := b.train(t, b.input)
	if err != nil {
		t.Fatal(err)
	}
	in := ValidateInput{Session: b.input.Session, Tokens: b.input.Tokens, Checkpoint: trained.Checkpoint}
	for _, sealed := range []bool{false, true, true} {
		in.Sealed = sealed
		if _, err := b.env(t).ExecuteActivity(b.gpu.Validate, in); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"eval_loss 11", "eval_accuracy 11", "test_loss 11", "test_accuracy 11", "test_f1 11"} {
		if n := b.history()[key]; n != 1 {
			t.Errorf("%d points %q, want 1", n, key)
		}
	}
}
