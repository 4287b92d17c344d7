package workers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"
)

func get(h http.Handler, path string) (int, string) {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, nil))
	return rec.Code, rec.Body.String()
}

func TestHealth(t *testing.T) {
	tel, err := newTelemetry()
	if err != nil {
		t.Fatal(err)
	}
	var away error
	h := tel.routes(func(context.Context) error { return away })
	want := func(path string, code int, says string) {
		t.Helper()
		if got, body := get(h, path); got != code || !strings.Contains(body, says) {
			t.Errorf("%s: %d %q, want %d, saying %q", path, got, body, code, says)
		}
	}
	want("/healthz", 200, `"ok"`)
	want("/readyz", 503, "not polling")
	tel.polling.Store(true)
	want("/readyz", 200, `"ok"`)
	away = errors.New("temporal: away")
	want("/readyz", 503, "temporal: away")
	want("/healthz", 200, `"ok"`)
	want("/", 404, "")
}

// TestMetrics: the same name with other tags is one family, and tags that no label is for are dropped.
func TestMetrics(t *testing.T) {
	tel, err := newTelemetry()
	if err != nil {
		t.Fatal(err)
	}
	one := tel.metrics.WithTags(map[string]string{"activity_type": "TrainEpoch", "unheard_of": "x"})
	two := tel.metrics.WithTags(map[string]string{"task_queue": "finetune"})
	one.Counter("a").Inc(2)
	two.Counter("a").Inc(3)
	one.Gauge("b").Update(1.5)
	one.Timer("c").Record(20 * time.Millisecond)
	code, body := get(tel.routes(nil), "/metrics")
	if code != 200 {
		t.Fatalf("%d: %s", code, body)
	}
	for _, line := range []string{`a_total{activity_type="TrainEpoch"`, `task_queue="finetune"`, `} 3`, `b{activity_type="TrainEpoch"`, `c_seconds_bucket{activity_type="TrainEpoch"`, `le="0.025"`, "process_resident_memory_bytes"} {
		if !strings.Contains(body, line) {
			t.Errorf("no %s in the scrape:\n%s", line, body)
		}
	}
}

func TestCauseOf(t *testing.T) {
	tests := []struct {
		err     error
		cause   string
		retried bool
	}{
		{temporal.NewApplicationError("away", "StoreUnavailable"), "StoreUnavailable", true},
		{temporal.NewNonRetryableApplicationError("bad", "InvalidRecipe", nil), "InvalidRecipe", false},
		{fmt.Errorf("stopped: %w", context.Canceled), "Canceled", false},
		{errors.New("boom"), "Error", true},
	}
	for _, tt := range tests {
		if cause, retried := causeOf(tt.err); cause != tt.cause || retried != tt.retried {
			t.Errorf("%v: %s, retried %v, want %s, %v", tt.err, cause, retried, tt.cause, tt.retried)
		}
	}
}
