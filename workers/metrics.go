package workers

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
)

// labels are the tags that the SDK and the activities set. A metric has all of them; those that are not set are empty,
// which to Prometheus is as good as missing.
var labels = []string{"namespace", "task_queue", "worker_type", "workflow_type", "activity_type", "operation", "poller_type", "failure_reason", "status_code", "cause", "retried"}

// seconds are the histograms' bounds: from a step on a GPU to an epoch.
var seconds = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200}

// metrics hands the SDK's and the activities' metrics to Prometheus, under their own names with the unit or "total" added.
// It implements [client.MetricsHandler].
type metrics struct {
	*families
	values prometheus.Labels
}

// families are the metrics by name, made when they are first used.
type families struct {
	registry prometheus.Registerer
	mu       sync.Mutex
	made     map[string]prometheus.Collector
}

var _ client.MetricsHandler = (*metrics)(nil)

func newMetrics(registry prometheus.Registerer) *metrics {
	values := prometheus.Labels{}
	for _, l := range labels {
		values[l] = ""
	}
	return &metrics{&families{registry: registry, made: map[string]prometheus.Collector{}}, values}
}

// WithTags adds tags; those that no label is for are dropped.
func (m *metrics) WithTags(tags map[string]string) client.MetricsHandler {
	values := maps.Clone(m.values)
	for k, v := range tags {
		if _, ok := values[k]; ok {
			values[k] = v
		}
	}
	return &metrics{m.families, values}
}

// family returns the metric of a name, made by create.
func family[T prometheus.Collector](f *families, name string, create func() T) T {
	f.mu.Lock()
	defer f.mu.Unlock()
	made, ok := f.made[name]
	if !ok {
		made = create()
		f.made[name] = made
		if err := f.registry.Register(made); err != nil { // counted all the same, and seen by nobody
			slog.Warn("metric not shown", "metric", name, "error", err)
		}
	}
	return made.(T)
}

type counter struct{ prometheus.Counter }

// Inc adds n.
func (c counter) Inc(n int64) { c.Add(float64(n)) }

// Counter is name_total.
func (m *metrics) Counter(name string) client.MetricsCounter {
	v := family(m.families, name+"_total", func() *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name + "_total", Help: name}, labels)
	})
	return counter{v.With(m.values)}
}

type gauge struct{ prometheus.Gauge }

// Update sets the value.
func (g gauge) Update(v float64) { g.Set(v) }

// Gauge is name.
func (m *metrics) Gauge(name string) client.MetricsGauge {
	v := family(m.families, name, func() *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: name}, labels)
	})
	return gauge{v.With(m.values)}
}

type timer struct{ prometheus.Observer }

// Record observes a duration.
func (t timer) Record(d time.Duration) { t.Observe(d.Seconds()) }

// Timer is the histogram name_seconds.
func (m *metrics) Timer(name string) client.MetricsTimer {
	v := family(m.families, name+"_seconds", func() *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name + "_seconds", Help: name, Buckets: seconds}, labels)
	})
	return timer{v.With(m.values)}
}

// failures counts the failed attempts of activities by their cause.
type failures struct {
	interceptor.WorkerInterceptorBase
}

// InterceptActivity implements the interceptor.
func (*failures) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &countingFailures{interceptor.ActivityInboundInterceptorBase{Next: next}}
}

type countingFailures struct {
	interceptor.ActivityInboundInterceptorBase
}

// ExecuteActivity runs one attempt.
func (c *countingFailures) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	out, err := c.Next.ExecuteActivity(ctx, in)
	if err != nil {
		cause, retried := causeOf(err)
		tags := map[string]string{"cause": cause, "retried": strconv.FormatBool(retried)}
		activity.GetMetricsHandler(ctx).WithTags(tags).Counter("duratune_activity_failures").Inc(1)
	}
	return out, err
}

// causeOf is the type of an activity's error, and whether Temporal will try again.
func causeOf(err error) (cause string, retried bool) {
	var app *temporal.ApplicationError
	switch {
	case temporal.IsCanceledError(err) || errors.Is(err, context.Canceled):
		return "Canceled", false
	case errors.As(err, &app):
		return app.Type(), !app.NonRetryable()
	}
	return "Error", true
}
