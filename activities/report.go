package activities

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/loadtest"
	"github.com/duratune/duratune/internal/metriclog"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/plot"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/train"
)

// ReportInput is what the run's page in MLflow is made of.
type ReportInput struct {
	Run         Run             `json:"run"`
	Recipe      recipe.Recipe   `json:"recipe"`
	Split       LoadSplitResult `json:"split"`
	Tokens      []artifact.Ref  `json:"tokens"`              // manifests of all shares, tokenized
	Checkpoint  artifact.Ref    `json:"checkpoint"`          // of the last epoch
	Predictions artifact.Ref    `json:"predictions"`         // of that checkpoint on the held-out rows
	Epochs      []Epoch         `json:"epochs"`              // the latest, at most ReportEpochs
	ModelURI    string          `json:"model_uri,omitempty"` // "": no model was logged
	LoadTest    *LoadTestResult `json:"load_test,omitempty"` // nil: none was run
	Choice      Choice          `json:"choice"`
}

// ReportEpochs bounds the result table: it must fit a tag of 8,000 characters.
const ReportEpochs = 50

// Epoch is one row of the result table.
type Epoch struct {
	Epoch     int     `json:"epoch"` // 1-based
	TrainLoss float64 `json:"train_loss"`
	EvalLoss  float64 `json:"eval_loss"`
	Accuracy  float64 `json:"eval_accuracy"`
	F1        float64 `json:"eval_f1"`
	Seconds   float64 `json:"seconds"` // of training, without evaluation
}

// ReportResult says what was written.
type ReportResult struct {
	Artifacts []string `json:"artifacts"`         // paths in the MLflow run
	Skipped   []string `json:"skipped,omitempty"` // what could not be drawn, and why
}

// Report writes into the MLflow run what a person looks for there: a description with the result table, pictures, the
// most confident mistakes and the least certain rows, and the load test's figures and histogram. Doing it again replaces
// what is there. A picture that cannot be drawn is skipped.
func (c *CPU) Report(ctx context.Context, in ReportInput) (res ReportResult, err error) {
	defer func() { err = edge(err) }()
	if err := in.Run.guard(ctx); err != nil {
		return res, err
	}
	r := &report{CPU: c, in: in}
	for _, step := range []func(context.Context) error{r.read, r.describe, r.loadTest, r.pictures, r.tables} {
		beat(ctx, Heartbeat{Phase: "report"})
		if err := step(ctx); err != nil {
			return r.res, err
		}
	}
	return r.res, nil
}

// report is one attempt at Report.
type report struct {
	*CPU
	in         ReportInput
	run        mlflow.Run
	checkpoint train.Checkpoint
	held       heldOut
	latencies  *hdr.Histogram // nil: none
	res        ReportResult
}

// read gathers what all parts need.
func (r *report) read(ctx context.Context) (err error) {
	if r.run, err = r.Tracking.GetRun(ctx, r.in.Run.MLflowRunID); err != nil {
		return err
	}
	if r.checkpoint, err = train.Load(ctx, r.Store, r.in.Checkpoint); err != nil {
		return err
	}
	r.held, err = r.heldOut(ctx, r.in.Split.Test, r.in.Predictions, r.in.Recipe.Data.Labels)
	return err
}

// put writes one artifact.
func (r *report) put(ctx context.Context, name string, body []byte) error {
	beat(ctx, Heartbeat{Phase: "report " + name})
	r.res.Artifacts = append(r.res.Artifacts, name)
	return r.upload(ctx, r.run.ArtifactURI, name, body)
}

// skip leaves something out for a reason.
func (r *report) skip(name string, err error) {
	r.Logger.Warn("left out of the report", "artifact", name, "error", err)
	r.res.Skipped = append(r.res.Skipped, fmt.Sprintf("%s: %v", name, err))
}

// picture draws and writes one figure.
func (r *report) picture(ctx context.Context, name string, draw func() *plot.Figure) error {
	png, err := render(draw)
	if err != nil {
		r.skip(name, err)
		return nil
	}
	return r.put(ctx, name, png)
}

// render guards against data that the drawing library panics on: a picture is not worth a run.
func render(draw func() *plot.Figure) (png []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("cannot be drawn: %v", p)
		}
	}()
	return draw().PNG()
}

// pictures draws the training, the held-out rows and the load test.
func (r *report) pictures(ctx context.Context) error {
	steps, err := metriclog.All(ctx, r.Store, r.in.Run.metrics())
	if err != nil {
		return err
	}
	events, err := metriclog.Events(ctx, r.Store, r.in.Run.metrics())
	if err != nil {
		return err
	}
	var stats Shards
	for _, ref := range r.in.Tokens {
		m, err := getManifest[Shards](ctx, r.Store, ref)
		if err != nil {
			return err
		}
		stats.Stats = stats.Stats.Add(m.Stats)
	}
	name, held := r.in.Recipe.Name, fmt.Sprintf("%s: %d held-out rows", r.in.Recipe.Name, len(r.held.Labels))
	for _, p := range []struct {
		name string
		draw func() *plot.Figure
	}{
		{"plots/curves.png", func() *plot.Figure {
			return plot.Curves(name, series(steps, "loss"), series(events, "eval_loss"), series(steps, "learning_rate"))
		}},
		{"plots/confusion.png", func() *plot.Figure { return plot.Confusion(held, r.held.Classes, r.held.metrics.Confusion) }},
		{"plots/pr.png", func() *plot.Figure { return r.held.PR(held) }},
		{"plots/roc.png", func() *plot.Figure { return r.held.ROC(held) }},
		{"plots/reliability.png", func() *plot.Figure { return r.held.Reliability(held) }},
		{"plots/lengths.png", func() *plot.Figure {
			return plot.Lengths(name+": all rows", stats.Stats.Lengths, stats.Stats.Truncated, r.in.Recipe.Tokenizer.MaxLength)
		}},
	} {
		if err := r.picture(ctx, p.name, p.draw); err != nil {
			return err
		}
	}
	if r.in.LoadTest == nil {
		return nil
	}
	title := fmt.Sprintf("%s: load test, %g requests a second", name, r.in.Recipe.LoadTest.RatePerSecond)
	return r.picture(ctx, "plots/latency.png", func() *plot.Figure {
		return plot.Latencies(title, r.latencies, time.Duration(r.in.Recipe.LoadTest.MaxP99))
	})
}

// series picks the points of a key.
func series(points []train.Point, key string) []plot.Point {
	var out []plot.Point
	for _, p := range points {
		if p.Key == key {
			out = append(out, plot.Point{Step: p.Step, Value: p.Value})
		}
	}
	return out
}

// tables logs the rows that are worth a look.
func (r *report) tables(ctx context.Context) error {
	mistakes, uncertain := r.held.mistakes(), r.held.leastCertain()
	texts, err := r.texts(ctx, r.held.share, mistakes, uncertain)
	if err != nil {
		return err
	}
	for _, t := range []struct {
		name      string
		positions []int
	}{{"predictions/most_confident_mistakes.json", mistakes}, {"predictions/least_certain.json", uncertain}} {
		beat(ctx, Heartbeat{Phase: "report " + t.name})
		if err := r.Tracking.LogTable(ctx, r.run.ID, t.name, r.held.table(t.positions, texts, r.in.Recipe.Data.TextPair != "")); err != nil {
			return err
		}
		r.res.Artifacts = append(r.res.Artifacts, t.name)
	}
	return nil
}

// maxHistogram bounds an encoded histogram; one of three digits over an hour is a few KB.
const maxHistogram = 1 << 20

// loadTest writes the histogram, as HdrHistogram's tools read it and as text, and the figures as metrics of the run and
// of the model.
func (r *report) loadTest(ctx context.Context) error {
	if r.in.LoadTest == nil || r.in.LoadTest.Histogram.IsZero() {
		return nil // not run, or refused before any traffic
	}
	body, err := r.Store.Open(ctx, r.in.LoadTest.Histogram)
	if err != nil {
		return fmt.Errorf("histogram: %w", err)
	}
	defer body.Close()
	encoded, err := io.ReadAll(io.LimitReader(body, maxHistogram))
	if err != nil {
		return fmt.Errorf("histogram: %w", err)
	}
	if err := r.put(ctx, "load_test/histogram.hdr", encoded); err != nil {
		return err
	}
	if r.latencies, err = hdr.Decode(encoded); err != nil {
		r.skip("load_test/histogram.hgrm", err)
		return nil
	}
	var text bytes.Buffer
	if err := (loadtest.Result{Histogram: r.latencies}).WritePercentiles(&text); err != nil {
		return err
	}
	if err := r.put(ctx, "load_test/histogram.hgrm", text.Bytes()); err != nil {
		return err
	}
	return r.logFigures(ctx)
}

// logFigures logs the load test's figures once, at the model's step.
func (r *report) logFigures(ctx context.Context) error {
	l, now, step := r.in.LoadTest, time.Now().UnixMilli(), r.checkpoint.State.Step
	var points []train.Point
	for _, m := range []struct {
		key   string
		value float64
	}{
		{"load_test/p50_ms", l.P50}, {"load_test/p95_ms", l.P95}, {"load_test/p99_ms", l.P99}, {"load_test/throughput", l.Throughput},
		{"load_test/requests", float64(l.Requests)}, {"load_test/errors", float64(l.Errors)},
	} {
		points = append(points, train.Point{Key: m.key, Value: m.value, Step: step, Timestamp: now})
	}
	points, err := metriclog.Once(ctx, r.Store, r.in.Run.metrics(), "load-test", points)
	if err != nil {
		return err
	}
	metrics := make([]mlflow.Metric, len(points))
	for i, p := range points {
		metrics[i] = mlflow.Metric{Key: p.Key, Value: p.Value, Step: p.Step, Timestamp: p.Timestamp, ModelID: modelID(r.in.ModelURI)}
	}
	return r.Tracking.LogBatch(ctx, r.run.ID, mlflow.Batch{Metrics: metrics})
}
