package loadtest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/duratune/duratune/internal/loadtest"
)

// The tests run on synctest's clock: sleeping is exact and costs nothing.

var texts = []string{"a", "bb", "ccc"}

// serve answers after a fixed time.
func serve(d time.Duration) func(context.Context, int) error {
	return func(ctx context.Context, _ int) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// TestConstant has a server that is fast enough: every latency is its service time.
func TestConstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := loadtest.Config{Rate: 50, Arrivals: loadtest.Constant, Warmup: time.Second, Duration: 10 * time.Second, Texts: len(texts)}
		var last loadtest.Progress
		r, err := loadtest.Run(t.Context(), cfg, serve(10*time.Millisecond), func(p loadtest.Progress) { last = p })
		if err != nil {
			t.Fatal(err)
		}
		want := loadtest.Result{
			Planned: 500, Requests: 500, P50: 10 * time.Millisecond, P95: 10 * time.Millisecond, P99: 10 * time.Millisecond, Max: 10 * time.Millisecond,
			Mean: 10 * time.Millisecond, Elapsed: 9990 * time.Millisecond, Throughput: 500 / 9.99,
		}
		// The histogram keeps three digits.
		near := cmp.Comparer(func(a, b time.Duration) bool { return math.Abs(float64(a-b)) <= 0.001*float64(b) })
		if diff := cmp.Diff(want, r, near, cmpopts.EquateApprox(1e-9, 0), cmpopts.IgnoreFields(loadtest.Result{}, "Histogram")); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if last.Done != 550 || last.Planned != 550 || last.Errors != 0 {
			t.Errorf("progress ended with %+v", last)
		}
	})
}

// TestNoCoordinatedOmission stalls one request for a second: the fifty that would have come meanwhile wait, too.
func TestNoCoordinatedOmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		call := func(ctx context.Context, text int) error {
			if n.Add(1) == 100 {
				return serve(time.Second)(ctx, text)
			}
			return serve(time.Millisecond)(ctx, text)
		}
		cfg := loadtest.Config{Rate: 50, Arrivals: loadtest.Constant, Duration: 10 * time.Second, Texts: len(texts)}
		r, err := loadtest.Run(t.Context(), cfg, call, nil)
		if err != nil {
			t.Fatal(err)
		}
		// A closed loop would have seen one slow request of 500 and called the 95th percentile 1 ms. The k-th request
		// behind the stall waits 1000 - 19 k ms; the 26th slowest of 500 is the 25th behind it.
		if want := 525 * time.Millisecond; r.P95 < want*99/100 || r.P95 > want*101/100 || r.Max < 999*time.Millisecond {
			t.Errorf("p95 %s, max %s; want about %s and 1s", r.P95, r.Max, want)
		}
		if r.P50 > 2*time.Millisecond {
			t.Errorf("p50 %s, want about 1ms", r.P50)
		}
	})
}

// TestWarmup leaves slow first calls out.
func TestWarmup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		call := func(ctx context.Context, text int) error {
			if time.Since(start) < time.Second {
				return errors.New("cold")
			}
			return serve(time.Millisecond)(ctx, text)
		}
		cfg := loadtest.Config{Rate: 20, Arrivals: loadtest.Constant, Warmup: time.Second, Duration: time.Second, Texts: len(texts)}
		r, err := loadtest.Run(t.Context(), cfg, call, nil)
		if err != nil || r.Errors != 0 || r.Requests != 20 || r.Hopeless != "" {
			t.Errorf("got %+v, %v", r, err)
		}
	})
}

// TestShed fills the queue.
func TestShed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := loadtest.Config{
			Rate: 100, Arrivals: loadtest.Constant, Duration: time.Second, Queue: 5, Texts: len(texts), Limits: loadtest.Limits{ErrorRate: 1},
		}
		r, err := loadtest.Run(t.Context(), cfg, serve(100*time.Millisecond), nil)
		if err != nil || r.Requests != 100 || r.Shed == 0 || r.Errors != r.Shed || r.Max > 700*time.Millisecond {
			t.Errorf("got %+v, %v", r, err)
		}
	})
}

// TestHopeless stops as soon as a limit is lost, and not before.
func TestHopeless(t *testing.T) {
	fail := func(context.Context, int) error { return errors.New("device lost") }
	for _, test := range []struct {
		name     string
		limits   loadtest.Limits
		call     func(context.Context, int) error
		requests int    // at which it stops, of 1000
		want     string // in Hopeless
	}{
		{"within the limit", loadtest.Limits{P99: time.Second}, serve(time.Millisecond), 1000, ""},
		{"p99", loadtest.Limits{P99: time.Millisecond}, serve(5 * time.Millisecond), 11, "p99: 11 of 1000 requests took longer than 1ms, 10 may"},
		{"p95", loadtest.Limits{P95: time.Millisecond}, serve(5 * time.Millisecond), 51, "p95"},
		{"p50", loadtest.Limits{P50: time.Millisecond}, serve(5 * time.Millisecond), 501, "p50"},
		{"no error allowed", loadtest.Limits{}, fail, 1, "error rate: 1 of 1000"},
		{"2 % errors allowed", loadtest.Limits{ErrorRate: 0.02}, fail, 21, "error rate: 21 of 1000 requests failed, 20 may"},
		{"all may fail", loadtest.Limits{ErrorRate: 1}, fail, 1000, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := loadtest.Config{Rate: 100, Arrivals: loadtest.Constant, Duration: 10 * time.Second, Texts: len(texts), Limits: test.limits}
				r, err := loadtest.Run(t.Context(), cfg, test.call, nil)
				if err != nil || r.Requests != test.requests || !strings.Contains(r.Hopeless, test.want) || (test.want == "") != (r.Hopeless == "") {
					t.Errorf("%d requests, hopeless %q, %v; want %d, %q", r.Requests, r.Hopeless, err, test.requests, test.want)
				}
				if (r.Hopeless != "") != (len(r.Violations(test.limits)) > 0) && test.name != "all may fail" {
					t.Errorf("violations %q", r.Violations(test.limits))
				}
			})
		})
	}
}

// TestCancel ends with the caller's context and gives what was measured.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		cfg := loadtest.Config{Rate: 10, Arrivals: loadtest.Constant, Duration: time.Hour, Texts: len(texts)}
		r, err := loadtest.Run(ctx, cfg, serve(time.Millisecond), nil)
		if !errors.Is(err, context.DeadlineExceeded) || r.Requests != 20 {
			t.Errorf("got %d requests, %v; want 20 and the context's error", r.Requests, err)
		}
	})
}

// TestPoisson checks the arrivals: the same for a seed, of the right rate, with the gaps of a Poisson process.
func TestPoisson(t *testing.T) {
	observe := func(seed int64) (at []float64, sent string) {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			call := func(_ context.Context, text int) error {
				at = append(at, time.Since(start).Seconds())
				sent += texts[text] + " "
				return nil
			}
			cfg := loadtest.Config{Rate: 100, Seed: seed, Duration: 100 * time.Second, Texts: len(texts)}
			if _, err := loadtest.Run(t.Context(), cfg, call, nil); err != nil {
				t.Fatal(err)
			}
		})
		return at, sent
	}
	first, firstTexts := observe(1)
	again, againTexts := observe(1)
	other, _ := observe(2)
	if !cmp.Equal(first, again) || firstTexts != againTexts || cmp.Equal(first, other) {
		t.Error("arrivals are not a function of the seed")
	}
	// Of 10,000 expected, the standard deviation is 100; gaps have a standard deviation equal to their mean.
	var sum, squares float64
	for i := 1; i < len(first); i++ {
		gap := first[i] - first[i-1]
		sum += gap
		squares += gap * gap
	}
	n := float64(len(first) - 1)
	mean := sum / n
	deviation := math.Sqrt(squares/n - mean*mean)
	if math.Abs(n-10_000) > 400 || math.Abs(deviation/mean-1) > 0.05 {
		t.Errorf("%v arrivals, mean gap %v, deviation %v", n, mean, deviation)
	}
	counts := map[string]int{}
	for _, text := range strings.Fields(firstTexts) {
		counts[text]++
	}
	for _, text := range texts {
		if c := counts[text]; c < 3000 {
			t.Errorf("text %q was sent %d times of about 3333", text, c)
		}
	}
}

// TestWorkers answers in parallel.
func TestWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := loadtest.Config{Rate: 40, Arrivals: loadtest.Constant, Duration: 5 * time.Second, Workers: 4, Texts: len(texts)}
		r, err := loadtest.Run(t.Context(), cfg, serve(100*time.Millisecond), nil)
		if err != nil || r.Max > 101*time.Millisecond {
			t.Errorf("max %s, %v; want 100ms: four at a time keep up", r.Max, err)
		}
	})
}

// TestRare sends one measured request even where none would arrive.
func TestRare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, a := range []loadtest.Arrivals{loadtest.Poisson, loadtest.Constant} {
			cfg := loadtest.Config{Rate: 1e-6, Arrivals: a, Warmup: time.Second, Duration: time.Second, Texts: len(texts)}
			r, err := loadtest.Run(t.Context(), cfg, serve(time.Millisecond), nil)
			if err != nil || r.Requests != 1 || len(r.Violations(loadtest.Limits{})) != 0 {
				t.Errorf("%s: got %+v, %v", a, r, err)
			}
		}
	})
}

func TestConfigRefused(t *testing.T) {
	_, err := loadtest.Run(t.Context(), loadtest.Config{Arrivals: "bursty", Warmup: -1, Workers: -1, Queue: -1, Limits: loadtest.Limits{ErrorRate: 2}}, nil, nil)
	for _, want := range []string{"rate: got 0", `arrivals: got "bursty"`, "warm-up", "duration", "workers", "queue", "texts", "error rate"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not named in: %v", want, err)
		}
	}
	_, err = loadtest.Run(t.Context(), loadtest.Config{Rate: 1e9, Duration: time.Hour, Texts: len(texts)}, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("got %v", err)
	}
}

// TestViolations prints each limit with its value.
func TestViolations(t *testing.T) {
	r := loadtest.Result{Requests: 100, Errors: 2, P50: time.Second, P95: 2 * time.Second, P99: 3 * time.Second, Throughput: 9}
	for _, test := range []struct {
		limits loadtest.Limits
		want   string
	}{
		{loadtest.Limits{ErrorRate: 0.02}, ""},
		{loadtest.Limits{}, "error rate: got 0.02 (2 of 100), want at most 0"},
		{loadtest.Limits{ErrorRate: 1, P50: time.Second, P95: time.Second}, "p95: got 2s, want at most 1s"},
		{loadtest.Limits{ErrorRate: 1, Throughput: 10}, "throughput: got 9 a second, want at least 10"},
	} {
		if got := strings.Join(r.Violations(test.limits), "; "); got != test.want {
			t.Errorf("%+v: got %q, want %q", test.limits, got, test.want)
		}
	}
	if got := (loadtest.Result{Requests: 1, Errors: 1}).Violations(loadtest.Limits{ErrorRate: 1}); len(got) != 1 {
		t.Errorf("nothing answered: got %q", got)
	}
}

// TestExport reads the histogram back.
func TestExport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := loadtest.Config{Rate: 10, Arrivals: loadtest.Constant, Duration: 10 * time.Second, Texts: len(texts)}
		r, err := loadtest.Run(t.Context(), cfg, serve(20*time.Millisecond), nil)
		if err != nil {
			t.Fatal(err)
		}
		encoded, err := r.Encoded()
		if err != nil {
			t.Fatal(err)
		}
		h, err := hdr.Decode([]byte(encoded))
		if err != nil || h.TotalCount() != 100 || h.Max() != r.Max.Microseconds() {
			t.Errorf("decoded %d values, max %d, %v", h.TotalCount(), h.Max(), err)
		}
		var b strings.Builder
		if err := r.WritePercentiles(&b); err != nil || !strings.Contains(b.String(), "20.0") {
			t.Errorf("%v:\n%s", err, b.String())
		}
		j, err := json.Marshal(r)
		if err != nil || !strings.Contains(string(j), fmt.Sprintf(`"p99":%d`, r.P99)) {
			t.Errorf("%s, %v", j, err)
		}
	})
}
