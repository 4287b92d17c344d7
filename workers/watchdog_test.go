package workers

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/duratune/duratune/internal/train"
)

// engine is a device that does as it is told.
type engine struct {
	train.Engine
	step   func() error
	logits func(progress func(int))
}

func (e engine) Step(context.Context, int64, float64, train.Batch) error { return e.step() }

func (e engine) Logits(_ context.Context, _ []train.Sequence, progress func(int)) ([][]float32, error) {
	e.logits(progress)
	return nil, nil
}

// watch opens e under a watchdog.
func watch(t *testing.T, spec train.Spec, e engine, hung func(string, time.Duration)) (*Watchdog, train.Engine) {
	t.Helper()
	dog := NewWatchdog(hung)
	eng, err := dog.Watch(func(context.Context, train.Spec) (train.Engine, error) { return e, nil })(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return dog, eng
}

func TestWatchdogSeesAHungStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := make(chan string, 1)
		_, eng := watch(t, train.Spec{}, engine{step: func() error {
			if op := <-hung; op != "step" {
				t.Errorf("%s hangs, want step", op)
			}
			return nil
		}}, func(op string, _ time.Duration) { hung <- op })
		if err := eng.Step(t.Context(), 0, 0, train.Batch{}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestWatchdogLeavesSlowWorkAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, eng := watch(t, train.Spec{}, engine{logits: func(progress func(int)) {
			for range 4 {
				<-time.After(hungAfter(train.Spec{}) / 2)
				progress(1)
			}
		}}, func(op string, _ time.Duration) { t.Errorf("%s was taken to hang", op) })
		if _, err := eng.Logits(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
	})
}

// TestWatchdogAllowsForTheRecipe: a step is no sign of a hung device before twice the time that the recipe gives it.
func TestWatchdogAllowsForTheRecipe(t *testing.T) {
	for _, tt := range []struct {
		takes time.Duration
		hangs bool
	}{{time.Minute, false}, {19 * time.Minute, false}, {21 * time.Minute, true}} {
		synctest.Test(t, func(t *testing.T) {
			hung := false
			_, eng := watch(t, train.Spec{MaxStep: 10 * time.Minute}, engine{step: func() error {
				<-time.After(tt.takes)
				return nil
			}}, func(string, time.Duration) { hung = true })
			if err := eng.Step(t.Context(), 0, 0, train.Batch{}); err != nil {
				t.Fatal(err)
			}
			if hung != tt.hangs {
				t.Errorf("a step of %s was taken to hang: %v, want %v", tt.takes, hung, tt.hangs)
			}
		})
	}
}

func TestLostDeviceIsSeen(t *testing.T) {
	broken := errors.New("row 3 is broken")
	fails := broken
	dog, eng := watch(t, train.Spec{}, engine{step: func() error { return fails }}, nil)
	for _, tt := range []struct {
		err  error
		lost bool
	}{{broken, false}, {fmt.Errorf("step 3: %w", train.ErrDevice), true}, {train.ErrDevice, true}} {
		fails = tt.err
		if err := eng.Step(t.Context(), 3, 0, train.Batch{}); !errors.Is(err, tt.err) {
			t.Fatalf("error = %v, want the engine's", err)
		}
		select {
		case <-dog.Lost():
			if !tt.lost {
				t.Errorf("%v: the device is said to be lost", tt.err)
			}
		default:
			if tt.lost {
				t.Errorf("%v: the device is not said to be lost", tt.err)
			}
		}
	}
}
