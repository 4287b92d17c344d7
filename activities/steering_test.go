package activities

import (
	"bytes"
	"context"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"

	"github.com/duratune/duratune/internal/train"
)

// TestPauseCheckpointsTheStep pauses an epoch at each of its steps. What was trained is kept, the device is free, and the
// next attempt ends with the bits of an undisturbed epoch.
func TestPauseCheckpointsTheStep(t *testing.T) {
	want := straight(t)
	for _, pauseAt := range []int64{0, 1, 5, 8} {
		b := newBench(t)
		ctx, pause := context.WithCancel(context.Background())
		asked := make(chan struct{})
		b.gpu.Paused = func(context.Context, string, string) bool { close(asked); return true }
		b.prepare = func(e *fakeEngine) {
			e.hook = func(step int64) error {
				if step == pauseAt && len(b.engines) == 1 {
					pause()
					<-asked
					settled("(*GPU).pausable.func1") // which tells the training, of its own accord
				}
				return nil
			}
		}
		env := b.env(t)
		env.SetWorkerOptions(worker.Options{BackgroundActivityContext: ctx})
		if _, err := env.ExecuteActivity(b.gpu.TrainEpoch, b.input); err == nil || !temporal.IsCanceledError(err) && !strings.Contains(err.Error(), "canceled") {
			t.Fatalf("step %d: error = %v, want cancelled", pauseAt, err)
		}
		if !b.engines[0].closed {
			t.Errorf("step %d: the engine still holds the device", pauseAt)
		}
		b.input.Every.EverySteps = 0
		res, err := b.train(t, b.input)
		if err != nil {
			t.Fatal(err)
		}
		if from := res.ResumedFrom; from != pauseAt+1 || b.weights(t, res.Checkpoint) != want {
			t.Errorf("paused at step %d, went on at step %d, want one step later and the undisturbed bits", pauseAt, from)
		}
	}
}

// settled returns once no goroutine runs in a function of that name.
func settled(name string) {
	stacks := make([]byte, 1<<20)
	for bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte(name+"(")) {
		<-time.After(time.Millisecond)
	}
}

// TestCancelIsNoPause: a cancelled run frees the device at once.
func TestCancelIsNoPause(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(context.Background())
	working := make(chan context.Context, 1)
	b.gpu.Paused = func(ctx context.Context, _, _ string) bool { working <- ctx; return false }
	b.prepare = func(e *fakeEngine) {
		e.hook = func(step int64) error {
			if step == 5 {
				cancel()
				<-(<-working).Done() // a step takes longer than the word takes to come
			}
			return nil
		}
	}
	b.input.Train.Epochs = 1
	env := b.env(t)
	env.SetWorkerOptions(worker.Options{BackgroundActivityContext: ctx})
	_, err := env.ExecuteActivity(b.gpu.TrainEpoch, b.input)
	found, ferr := train.Find(t.Context(), b.store, b.run.epoch(1), b.run.Key)
	if err == nil || ferr != nil || len(found) != 0 {
		t.Errorf("error = %v with %d checkpoints (%v), want a cancellation without one", err, len(found), ferr)
	}
}

func TestNoteSteering(t *testing.T) {
	r := newReporting(t, some())
	note := func(log ...string) {
		t.Helper()
		env := r.env(t)
		env.RegisterActivity(r.cpu)
		if _, err := env.ExecuteActivity(r.cpu.NoteSteering, NoteSteeringInput{Run: r.run, Log: log}); err != nil {
			t.Fatal(err)
		}
	}
	note("1 pause", "2 resume")
	note("1 pause") // was overtaken
	if got := r.mlflow.Runs()[0].Tags["duratune.steering"]; got != "1 pause\n2 resume" {
		t.Errorf("tag = %q", got)
	}
}

// TestStoppedRunEndsAsTrainerDoes: the figures that the last epoch logs are there, of the epochs that were trained.
func TestStoppedRunEndsAsTrainerDoes(t *testing.T) {
	r := newReporting(t, some())
	env := r.env(t)
	env.RegisterActivity(r.cpu)
	in := CloseRunInput{Run: r.run, Status: RunFinished, Steering: []string{"1 stop"}, Stopped: &EarlyEnd{Checkpoint: r.in.Checkpoint, Samples: testRows}}
	for range 2 {
		if _, err := env.ExecuteActivity(r.cpu.CloseRun, in); err != nil {
			t.Fatal(err)
		}
	}
	points := r.history()
	for _, key := range []string{"train_runtime 11", "train_samples_per_second 11", "train_steps_per_second 11", "train_loss 11"} {
		if points[key] != 1 {
			t.Errorf("%d points %q, want 1", points[key], key)
		}
	}
	if got := r.mlflow.Runs()[0].Tags["duratune.steering"]; got != "1 stop" {
		t.Errorf("tag = %q", got)
	}
}
