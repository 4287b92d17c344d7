package activities

import (
	"context"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/classifier"
	"github.com/duratune/duratune/internal/loadtest"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/train"
)

// LoadTestInput is a logged model and what it must live up to.
type LoadTestInput struct {
	Session
	ModelURI    string          `json:"model_uri"`   // models:/m-…
	Tokens      artifact.Ref    `json:"tokens"`      // manifest of the held-out share, tokenized
	Texts       Share           `json:"texts"`       // the held-out share, for traffic
	Predictions artifact.Ref    `json:"predictions"` // of the trained model
	Limits      recipe.LoadTest `json:"limits"`
}

// LoadTestResult is the gate's verdict. A missed limit is a result, not an error: trying again would not help.
type LoadTestResult struct {
	Passed       bool     `json:"passed"`
	Reasons      []string `json:"reasons,omitempty"` // why it did not pass
	Requests     int      `json:"requests"`
	Errors       int      `json:"errors"`
	P50          float64  `json:"p50_ms"`
	P95          float64  `json:"p95_ms"`
	P99          float64  `json:"p99_ms"`
	Throughput   float64  `json:"throughput"`     // completed requests a second
	Compared     int      `json:"compared"`       // held-out rows scored by both models
	MaxScoreDiff float64  `json:"max_score_diff"` // largest difference of a probability

	Histogram artifact.Ref `json:"histogram,omitzero"` // latencies, HdrHistogram V2 in base64; zero: no traffic was sent
}

// compareRows bounds how many held-out rows are scored again.
const compareRows = 512

// scoreTolerance is how far a probability may be off: the same weights in batches of other shapes.
var scoreTolerance = map[string]float64{"fp32": 1e-5, "tf32": 2e-3, "bf16": 2e-2}

// LoadTest loads the logged model as its users will, by its models:/ URI from the tracking server, compares its labels and
// scores with the trained model's, and then sends it traffic at the recipe's rate.
func (g *GPU) LoadTest(ctx context.Context, in LoadTestInput) (res LoadTestResult, err error) {
	defer func() { err = edge(failed(ctx, in.Session, err)) }()
	if err := in.Run.guard(ctx); err != nil {
		return res, err
	}
	g.drop() // training is over: its memory belongs to the model under test
	dir, err := os.MkdirTemp(g.Scratch, "load-test-")
	if err != nil {
		return res, err
	}
	defer os.RemoveAll(dir)
	m, err := g.openLogged(ctx, in, dir)
	if err != nil {
		return res, err
	}
	defer m.Close()
	if err := g.compare(ctx, in, m, &res); err != nil || len(res.Reasons) > 0 {
		return res, err
	}
	if err := g.traffic(ctx, in, m, &res); err != nil {
		return res, err
	}
	res.Passed = len(res.Reasons) == 0
	return res, nil
}

// servedModel answers requests in turns: a classifier serves one goroutine at a time.
type servedModel struct {
	*classifier.Classifier
	mu sync.Mutex
}

// predict classifies one text, or pair.
func (m *servedModel) predict(ctx context.Context, text recipe.Text) error {
	input := m.Encode(text)
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.Engine.Logits(ctx, []train.Sequence{input}, nil)
	return err
}

// openLogged downloads the model's files into dir and opens them.
func (g *GPU) openLogged(ctx context.Context, in LoadTestInput, dir string) (*servedModel, error) {
	if _, err := g.download(ctx, in.ModelURI, dir); err != nil {
		return nil, err
	}
	c, err := classifier.Open(ctx, dir, g.Open, in.spec(""))
	if err != nil {
		return nil, err
	}
	return &servedModel{Classifier: c}, nil
}

// download brings the files of a model URI into dir.
func (g *GPU) download(ctx context.Context, uri, dir string) (mlflow.ModelRef, error) {
	ref, err := g.Tracking.ResolveModelURI(ctx, uri)
	if err != nil {
		return ref, err
	}
	_, err = g.Tracking.DownloadDir(ctx, ref.ArtifactURI, dir, func(int64) { beat(ctx, Heartbeat{Phase: "download " + uri}) })
	return ref, err
}

// compare scores held-out rows with the logged model and looks for differences from what the trained model said.
func (g *GPU) compare(ctx context.Context, in LoadTestInput, m *servedModel, res *LoadTestResult) error {
	want, _, err := readPredictions(ctx, g.Store, g.CacheDir, in.Predictions, len(in.Labels))
	if err != nil {
		return err
	}
	tokens, err := g.tokens(ctx, in.Tokens)
	if err != nil {
		return err
	}
	defer tokens.Close()
	inputs, _ := batchOf(tokens)
	n := min(len(inputs), len(want), compareRows)
	began := time.Now()
	got, err := m.Engine.Logits(ctx, inputs[:n], func(done int) { g.evaluating(ctx, in.Session, done, n, began) })
	if err != nil {
		return err
	}
	res.Compared = n
	flipped := 0
	for i := range got {
		p, q := train.Softmax(got[i]), train.Softmax(want[i])
		if train.Argmax(p) != train.Argmax(q) {
			flipped++
		}
		for c := range p {
			res.MaxScoreDiff = math.Max(res.MaxScoreDiff, math.Abs(p[c]-q[c]))
		}
	}
	limit := scoreTolerance[m.Engine.Identity().Precision]
	if res.MaxScoreDiff > limit {
		res.Reasons = append(res.Reasons, fmt.Sprintf("scores of the logged model differ from the trained model's by up to %.2g on %d rows (limit %.2g, %d labels differ)", res.MaxScoreDiff, n, limit, flipped))
	}
	return nil
}

// traffic sends texts of the held-out share at the recipe's rate and judges the latencies.
func (g *GPU) traffic(ctx context.Context, in LoadTestInput, m *servedModel, res *LoadTestResult) error {
	texts, err := g.texts(ctx, in.Texts)
	if err != nil {
		return err
	}
	l := in.Limits
	limits := loadtest.Limits{P50: time.Duration(l.MaxP50), P95: time.Duration(l.MaxP95), P99: time.Duration(l.MaxP99), ErrorRate: l.MaxErrorRate, Throughput: l.MinThroughput}
	out, err := loadtest.Run(ctx, loadtest.Config{
		Rate: in.Limits.RatePerSecond, Warmup: trafficWarmup, Duration: time.Duration(in.Limits.Duration), Seed: in.Train.Seed, Texts: len(texts), Limits: limits,
	}, func(ctx context.Context, i int) error { return m.predict(ctx, texts[i]) }, func(p loadtest.Progress) {
		beat(ctx, Heartbeat{Phase: "load test", Percent: 100 * float64(p.Done) / float64(max(1, p.Planned))})
	})
	if err != nil {
		return err
	}
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	res.Requests, res.Errors, res.Throughput = out.Requests, out.Errors, out.Throughput
	res.P50, res.P95, res.P99 = ms(out.P50), ms(out.P95), ms(out.P99)
	res.Reasons = append(res.Reasons, out.Violations(limits)...)
	res.Histogram, err = g.putHistogram(ctx, in, out)
	return err
}

// trafficWarmup is answered but not measured.
const trafficWarmup = 2 * time.Second

// trafficTexts bounds how many different texts the traffic is made of.
const trafficTexts = 4096

// texts reads the first texts of a share.
func (g *GPU) texts(ctx context.Context, share Share) ([]recipe.Text, error) {
	var texts []recipe.Text
	for row, err := range readShare(ctx, g.Store, g.CacheDir, share) {
		if err != nil {
			return nil, err
		}
		if texts = append(texts, recipe.Text{Text: row.Text, Pair: row.Pair}); len(texts) == trafficTexts {
			break
		}
	}
	return texts, nil
}

// putHistogram keeps the latencies, as HdrHistogram's tools read them.
func (g *GPU) putHistogram(ctx context.Context, in LoadTestInput, out loadtest.Result) (artifact.Ref, error) {
	encoded, err := out.Encoded()
	if err != nil {
		return artifact.Ref{}, err
	}
	key := in.Run.attempt(ctx, in.Run.Key+"/load-test") + "/histogram.hdr"
	return g.Store.Put(ctx, key, strings.NewReader(encoded), nil)
}
