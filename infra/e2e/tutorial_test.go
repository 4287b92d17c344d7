//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/converter"
	yaml "go.yaml.in/yaml/v3"

	"github.com/duratune/duratune/activities"
	"github.com/duratune/duratune/internal/hub"
	"github.com/duratune/duratune/internal/hub/hubtest"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/model"
	"github.com/duratune/duratune/internal/tokenizer"
	"github.com/duratune/duratune/workflows"
)

// startHub serves what the tutorial's recipe names from a folder: a tiny DistilBERT of random weights and, where the
// shared data are, the SMS Spam Collection. It returns what the workers need in their environment.
func startHub(folder, tokenizerDir, sms string) (env []string, stop func() error, err error) {
	if err := hubtest.WriteDistilBERT(filepath.Join(folder, "repos"), tokenizerDir, hubtest.TinySize, 1); err != nil {
		return nil, nil, err
	}
	if _, err := os.Stat(sms); err == nil {
		if err := hubtest.WriteSMSSpam(filepath.Join(folder, "repos"), sms); err != nil {
			return nil, nil, err
		}
	}
	storage, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	api, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, errors.Join(err, storage.Close())
	}
	h := hubtest.New(filepath.Join(folder, "repos"), hubtest.StorageURL(storage.Addr()))
	files, front := &http.Server{Handler: h.Storage()}, &http.Server{Handler: h.API()}
	go func() { _ = files.Serve(storage) }()
	go func() { _ = front.Serve(api) }()
	// The cache is the test's own: what it holds is not what these repositories are elsewhere.
	env = []string{"HF_ENDPOINT=http://" + api.Addr().String(), "DURATUNE_HUB_HOSTS=localhost", "XDG_CACHE_HOME=" + filepath.Join(folder, "cache")}
	return env, func() error { return errors.Join(front.Close(), files.Close()) }, nil
}

// quick are the limits of a load test that a loaded machine passes.
var quick = map[string]any{"rate_per_second": 20, "duration": "2s"}

// TestTutorial runs MLflow's tutorial by its own recipe. The weights are random and few, so that its examples cannot be
// asked for; all else is as in the tutorial, and so must be what Temporal and MLflow hold afterwards. The model that comes
// out is then the base model of a second run.
func TestTutorial(t *testing.T) {
	w := shared
	sms := w.sharedFile(t, "sms_spam/SMSSpamCollection")
	const id = "finetune/e2e/tutorial"
	began := time.Now()
	run := w.start(t, id, w.recipe(t, "sms-spam.json", map[string]any{
		"examples": []any{}, "load_test": quick, "tracking": map[string]any{"registered_model": "tutorial", "alias": "challenger"},
	}))
	var res workflows.Result
	if err := run.Get(t.Context(), &res); err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f s; epochs %+v", time.Since(began).Seconds(), res.Epochs)
	t.Run("data", func(t *testing.T) { checkTutorialData(t, w, id) })
	t.Run("tracking", func(t *testing.T) { checkTutorialRun(t, w, res) })
	t.Run("model", func(t *testing.T) { checkTutorialModel(t, w, res) })
	t.Run("in Python", func(t *testing.T) { checkPython(t, w, res, sms) })
	t.Run("as base model", func(t *testing.T) { trainFrom(t, w, "models:/tutorial@challenger", res.ModelID) })
}

// checkTutorialData looks at what came from the hub.
func checkTutorialData(t *testing.T, w *world, id string) {
	t.Helper()
	var split activities.LoadSplitResult
	w.activityResult(t, id, "LoadSplit", &split)
	if split.Train.NumRows != 4459 || split.Test.NumRows != 1115 || !hub.IsCommit(split.Commit) {
		t.Errorf("%d and %d rows of commit %q, want 4459 and 1115 of a commit", split.Train.NumRows, split.Test.NumRows, split.Commit)
	}
	var base activities.FetchModelResult
	w.activityResult(t, id, "FetchModel", &base)
	if base.ModelType != model.DistilBERT || !hub.IsCommit(base.Commit) {
		t.Errorf("base model %+v, want a distilbert of a commit", base)
	}
}

// checkTutorialRun looks at experiment and curve.
func checkTutorialRun(t *testing.T, w *world, res workflows.Result) {
	t.Helper()
	const steps = 1674
	for i, e := range res.Epochs {
		if i > 0 && e.TrainLoss >= res.Epochs[i-1].TrainLoss {
			t.Errorf("mean loss did not fall: %+v", res.Epochs)
		}
	}
	if n := len(res.Epochs); n != 3 {
		t.Errorf("%d epochs, want 3", n)
	}
	run, err := w.tracking.GetRun(t.Context(), res.MLflowRunID)
	if err != nil {
		t.Fatal(err)
	}
	experiments, err := w.tracking.Experiments(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range experiments {
		if e.ID == run.ExperimentID && e.Name != "Spam Classifier Training" {
			t.Errorf("experiment %q, want Spam Classifier Training", e.Name)
		}
	}
	if run.Status != mlflow.Finished {
		t.Errorf("run is %s", run.Status)
	}
	loss := w.points(t, res.MLflowRunID, "loss")
	for step := int64(8); step <= steps; step += 8 {
		if _, ok := loss[step]; !ok {
			t.Errorf("no loss at step %d", step)
		}
	}
	if len(loss) != 209 {
		t.Errorf("%d points of loss, want 209", len(loss))
	}
	peak, share := 5e-5, float64(steps-7)/steps // variables, so that the product is rounded as Trainer's is
	if got, want := w.points(t, res.MLflowRunID, "learning_rate")[8], peak*share; got != want {
		t.Errorf("learning_rate at step 8 = %v, want %v", got, want)
	}
	if _, ok := w.points(t, res.MLflowRunID, "train_loss")[steps]; !ok {
		t.Errorf("no train_loss at step %d", steps)
	}
	if got := w.points(t, res.MLflowRunID, "eval_accuracy"); len(got) != 3 {
		t.Errorf("eval_accuracy: %v, want one an epoch", got)
	}
}

// checkTutorialModel looks at the logged model and opens what it is made of.
func checkTutorialModel(t *testing.T, w *world, res workflows.Result) {
	t.Helper()
	logged, err := w.tracking.GetModel(t.Context(), res.ModelID)
	if err != nil {
		t.Fatal(err)
	}
	if logged.Name != "fine_tuned" || logged.RunID != res.MLflowRunID || logged.Status != mlflow.ModelReady {
		t.Errorf("model %+v, want fine_tuned of run %s, ready", logged, res.MLflowRunID)
	}
	dir := t.TempDir()
	if _, err := w.tracking.DownloadDir(t.Context(), logged.ArtifactURI, dir, nil); err != nil {
		t.Fatal(err)
	}
	body, err := os.ReadFile(filepath.Join(dir, "MLmodel"))
	if err != nil {
		t.Fatal(err)
	}
	var card struct {
		Signature map[string]string `yaml:"signature"`
		Flavors   map[string]any    `yaml:"flavors"`
	}
	if err := yaml.Unmarshal(body, &card); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"inputs":  `[{"type": "string", "required": true}]`,
		"outputs": `[{"type": "string", "name": "label", "required": true}, {"type": "double", "name": "score", "required": true}]`,
		"params":  `[{"name": "batch_size", "default": 8, "shape": null, "type": "long"}]`,
	}
	if diff := cmp.Diff(want, card.Signature); diff != "" {
		t.Errorf("signature (-want +got):\n%s", diff)
	}
	if card.Flavors["transformers"] == nil || card.Flavors["python_function"] == nil {
		t.Errorf("flavors %v, want transformers and python_function", card.Flavors)
	}
	for _, name := range []string{"conda.yaml", "python_env.yaml", "requirements.txt", "input_example.json", "serving_input_example.json"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	if _, err := tokenizer.Load(filepath.Join(dir, "components", "tokenizer", "tokenizer.json")); err != nil {
		t.Error(err)
	}
	cfg, err := model.ReadConfig(filepath.Join(dir, "model"))
	if err != nil {
		t.Fatal(err)
	}
	layout := model.NewLayout(cfg, 2)
	if _, err := model.Load(filepath.Join(dir, "model"), cfg, layout, 0, true, make([]float32, layout.Size)); err != nil {
		t.Error(err)
	}
}

// trainFrom runs a short fine-tune of the model at a models:/ URI, and expects that it stood for the logged model id.
func trainFrom(t *testing.T, w *world, base, modelID string) {
	t.Helper()
	var rows strings.Builder
	for i := range 40 {
		fmt.Fprintf(&rows, `{"text": "message number %d", "label": %q}`+"\n", i, []string{"ham", "spam"}[i%2])
	}
	if err := os.WriteFile(filepath.Join(w.State, "data", "forty.jsonl"), []byte(rows.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	id := "finetune/e2e/from-" + modelID
	run := w.start(t, id, w.recipe(t, "sms-spam.json", map[string]any{
		"name": "second", "data": map[string]any{"source": "file:forty.jsonl", "text": "text"}, "model": map[string]any{"base": base},
		"examples": []any{}, "load_test": quick, "train": map[string]any{"epochs": 1}, "tracking": map[string]any{"registered_model": "", "alias": ""},
	}))
	if err := run.Get(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	var fetched activities.FetchModelResult
	w.activityResult(t, id, "FetchModel", &fetched)
	if fetched.Commit != modelID {
		t.Errorf("%s stood for %q, want %s", base, fetched.Commit, modelID)
	}
}

// points reads a metric by its steps; each may have one point.
func (w *world) points(t *testing.T, runID, key string) map[int64]float64 {
	t.Helper()
	history, err := w.tracking.MetricHistory(t.Context(), runID, key)
	if err != nil {
		t.Fatal(err)
	}
	points := map[int64]float64{}
	for _, p := range history {
		if _, twice := points[p.Step]; twice {
			t.Errorf("%s at step %d stands twice", key, p.Step)
		}
		points[p.Step] = p.Value
	}
	return points
}

// activityResult decodes the result of the run's first activity of a type that has one.
func (w *world) activityResult(t *testing.T, id, name string, into any) {
	t.Helper()
	events, _ := w.history(t, id)
	scheduled := map[int64]bool{}
	for _, e := range events {
		if a := e.GetActivityTaskScheduledEventAttributes(); a.GetActivityType().GetName() == name {
			scheduled[e.GetEventId()] = true
		}
		if e.GetEventType() != enums.EVENT_TYPE_ACTIVITY_TASK_COMPLETED {
			continue
		}
		if a := e.GetActivityTaskCompletedEventAttributes(); scheduled[a.GetScheduledEventId()] {
			if err := converter.GetDefaultDataConverter().FromPayloads(a.GetResult(), into); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("no result of %s in the history", name)
}
