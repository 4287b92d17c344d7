package mlflowtest

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A request that is held back ends with its client, or the server could not be closed.
func TestDelayEndsWithTheClient(t *testing.T) {
	s := New(t, Options{})
	s.Inject("log-batch", Fault{Delay: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL()+"/api/2.0/mlflow/runs/log-batch", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if reply, err := http.DefaultClient.Do(r); err == nil {
		_ = reply.Body.Close()
		t.Fatalf("got %s, want no reply", reply.Status)
	}
	s.Await("log-batch", 1)
}
