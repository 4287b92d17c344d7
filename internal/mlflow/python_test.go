package mlflow_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/duratune/duratune/internal/artifact/artifacttest"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/recipe"
)

// messages are what every loader classifies.
var messages = []string{"This is a test!", "win free cash now", "naïve café 日本 🙂", "", "see you at lunch tomorrow, ok?"}

// prediction is a line of interop.py predict; each list holds a label and a score a message.
type prediction struct {
	URI          string   `json:"uri"`
	Transformers [][2]any `json:"transformers"`
	Pyfunc       [][2]any `json:"pyfunc"`
	Pretrained   [][2]any `json:"pretrained"`
	Served       [][2]any `json:"served"`
	Params       []string `json:"params"`
	ModelID      string   `json:"model_id"`
	RunID        string   `json:"run_id"`
	Mismatches   []string `json:"mismatches"`
}

// peers is the interpreter with the pinned peers; without one the test is skipped.
func peers(t *testing.T) string {
	t.Helper()
	python := os.Getenv("DURATUNE_PEERS")
	if python == "" {
		t.Skip("DURATUNE_PEERS: not set, want the interpreter that internal/py/peers/setup.sh prints")
	}
	return python
}

// TestPythonLoads logs a model of each architecture to a real server, and has Python open it by every URI and loader:
// the labels and scores must be those of the folder that save_pretrained wrote.
func TestPythonLoads(t *testing.T) {
	python := peers(t)
	uri := startServer(t, nil)
	c := connect(t, uri)
	hub := t.TempDir()
	archs := []string{"distilbert", "bert", "roberta"}
	runPython(t, python, uri, append([]string{"model", hub}, archs...)...)

	var uris []string
	models := map[string]mlflow.LoggedModel{}
	for _, arch := range archs {
		m, dir := logModel(t, c, filepath.Join(hub, arch), texts)
		name := "python-" + arch
		if err := c.EnsureRegisteredModel(t.Context(), name, "", nil); err != nil {
			t.Fatal(err)
		}
		v, err := c.EnsureVersion(t.Context(), mlflow.VersionSpec{Name: name, ModelID: m.ID, RunID: m.RunID, Key: arch})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SetAlias(t.Context(), name, "champion", v.Version); err != nil {
			t.Fatal(err)
		}
		for _, u := range []string{"models:/" + m.ID, "runs:/" + m.RunID + "/fine_tuned", "models:/" + name + "/1", "models:/" + name + "@champion", dir} {
			models[u] = m
			uris = append(uris, u)
		}
		uris = append(uris, filepath.Join(hub, arch))
	}
	got := predictions(t, python, uri, recipe.Texts(messages...), uris)
	for i, u := range uris {
		if m, ok := models[u]; ok {
			reference := uris[i/6*6+5] // the plain folder closes each architecture's six
			checkPrediction(t, got[u], m, got[reference].Transformers)
		}
	}
}

// TestPythonClassifiesPairs does the same with models of pairs: Python takes them as dicts with text and text_pair, pyfunc too.
func TestPythonClassifiesPairs(t *testing.T) {
	python := peers(t)
	uri := startServer(t, nil)
	c := connect(t, uri)
	hub := t.TempDir()
	archs := []string{"distilbert", "bert", "roberta"}
	runPython(t, python, uri, append([]string{"model", hub}, archs...)...)
	var pairs []recipe.Text
	for i, text := range messages {
		pairs = append(pairs, recipe.Text{Text: text, Pair: "it's \"" + messages[(i+1)%len(messages)] + "\""})
	}
	for _, arch := range archs {
		folder := filepath.Join(hub, arch)
		m, _ := logModel(t, c, folder, pairs[:2])
		logged := "models:/" + m.ID
		got := predictions(t, python, uri, pairs, []string{logged, folder})
		checkPrediction(t, got[logged], m, got[folder].Transformers)
	}
}

// predictions has Python classify texts with every model, and gives what it said by URI.
func predictions(t *testing.T, python, trackingURI string, texts []recipe.Text, uris []string) map[string]prediction {
	t.Helper()
	encoded, err := json.Marshal(texts)
	if err != nil {
		t.Fatal(err)
	}
	lines := runPython(t, python, trackingURI, append([]string{"predict", string(encoded)}, uris...)...)
	got := map[string]prediction{}
	for s := bufio.NewScanner(bytes.NewReader(lines)); s.Scan(); {
		var p prediction
		if err := json.Unmarshal(s.Bytes(), &p); err != nil {
			t.Fatalf("%v: %s", err, s.Bytes())
		}
		got[p.URI] = p
	}
	return got
}

// TestPythonLoadsFromS3: a model that was logged past a server that stores no artifacts is what Python finds there by its
// own credentials.
func TestPythonLoadsFromS3(t *testing.T) {
	python := peers(t)
	g := artifacttest.StartGateway(t)
	var env []string
	for k, v := range gatewayEnv(g) {
		env = append(env, k+"="+v)
	}
	uri := startServer(t, env, "--default-artifact-root", "s3://bucket/root", "--no-serve-artifacts")
	c := direct(t, uri, g)
	hub := t.TempDir()
	runPython(t, python, uri, "model", hub, "distilbert")
	m, dir := logModel(t, c, filepath.Join(hub, "distilbert"), texts)
	if !strings.HasPrefix(m.ArtifactURI, "s3://bucket/root/") || stored(t, g, "root") == 0 {
		t.Fatalf("the model is at %s", m.ArtifactURI)
	}
	got := predictions(t, python, uri, recipe.Texts(messages...), []string{"models:/" + m.ID, dir})
	checkPrediction(t, got["models:/"+m.ID], m, got[dir].Transformers)
}

// TestPythonReadsTable has load_table find and read a table of ours.
func TestPythonReadsTable(t *testing.T) {
	python := peers(t)
	uri := startServer(t, nil)
	c := connect(t, uri)
	r := newRun(t, c)
	table := mlflow.Table{Columns: []string{"row", "text", "score"}, Data: [][]any{{int64(7), "naïve 🙂\nline", 0.25}, {int64(8), "", math.Inf(1)}}}
	if err := c.LogTable(t.Context(), r.ID, "tables/mistakes.json", table); err != nil {
		t.Fatal(err)
	}
	var got mlflow.Table
	if err := json.Unmarshal(runPython(t, python, uri, "table", r.ID, "tables/mistakes.json"), &got); err != nil {
		t.Fatal(err)
	}
	want := [][]any{{7.0, "naïve 🙂\nline", 0.25}, {8.0, "", nil}}
	if diff := cmp.Diff(mlflow.Table{Columns: table.Columns, Data: want}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// logModel uploads what WriteModelDir makes of a folder of Hugging Face; it returns the model and a local directory.
func logModel(t *testing.T, c *mlflow.Client, folder string, example []recipe.Text) (mlflow.LoggedModel, string) {
	t.Helper()
	name := filepath.Base(folder)
	e, err := c.EnsureExperiment(t.Context(), t.Name())
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.EnsureRun(t.Context(), mlflow.RunSpec{ExperimentID: e.ID, Name: name, Key: name + "/run", StartTime: start})
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.EnsureModel(t.Context(), mlflow.ModelSpec{ExperimentID: e.ID, RunID: r.ID, Name: "fine_tuned", Key: name + "/model"})
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(filepath.Join(folder, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	err = mlflow.WriteModelDir(dir, mlflow.DirSpec{
		ModelID: m.ID, RunID: r.ID, ArtifactURI: m.ArtifactURI, Created: time.UnixMilli(start), Config: config,
		Weights: filepath.Join(folder, "model.safetensors"), TokenizerDir: folder, Signature: mlflow.TextClassification(example[0].Pair != "", 8), BatchSize: 8, InputExample: example,
	})
	if err := errors.Join(err, c.UploadDir(t.Context(), m.ArtifactURI, dir, nil), c.FinalizeModel(t.Context(), m.ID, mlflow.ModelReady)); err != nil {
		t.Fatal(err)
	}
	return m, dir
}

func checkPrediction(t *testing.T, p prediction, m mlflow.LoggedModel, want [][2]any) {
	t.Helper()
	if len(want) != len(messages) {
		t.Fatalf("%s: no reference", p.URI)
	}
	for loader, got := range map[string][][2]any{"transformers": p.Transformers, "pyfunc": p.Pyfunc, "pretrained": p.Pretrained} {
		near := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-5 })
		if diff := cmp.Diff(want, got, near); diff != "" {
			t.Errorf("%s by %s (-transformers +got):\n%s", p.URI, loader, diff)
		}
	}
	if len(p.Served) != len(texts) || !cmp.Equal(p.Params, []string{"batch_size"}) || p.ModelID != m.ID || p.RunID != m.RunID {
		t.Errorf("%s: served %v, params %v, model %s, run %s", p.URI, p.Served, p.Params, p.ModelID, p.RunID)
	}
	if len(p.Mismatches) > 0 {
		t.Errorf("%s warns: %v", p.URI, p.Mismatches)
	}
}

// runPython runs interop.py and returns what it printed.
func runPython(t *testing.T, python, trackingURI string, args ...string) []byte {
	t.Helper()
	script := filepath.Join("..", "py", "mlflow", "interop.py")
	cmd := exec.CommandContext(t.Context(), python, append([]string{script}, args...)...)
	cmd.Env = append(os.Environ(), "MLFLOW_TRACKING_URI="+trackingURI)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("interop.py: %v\n%s", err, stderr.Bytes())
	}
	return out
}
