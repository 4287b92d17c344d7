package activities

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/mlflow/mlflowtest"
	"github.com/duratune/duratune/internal/model"
	"github.com/duratune/duratune/internal/recipe"
)

// putBase stores a base model's files; only their names and the config matter here.
func (r *reporting) putBase(t *testing.T, files map[string]string) artifact.Ref {
	t.Helper()
	folder := Folder{Commit: "0ddba11", Files: map[string]artifact.Ref{}}
	for name, text := range files {
		ref, err := r.store.Put(t.Context(), "base/"+name, bytes.NewReader([]byte(text)), nil)
		if err != nil {
			t.Fatal(err)
		}
		folder.Files[name] = ref
	}
	ref, err := putManifest(t.Context(), r.store, "base", folder)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// TestModelCard: the logged model says what it was made from, how each class fares, and under what terms.
func TestModelCard(t *testing.T) {
	r := newReporting(t, some())
	in := LogModelInput{Run: r.run, Recipe: r.in.Recipe, Checkpoint: r.in.Checkpoint, Created: 1, Split: r.in.Split, Predictions: r.in.Predictions,
		Signature: InferSignatureResult{Signature: mlflow.TextClassification(false, 8)}}
	in.Model = r.putBase(t, map[string]string{"config.json": `{"model_type": "distilbert"}`, "tokenizer.json": `{}`,
		"README.md": "---\nlicense: apache-2.0\ntags: [x]\n---\n# base\n", "LICENSE": "Apache License\nVersion 2.0\n"})
	env := r.env(t)
	env.RegisterActivity(r.cpu)
	v, err := env.ExecuteActivity(r.cpu.LogModel, in)
	if err != nil {
		t.Fatal(err)
	}
	var res LogModelResult
	if err := v.Get(&res); err != nil {
		t.Fatal(err)
	}
	file := func(name string) string {
		return string(r.mlflow.Files()[r.run.ExperimentID+"/models/"+res.ModelID+"/artifacts/"+name])
	}
	if got := file("LICENSE.txt"); got != "Apache License\nVersion 2.0\n" {
		t.Errorf("LICENSE.txt is %q", got)
	}
	card := file("model_card.md")
	for _, part := range []string{
		"# sms\n", "Sorts texts into 2 classes: ham, spam.", "Fine-tuned from `distilbert/distilbert-base-uncased@0ddba11` (licence: apache-2.0).",
		"| test | `file:sms\\|x.tsv@c0ffee` | 4 | ham 2, spam 2 | `" + r.in.Split.Test.Digest + "` |",
		"| accuracy | 0.5000 |", "| ham | 0.5000 | 0.5000 | 0.5000 | 2 |", "- A text of more than 128 tokens is cut",
		"- The texts of 2 test rows also stand in the training rows.", "- Only 2 test rows are spam: its figures say little.",
		`| learning\_rate | 5e-05 |`, `| weight\_decay | 0.0 |`, "| device | fake () |",
	} {
		if !strings.Contains(card, part) {
			t.Errorf("the card lacks %q", part)
		}
	}
	logged := r.mlflow.Models()[len(r.mlflow.Models())-1]
	if logged.Tags[mlflow.TagNote] != card {
		t.Errorf("the description of the model's page is %q", logged.Tags[mlflow.TagNote])
	}
	linked := false
	for _, m := range r.mlflow.Runs()[0].Metrics {
		linked = linked || m.Key == "eval_loss" && m.ModelID == logged.ID && m.DatasetName == "file:sms|x.tsv" && m.DatasetDigest == in.Split.Test.Digest[:32]
	}
	if !linked {
		t.Errorf("no eval_loss of the model on the test rows: %+v", r.mlflow.Runs()[0].Metrics)
	}
	if t.Failed() {
		t.Log(card)
	}
}

// TestLogModelIntoAStoreThatRefuses: a model that cannot be kept is no model, and asking again does not help.
func TestLogModelIntoAStoreThatRefuses(t *testing.T) {
	r := newReporting(t, some())
	in := LogModelInput{Run: r.run, Recipe: r.in.Recipe, Checkpoint: r.in.Checkpoint, Created: 1, Split: r.in.Split, Predictions: r.in.Predictions,
		Signature: InferSignatureResult{Signature: mlflow.TextClassification(false, 8)}}
	in.Model = r.putBase(t, map[string]string{"config.json": `{"model_type": "distilbert"}`, "tokenizer.json": `{}`})
	r.mlflow.Inject("PUT api/2.0/mlflow-artifacts/artifacts", mlflowtest.Fault{Status: 403, Body: `{"error_code": "PERMISSION_DENIED", "message": "read-only bucket"}`})
	env := r.env(t)
	env.RegisterActivity(r.cpu)
	_, err := env.ExecuteActivity(r.cpu.LogModel, in)
	wantType(t, err, TypeTrackingRejected, false)
	if !strings.Contains(err.Error(), "read-only bucket") {
		t.Errorf("error = %v, want the server's words", err)
	}
	models := r.mlflow.Models()
	if got := models[len(models)-1].Status; got == string(mlflow.ModelReady) {
		t.Errorf("a model without files is %s", got)
	}
}

func TestReadLicence(t *testing.T) {
	for name, tt := range map[string]struct {
		files map[string]string
		want  licence
	}{
		"nothing":        {nil, licence{}},
		"file only":      {map[string]string{"LICENSE.txt": "\n  MIT License\n…"}, licence{"MIT License", "\n  MIT License\n…"}},
		"both files":     {map[string]string{"LICENSE": "A", "LICENSE.txt": "B"}, licence{"A", "A"}},
		"readme wins":    {map[string]string{"LICENSE": "A", "README.md": "---\r\nlicense: mit\r\n---\r\n"}, licence{"mit", "A"}},
		"several":        {map[string]string{"README.md": "---\nlicense: [mit, bsd]\n---\n"}, licence{"mit, bsd", ""}},
		"none in readme": {map[string]string{"README.md": "---\ntags: [a]\n---\nlicense: no\n"}, licence{}},
		"not YAML":       {map[string]string{"README.md": "---\n: [\n---\n"}, licence{}},
		"never closed":   {map[string]string{"README.md": "---\nlicense: mit\n"}, licence{}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := readLicence(dir)
			if err != nil || got != tt.want {
				t.Errorf("got %+v, error %v, want %+v", got, err, tt.want)
			}
		})
	}
}

// TestConfigParams prints as Python's str(model.config.to_dict()[name]) does.
func TestConfigParams(t *testing.T) {
	got, err := configParams([]byte(`{"model_type": "bert", "vocab_size": 30522, "layer_norm_eps": 1e-12, "initializer_range": 0.02, "classifier_dropout": null,
		"tie": true, "architectures": ["BertModel"], "nested": {"b": 1.0, "a": "it's", "c": 1e-5}, "big": 1e16, "id2label": {"0": "LABEL_0"}, "seed": 7,
		"batch_size": 1, "transformers_version": "4", "a?b": 1, "a!b": 2, "_name_or_path": "/tmp/x"}`),
		FetchModelInput{Model: recipe.Model{Base: "hf://google-bert/bert-base-uncased"}, Labels: []string{"ham", "spam"}})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"model_type": "bert", "vocab_size": "30522", "layer_norm_eps": "1e-12", "initializer_range": "0.02", "classifier_dropout": "None",
		"tie": "True", "architectures": "['BertModel']", "nested": `{'a': "it's", 'b': 1.0, 'c': 1e-05}`, "big": "1e+16", "label2id": "{'ham': 0, 'spam': 1}",
		"a_b": "2", "_name_or_path": "google-bert/bert-base-uncased"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("params (-want +got):\n%s", diff)
	}
}

func TestPythonFloat(t *testing.T) {
	for v, want := range map[float64]string{0: "0.0", 1: "1.0", 5e-5: "5e-05", 1e-4: "0.0001", 0.999: "0.999", 1e15: "1000000000000000.0", 1e22: "1e+22",
		math.Inf(1): "inf", math.Inf(-1): "-inf", -0.5: "-0.5"} {
		if got := pythonFloat(v); got != want {
			t.Errorf("%g is %q, want %q", v, got, want)
		}
	}
	if got := pythonFloat(math.NaN()); got != "nan" {
		t.Errorf("NaN is %q", got)
	}
}

// TestLogModelConfig: params that the server refuses stop nothing; a server that is away does.
func TestLogModelConfig(t *testing.T) {
	r := newReporting(t, some())
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"vocab_size": 30522, "many": "`+strings.Repeat("x", 7000)+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	in := FetchModelInput{Run: r.run, Model: recipe.Model{Base: "file:base"}, Labels: []string{"ham", "spam"}}
	tags := baseTags("c0ffee", model.Loaded{Drawn: []string{"classifier.bias", "classifier.weight"}})
	for range 2 {
		if err := r.cpu.logModelConfig(t.Context(), in, dir, tags); err != nil {
			t.Fatal(err)
		}
	}
	got := r.mlflow.Runs()[0].Params
	if got["vocab_size"] != "30522" || len([]rune(got["many"])) != 6000 {
		t.Errorf("vocab_size %q, many of %d characters, want it cut to 6000", got["vocab_size"], len([]rune(got["many"])))
	}
	for name, want := range map[string]string{
		"duratune.base_commit": "c0ffee", "duratune.weights_drawn": "classifier.bias, classifier.weight", "duratune.weights_dropped": "",
	} {
		if tag := r.mlflow.Runs()[0].Tags[name]; tag != want {
			t.Errorf("tag %s = %q, want %q", name, tag, want)
		}
	}
	in.Model.Base = "file:other" // changes a param
	if err := r.cpu.logModelConfig(t.Context(), in, dir, tags); err != nil {
		t.Errorf("refused params are an error: %v", err)
	}
	for range 20 {
		r.mlflow.Inject("log-batch", mlflowtest.Fault{Status: 503, Body: "{}"})
	}
	if err := r.cpu.logModelConfig(t.Context(), in, dir, tags); !errors.Is(err, mlflow.ErrUnavailable) {
		t.Errorf("error = %v, want an outage", err)
	}
}

// observed is an epoch under way.
func observed(t *testing.T) (*bench, *epoch) {
	t.Helper()
	b := newBench(t)
	in := b.input
	in.Started = time.Now().Add(-time.Hour).UnixMilli()
	return b, &epoch{GPU: b.gpu, in: in, engine: &fakeEngine{}}
}

func TestObserve(t *testing.T) {
	b, e := observed(t)
	stop := e.observe(t.Context(), time.Millisecond)
	b.mlflow.Await("log-batch", 6)
	stop()
	run := b.mlflow.Runs()[0]
	if run.Tags[tagDevice] != "fake" {
		t.Errorf("tag %s = %q", tagDevice, run.Tags[tagDevice])
	}
	n := 0
	for _, m := range run.Metrics {
		if !strings.HasPrefix(m.Key, "system/") || m.Step < 3600 || m.Step > 4000 {
			t.Errorf("point %s at step %d, want system/… an hour after the start", m.Key, m.Step)
		}
		if m.Key == "system/system_memory_usage_megabytes" {
			n++
		}
	}
	if n < 3 {
		t.Errorf("%d samples, want at least 3", n)
	}
}

// TestObserveNeverHoldsUp: whatever the server does, stop returns, and nothing fails.
func TestObserveNeverHoldsUp(t *testing.T) {
	b, e := observed(t)
	for range 100 {
		b.mlflow.Inject("log-batch", mlflowtest.Fault{Delay: time.Hour})
	}
	stop := e.observe(t.Context(), time.Millisecond)
	began := time.Now()
	stop()
	if took := time.Since(began); took > time.Minute { // of the server's hour; the rest is for a busy machine
		t.Errorf("stop took %s", took)
	}
}

// The manifest of a run's input must not grow with its classes or epochs.
func TestReportInputIsSmall(t *testing.T) {
	in := ReportInput{Epochs: make([]Epoch, ReportEpochs), LoadTest: &LoadTestResult{}}
	body, err := json.Marshal(in)
	if err != nil || len(body) > 16<<10 {
		t.Errorf("%d bytes, error %v", len(body), err)
	}
}

func TestChoice(t *testing.T) {
	tests := []struct {
		choice Choice
		want   string
	}{
		{Choice{Epoch: 3, Trained: 3, Planned: 3}, "The held-out test share was evaluated after each epoch. The last checkpoint (epoch 3) was taken, whatever its figures."},
		{Choice{Trained: 1, Planned: 1}, "The held-out test share was evaluated after each epoch."},
		{Choice{Epoch: 1, Trained: 2, Planned: 3, Metric: "eval_accuracy", Stopped: "by hand"},
			"The held-out test share was evaluated after each epoch. The checkpoint of epoch 1, the best by eval_accuracy, was taken; chosen by these very rows, its figures flatter it. " +
				"Training was stopped by hand after 2 of 3 epochs."},
		{Choice{Epoch: 1, Trained: 3, Planned: 3, Metric: "eval_f1", Sealed: true},
			"Each epoch was evaluated on the validation share, and the test share once, with the chosen checkpoint. The checkpoint of epoch 1, the best by eval_f1, was taken."},
	}
	for _, tt := range tests {
		if got := tt.choice.String(); got != tt.want {
			t.Errorf("%+v is %q, want %q", tt.choice, got, tt.want)
		}
	}
}
