package activities

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"path/filepath"
	"time"

	"github.com/duratune/duratune/dataset"
	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/classifier"
	"github.com/duratune/duratune/internal/metriclog"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/safetensors"
	"github.com/duratune/duratune/internal/tokenizer"
	"github.com/duratune/duratune/internal/train"
)

// ValidateInput is a checkpoint to evaluate.
type ValidateInput struct {
	Session
	Tokens     artifact.Ref     `json:"tokens"` // manifest of the held-out share
	Checkpoint artifact.Ref     `json:"checkpoint"`
	Examples   []recipe.Example `json:"examples,omitempty"` // labelled quick checks, after the last epoch
	Sealed     bool             `json:"sealed,omitempty"`   // the rows are the test share, which no epoch was evaluated on
}

// ValidateResult is the quality of the checkpoint on the held-out rows.
type ValidateResult struct {
	train.Metrics
	Rows        int          `json:"rows"`
	Seconds     float64      `json:"seconds"`
	Predictions artifact.Ref `json:"predictions"`      // safetensors: logits F32 [rows][labels], row I64 [rows]
	Missed      []string     `json:"missed,omitempty"` // examples with another label than the recipe says
}

// historyClasses is up to how many classes the confusion counts go into the workflow's history, which holds no more than
// a few KB of anything.
const historyClasses = 30

// Validate evaluates a checkpoint on the held-out rows, logs Trainer's evaluation metrics at the checkpoint's step, and
// keeps the logits, which the load test compares with.
func (g *GPU) Validate(ctx context.Context, in ValidateInput) (res ValidateResult, err error) {
	defer func() { err = edge(failed(ctx, in.Session, err)) }()
	if err := in.Run.guard(ctx); err != nil {
		return res, err
	}
	tokens, err := g.tokens(ctx, in.Tokens)
	if err != nil {
		return res, err
	}
	defer tokens.Close()
	eng, err := g.engine(ctx, in.Session, in.Checkpoint, false)
	if err != nil {
		return res, err
	}
	began := time.Now()
	inputs, labels := batchOf(tokens)
	logits, err := eng.Logits(ctx, inputs, func(done int) { g.evaluating(ctx, in.Session, done, len(inputs), began) })
	if err != nil {
		g.drop()
		return res, err
	}
	res.Rows, res.Seconds = len(inputs), time.Since(began).Seconds()
	if res.Metrics, err = train.Score(logits, labels, len(in.Labels)); err != nil {
		return res, err
	}
	if len(in.Labels) > historyClasses {
		res.Confusion = nil // the report counts again
	}
	if err := g.logEvaluation(ctx, in, res); err != nil {
		return res, err
	}
	if res.Predictions, err = g.putPredictions(ctx, in, tokens, logits); err != nil {
		return res, err
	}
	if len(in.Examples) > 0 {
		res.Missed, err = g.tryExamples(ctx, eng, in)
	}
	return res, err
}

// evaluating beats from finished rows.
func (g *GPU) evaluating(ctx context.Context, s Session, done, rows int, began time.Time) {
	h := Heartbeat{Phase: "evaluate", Epoch: s.Epoch, Epochs: s.Train.Epochs, Percent: 100 * float64(done) / float64(rows)}
	if seconds := time.Since(began).Seconds(); seconds > 0 && done > 0 {
		h.SamplesPerSecond = float64(done) / seconds
		h.ETASeconds = float64(rows-done) / h.SamplesPerSecond
	}
	beat(ctx, h)
}

// logEvaluation logs what Trainer's evaluate or, of sealed rows, its predict logs, once: a retry finds the points of the first attempt.
func (g *GPU) logEvaluation(ctx context.Context, in ValidateInput, res ValidateResult) error {
	c, err := train.Load(ctx, g.Store, in.Checkpoint)
	if err != nil {
		return err
	}
	now, step := time.Now().UnixMilli(), c.State.Step
	var points []train.Point
	prefix, event := "eval", fmt.Sprintf("eval-epoch-%03d", in.Epoch)
	if in.Sealed {
		prefix, event = "test", "test"
	}
	for _, m := range []struct {
		key   string
		value float64
	}{
		{"loss", res.Loss}, {"accuracy", res.Accuracy}, {"f1", res.F1}, {"precision", res.Precision}, {"recall", res.Recall},
		{"runtime", res.Seconds}, {"samples_per_second", float64(res.Rows) / res.Seconds},
		{"steps_per_second", math.Ceil(float64(res.Rows)/float64(in.Train.EvalBatchSize)) / res.Seconds},
	} {
		points = append(points, train.Point{Key: prefix + "_" + m.key, Value: m.value, Step: step, Timestamp: now})
	}
	points, err = metriclog.Once(ctx, g.Store, in.Run.metrics(), event, points)
	if err != nil {
		return err
	}
	if err := push(g.Tracking, in.Run)(ctx, points); err != nil {
		g.Logger.Warn("evaluation not sent to MLflow, will be sent later", "error", err)
	}
	return nil
}

// putPredictions keeps the logits with the rows they belong to.
func (g *GPU) putPredictions(ctx context.Context, in ValidateInput, rows train.Rows, logits [][]float32) (artifact.Ref, error) {
	var values, index []byte
	for i, row := range logits {
		for _, v := range row {
			values = binary.LittleEndian.AppendUint32(values, math.Float32bits(v))
		}
		index = binary.LittleEndian.AppendUint64(index, uint64(rows.Row(i)))
	}
	n := int64(len(logits))
	body, err := safetensors.NewReader(nil, []safetensors.Tensor{
		{Name: "logits", DType: "F32", Shape: []int64{n, int64(len(in.Labels))}, Data: values},
		{Name: "row", DType: "I64", Shape: []int64{n}, Data: index},
	})
	if err != nil {
		return artifact.Ref{}, err
	}
	key := in.Run.attempt(ctx, fmt.Sprintf("%s/validate-%03d", in.Run.Key, in.Epoch)) + "/predictions.safetensors"
	return g.Store.Put(ctx, key, body, nil)
}

// tryExamples returns a sentence for each example that gets another label than it should.
func (g *GPU) tryExamples(ctx context.Context, eng train.Engine, in ValidateInput) ([]string, error) {
	texts := make([]recipe.Text, len(in.Examples))
	for i, e := range in.Examples {
		texts[i] = recipe.Text{Text: e.Text, Pair: e.TextPair}
	}
	logits, err := g.classify(ctx, eng, in.Session, texts)
	if err != nil {
		return nil, err
	}
	var missed []string
	for i, e := range in.Examples {
		p := train.Softmax(logits[i])
		if got := in.Labels[train.Argmax(p)]; got != e.Label {
			missed = append(missed, fmt.Sprintf("examples[%d] is %s (score %.3f), want %s", i, got, p[train.Argmax(p)], e.Label))
		}
	}
	return missed, nil
}

// classify tokenizes texts with the base model's tokenizer and returns their logits.
func (g *GPU) classify(ctx context.Context, eng train.Engine, s Session, texts []recipe.Text) ([][]float32, error) {
	dir, err := g.modelDir(ctx, s.Model)
	if err != nil {
		return nil, err
	}
	tok, err := tokenizer.Load(filepath.Join(dir, "tokenizer.json"))
	if err != nil {
		return nil, err
	}
	return eng.Logits(ctx, encode(tok, texts, s.Tokenizer.MaxLength), nil)
}

func encode(tok *tokenizer.Tokenizer, texts []recipe.Text, maxLength int) []train.Sequence {
	inputs := make([]train.Sequence, len(texts))
	for i, text := range texts {
		inputs[i] = classifier.Encode(tok, text, maxLength)
	}
	return inputs
}

// batchOf lists a share's rows in stored order.
func batchOf(rows train.Rows) (inputs []train.Sequence, labels []int64) {
	for i := range rows.NumRows() {
		inputs, labels = append(inputs, train.Input(rows, i)), append(labels, rows.Label(i))
	}
	return inputs, labels
}

// modelDir is the local folder of the base model.
func (g *GPU) modelDir(ctx context.Context, ref artifact.Ref) (string, error) {
	return materialize(ctx, g.Store, g.CacheDir, g.Scratch, ref)
}

// tokens opens the token shards of a share, memory-mapped.
func (g *GPU) tokens(ctx context.Context, ref artifact.Ref) (*dataset.Tokens, error) {
	m, err := getManifest[Shards](ctx, g.Store, ref)
	if err != nil {
		return nil, err
	}
	paths := make([]string, len(m.Shards))
	for i, shard := range m.Shards {
		if paths[i], err = artifact.Fetch(ctx, g.Store, shard, filepath.Join(g.CacheDir, Objects)); err != nil {
			return nil, fmt.Errorf("token shard %d: %w", i, err)
		}
	}
	return dataset.OpenTokens(paths...)
}
