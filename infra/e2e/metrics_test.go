//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// scrape reads a worker's metrics, after a look at its health.
func scrape(t *testing.T, worker string) string {
	t.Helper()
	var body []byte
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		if err := insist(func() (err error) { body, err = get(worker + path); return err }); err != nil {
			t.Fatal(err)
		}
	}
	return string(body)
}

// insist calls f until it succeeds or a minute is over, and returns its last error: a busy server says so, and is ready later.
func insist(f func() error) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		if err := f(); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// get reads a page that must be there.
func get(url string) ([]byte, error) {
	client := http.Client{Timeout: time.Minute}
	resp, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	return body, err
}

// panel is what a panel of the dashboard asks Prometheus for.
type panel struct {
	Title   string
	Targets []struct{ Expr string }
}

// checkDashboard finds every metric that the dashboard asks for in a scrape of the workers, which have trained, been
// paused and promoted by now, and that the workers' logs are JSON.
func (w *world) checkDashboard(t *testing.T) []panel {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(w.root, "infra", "grafana", "duratune.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct{ Panels []panel }
	if err := json.Unmarshal(text, &dashboard); err != nil || len(dashboard.Panels) < 10 {
		t.Fatalf("%d panels, %v", len(dashboard.Panels), err)
	}
	scraped := scrape(t, w.CPUMetricsURL()) + scrape(t, w.GPUMetricsURL())
	metric := regexp.MustCompile(`\b(duratune|temporal|process|go)_[a-z_]+\b`)
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			names := metric.FindAllString(target.Expr, -1)
			if len(names) == 0 {
				t.Errorf("%s asks for no metric: %s", p.Title, target.Expr)
			}
			for _, name := range names {
				if !strings.Contains(scraped, "\n"+name+"{") && !strings.Contains(scraped, "\n"+name+" ") {
					t.Errorf("%s: no metric %s in the scrape", p.Title, name)
				}
			}
		}
	}
	for _, name := range []string{"cpu-worker", "gpu-worker"} {
		checkJSONLog(t, w.Log(name))
	}
	return dashboard.Panels
}

// checkJSONLog expects a JSON object with time, level and message a line. The last line may just be written.
func checkJSONLog(t *testing.T, path string) {
	t.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for text := range strings.Lines(string(body)) {
		if !strings.HasSuffix(text, "\n") {
			break
		}
		n++
		var line struct{ Time, Level, Msg string }
		if err := json.Unmarshal([]byte(text), &line); err != nil || line.Time == "" || line.Level == "" || line.Msg == "" {
			t.Errorf("%s: line %d is no log record: %s", path, n, text)
			return
		}
	}
	if n == 0 {
		t.Errorf("%s is empty", path)
	}
}
