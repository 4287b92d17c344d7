package activities

import (
	"context"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/duratune/duratune/internal/train"
)

// Metrics of a training worker, by the names they have without the unit. The worker decides where they go.
const (
	metricSteps             = "duratune_train_steps"              // counter
	metricStep              = "duratune_train_step"               // timer: a step, as the mean of those since the last progress
	metricRate              = "duratune_train_samples_per_second" // gauge; 0 while nothing trains
	metricCheckpoints       = "duratune_checkpoints"              // counter
	metricCheckpoint        = "duratune_checkpoint"               // timer: from the snapshot to the manifest
	metricCheckpointBytes   = "duratune_checkpoint_bytes"         // gauge: tensors of the last one
	metricCheckpointWritten = "duratune_checkpoint_written"       // gauge: when the last one was, in Unix seconds
)

// measure counts completed steps.
func (e *epoch) measure(ctx context.Context, p train.Progress) {
	m, now := activity.GetMetricsHandler(ctx), time.Now()
	if steps := p.Step - e.counted; steps > 0 {
		m.Counter(metricSteps).Inc(steps)
		m.Timer(metricStep).Record(now.Sub(e.synced) / time.Duration(steps))
	}
	m.Gauge(metricRate).Update(p.SamplesPerSecond)
	e.synced, e.counted = now, p.Step
}

// idle says that nothing trains any more.
func idle(ctx context.Context) { activity.GetMetricsHandler(ctx).Gauge(metricRate).Update(0) }

// measureCheckpoint notes a committed checkpoint.
func measureCheckpoint(ctx context.Context, c train.Checkpoint, took time.Duration) {
	m := activity.GetMetricsHandler(ctx)
	m.Counter(metricCheckpoints).Inc(1)
	m.Timer(metricCheckpoint).Record(took)
	m.Gauge(metricCheckpointBytes).Update(float64(c.Weights.Bytes + c.Optimizer.Bytes))
	m.Gauge(metricCheckpointWritten).Update(float64(time.Now().Unix()))
}
