package activities

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/duratune/duratune/internal/mlflow"
)

// hang is a server that never answers.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestAServerThatHangsIsNamed(t *testing.T) {
	t.Parallel()
	began := time.Now()
	err := answers(t.Context(), 10*time.Millisecond, "tracking server at http://host", mlflow.ErrUnavailable, hang)
	if !errors.Is(err, mlflow.ErrUnavailable) || !strings.Contains(err.Error(), "tracking server at http://host: no answer within 10ms") {
		t.Errorf("after %s: %v, want the server named as unavailable", time.Since(began), err)
	}
	wantType(t, edge(err), TypeTrackingUnavailable, true)
}

func TestACancelledCheckIsNoOutage(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := answers(ctx, time.Minute, "store", mlflow.ErrUnavailable, hang); !errors.Is(err, context.Canceled) || errors.Is(err, mlflow.ErrUnavailable) {
		t.Errorf("%v, want cancellation", err)
	}
}
