package activities

import (
	"context"
	"log/slog"
	"time"

	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/sysmetrics"
)

// Pace of the machine's figures, as MLflow's own monitor has it, and how long one attempt to send them may take.
const (
	systemInterval = 10 * time.Second
	systemTimeout  = 3 * time.Second
)

// observe sends the run's tags of device and library once, and how busy the machine is every interval, until stop is
// called. It runs beside the training and never holds it up: what cannot be sent is dropped. A point's step is the
// seconds since the run started, so that epochs and attempts follow one another.
func (e *epoch) observe(ctx context.Context, interval time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	o := observer{tracking: e.Tracking, logger: e.Logger, runID: e.in.Run.MLflowRunID, started: e.in.Started, sampler: sysmetrics.New()}
	tags := identityTags(e.engine.Identity(), e.from.Lineage)
	done := make(chan struct{})
	go func() {
		defer close(done)
		o.send(ctx, mlflow.Batch{Tags: tags})
		o.loop(ctx, interval)
	}()
	return func() {
		cancel()
		select {
		case <-done:
		case <-time.After(systemTimeout): // a tool that hangs in the kernel
			e.Logger.Warn("the machine's figures are stuck")
		}
	}
}

type observer struct {
	tracking *mlflow.Client
	logger   *slog.Logger
	runID    string
	started  int64 // Unix milliseconds
	sampler  *sysmetrics.Sampler
}

// loop samples until ctx ends, and then once more: an epoch may be shorter than the interval.
func (o *observer) loop(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	sampled := time.Now()
	for {
		select {
		case <-tick.C:
			sampled = time.Now()
			o.sample(ctx)
		case <-ctx.Done():
			if time.Since(sampled) > time.Second { // else it says nothing new
				o.sample(context.WithoutCancel(ctx))
			}
			return
		}
	}
}

func (o *observer) sample(ctx context.Context) {
	now := time.Now().UnixMilli()
	var b mlflow.Batch
	for key, value := range o.sampler.Sample(ctx) {
		b.Metrics = append(b.Metrics, mlflow.Metric{Key: key, Value: value, Timestamp: now, Step: (now - o.started) / 1000})
	}
	o.send(ctx, b)
}

func (o *observer) send(ctx context.Context, b mlflow.Batch) {
	ctx, cancel := context.WithTimeout(ctx, systemTimeout)
	defer cancel()
	if err := o.tracking.LogBatch(ctx, o.runID, b); err != nil && ctx.Err() == nil {
		o.logger.Warn("the machine's figures were not sent", "error", err)
	}
}
