package mlflow_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/mlflow/mlflowtest"
)

// start is the time of everything in the suite: 25 November 2026, in Unix milliseconds.
const start int64 = 1795602234459

// TestFake runs the suite on the in-memory server.
func TestFake(t *testing.T) {
	s := mlflowtest.New(t, mlflowtest.Options{})
	suite(t, connect(t, s.URL()))
}

// connect returns a client without credentials.
func connect(t *testing.T, uri string) *mlflow.Client {
	t.Helper()
	c, err := mlflow.New(mlflow.Config{TrackingURI: uri, MaxRetries: 3})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// suite is what holds on the fake and on the real server alike. Names are drawn from t.Name, so that one server may
// be used again.
func suite(t *testing.T, c *mlflow.Client) {
	t.Run("experiment", func(t *testing.T) { suiteExperiment(t, c) })
	t.Run("run", func(t *testing.T) { suiteRun(t, c) })
	t.Run("batch", func(t *testing.T) { suiteBatch(t, c) })
	t.Run("limits", func(t *testing.T) { suiteLimits(t, c) })
	t.Run("metrics", func(t *testing.T) { suiteMetrics(t, c) })
	t.Run("inputs", func(t *testing.T) { suiteInputs(t, c) })
	t.Run("model", func(t *testing.T) { suiteModel(t, c) })
	t.Run("registry", func(t *testing.T) { suiteRegistry(t, c) })
	t.Run("artifacts", func(t *testing.T) { suiteArtifacts(t, c) })
	t.Run("resolve", func(t *testing.T) { suiteResolve(t, c) })
}

// newRun makes an experiment and a run of the test's name.
func newRun(t *testing.T, c *mlflow.Client) mlflow.Run {
	t.Helper()
	e, err := c.EnsureExperiment(t.Context(), t.Name())
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.EnsureRun(t.Context(), mlflow.RunSpec{ExperimentID: e.ID, Name: "a run", Key: t.Name() + "/run", StartTime: start})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func suiteExperiment(t *testing.T, c *mlflow.Client) {
	version, err := c.CheckHealth(t.Context())
	if err != nil || !strings.HasPrefix(version, "3.") {
		t.Fatalf("CheckHealth: %q, %v", version, err)
	}
	first, err := c.EnsureExperiment(t.Context(), t.Name()+" é 'quoted'")
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.EnsureExperiment(t.Context(), t.Name()+" é 'quoted'")
	if diff := cmp.Diff(first, second); diff != "" || err != nil {
		t.Errorf("the second call differs (%v):\n%s", err, diff)
	}
}

func suiteRun(t *testing.T, c *mlflow.Client) {
	r := newRun(t, c)
	want := map[string]string{mlflow.KeyTag: t.Name() + "/run", mlflow.TagUser: "duratune", "mlflow.runName": "a run"}
	if diff := cmp.Diff(want, r.Tags); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	if r.Status != mlflow.Running || r.StartTime != start || r.Name != "a run" || r.ArtifactURI == "" {
		t.Errorf("got %+v", r)
	}
	again, err := c.EnsureRun(t.Context(), mlflow.RunSpec{ExperimentID: r.ExperimentID, Name: "other", Key: t.Name() + "/run", StartTime: start + 5})
	if err != nil || again.ID != r.ID {
		t.Errorf("EnsureRun again: %q, %v; want %q", again.ID, err, r.ID)
	}
	running := mlflow.And(mlflow.StatusIs(mlflow.Running), mlflow.HasTag(mlflow.KeyTag))
	if found, err := c.FindRuns(t.Context(), []string{r.ExperimentID}, running); err != nil || len(found) != 1 {
		t.Errorf("FindRuns: %d, %v; want 1", len(found), err)
	}
	if err := c.SetTerminated(t.Context(), r.ID, mlflow.Finished, start+1000); err != nil {
		t.Fatal(err)
	}
	if found, err := c.FindRuns(t.Context(), nil, mlflow.And(running, mlflow.TagIs(mlflow.KeyTag, t.Name()+"/run"))); err != nil || len(found) != 0 {
		t.Errorf("FindRuns after the end: %d, %v; want none", len(found), err)
	}
	if got, err := c.GetRun(t.Context(), r.ID); err != nil || got.Status != mlflow.Finished || got.EndTime != start+1000 {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := c.SetTerminated(t.Context(), r.ID, "BOGUS", 0); !errors.Is(err, mlflow.ErrRejected) {
		t.Errorf("unknown status: got %v, want ErrRejected", err)
	}
	if _, err := c.GetRun(t.Context(), strings.Repeat("0", 32)); !errors.Is(err, mlflow.ErrNotFound) || !errors.Is(err, mlflow.ErrRejected) {
		t.Errorf("unknown run: got %v, want ErrNotFound", err)
	}
}

func suiteBatch(t *testing.T, c *mlflow.Client) {
	r := newRun(t, c)
	b := mlflow.Batch{
		Params: map[string]string{"learning_rate": "5e-05", "odd/näme?": "x", "long": strings.Repeat("é", 7000)},
		Tags:   map[string]string{"team": "nlp", "big": strings.Repeat("x", 9000)},
		Metrics: []mlflow.Metric{
			{Key: "loss", Value: 0, Timestamp: start, Step: 0}, // a zero value must not vanish from the JSON
			{Key: "loss", Value: 0.5, Timestamp: start + 1, Step: 8},
		},
	}
	for range 2 { // the second changes nothing
		if err := c.LogBatch(t.Context(), r.ID, b); err != nil {
			t.Fatal(err)
		}
	}
	got, err := c.GetRun(t.Context(), r.ID)
	if err != nil {
		t.Fatal(err)
	}
	wantParams := map[string]string{"learning_rate": "5e-05", "odd/n_me_": "x", "long": strings.Repeat("é", 5999) + "…"}
	if diff := cmp.Diff(wantParams, got.Params); diff != "" {
		t.Errorf("params (-want +got):\n%s", diff)
	}
	if got.Tags["team"] != "nlp" || len([]rune(got.Tags["big"])) != 8000 {
		t.Errorf("tags: team %q, big %d", got.Tags["team"], len(got.Tags["big"]))
	}
	points, err := c.MetricHistory(t.Context(), r.ID, "loss")
	if diff := cmp.Diff(b.Metrics, points); diff != "" || err != nil {
		t.Errorf("history (%v, -want +got):\n%s", err, diff)
	}
	err = c.LogBatch(t.Context(), r.ID, mlflow.Batch{Params: map[string]string{"learning_rate": "1"}})
	if !errors.Is(err, mlflow.ErrRejected) || !strings.Contains(err.Error(), "learning_rate") {
		t.Errorf("changed param: got %v, want ErrRejected naming it", err)
	}
	if err := c.LogBatch(t.Context(), r.ID, mlflow.Batch{Params: map[string]string{"a?": "1", "a!": "2"}}); !errors.Is(err, mlflow.ErrRejected) {
		t.Errorf("two names that are one: got %v, want ErrRejected", err)
	}
}

// suiteLimits sends more of everything than one request may carry.
func suiteLimits(t *testing.T, c *mlflow.Client) {
	r := newRun(t, c)
	b := mlflow.Batch{Params: map[string]string{}, Tags: map[string]string{}}
	for i := range 250 {
		b.Params[fmt.Sprintf("p%03d", i)] = strings.Repeat("v", 5000)
	}
	for i := range 120 {
		b.Tags[fmt.Sprintf("t%03d", i)] = "v"
	}
	for i := range 1500 {
		b.Metrics = append(b.Metrics, mlflow.Metric{Key: "m", Value: float64(i) / 3, Timestamp: start + int64(i), Step: int64(i)})
	}
	b.Metrics = append(b.Metrics, mlflow.Metric{Key: strings.Repeat("n", 300), Value: 1, Timestamp: start})
	if err := c.LogBatch(t.Context(), r.ID, b); err != nil {
		t.Fatal(err)
	}
	got, err := c.GetRun(t.Context(), r.ID)
	if err != nil {
		t.Fatal(err)
	}
	points, err := c.MetricHistory(t.Context(), r.ID, "m")
	if diff := cmp.Diff(b.Metrics[:1500], points); diff != "" || err != nil {
		t.Errorf("history (%v, -want +got):\n%s", err, diff)
	}
	if len(got.Params) != 250 || got.Tags["t119"] != "v" || len(got.Metrics) != 2 {
		t.Errorf("got %d params, tag %q, %d metrics", len(got.Params), got.Tags["t119"], len(got.Metrics))
	}
}

func suiteMetrics(t *testing.T, c *mlflow.Client) {
	r := newRun(t, c)
	values := map[string]float64{"nan": math.NaN(), "up": math.Inf(1), "down": math.Inf(-1), "tiny": 4.9e-324, "odd a/b:c.d-e": 0.1}
	var b mlflow.Batch
	for k, v := range values {
		b.Metrics = append(b.Metrics, mlflow.Metric{Key: k, Value: v, Timestamp: start, Step: -3})
	}
	if err := c.LogBatch(t.Context(), r.ID, b); err != nil {
		t.Fatal(err)
	}
	got, err := c.GetRun(t.Context(), r.ID)
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range values {
		if math.IsInf(want, 0) { // as the database keeps it
			want = math.Copysign(math.MaxFloat64, want)
		}
		if m := got.Metrics[k]; m.Value != want && !(math.IsNaN(want) && math.IsNaN(m.Value)) || m.Step != -3 {
			t.Errorf("%s: got %v at step %d, want %v at -3", k, m.Value, m.Step, want)
		}
	}
	err = c.LogBatch(t.Context(), r.ID, mlflow.Batch{Metrics: []mlflow.Metric{{Key: "x", Timestamp: -1}}})
	if !errors.Is(err, mlflow.ErrRejected) {
		t.Errorf("negative time stamp: got %v, want ErrRejected", err)
	}
}

func suiteInputs(t *testing.T, c *mlflow.Client) {
	r := newRun(t, c)
	d := []mlflow.Dataset{
		{Name: "sms", Digest: "7fdfda27", SourceType: "s3", Source: `{"uri": "s3://b/train"}`, Context: "training", Profile: `{"num_rows": 2}`},
		{Name: "sms", Digest: "8fdfda27", SourceType: "s3", Source: `{"uri": "s3://b/test"}`, Context: "evaluation", Tags: map[string]string{"split": "test"}},
	}
	for range 2 {
		if err := c.LogInputs(t.Context(), r.ID, d); err != nil {
			t.Fatal(err)
		}
	}
	err := c.LogBatch(t.Context(), r.ID, mlflow.Batch{Metrics: []mlflow.Metric{
		{Key: "eval_loss", Value: 1, Timestamp: start, Step: 1, DatasetName: "sms", DatasetDigest: "8fdfda27"},
	}})
	if err != nil {
		t.Error(err)
	}
	d[0].Digest = strings.Repeat("0", 37)
	if err := c.LogInputs(t.Context(), r.ID, d); !errors.Is(err, mlflow.ErrRejected) {
		t.Errorf("long digest: got %v, want ErrRejected", err)
	}
}

func suiteModel(t *testing.T, c *mlflow.Client) {
	r := newRun(t, c)
	spec := mlflow.ModelSpec{
		ExperimentID: r.ExperimentID, RunID: r.ID, Name: "fine_tuned", Key: t.Name() + "/model", Step: 8,
		Params: map[string]string{"learning_rate": "5e-05"}, Tags: map[string]string{"team": "nlp"},
	}
	m, err := c.EnsureModel(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.EnsureModel(t.Context(), spec)
	if err != nil || again.ID != m.ID {
		t.Errorf("EnsureModel again: %q, %v; want %q", again.ID, err, m.ID)
	}
	if m.Status != mlflow.ModelPending || m.RunID != r.ID || m.Params["learning_rate"] != "5e-05" || m.Tags["team"] != "nlp" {
		t.Errorf("got %+v", m)
	}
	if got, err := c.GetRun(t.Context(), r.ID); err != nil || !cmp.Equal(got.Models, []string{m.ID}) {
		t.Errorf("outputs: got %v, %v; want one", got.Models, err)
	}
	// The same point with and without the model is one point of the run.
	p := mlflow.Metric{Key: "eval_loss", Value: 0.25, Timestamp: start, Step: 8}
	for _, p.ModelID = range []string{"", m.ID, m.ID} {
		if err := c.LogBatch(t.Context(), r.ID, mlflow.Batch{Metrics: []mlflow.Metric{p}}); err != nil {
			t.Fatal(err)
		}
	}
	if points, err := c.MetricHistory(t.Context(), r.ID, "eval_loss"); err != nil || len(points) != 1 {
		t.Errorf("history: %d points, %v; want 1", len(points), err)
	}
	if err := errors.Join(c.SetModelTags(t.Context(), m.ID, map[string]string{"gate": "passed"}), c.FinalizeModel(t.Context(), m.ID, mlflow.ModelReady)); err != nil {
		t.Fatal(err)
	}
	got, err := c.GetModel(t.Context(), m.ID)
	if err != nil || got.Status != mlflow.ModelReady || got.Tags["gate"] != "passed" {
		t.Errorf("got %+v, %v", got, err)
	}
	spec.Name = "a/b"
	if _, err := c.EnsureModel(t.Context(), spec); !errors.Is(err, mlflow.ErrRejected) {
		t.Errorf("name with a slash: got %v, want ErrRejected", err)
	}
	for range 2 {
		if err := c.DeleteModel(t.Context(), m.ID); err != nil {
			t.Error(err)
		}
	}
}

// registryName makes a name without the characters that MLflow refuses.
func registryName(t *testing.T) string {
	return strings.NewReplacer("/", "-", ":", "-").Replace(t.Name())
}

func suiteRegistry(t *testing.T, c *mlflow.Client) {
	r := newRun(t, c)
	m, err := c.EnsureModel(t.Context(), mlflow.ModelSpec{ExperimentID: r.ExperimentID, RunID: r.ID, Name: "fine_tuned", Key: t.Name() + "/model"})
	if err != nil {
		t.Fatal(err)
	}
	name := registryName(t)
	for range 2 {
		if err := c.EnsureRegisteredModel(t.Context(), name, "a classifier", map[string]string{"task": "spam"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.GetAlias(t.Context(), name, "champion"); !errors.Is(err, mlflow.ErrNotFound) {
		t.Errorf("missing alias: got %v, want ErrNotFound", err)
	}
	spec := mlflow.VersionSpec{Name: name, ModelID: m.ID, RunID: r.ID, Key: t.Name() + "/v", Tags: map[string]string{"data": "abc"}}
	for range 2 {
		v, err := c.EnsureVersion(t.Context(), spec)
		if err != nil || v.Version != "1" || v.ModelID != m.ID || v.Source != "models:/"+m.ID {
			t.Fatalf("got %+v, %v", v, err)
		}
	}
	spec.Key += "2"
	if v, err := c.EnsureVersion(t.Context(), spec); err != nil || v.Version != "2" {
		t.Fatalf("another key: got %+v, %v", v, err)
	}
	if err := errors.Join(c.SetAlias(t.Context(), name, "champion", "1"), c.SetAlias(t.Context(), name, "champion", "2"),
		c.SetVersionTag(t.Context(), name, "2", "gate", "passed")); err != nil {
		t.Fatal(err)
	}
	v, err := c.GetAlias(t.Context(), name, "champion")
	if err != nil || v.Version != "2" || v.Tags["gate"] != "passed" || v.Tags["data"] != "abc" || v.RunID != r.ID {
		t.Errorf("alias: got %+v, %v", v, err)
	}
	for _, alias := range []string{"latest", "v2", "7", ""} {
		if err := c.SetAlias(t.Context(), name, alias, "1"); !errors.Is(err, mlflow.ErrRejected) {
			t.Errorf("alias %q: got %v, want ErrRejected", alias, err)
		}
	}
	spec.Key, spec.ModelID = t.Name()+"/3", "m-00000000000000000000000000000000"
	if _, err := c.EnsureVersion(t.Context(), spec); !errors.Is(err, mlflow.ErrNotFound) {
		t.Errorf("unknown model: got %v, want ErrNotFound", err)
	}
	if err := c.EnsureRegisteredModel(t.Context(), "a/b", "", nil); !errors.Is(err, mlflow.ErrRejected) {
		t.Errorf("name with a slash: got %v, want ErrRejected", err)
	}
}

func suiteArtifacts(t *testing.T, c *mlflow.Client) {
	r := newRun(t, c)
	dir := t.TempDir()
	content := map[string]string{"MLmodel": "flavors: {}\n", "model/weights": strings.Repeat("w", 1<<20), "a b/ü?&+.txt": "odd", "empty": ""}
	for name, data := range content {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(data), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	var last int64
	for range 2 { // a repeat replaces
		if err := c.UploadDir(t.Context(), r.ArtifactURI, dir, func(done int64) { last = done }); err != nil {
			t.Fatal(err)
		}
	}
	if want := int64(1<<20 + 12 + 3); last != want {
		t.Errorf("progress ended at %d, want %d", last, want)
	}
	files, err := c.ListArtifacts(t.Context(), r.ArtifactURI, "")
	want := []mlflow.File{{Path: "MLmodel", Bytes: 12}, {Path: "a b/ü?&+.txt", Bytes: 3}, {Path: "empty", Bytes: 0}, {Path: "model/weights", Bytes: 1 << 20}}
	if diff := cmp.Diff(want, files); diff != "" || err != nil {
		t.Fatalf("list (%v, -want +got):\n%s", err, diff)
	}
	to := t.TempDir()
	if _, err := c.DownloadDir(t.Context(), r.ArtifactURI, to, nil); err != nil {
		t.Fatal(err)
	}
	for name, data := range content {
		if got, err := os.ReadFile(filepath.Join(to, filepath.FromSlash(name))); err != nil || string(got) != data {
			t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(data))
		}
	}
	if none, err := c.ListArtifacts(t.Context(), r.ArtifactURI, "nowhere"); err != nil || len(none) != 0 {
		t.Errorf("an empty place: %v, %v", none, err)
	}
	if _, err := c.DownloadArtifact(t.Context(), r.ArtifactURI, "nowhere", &bytes.Buffer{}, nil); !errors.Is(err, mlflow.ErrRejected) && !errors.Is(err, mlflow.ErrUnavailable) {
		t.Errorf("a missing file: got %v", err)
	}
	for _, bad := range []string{"", "../x", "/x", "a//b", "a/../b", `a\b`, "a#b", "a%b"} {
		if err := c.UploadArtifact(t.Context(), r.ArtifactURI, bad, strings.NewReader(""), 0, nil); !errors.Is(err, mlflow.ErrRejected) {
			t.Errorf("path %q: got %v, want ErrRejected", bad, err)
		}
	}
}

func suiteResolve(t *testing.T, c *mlflow.Client) {
	r := newRun(t, c)
	m, err := c.EnsureModel(t.Context(), mlflow.ModelSpec{ExperimentID: r.ExperimentID, RunID: r.ID, Name: "fine_tuned", Key: t.Name() + "/model"})
	if err != nil {
		t.Fatal(err)
	}
	name := registryName(t)
	if err := c.EnsureRegisteredModel(t.Context(), name, "", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.EnsureVersion(t.Context(), mlflow.VersionSpec{Name: name, ModelID: m.ID, Key: t.Name() + "/v"}); err != nil {
		t.Fatal(err)
	}
	if err := c.SetAlias(t.Context(), name, "champion", "1"); err != nil {
		t.Fatal(err)
	}
	plain := mlflow.ModelRef{ArtifactURI: m.ArtifactURI, ModelID: m.ID}
	version := mlflow.ModelRef{ArtifactURI: m.ArtifactURI, ModelID: m.ID, Name: name, Version: "1"}
	for uri, want := range map[string]mlflow.ModelRef{
		"models:/" + m.ID: plain, "runs:/" + r.ID + "/fine_tuned": plain,
		"models:/" + name + "/1": version, "models:/" + name + "/latest": version, "models:/" + name + "@champion": version,
	} {
		if got, err := c.ResolveModelURI(t.Context(), uri); err != nil || got != want {
			t.Errorf("%s: got %+v, %v; want %+v", uri, got, err, want)
		}
	}
	for _, uri := range []string{"", "models:/", "models:/x", "models:/x@", "runs:/x", "s3://b/k", "models:/a/b/c"} {
		if _, err := c.ResolveModelURI(t.Context(), uri); !errors.Is(err, mlflow.ErrRejected) {
			t.Errorf("%q: got %v, want ErrRejected", uri, err)
		}
	}
	for _, uri := range []string{"models:/" + name + "@nobody", "models:/" + name + "/9", "runs:/" + r.ID + "/other", "models:/m-0123"} {
		if _, err := c.ResolveModelURI(t.Context(), uri); !errors.Is(err, mlflow.ErrNotFound) {
			t.Errorf("%q: got %v, want ErrNotFound", uri, err)
		}
	}
}
