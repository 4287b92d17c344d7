//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/duratune/duratune/internal/artifact/artifacttest"
)

// prometheus is a real server that scrapes both workers.
type prometheus struct {
	url   string
	began time.Time
}

// startPrometheus starts one that ends with the test; nil where there is none, except in CI.
func (w *world) startPrometheus(t *testing.T) *prometheus {
	t.Helper()
	program, err := exec.LookPath("prometheus")
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatal("no prometheus on PATH; .ci/run installs one")
	} else if err != nil {
		return nil
	}
	dir := t.TempDir()
	config := fmt.Sprintf("global: {scrape_interval: 1s}\nscrape_configs:\n  - job_name: duratune\n    static_configs: [{targets: [%q, %q]}]\n",
		strings.TrimPrefix(w.CPUMetricsURL(), "http://"), strings.TrimPrefix(w.GPUMetricsURL(), "http://"))
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	address := artifacttest.FreeAddr(t)
	p := &prometheus{"http://" + address, time.Now()}
	cmd := exec.Command(program, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address, "--log.level=warn")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // its exit status says nothing about the test
	})
	if err := insist(func() error { _, err := get(p.url + "/-/ready"); return err }); err != nil {
		t.Fatal(err)
	}
	return p
}

// checkPanels asks for every panel's expressions as Grafana does: each must give numbers for a time of the run.
func (p *prometheus) checkPanels(t *testing.T, panels []panel) {
	if p == nil {
		t.Skip("prometheus: not on PATH")
	}
	for _, panel := range panels {
		for _, target := range panel.Targets {
			expr := strings.ReplaceAll(target.Expr, "$__rate_interval", "10s")
			var series int
			err := insist(func() (err error) { // the last scrape may be late
				if series, err = p.query(t, expr); err == nil && series == 0 {
					err = errors.New("no series with numbers")
				}
				return err
			})
			if err != nil {
				t.Errorf("%s: %s: %v", panel.Title, expr, err)
			}
			t.Logf("%s: %d series", panel.Title, series)
		}
	}
}

// query counts the series that have a number at some time since the server began.
func (p *prometheus) query(t *testing.T, expr string) (series int, err error) {
	t.Helper()
	q := url.Values{"query": {expr}, "start": {strconv.FormatInt(p.began.Unix(), 10)}, "end": {strconv.FormatInt(time.Now().Unix(), 10)}, "step": {"2"}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+"/api/v1/query_range?"+q.Encode(), nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var reply struct {
		Error string
		Data  struct {
			Result []struct{ Values [][2]any }
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&reply); err != nil || reply.Error != "" {
		return 0, fmt.Errorf("%s: %s %v", resp.Status, reply.Error, err)
	}
	for _, r := range reply.Data.Result {
		for _, v := range r.Values {
			text, _ := v[1].(string)
			if n, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(n) && !math.IsInf(n, 0) {
				series++
				break
			}
		}
	}
	return series, nil
}
