package loadtest

import (
	"fmt"
	"io"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// Range of the histogram, in microseconds: what takes longer counts as an hour.
const (
	histogramMax    = int64(time.Hour / time.Microsecond)
	histogramDigits = 3
)

// Result is what a load test measured. Latencies are those of answered requests.
type Result struct {
	Planned    int           `json:"planned"`     // measured requests that were to be sent
	Requests   int           `json:"requests"`    // answered, failed or shed
	Errors     int           `json:"errors"`      // failed or shed
	Shed       int           `json:"shed"`        // refused because the queue was full
	P50        time.Duration `json:"p50"`         // nanoseconds, as all of them
	P95        time.Duration `json:"p95"`         //
	P99        time.Duration `json:"p99"`         //
	Max        time.Duration `json:"max"`         //
	Mean       time.Duration `json:"mean"`        //
	Elapsed    time.Duration `json:"elapsed"`     // of the measured part, to the last answer
	Throughput float64       `json:"throughput"`  // answers a second
	FirstError string        `json:"first_error"` // of a failed request; "" if none failed
	Hopeless   string        `json:"hopeless"`    // why the test stopped early; "" if it did not

	Histogram *hdr.Histogram `json:"-"` // latencies in microseconds
}

// ErrorRate is the share of requests that failed.
func (r Result) ErrorRate() float64 {
	if r.Requests == 0 {
		return 0
	}
	return float64(r.Errors) / float64(r.Requests)
}

// Violations lists the limits that the result does not keep, each with the value and the limit; none means passed.
func (r Result) Violations(l Limits) []string {
	var out []string
	got := map[string]time.Duration{"p50": r.P50, "p95": r.P95, "p99": r.P99}
	for _, q := range l.quantiles() {
		if got[q.name] > q.limit {
			out = append(out, fmt.Sprintf("%s: got %s, want at most %s", q.name, got[q.name], q.limit))
		}
	}
	if rate := r.ErrorRate(); rate > l.ErrorRate {
		out = append(out, fmt.Sprintf("error rate: got %.4g (%d of %d), want at most %.4g", rate, r.Errors, r.Requests, l.ErrorRate))
	}
	if r.Throughput < l.Throughput {
		out = append(out, fmt.Sprintf("throughput: got %.4g a second, want at least %.4g", r.Throughput, l.Throughput))
	}
	if r.Hopeless != "" && len(out) == 0 {
		out = append(out, r.Hopeless)
	}
	if r.Requests-r.Errors == 0 && len(out) == 0 {
		out = append(out, "no request was answered")
	}
	return out
}

// Encoded is the histogram in HdrHistogram's compressed V2 form, base64, which its tools read in every language.
func (r Result) Encoded() (string, error) {
	b, err := r.Histogram.Encode(hdr.V2CompressedEncodingCookieBase)
	if err != nil {
		return "", fmt.Errorf("load test: encode histogram: %w", err)
	}
	return string(b), nil
}

// WritePercentiles writes the percentile distribution in HdrHistogram's text form (.hgrm), in milliseconds.
func (r Result) WritePercentiles(w io.Writer) error {
	if _, err := r.Histogram.PercentilesPrint(w, 5, 1000); err != nil {
		return fmt.Errorf("load test: write percentiles: %w", err)
	}
	return nil
}

// summarize fills the figures from the histogram.
func (r *Result) summarize() {
	at := func(percent float64) time.Duration {
		return time.Duration(r.Histogram.ValueAtQuantile(percent)) * time.Microsecond
	}
	r.P50, r.P95, r.P99, r.Max = at(50), at(95), at(99), time.Duration(r.Histogram.Max())*time.Microsecond
	r.Mean = time.Duration(r.Histogram.Mean() * float64(time.Microsecond))
	if r.Elapsed > 0 {
		r.Throughput = float64(r.Requests-r.Errors) / r.Elapsed.Seconds()
	}
}
