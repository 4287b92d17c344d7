package loadtest

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// Progress is where a load test stands; warm-up included.
type Progress struct {
	Done    int           // requests answered, failed or shed
	Planned int           // of that many
	Errors  int           // failed or shed
	Elapsed time.Duration // since the start
}

// Run sends the planned requests to call and measures. call is told which of the texts is sent; it is called from Workers goroutines and must honour its
// context. progress (may be nil) is called from one goroutine after each request. When the limits cannot be met any
// more, the rest is not sent and Result.Hopeless says why; that is no error. On an error (a wrong Config, a
// cancelled context) the result holds what was measured so far.
func Run(ctx context.Context, cfg Config, call func(ctx context.Context, text int) error, progress func(Progress)) (Result, error) {
	cfg = cfg.defaults()
	if err := cfg.validate(); err != nil {
		return Result{}, err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	t := &test{cfg: cfg, plan: cfg.plan(), start: time.Now(), call: call, queue: make(chan arrival, cfg.Queue), outcomes: make(chan outcome)}
	m := newMeasure(t)
	go t.run(running)
	for o := range t.outcomes {
		if running.Err() != nil {
			continue // let the workers end
		}
		if m.add(o); progress != nil {
			progress(Progress{m.done, len(t.plan), m.errors, time.Since(t.start)})
		}
		if m.result.Hopeless != "" {
			stop()
		}
	}
	m.result.summarize()
	if err := ctx.Err(); err != nil {
		return m.result, fmt.Errorf("load test: %w", err)
	}
	return m.result, nil
}

// test is the sending side.
type test struct {
	cfg      Config
	plan     []arrival
	start    time.Time
	call     func(context.Context, int) error
	queue    chan arrival // closed when the last request has arrived
	outcomes chan outcome // closed when the last one was answered
}

// outcome is what became of one request.
type outcome struct {
	arrival
	ended time.Duration // since the start
	shed  bool
	err   error
}

// run sends everything, and returns when all answers are in.
func (t *test) run(ctx context.Context) {
	var wg sync.WaitGroup
	for range t.cfg.Workers {
		wg.Go(func() {
			for a := range t.queue {
				if ctx.Err() == nil {
					err := t.call(ctx, a.text)
					t.outcomes <- outcome{arrival: a, ended: time.Since(t.start), err: err}
				}
			}
		})
	}
	t.arrive(ctx)
	close(t.queue)
	wg.Wait()
	close(t.outcomes)
}

// arrive puts each request into the queue at its time. It never waits for the workers: that would be the omission.
func (t *test) arrive(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for _, a := range t.plan {
		timer.Reset(time.Until(t.start.Add(a.at)))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		select {
		case t.queue <- a:
		default:
			t.outcomes <- outcome{arrival: a, shed: true}
		}
	}
}

// measure is the receiving side.
type measure struct {
	cfg    Config
	result Result
	done   int // warm-up included, as in errors
	errors int
	over   map[string]int // answers beyond each percentile's limit
}

func newMeasure(t *test) *measure {
	m := &measure{cfg: t.cfg, over: map[string]int{}}
	m.result.Histogram = hdr.New(1, histogramMax, histogramDigits)
	for _, a := range t.plan {
		if a.at >= t.cfg.Warmup {
			m.result.Planned++
		}
	}
	return m
}

// add counts an outcome and decides whether it is worth going on.
func (m *measure) add(o outcome) {
	m.done++
	failed := o.shed || o.err != nil
	if failed {
		m.errors++
	}
	if o.at < m.cfg.Warmup {
		return
	}
	r := &m.result
	r.Requests++
	r.Elapsed = max(r.Elapsed, o.ended-m.cfg.Warmup)
	switch {
	case o.shed:
		r.Shed++
		r.Errors++
	case failed:
		r.Errors++
		if r.FirstError == "" {
			r.FirstError = o.err.Error()
		}
	default:
		m.record(o.ended - o.at)
	}
	m.judge()
}

// record keeps a latency; anything below a microsecond counts as one.
func (m *measure) record(latency time.Duration) {
	v := min(max(1, latency.Microseconds()), histogramMax)
	_ = m.result.Histogram.RecordValue(v) // within its range
	for _, q := range m.cfg.Limits.quantiles() {
		if latency > q.limit {
			m.over[q.name]++
		}
	}
}

// judge gives up when more requests are lost than the limits allow, even if all that are to come were perfect.
func (m *measure) judge() {
	n := float64(m.result.Planned)
	for _, q := range m.cfg.Limits.quantiles() {
		// The percentile is the value of rank ceil(n q): so many may lie beyond it.
		if allowed := m.result.Planned - int(math.Ceil(n*q.of/100)); m.over[q.name] > allowed {
			m.result.Hopeless = fmt.Sprintf("%s: %d of %d requests took longer than %s, %d may", q.name, m.over[q.name], m.result.Planned, q.limit, allowed)
		}
	}
	if allowed := int(n*m.cfg.Limits.ErrorRate + 1e-9); m.result.Errors > allowed {
		m.result.Hopeless = fmt.Sprintf("error rate: %d of %d requests failed, %d may", m.result.Errors, m.result.Planned, allowed)
	}
}
