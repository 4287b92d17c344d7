package workers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
)

// telemetry is what a worker shows of itself over HTTP: /metrics (Prometheus), /healthz (the process lives) and /readyz
// (it polls, and Temporal answers).
type telemetry struct {
	registry *prometheus.Registry
	metrics  *metrics
	polling  atomic.Bool
}

func newTelemetry() (*telemetry, error) {
	t := &telemetry{registry: prometheus.NewRegistry()}
	t.metrics = newMetrics(t.registry)
	return t, errors.Join(t.registry.Register(collectors.NewGoCollector()),
		t.registry.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})))
}

// readyTimeout bounds the question to Temporal.
const readyTimeout = 2 * time.Second

// routes answers the three paths.
func (t *telemetry) routes(check func(context.Context) error) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{Registry: t.registry}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, nil) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		if !t.polling.Load() {
			answer(w, errors.New("not polling"))
			return
		}
		answer(w, check(ctx))
	})
	return mux
}

// answer says "ok", or what is wrong with status 503.
func answer(w http.ResponseWriter, err error) {
	reply := map[string]string{"status": "ok"}
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		reply = map[string]string{"status": "unavailable", "error": err.Error()}
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(reply) // the caller is gone
}

// serve listens on address; "" switches it off.
func (b *Base) serve(address string) error {
	if address == "" {
		return nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("DURATUNE_METRICS_ADDRESS: %w", err)
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: b.telemetry.routes(func(ctx context.Context) error {
		if _, err := b.Temporal.CheckHealth(ctx, &client.CheckHealthRequest{}); err != nil {
			return fmt.Errorf("temporal: %w", err)
		}
		return nil
	})}
	b.Logger.Info("metrics", "address", l.Addr().String())
	go func() {
		if err := server.Serve(l); err != nil {
			b.Logger.Error("metrics ended", "error", err)
		}
	}()
	return nil
}

// Run runs a worker until the process is interrupted, or until lost is closed, which is ErrDeviceLost.
func (b *Base) Run(w worker.Worker, lost <-chan struct{}) (err error) {
	if err := w.Start(); err != nil {
		return err
	}
	b.telemetry.polling.Store(true)
	select {
	case <-worker.InterruptCh():
	case <-lost:
		err = ErrDeviceLost
	}
	b.telemetry.polling.Store(false) // no new work comes here while the old is handed back
	w.Stop()
	return err
}
