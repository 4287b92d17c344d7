//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/duratune/duratune/workflows"
)

// browsers are the commands that headless Chromium goes by.
var browsers = []string{"chromium-headless-shell", "chromium", "google-chrome", "chrome"}

// browser is a headless Chromium that keeps pictures of what it saw.
type browser struct {
	ctx context.Context
	dir string // of the pictures
}

// newBrowser starts one, or skips the test where there is none; in CI there must be one.
func newBrowser(t *testing.T, w *world) *browser {
	t.Helper()
	var path string
	for _, name := range browsers {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no browser: none of %v is on PATH; .ci/run installs one", browsers)
		}
		t.Skipf("browser: none of %v is on PATH", browsers)
	}
	dir := filepath.Join(w.root, "bin", "screenshots")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WindowSize(1600, 1300),
		chromedp.Flag("proxy-server", "direct://"), chromedp.Flag("lang", "en-US"), chromedp.WSURLReadTimeout(pageTime)) // its default is too short for a cold disk
	ctx, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatalf("browser %s: %v", path, err)
	}
	return &browser{ctx, dir}
}

// look is one page: where it is, and what must be on it.
type look struct {
	name   string
	url    string
	texts  []string // that the page shows, in any place
	images int      // pictures that it has loaded, at least
	charts int      // charts that it has drawn, at least
}

// pageTime is how long a page may take to show all that it should: its parts load one by one, on a busy machine.
const pageTime = 120 * time.Second

// see opens a page, waits until it shows what it should, and takes a picture.
func (b *browser) see(t *testing.T, l look) {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, pageTime)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank"), chromedp.Navigate(l.url)); err != nil {
		t.Errorf("%s: open %s: %v", l.name, l.url, err)
		return
	}
	missing := b.await(ctx, l)
	shot, done := context.WithTimeout(b.ctx, pageTime)
	defer done()
	png, err := chromedp.Run(shot, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(b.dir, l.name+".png"), png, 0o644)
	}
	if err := errors.Join(missing, err); err != nil {
		t.Errorf("%s: %s: %v", l.name, l.url, err)
	}
}

// shown says whether the page shows the texts and has loaded as many pictures, looking into frames and shadow roots too.
const shown = `((texts, images, charts) => {
	let text = "", loaded = 0, drawn = 0;
	const walk = (root) => {
		text += "\n" + (root.body ? root.body.innerText : "");
		for (const e of root.querySelectorAll("*")) {
			if (e.tagName == "IMG" && e.complete && e.naturalWidth > 200) loaded++;
			if (e.matches(".js-plotly-plot") && e.querySelector(".main-svg")) drawn++;
			if (e.shadowRoot) walk(e.shadowRoot);
			if (e.tagName == "IFRAME" && e.contentDocument) walk(e.contentDocument);
			if (e.value && typeof e.value == "string") text += "\n" + e.value;
		}
	};
	walk(document);
	const missing = texts.filter(t => !text.includes(t));
	if (loaded < images) missing.push(loaded + " pictures of " + images);
	if (drawn < charts) missing.push(drawn + " charts of " + charts);
	return missing;
})`

// closeAssistant shuts the panel that MLflow opens beside every page of a new visitor.
const closeAssistant = `(() => {
	for (const key of Object.keys(localStorage)) {
		if (key.includes("assistant.panelOpen")) localStorage.setItem(key, "false");
	}
	return "";
})()`

// await polls the page until nothing is missing.
func (b *browser) await(ctx context.Context, l look) error {
	texts := `"` + strings.Join(l.texts, `","`) + `"`
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	var missing []string
	for {
		now, err := chromedp.Run(ctx, chromedp.Evaluate[[]string](fmt.Sprintf("%s([%s], %d, %d)", shown, texts, l.images, l.charts)))
		if err == nil {
			if missing = now; len(missing) == 0 {
				return nil
			}
		} // else the page is just being replaced, or the time is over
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not shown within %s: %q", pageTime, missing)
		}
	}
}

// TestPages looks at a whole run as a person does: the epoch table in Temporal's Web UI, description, curves and pictures
// of the run in MLflow, the model's page, its version and alias.
func TestPages(t *testing.T) {
	w := shared
	b := newBrowser(t, w)
	const id = "finetune/e2e/pages"
	run := w.start(t, id, w.duel(t, map[string]any{"train": map[string]any{"epochs": 2}, "data": map[string]any{"validation_fraction": 0.1},
		"selection": map[string]any{"metric": "eval_f1"}, "tracking": map[string]any{"registered_model": "pages"}}))
	res := w.finish(t, run)
	w.seePages(t, b, id, run.GetRunID(), res)
}

// seePages opens every page of a finished run.
func (w *world) seePages(t *testing.T, b *browser, id, runID string, res workflows.Result) {
	t.Helper()
	execution := fmt.Sprintf("%s/namespaces/default/workflows/%s/%s", w.TemporalUI(), strings.ReplaceAll(id, "/", "%2F"), runID)
	tracking := fmt.Sprintf("%s/#/experiments/%s", w.MLflowURL(), res.ExperimentID)
	mlrun, model := tracking+"/runs/"+res.MLflowRunID, tracking+"/models/"+res.ModelID
	accuracy := fmt.Sprintf("%.4f", res.Epochs[0].Accuracy)
	b.see(t, look{name: "mlflow-first", url: mlrun, texts: []string{"Description", "Assistant"}})
	if _, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](closeAssistant)); err != nil {
		t.Fatal(err)
	}
	for _, l := range []look{
		{name: "temporal-history", url: execution + "/history", texts: []string{"FineTune", "Completed", "epoch 1/2", "validate epoch 2/2", "load test"}},
		{name: "temporal-details", url: execution + "/user-metadata", texts: []string{"train loss", accuracy, "MLflow run"}},
		{name: "mlflow-run", url: mlrun, texts: []string{"Description", "train loss", accuracy, "Test set", "Load test", "Promotion", "learning_rate"}},
		{name: "mlflow-curves", url: mlrun + "/model-metrics", texts: []string{"p99_ms", "epoch", "eval_accuracy", "eval_f1"}, charts: 6},
		{name: "mlflow-system", url: mlrun + "/system-metrics", texts: []string{"system/cpu_utilization_percentage"}, charts: 6},
		{name: "mlflow-confusion", url: mlrun + "/artifacts/plots/confusion.png", texts: []string{"plots", "recipe.json", "predictions"}, images: 1},
		{name: "mlflow-training-curves", url: mlrun + "/artifacts/plots/curves.png", texts: []string{"curves.png"}, images: 1},
		{name: "mlflow-mistakes", url: mlrun + "/artifacts/predictions/most_confident_mistakes.json", texts: []string{"most_confident_mistakes.json", "predicted", "score"}},
		{name: "mlflow-model", url: model, texts: []string{"fine_tuned", "Ready", "test_f1", res.RegisteredModel, "Results on the test rows", "duel.jsonl"}},
		{name: "mlflow-version", url: fmt.Sprintf("%s/#/models/%s/versions/%s", w.MLflowURL(), res.RegisteredModel, res.Version), texts: []string{"Version " + res.Version, res.Alias, "gate", "passed"}},
	} {
		t.Run(l.name, func(t *testing.T) { b.see(t, l) })
	}
}
