package loadtest

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Arrivals is the process by which requests arrive.
type Arrivals string

// The arrival processes.
const (
	Poisson  Arrivals = "poisson"  // independent users: exponential gaps, bursts included
	Constant Arrivals = "constant" // equal gaps
)

// maxPlanned bounds the requests of one test; each costs eight bytes before it starts.
const maxPlanned = 10_000_000

// Config is a load test.
type Config struct {
	Rate     float64       // requests a second
	Arrivals Arrivals      // (default Poisson)
	Seed     int64         // of arrivals and texts
	Warmup   time.Duration // answered but not counted
	Duration time.Duration // of the measured part
	Workers  int           // calls at a time (default 1: a device answers one after the other)
	Queue    int           // requests that may wait; one more is shed and counts as an error (default 10,000)
	Texts    int           // how many there are to draw from at random
	Limits   Limits        // the test stops early when they cannot be met any more
}

// Limits is what a result must keep. A zero limit is none, but for ErrorRate.
type Limits struct {
	P50        time.Duration `json:"p50,omitempty"`
	P95        time.Duration `json:"p95,omitempty"`
	P99        time.Duration `json:"p99,omitempty"`
	ErrorRate  float64       `json:"error_rate"`           // share of requests that may fail, shed ones included
	Throughput float64       `json:"throughput,omitempty"` // answers a second, at least
}

// quantile is a limit on a percentile.
type quantile struct {
	name  string
	of    float64 // percent
	limit time.Duration
}

// quantiles lists the percentile limits that are set.
func (l Limits) quantiles() []quantile {
	var out []quantile
	for _, q := range []quantile{{"p50", 50, l.P50}, {"p95", 95, l.P95}, {"p99", 99, l.P99}} {
		if q.limit > 0 {
			out = append(out, q)
		}
	}
	return out
}

// defaults fills what was left out.
func (c Config) defaults() Config {
	if c.Arrivals == "" {
		c.Arrivals = Poisson
	}
	if c.Workers == 0 {
		c.Workers = 1
	}
	if c.Queue == 0 {
		c.Queue = 10_000
	}
	return c
}

// validate returns all problems at once.
func (c Config) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("load test: "+format, args...))
		}
	}
	check(c.Rate > 0 && !math.IsInf(c.Rate, 0), "rate: got %v, want > 0 requests a second", c.Rate)
	check(c.Arrivals == Poisson || c.Arrivals == Constant, "arrivals: got %q, want poisson or constant", c.Arrivals)
	check(c.Warmup >= 0, "warm-up: got %s, want >= 0s", c.Warmup)
	check(c.Duration > 0, "duration: got %s, want > 0s", c.Duration)
	check(c.Workers > 0, "workers: got %d, want > 0", c.Workers)
	check(c.Queue > 0, "queue: got %d, want > 0", c.Queue)
	check(c.Texts > 0, "texts: there are none")
	check(c.Limits.ErrorRate >= 0 && c.Limits.ErrorRate <= 1, "error rate: got %v, want 0 to 1", c.Limits.ErrorRate)
	if len(errs) == 0 {
		n := c.Rate * (c.Warmup + c.Duration).Seconds()
		check(n <= maxPlanned, "%.0f requests are too many, want at most %d", n, maxPlanned)
	}
	return errors.Join(errs...)
}

// arrival is one planned request.
type arrival struct {
	at   time.Duration // since the start
	text int           // index
}

// plan draws all arrivals before warm-up and duration are over. It returns at least one that is measured.
func (c Config) plan() []arrival {
	rng := rand.New(rand.NewPCG(uint64(c.Seed), 0x6c6f6164)) //nolint:gosec // must be repeatable, need not be secret
	end := c.Warmup + c.Duration
	var out []arrival
	at, i := time.Duration(0), 0
	for {
		if c.Arrivals == Poisson {
			at += seconds(rng.ExpFloat64() / c.Rate)
		} else {
			at = seconds(float64(i) / c.Rate) // from the index: no drift
		}
		if at >= end {
			break
		}
		out = append(out, arrival{at, rng.IntN(c.Texts)})
		i++
	}
	if n := len(out); n == 0 || out[n-1].at < c.Warmup {
		out = append(out, arrival{c.Warmup, rng.IntN(c.Texts)})
	}
	return out
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
