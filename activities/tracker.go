package activities

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/duratune/duratune/internal/metriclog"
	"github.com/duratune/duratune/internal/train"
)

// pushFunc sends points to MLflow. Sending a point again is harmless.
type pushFunc func(ctx context.Context, points []train.Point) error

// tracker carries points from the training goroutine to the metric log and from there to MLflow. MLflow being away never
// stops training: what it missed is sent later, at the latest when the run is closed.
type tracker struct {
	log      *metriclog.Log
	push     pushFunc
	logger   *slog.Logger
	interval time.Duration

	mu      sync.Mutex
	fresh   []train.Point // not yet in the metric log
	through int64         // steps that fresh covers
	unsent  []train.Point // in the metric log, not yet in MLflow

	logging sync.Mutex // held while the metric log is extended
	stop    chan struct{}
	done    chan struct{}
}

// trackInterval is how many seconds' worth of points share an object of the metric log.
const trackInterval = 2 * time.Second

// lastPush bounds the attempt to send what is left when an epoch ends.
const lastPush = 10 * time.Second

// startTracker begins to carry points in the background until close is called.
func startTracker(ctx context.Context, log *metriclog.Log, push pushFunc, logger *slog.Logger, interval time.Duration) *tracker {
	t := &tracker{log: log, push: push, logger: logger, interval: interval, stop: make(chan struct{}), done: make(chan struct{})}
	go t.loop(ctx)
	return t
}

// add takes the points of one logging step.
func (t *tracker) add(points []train.Point) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fresh = append(t.fresh, points...)
	t.through = points[len(points)-1].Step
}

// flush returns once every point added so far is in the metric log and the log covers the steps up to step.
func (t *tracker) flush(ctx context.Context, step int64) error {
	t.logging.Lock()
	defer t.logging.Unlock()
	t.mu.Lock()
	points, to := t.fresh, max(step, t.through)
	t.mu.Unlock()
	stored, err := t.log.Append(ctx, to, points)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fresh = t.fresh[len(points):]
	t.unsent = append(t.unsent, stored...)
	return nil
}

// close stops the background work, tries once more to send what is left, and returns how many points MLflow missed.
func (t *tracker) close(ctx context.Context) int {
	close(t.stop)
	<-t.done
	ctx, cancel := context.WithTimeout(ctx, lastPush)
	defer cancel()
	t.send(ctx)
	return len(t.unsent)
}

func (t *tracker) loop(ctx context.Context) {
	defer close(t.done)
	tick := time.NewTicker(t.interval)
	defer tick.Stop()
	for {
		select {
		case <-t.stop:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := t.flush(ctx, 0); err != nil {
			t.logger.Warn("metric log is behind", "error", err) // the checkpoint's own flush reports it
		}
		t.send(ctx)
	}
}

// send pushes what MLflow has not seen.
func (t *tracker) send(ctx context.Context) {
	t.mu.Lock()
	points := t.unsent
	t.mu.Unlock()
	if len(points) == 0 {
		return
	}
	if err := t.push(ctx, points); err != nil {
		t.logger.Warn("metrics not sent, will be sent later", "points", len(points), "error", err)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unsent = t.unsent[len(points):]
}
