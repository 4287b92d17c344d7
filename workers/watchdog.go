package workers

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/duratune/duratune/internal/train"
)

// hungAfter is how long a device may be silent. After the longest time that a step may take the run has given this worker
// up; a step that has still not ended after twice as long holds the slot for nothing.
func hungAfter(s train.Spec) time.Duration { return 2 * max(time.Minute, s.MaxStep) }

// Watchdog ends a worker process whose device no longer works, which only a new process can mend: at once where an
// operation hangs, and after the activity has reported its failure where the device is lost.
type Watchdog struct {
	hung func(op string, silent time.Duration)
	once sync.Once
	lost chan struct{}
}

// NewWatchdog makes a watchdog that calls hung, which must not return, on an operation that hangs.
func NewWatchdog(hung func(op string, silent time.Duration)) *Watchdog {
	return &Watchdog{hung: hung, lost: make(chan struct{})}
}

// Watch makes open return engines that are watched.
func (d *Watchdog) Watch(open train.OpenFunc) train.OpenFunc {
	return func(ctx context.Context, spec train.Spec) (train.Engine, error) {
		eng, err := open(ctx, spec)
		if err != nil {
			return nil, d.look(err)
		}
		return &watched{Engine: eng, dog: d, limit: hungAfter(spec)}, nil
	}
}

// ErrDeviceLost says why a worker stopped by itself.
var ErrDeviceLost = errors.New("the device is lost: a new process is needed")

// Lost is closed once the device is lost.
func (d *Watchdog) Lost() <-chan struct{} { return d.lost }

// look notes a lost device and returns err.
func (d *Watchdog) look(err error) error {
	if errors.Is(err, train.ErrDevice) {
		d.once.Do(func() { close(d.lost) })
	}
	return err
}

// watched is an engine whose operations are timed.
type watched struct {
	train.Engine
	dog   *Watchdog
	limit time.Duration
}

// within begins to watch an operation; again starts its time anew, end ends it.
func (w *watched) within(op string) (again, end func()) {
	timer := time.AfterFunc(w.limit, func() { w.dog.hung(op, w.limit) })
	return func() { timer.Reset(w.limit) }, func() { timer.Stop() }
}

func (w *watched) Step(ctx context.Context, step int64, lr float64, b train.Batch) error {
	_, end := w.within("step")
	defer end()
	return w.dog.look(w.Engine.Step(ctx, step, lr, b))
}

func (w *watched) Sync(ctx context.Context) ([]train.StepStats, error) {
	_, end := w.within("sync")
	defer end()
	stats, err := w.Engine.Sync(ctx)
	return stats, w.dog.look(err)
}

func (w *watched) Logits(ctx context.Context, inputs []train.Sequence, progress func(done int)) ([][]float32, error) {
	again, end := w.within("logits")
	defer end()
	logits, err := w.Engine.Logits(ctx, inputs, func(done int) {
		again()
		if progress != nil {
			progress(done)
		}
	})
	return logits, w.dog.look(err)
}

func (w *watched) Snapshot(ctx context.Context) (train.Snapshot, error) {
	_, end := w.within("snapshot")
	defer end()
	snap, err := w.Engine.Snapshot(ctx)
	return snap, w.dog.look(err)
}
