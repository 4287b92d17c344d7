package activities

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"image/png"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/duratune/duratune/dataset"
	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/loadtest"
	"github.com/duratune/duratune/internal/metriclog"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/mlflow/mlflowtest"
	"github.com/duratune/duratune/internal/plot"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/safetensors"
	"github.com/duratune/duratune/internal/train"
)

// reporting is a trained run and the CPU worker that reports it.
type reporting struct {
	*bench
	cpu *CPU
	in  ReportInput
}

// newReporting trains an epoch, and stores held-out rows with the logits given for them.
func newReporting(t *testing.T, s sample) *reporting {
	t.Helper()
	r := &reporting{bench: newBench(t)}
	trained, err := r.train(t, r.input)
	if err != nil {
		t.Fatal(err)
	}
	eval := []train.Point{{Key: "eval_loss", Value: 0.5, Step: 11, Timestamp: 1}}
	if _, err := metriclog.Once(t.Context(), r.store, r.run.metrics(), "eval-epoch-001", eval); err != nil {
		t.Fatal(err)
	}
	r.cpu = &CPU{Store: r.store, Tracking: newTracking(t, r.mlflow), CacheDir: t.TempDir(), Scratch: t.TempDir(), UI: "http://temporal", Logger: slog.New(slog.DiscardHandler)}
	rec := recipe.Defaults()
	rec.Name, rec.Data.Source, rec.Data.Labels = "sms", "file:sms|x.tsv", []string{"ham", "spam"}
	rec.Model.Base = "hf://distilbert/distilbert-base-uncased"
	tokens, err := putManifest(t.Context(), r.store, "stats", Shards{Stats: dataset.TokenStats{Rows: 3, Tokens: 9, Truncated: 1, Lengths: []int{0, 1, 0, 0, 2}}})
	if err != nil {
		t.Fatal(err)
	}
	test := r.putShare(t, s.rows)
	r.in = ReportInput{Run: r.run, Recipe: rec, Tokens: []artifact.Ref{tokens, tokens}, Checkpoint: trained.Checkpoint, Predictions: r.putLogits(t, s),
		Split:    LoadSplitResult{Train: Share{Name: "train", NumRows: testRows, LabelCounts: []int{42, 41}, Digest: strings.Repeat("a", 64)}, Test: test, Overlap: 2, Commit: "c0ffee"},
		Epochs:   []Epoch{{Epoch: 1, TrainLoss: 0.25, EvalLoss: 0.5, Accuracy: 0.75, F1: 0.6667, Seconds: 12}},
		Choice:   Choice{Epoch: 1, Trained: 1, Planned: 1},
		ModelURI: "models:/" + r.putModel(t), LoadTest: &LoadTestResult{Passed: true, Requests: 100, P50: 2, P95: 3, P99: 4.5, Throughput: 19.9}}
	return r
}

// putShare stores rows as a share.
func (r *reporting) putShare(t *testing.T, rows []dataset.Row) Share {
	t.Helper()
	share := Share{Name: "test", NumRows: len(rows), LabelCounts: []int{0, 0}}
	seq := func(yield func(dataset.Row, error) bool) {
		for _, row := range rows {
			share.LabelCounts[row.Label]++
			if !yield(row, nil) {
				return
			}
		}
	}
	var shards Shards
	_, digest, err := dataset.WriteShards(t.Context(), seq, []string{"ham", "spam"}, t.TempDir(), func(path string, _ int) error {
		ref, err := putFile(t.Context(), r.store, "test/"+filepath.Base(path), path, nil)
		shards.Shards = append(shards.Shards, ref)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	share.Digest = digest
	if share.Rows, err = putManifest(t.Context(), r.store, "test", shards); err != nil {
		t.Fatal(err)
	}
	return share
}

// putLogits stores predictions as Validate does.
func (r *reporting) putLogits(t *testing.T, s sample) artifact.Ref {
	t.Helper()
	var values, index []byte
	for i, row := range s.logits {
		for _, v := range row {
			values = binary.LittleEndian.AppendUint32(values, math.Float32bits(v))
		}
		index = binary.LittleEndian.AppendUint64(index, uint64(s.rows[i].Index))
	}
	body, err := safetensors.NewReader(nil, []safetensors.Tensor{
		{Name: "logits", DType: "F32", Shape: []int64{int64(len(s.logits)), 2}, Data: values}, {Name: "row", DType: "I64", Shape: []int64{int64(len(s.logits))}, Data: index},
	})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := r.store.Put(t.Context(), "predictions", body, nil)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// putHistogram runs a tiny load test and stores its latencies.
func (r *reporting) putHistogram(t *testing.T) artifact.Ref {
	t.Helper()
	cfg := loadtest.Config{Rate: 1000, Duration: 20 * time.Millisecond, Texts: 1}
	out, err := loadtest.Run(t.Context(), cfg, func(context.Context, int) error { return nil }, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := out.Encoded()
	if err != nil {
		t.Fatal(err)
	}
	ref, err := r.store.Put(t.Context(), "histogram", strings.NewReader(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// putModel makes a logged model in the run.
func (r *reporting) putModel(t *testing.T) string {
	t.Helper()
	m, err := r.cpu.Tracking.EnsureModel(t.Context(), mlflow.ModelSpec{ExperimentID: r.run.ExperimentID, RunID: r.run.MLflowRunID, Name: "fine_tuned", Key: "model"})
	if err != nil {
		t.Fatal(err)
	}
	return m.ID
}

// report runs one attempt.
func (r *reporting) report(t *testing.T) (ReportResult, error) {
	t.Helper()
	env := r.env(t)
	env.RegisterActivity(r.cpu)
	v, err := env.ExecuteActivity(r.cpu.Report, r.in)
	var res ReportResult
	if err == nil {
		err = v.Get(&res)
	}
	return res, err
}

// artifact is a file of the MLflow run.
func (r *reporting) artifact(t *testing.T, name string) []byte {
	t.Helper()
	body, ok := r.mlflow.Files()[r.run.ExperimentID+"/"+r.run.MLflowRunID+"/artifacts/"+name]
	if !ok {
		t.Errorf("%s was not written", name)
	}
	return body
}

// sample is held-out rows and what the model says of them.
type sample struct {
	rows   []dataset.Row
	logits [][]float32
}

// some rows: the first is right, then a confident mistake, an uncertain one, and one that is right and sure.
func some() sample {
	return sample{[]dataset.Row{{Index: 7, Text: "hello", Label: 0}, {Index: 9, Text: "win\x00 now\u0007", Label: 1}, {Index: 2, Text: "hm", Label: 0}, {Index: 4, Text: "sure", Label: 1}},
		[][]float32{{1, 0}, {5, 0}, {0, 0.1}, {0, 9}}}
}

func TestReport(t *testing.T) {
	r := newReporting(t, some())
	r.in.LoadTest.Histogram = r.putHistogram(t)
	var res ReportResult
	for range 2 { // the second attempt finds everything there
		var err error
		if res, err = r.report(t); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"load_test/histogram.hdr", "load_test/histogram.hgrm", "plots/curves.png", "plots/confusion.png", "plots/pr.png", "plots/roc.png",
		"plots/reliability.png", "plots/lengths.png", "plots/latency.png", "predictions/most_confident_mistakes.json", "predictions/least_certain.json"}
	if diff := cmp.Diff(ReportResult{Artifacts: want}, res); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	for _, name := range want {
		body := r.artifact(t, name)
		if strings.HasSuffix(name, ".png") {
			if _, err := png.DecodeConfig(bytes.NewReader(body)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	wantTable(t, r.artifact(t, want[9]), [][]any{{9.0, "win␀ now␇", "spam", "ham", 0.9933}, {2.0, "hm", "ham", "spam", 0.525}})
	wantTable(t, r.artifact(t, want[10]), [][]any{
		{2.0, "hm", "ham", "spam", 0.525}, {7.0, "hello", "ham", "ham", 0.7311}, {9.0, "win␀ now␇", "spam", "ham", 0.9933}, {4.0, "sure", "spam", "spam", 0.9999}})
	wantFigures(t, r)
	wantDescription(t, r)
}

// wantTable compares a table artifact; scores are rounded.
func wantTable(t *testing.T, body []byte, want [][]any) {
	t.Helper()
	var got struct {
		Columns []string `json:"columns"`
		Data    [][]any  `json:"data"`
	}
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	for _, row := range got.Data {
		if v, ok := row[4].(float64); ok {
			row[4] = math.Round(v*1e4) / 1e4
		}
	}
	if diff := cmp.Diff(want, got.Data); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"row", "text", "label", "predicted", "score"}, got.Columns); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
}

// wantFigures: the load test's figures stand once in the run, at the model's step, linked to the model.
func wantFigures(t *testing.T, r *reporting) {
	t.Helper()
	times := map[int64]bool{}
	for _, m := range r.mlflow.Runs()[0].Metrics {
		if m.Key == "load_test/p99_ms" {
			times[*m.Timestamp] = true
			if m.Value != 4.5 || m.Step != 11 || m.ModelID != r.mlflow.Models()[0].ID {
				t.Errorf("p99 %+v", m)
			}
		}
	}
	if len(times) != 1 {
		t.Errorf("p99 was logged with %d time stamps, want one however often it is sent", len(times))
	}
}

func wantDescription(t *testing.T, r *reporting) {
	t.Helper()
	tags := r.mlflow.Runs()[0].Tags
	for _, part := range []string{"`distilbert/distilbert-base-uncased`", "`file:sms\\|x.tsv`", "83 training rows, 4 test rows", "| 1 | 0.2500 | 0.5000 | 0.7500 | 0.6667 | 12.0 |",
		"held-out test share was evaluated after each epoch. The last checkpoint (epoch 1) was taken, whatever its figures. Logged as `models:/m-", "texts of 2 test rows also stand", "passed. 100 requests at 20 a second",
		"[Temporal workflow](http://temporal/namespaces/default-test-namespace/workflows/"} {
		if !strings.Contains(tags["mlflow.note.content"], part) {
			t.Errorf("the description lacks %q:\n%s", part, tags["mlflow.note.content"])
		}
	}
	for key, want := range map[string]string{tagDevice: "fake", tagPrecision: "fp32", tagLineage: "0", tagData: strings.Repeat("a", 64)} {
		if tags[key] != want {
			t.Errorf("tag %s = %q, want %q", key, tags[key], want)
		}
	}
	if len(tags[tagRecipe]) != 64 {
		t.Errorf("recipe digest %q", tags[tagRecipe])
	}
}

func TestReportOfOddData(t *testing.T) {
	huge := strings.Repeat("long \xff", 300_000)
	for name, tt := range map[string]sample{
		"one class":      {[]dataset.Row{{Index: 1, Text: "a"}, {Index: 2, Text: "b"}}, [][]float32{{1, 0}, {2, 0}}},
		"one huge row":   {[]dataset.Row{{Index: 1, Text: strings.ToValidUTF8(huge, "\u0001"), Label: 1}}, [][]float32{{1, 0}}},
		"nothing finite": {[]dataset.Row{{Index: 1, Text: "a"}, {Index: 2, Text: "b", Label: 1}}, [][]float32{{float32(math.NaN()), 0}, {2, float32(math.Inf(1))}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReporting(t, tt)
			r.in.LoadTest = &LoadTestResult{Reasons: []string{"scores | differ"}} // and no traffic
			res, err := r.report(t)
			if err != nil || len(res.Skipped) > 0 || len(res.Artifacts) != 9 {
				t.Errorf("result %+v, error %v, want all 9 artifacts", res, err)
			}
			if n := len(r.artifact(t, "predictions/least_certain.json")); n > 10_000 {
				t.Errorf("the table has %d bytes", n)
			}
			if note := r.mlflow.Runs()[0].Tags["mlflow.note.content"]; !strings.Contains(note, `refused before any traffic: scores \| differ`) {
				t.Errorf("the description does not say why:\n%s", note)
			}
		})
	}
}

// TestReportOfASealedTest says which figures are of which share.
func TestReportOfASealedTest(t *testing.T) {
	r := newReporting(t, some())
	r.in.Choice, r.in.Split.Validation = Choice{Epoch: 1, Trained: 1, Planned: 1, Metric: "eval_f1", Sealed: true}, Share{Name: "validation", NumRows: 77}
	if _, err := r.report(t); err != nil {
		t.Fatal(err)
	}
	for _, says := range []string{"The table is of the 77 validation rows. **Test figures**: loss", "accuracy 0.5000", "the test share once, with the chosen checkpoint", `the best by eval\_f1`} {
		if note := r.mlflow.Runs()[0].Tags["mlflow.note.content"]; !strings.Contains(note, says) {
			t.Errorf("the description lacks %q:\n%s", says, note)
		}
	}
}

func TestReportWithoutModel(t *testing.T) {
	r := newReporting(t, some())
	r.in.ModelURI, r.in.LoadTest, r.in.Choice = "", nil, Choice{}
	res, err := r.report(t)
	if err != nil || slices.Contains(res.Artifacts, "plots/latency.png") {
		t.Errorf("result %+v, error %v, want no latency", res, err)
	}
	if note := r.mlflow.Runs()[0].Tags["mlflow.note.content"]; !strings.Contains(note, "No model was logged.") || strings.Contains(note, "was taken") {
		t.Errorf("the description speaks of a model:\n%s", note)
	}
}

func TestReportOutlivesAnOutage(t *testing.T) {
	r := newReporting(t, some())
	for range 20 { // more than the client itself tries
		r.mlflow.Inject("PUT", mlflowtest.Fault{Status: 503, Body: "{}"})
	}
	_, err := r.report(t)
	wantType(t, err, TypeTrackingUnavailable, true)
	for err != nil && len(r.mlflow.Calls("PUT")) < 25 {
		_, err = r.report(t)
	}
	if err != nil {
		t.Error(err)
	}
}

// TestReportIntoAStoreThatRefuses: retrying a refusal does not help; the workflow goes on without a report.
func TestReportIntoAStoreThatRefuses(t *testing.T) {
	r := newReporting(t, some())
	r.mlflow.Inject("PUT api/2.0/mlflow-artifacts/artifacts", mlflowtest.Fault{Status: 403, Body: `{"error_code": "PERMISSION_DENIED", "message": "read-only bucket"}`})
	_, err := r.report(t)
	wantType(t, err, TypeTrackingRejected, false)
	if !strings.Contains(err.Error(), "read-only bucket") {
		t.Errorf("error = %v, want the server's words", err)
	}
}

func TestReportOfOtherRows(t *testing.T) {
	r, other := newReporting(t, some()), some()
	other.rows[1].Index = 1234
	r.in.Predictions = r.putLogits(t, other)
	_, err := r.report(t)
	wantType(t, err, TypeDatasetInvalid, false)
}

// A picture that the drawing library panics on is left out.
func TestRenderSurvivesAPanic(t *testing.T) {
	if _, err := render(func() *plot.Figure { panic("index out of range") }); err == nil || !strings.Contains(err.Error(), "index out of range") {
		t.Errorf("error = %v", err)
	}
}

func TestTablesKeepTheirLength(t *testing.T) {
	h := heldOut{Predictions: plot.Predictions{Classes: []string{"a", "b"}}}
	for i := range 200 {
		p := 0.5 + float64(i)/500
		h.Probabilities, h.Labels, h.rows = append(h.Probabilities, []float64{p, 1 - p}), append(h.Labels, i%2), append(h.rows, int64(i))
	}
	mistakes, uncertain := h.mistakes(), h.leastCertain()
	if len(mistakes) != tableRows || mistakes[0] != 199 || mistakes[1] != 197 {
		t.Errorf("%d mistakes, the first %v, want 50 from 199 down", len(mistakes), mistakes[:2])
	}
	if len(uncertain) != tableRows || uncertain[0] != 0 || uncertain[49] != 49 {
		t.Errorf("%d uncertain rows from %d, want 50 from 0 up", len(uncertain), uncertain[0])
	}
	texts := map[int]recipe.Text{199: {Text: "x", Pair: "y"}}
	if got := fmt.Sprint(h.table(mistakes[:1], texts, false)); got != "{[row text label predicted score] [[199 x b a 0.898]]}" {
		t.Errorf("table %s", got)
	}
	if got := fmt.Sprint(h.table(mistakes[:1], texts, true)); got != "{[row text text_pair label predicted score] [[199 x y b a 0.898]]}" {
		t.Errorf("table of pairs %s", got)
	}
}
