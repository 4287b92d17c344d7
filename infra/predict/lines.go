package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/duratune/duratune/internal/classifier"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/train"
)

// batchRows is how many lines are classified at a time.
const batchRows = 256

// maxLine bounds a line, in bytes.
const maxLine = 16 << 20

// prediction is what is added to a line.
type prediction struct {
	Label  string             `json:"label"`
	Score  float64            `json:"score"`  // probability of the label
	Scores map[string]float64 `json:"scores"` // probabilities of all labels
}

func predictions(labels []string, logits [][]float32) []prediction {
	out := make([]prediction, len(logits))
	for i, row := range logits {
		p := train.Softmax(row)
		best := train.Argmax(p)
		out[i] = prediction{Label: labels[best], Score: p[best], Scores: map[string]float64{}}
		for c, label := range labels {
			out[i].Scores[label] = p[c]
		}
	}
	return out
}

// predictText prints the prediction of one text, or pair.
func predictText(ctx context.Context, c *classifier.Classifier, text recipe.Text, out io.Writer) error {
	logits, err := c.Logits(ctx, []recipe.Text{text}, nil)
	if err != nil {
		return err
	}
	body, err := json.Marshal(predictions(c.Labels, logits)[0])
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s\n", body)
	return err
}

// predictLines copies JSON lines and adds a prediction to each. Empty lines are left out; errors name the line.
func predictLines(ctx context.Context, c *classifier.Classifier, name string, in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	w := bufio.NewWriter(out)
	b := batch{classifier: c, out: w}
	n := 0
	for lines.Scan() {
		n++
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		if err := b.add(ctx, line); err != nil {
			return fmt.Errorf("%s: line %d: %w", name, n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: line %d: %w", name, n+1, err)
	}
	if err := b.flush(ctx); err != nil {
		return fmt.Errorf("%s: up to line %d: %w", name, n, err)
	}
	return w.Flush()
}

// batch gathers lines until there are enough for the device.
type batch struct {
	classifier *classifier.Classifier
	out        io.Writer
	rows       []map[string]json.RawMessage
	texts      []recipe.Text
}

func (b *batch) add(ctx context.Context, line []byte) error {
	var row map[string]json.RawMessage
	if err := json.Unmarshal(line, &row); err != nil {
		return fmt.Errorf("not a JSON object: %w", err)
	}
	var text *string
	if err := json.Unmarshal(row["text"], &text); err != nil || text == nil {
		return errors.New(`has no string "text"`)
	}
	in := recipe.Text{Text: *text}
	if pair, ok := row["text_pair"]; ok {
		if err := json.Unmarshal(pair, &in.Pair); err != nil {
			return errors.New(`its "text_pair" is not a string`)
		}
	}
	b.rows, b.texts = append(b.rows, row), append(b.texts, in)
	if len(b.rows) < batchRows {
		return nil
	}
	return b.flush(ctx)
}

func (b *batch) flush(ctx context.Context) error {
	if len(b.rows) == 0 {
		return nil
	}
	logits, err := b.classifier.Logits(ctx, b.texts, nil)
	if err != nil {
		return err
	}
	for i, p := range predictions(b.classifier.Labels, logits) {
		body, err := json.Marshal(p)
		if err != nil {
			return err
		}
		b.rows[i]["prediction"] = body
		if body, err = json.Marshal(b.rows[i]); err != nil {
			return err
		}
		if _, err := b.out.Write(append(body, '\n')); err != nil {
			return err
		}
	}
	b.rows, b.texts = b.rows[:0], b.texts[:0]
	return nil
}
