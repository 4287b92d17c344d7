package activities

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/testsuite"

	"github.com/duratune/duratune/dataset"
	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/hub"
	"github.com/duratune/duratune/internal/hub/hubtest"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/mlflow/mlflowtest"
	"github.com/duratune/duratune/internal/model"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/safetensors"
)

var (
	testLabels = []string{"ham", "spam"}
	testSize   = hubtest.Size{Vocab: 702, Positions: 32, Dim: 8, Hidden: 16, Layers: 1, Heads: 2}
)

// sourceBench is a CPU worker that has a hub, a folder, buckets and a tracking server, all with the same tiny DistilBERT.
type sourceBench struct {
	cpu     *CPU
	hub     *hubtest.Server
	bucket  *artifact.Mem // of every name
	mlflow  *mlflowtest.Server
	run     Run
	root    string // data root
	base    string // the model's folder
	weights []float32
	calls   int
}

func newSourceBench(t *testing.T) *sourceBench {
	t.Helper()
	b := &sourceBench{root: t.TempDir(), bucket: artifact.NewMem(), mlflow: mlflowtest.New(t, mlflowtest.Options{})}
	tokenizerDir := t.TempDir()
	copyFile(t, filepath.Join("..", "internal", "tokenizer", "testdata", "wordpiece.json"), filepath.Join(tokenizerDir, tokenizerFile))
	writeFile(t, filepath.Join(tokenizerDir, "vocab.txt"), "[PAD]\n")
	repos := t.TempDir()
	if err := hubtest.WriteDistilBERT(repos, tokenizerDir, testSize, 7); err != nil {
		t.Fatal(err)
	}
	b.hub = hubtest.Start(t, repos)
	b.base = filepath.Join(repos, "models", hubtest.DistilBERT, "main")
	b.weights = readWeights(t, b.base)
	endpoint, err := url.Parse(b.hub.URL)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := dataset.ParseRoots(b.root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { roots.Close() })
	tracking := newTracking(t, b.mlflow)
	experiment, err := tracking.EnsureExperiment(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	b.run = Run{Key: "0123abcd", WorkflowRunID: "default-test-run-id", ExperimentID: experiment.ID}
	run, err := tracking.EnsureRun(t.Context(), mlflow.RunSpec{ExperimentID: experiment.ID, Name: "test", Key: b.run.Key, StartTime: 1})
	if err != nil {
		t.Fatal(err)
	}
	b.run.MLflowRunID = run.ID
	b.cpu = &CPU{Store: artifact.NewMem(), Tracking: tracking, Roots: roots, CacheDir: t.TempDir(), Scratch: t.TempDir(), Logger: slog.New(slog.DiscardHandler),
		Hub:     hub.New(hub.Config{Endpoint: endpoint, CacheDir: t.TempDir(), Hosts: []string{"localhost", "127.0.0.1"}}),
		Buckets: Buckets{patterns: []string{"team-*"}, open: func(context.Context, string) (artifact.Source, error) { return b.bucket, nil }}}
	return b
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	body, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, to, string(body))
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// put stores an object of a source.
func (b *sourceBench) put(t *testing.T, key, content string) {
	t.Helper()
	if _, err := b.bucket.Put(t.Context(), key, strings.NewReader(content), nil); err != nil {
		t.Fatal(err)
	}
}

// putDir stores the files of a folder as objects below prefix.
func (b *sourceBench) putDir(t *testing.T, prefix, dir string, but ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if slices.Contains(but, e.Name()) {
			continue
		}
		body, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		b.put(t, prefix+"/"+e.Name(), string(body))
	}
}

// next is the run under a key of its own, below which no earlier call has stored anything.
func (b *sourceBench) next() Run {
	b.calls++
	run := b.run
	run.Key = fmt.Sprintf("%s-%d", run.Key, b.calls)
	return run
}

// fetch runs FetchModel.
func (b *sourceBench) fetch(t *testing.T, base string, maxLength int) (FetchModelResult, error) {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.RegisterActivity(b.cpu)
	v, err := env.ExecuteActivity(b.cpu.FetchModel, FetchModelInput{Run: b.next(), Model: recipe.Model{Base: base, Revision: "main"}, Labels: testLabels, MaxLength: maxLength})
	var res FetchModelResult
	if err == nil {
		err = v.Get(&res)
	}
	return res, err
}

// load runs LoadSplit.
func (b *sourceBench) load(t *testing.T, d recipe.Data) (LoadSplitResult, error) {
	t.Helper()
	d.Format = cmp.Or(d.Format, "auto")
	d.Text, d.Label, d.TestFraction = cmp.Or(d.Text, "text"), cmp.Or(d.Label, "label"), 0.25
	if d.Labels == nil {
		d.Labels = testLabels
	}
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.RegisterActivity(b.cpu)
	v, err := env.ExecuteActivity(b.cpu.LoadSplit, LoadSplitInput{Run: b.next(), Data: d})
	var res LoadSplitResult
	if err == nil {
		err = v.Get(&res)
	}
	return res, err
}

// readWeights is the classifier that a model folder is with a head drawn from seed 0.
func readWeights(t *testing.T, dir string) []float32 {
	t.Helper()
	cfg, err := model.ReadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	layout := model.NewLayout(cfg, len(testLabels))
	weights := make([]float32, layout.Size)
	if _, err := model.Load(dir, cfg, layout, 0, false, weights); err != nil {
		t.Fatal(err)
	}
	return weights
}

// saveShards writes the base model as save_pretrained writes a large one: two shards and their index.
func (b *sourceBench) saveShards(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{configFile, tokenizerFile, "tokenizer_config.json"} {
		copyFile(t, filepath.Join(b.base, name), filepath.Join(dir, name))
	}
	whole, err := safetensors.OpenModel(b.base)
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	names := whole.Names()
	index, total := map[string]string{}, 0
	for i, half := range [][]string{names[:len(names)/2], names[len(names)/2:]} {
		shard := []string{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}[i]
		var tensors []safetensors.Tensor
		for _, name := range half {
			tensor, err := whole.Tensor(name)
			if err != nil {
				t.Fatal(err)
			}
			tensors, index[name], total = append(tensors, tensor), shard, total+len(tensor.Data)
		}
		var body bytes.Buffer
		if err := safetensors.Write(&body, map[string]string{"format": "pt"}, tensors); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, shard), body.String())
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"total_size": total}, "weight_map": index})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, weightsIndex), string(body))
}

// logModel logs the base model with its head to MLflow, as LogModel does, and returns its id. It is also version 1 of
// the registered model of that name, and its champion.
func (b *sourceBench) logModel(t *testing.T, name string) string {
	t.Helper()
	cfg, err := model.ReadConfig(b.base)
	if err != nil {
		t.Fatal(err)
	}
	var body bytes.Buffer
	if err := safetensors.Write(&body, map[string]string{"format": "pt"}, model.NewLayout(cfg, len(testLabels)).Tensors(b.weights, "")); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	weights := filepath.Join(dir, "weights")
	writeFile(t, weights, body.String())
	config, err := classifierConfig(filepath.Join(b.base, configFile), testLabels)
	if err != nil {
		t.Fatal(err)
	}
	tracking := b.cpu.Tracking
	logged, err := tracking.EnsureModel(t.Context(), mlflow.ModelSpec{ExperimentID: b.run.ExperimentID, RunID: b.run.MLflowRunID, Name: "fine_tuned", Key: name})
	if err != nil {
		t.Fatal(err)
	}
	err = mlflow.WriteModelDir(filepath.Join(dir, "model"), mlflow.DirSpec{ModelID: logged.ID, RunID: b.run.MLflowRunID, ArtifactURI: logged.ArtifactURI,
		Created: time.Unix(1, 0).UTC(), Config: config, Weights: weights, TokenizerDir: b.base, MaxLength: 16, Signature: mlflow.TextClassification(false, 8), BatchSize: 8})
	if err != nil {
		t.Fatal(err)
	}
	b.register(t, name, logged, filepath.Join(dir, "model"))
	return logged.ID
}

// register uploads the files of a logged model and makes it version 1 and champion.
func (b *sourceBench) register(t *testing.T, name string, logged mlflow.LoggedModel, dir string) {
	t.Helper()
	ctx, tracking := t.Context(), b.cpu.Tracking
	if err := tracking.UploadDir(ctx, logged.ArtifactURI, dir, nil); err != nil {
		t.Fatal(err)
	}
	if err := tracking.EnsureRegisteredModel(ctx, name, "", nil); err != nil {
		t.Fatal(err)
	}
	v, err := tracking.EnsureVersion(ctx, mlflow.VersionSpec{Name: name, ModelID: logged.ID, RunID: b.run.MLflowRunID, Key: name})
	if err != nil {
		t.Fatal(err)
	}
	if err := tracking.SetAlias(ctx, name, "champion", v.Version); err != nil {
		t.Fatal(err)
	}
}
