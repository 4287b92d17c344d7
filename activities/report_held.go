package activities

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"path/filepath"
	"slices"

	"github.com/duratune/duratune/dataset"
	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/plot"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/safetensors"
	"github.com/duratune/duratune/internal/train"
)

// heldOut is what the trained model said of the held-out rows, in stored order.
type heldOut struct {
	plot.Predictions
	share   Share
	rows    []int64 // row numbers in the data set
	metrics train.Metrics
}

// heldOut reads the predictions and the rows that they are of.
func (c *CPU) heldOut(ctx context.Context, share Share, predictions artifact.Ref, labels []string) (h heldOut, err error) {
	h.share, h.Classes = share, labels
	logits, rows, err := readPredictions(ctx, c.Store, c.CacheDir, predictions, len(labels))
	if err != nil {
		return h, err
	}
	h.rows = rows
	var actual []int64
	for row, err := range readShare(ctx, c.Store, c.CacheDir, share) {
		if err != nil {
			return h, err
		}
		if i := len(actual); i >= len(rows) || rows[i] != row.Index {
			break // what follows says so
		}
		actual = append(actual, int64(row.Label))
		h.Labels = append(h.Labels, row.Label)
	}
	if len(actual) != len(rows) {
		return h, &dataset.SourceError{Source: share.Rows.URI, Reason: fmt.Sprintf("%d of its rows match the %d of %s", len(actual), len(rows), predictions.URI)}
	}
	for _, row := range logits {
		p := train.Softmax(row)
		if slices.ContainsFunc(p, math.IsNaN) {
			clear(p) // sure of nothing
		}
		h.Probabilities = append(h.Probabilities, p)
	}
	h.metrics, err = train.Score(logits, actual, len(labels))
	return h, err
}

// readPredictions reads what Validate stored: logits of shape [rows][classes], and the number of each row.
func readPredictions(ctx context.Context, store artifact.Store, cacheDir string, ref artifact.Ref, classes int) (logits [][]float32, rows []int64, err error) {
	path, err := artifact.Fetch(ctx, store, ref, filepath.Join(cacheDir, Objects))
	if err != nil {
		return nil, nil, fmt.Errorf("predictions: %w", err)
	}
	f, err := safetensors.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	t, err := f.Tensor("logits")
	if err != nil {
		return nil, nil, err
	}
	flat, err := safetensors.Float32s(t)
	if err != nil {
		return nil, nil, err
	}
	for ; len(flat) >= classes; flat = flat[classes:] {
		logits = append(logits, flat[:classes])
	}
	index, err := f.Tensor("row")
	if err != nil {
		return nil, nil, err
	}
	for data := index.Data; len(data) >= 8; data = data[8:] {
		rows = append(rows, int64(binary.LittleEndian.Uint64(data)))
	}
	return logits, rows, nil
}

// readShare yields the rows of a share in stored order.
func readShare(ctx context.Context, store artifact.Store, cacheDir string, share Share) iter.Seq2[dataset.Row, error] {
	return func(yield func(dataset.Row, error) bool) {
		m, err := getManifest[Shards](ctx, store, share.Rows)
		if err != nil {
			yield(dataset.Row{}, err)
			return
		}
		for _, shard := range m.Shards {
			beat(ctx, Heartbeat{Phase: "read " + share.Name})
			path, err := artifact.Fetch(ctx, store, shard, filepath.Join(cacheDir, Objects))
			if err != nil {
				yield(dataset.Row{}, fmt.Errorf("rows of %s: %w", share.Name, err))
				return
			}
			for row, err := range dataset.ReadRows(path) {
				if !yield(row, err) || err != nil {
					return
				}
			}
		}
	}
}

// classes is how each class fared; a rate without rows or predictions is zero, as scikit-learn has it.
func (h heldOut) classes() []mlflow.ClassResult {
	out := make([]mlflow.ClassResult, len(h.Classes))
	for c, label := range h.Classes {
		var actual, predicted int
		for o := range h.Classes {
			actual += h.metrics.Confusion[c][o]
			predicted += h.metrics.Confusion[o][c]
		}
		hit := float64(h.metrics.Confusion[c][c])
		out[c] = mlflow.ClassResult{Label: label, Rows: actual, Precision: hit / float64(max(1, predicted)),
			Recall: hit / float64(max(1, actual)), F1: 2 * hit / float64(max(1, actual+predicted))}
	}
	return out
}

// tableRows bounds a table: what a person reads.
const tableRows = 50

// mistakes are the positions of the wrong predictions that the model was surest of, surest first.
func (h heldOut) mistakes() []int {
	predicted := h.Predicted()
	var wrong []int
	for i, label := range h.Labels {
		if predicted[i] != label {
			wrong = append(wrong, i)
		}
	}
	return h.byConfidence(wrong, -1)
}

// leastCertain are the positions of the rows whose label the model was least sure of, least first.
func (h heldOut) leastCertain() []int {
	all := make([]int, len(h.Labels))
	for i := range all {
		all[i] = i
	}
	return h.byConfidence(all, 1)
}

// byConfidence sorts positions by the highest probability, upwards for a sign of 1, and keeps the first of them.
func (h heldOut) byConfidence(positions []int, sign int) []int {
	slices.SortStableFunc(positions, func(a, b int) int {
		return sign * cmp.Compare(slices.Max(h.Probabilities[a]), slices.Max(h.Probabilities[b]))
	})
	return positions[:min(tableRows, len(positions))]
}

// table lists rows with their texts, of pairs both; LogTable cuts and cleans those.
func (h heldOut) table(positions []int, texts map[int]recipe.Text, pairs bool) mlflow.Table {
	predicted := h.Predicted()
	t := mlflow.Table{Columns: []string{"row", "text"}, Data: [][]any{}}
	if pairs {
		t.Columns = append(t.Columns, "text_pair")
	}
	t.Columns = append(t.Columns, "label", "predicted", "score")
	for _, i := range positions {
		row := []any{h.rows[i], texts[i].Text}
		if pairs {
			row = append(row, texts[i].Pair)
		}
		t.Data = append(t.Data, append(row, h.Classes[h.Labels[i]], h.Classes[predicted[i]], h.Probabilities[i][predicted[i]]))
	}
	return t
}

// texts reads the texts at some positions of the share.
func (c *CPU) texts(ctx context.Context, share Share, positions ...[]int) (map[int]recipe.Text, error) {
	out := map[int]recipe.Text{}
	for _, i := range slices.Concat(positions...) {
		out[i] = recipe.Text{}
	}
	i := 0
	for row, err := range readShare(ctx, c.Store, c.CacheDir, share) {
		if err != nil {
			return nil, err
		}
		if _, wanted := out[i]; wanted {
			out[i] = recipe.Text{Text: row.Text, Pair: row.Pair}
		}
		i++
	}
	return out, nil
}
