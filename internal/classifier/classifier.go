// Package classifier opens a text classifier that was logged to MLflow by mlflow.transformers, in Python or here, as its
// users do: from the files of the logged model alone.
package classifier

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/duratune/duratune/internal/model"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/tokenizer"
	"github.com/duratune/duratune/internal/train"
)

// Classifier is a loaded model. It serves one goroutine at a time.
type Classifier struct {
	Labels    []string // class names in index order
	MaxLength int      // tokens a text at most
	Engine    train.Engine

	tokenizer *tokenizer.Tokenizer
}

// Prediction is one output of the text-classification pipeline.
type Prediction struct {
	Label string  `json:"label"`
	Score float64 `json:"score"` // probability of the label
}

// Folders of a logged model.
const (
	modelFolder     = "model"
	tokenizerFolder = "components/tokenizer"
)

// Open opens the logged model whose files lie in dir. spec says how; its ModelDir is set, and Labels and MaxLength where
// they are left out: as the model's config and its tokenizer's have them. Errors are those of train.OpenFunc, and
// *tokenizer.UnsupportedError.
func Open(ctx context.Context, dir string, open train.OpenFunc, spec train.Spec) (*Classifier, error) {
	spec.ModelDir, spec.Inference, spec.Padding = filepath.Join(dir, modelFolder), true, "longest"
	var err error
	if len(spec.Labels) == 0 {
		if spec.Labels, err = readLabels(filepath.Join(spec.ModelDir, "config.json")); err != nil {
			return nil, err
		}
	}
	tokens := filepath.Join(dir, filepath.FromSlash(tokenizerFolder))
	if spec.MaxLength == 0 {
		if spec.MaxLength, err = readMaxLength(spec.ModelDir, filepath.Join(tokens, "tokenizer_config.json")); err != nil {
			return nil, err
		}
	}
	tok, err := tokenizer.Load(filepath.Join(tokens, "tokenizer.json"))
	if err != nil {
		return nil, err
	}
	eng, err := open(ctx, spec)
	if err != nil {
		return nil, err
	}
	return &Classifier{Labels: spec.Labels, MaxLength: spec.MaxLength, Engine: eng, tokenizer: tok}, nil
}

// Close frees the device.
func (c *Classifier) Close() error { return c.Engine.Close() }

// Encode turns a text, or a pair, into tokens.
func (c *Classifier) Encode(text recipe.Text) train.Sequence {
	return Encode(c.tokenizer, text, c.MaxLength)
}

// Encode turns a text, or a pair, into at most maxLength tokens.
func Encode(tok *tokenizer.Tokenizer, text recipe.Text, maxLength int) (s train.Sequence) {
	if text.Pair == "" {
		return train.Sequence{IDs: tok.AppendIDs(nil, text.Text, maxLength)}
	}
	s.IDs, s.Types = tok.AppendPair(nil, nil, text.Text, text.Pair, maxLength)
	return s
}

// Logits are the model's outputs for the texts, of shape [len(texts)][len(Labels)]. progress (may be nil) is told the
// texts done so far.
func (c *Classifier) Logits(ctx context.Context, texts []recipe.Text, progress func(done int)) ([][]float32, error) {
	inputs := make([]train.Sequence, len(texts))
	for i, text := range texts {
		inputs[i] = c.Encode(text)
	}
	return c.Engine.Logits(ctx, inputs, progress)
}

// Classify gives each text its most probable label.
func (c *Classifier) Classify(ctx context.Context, texts []recipe.Text) ([]Prediction, error) {
	logits, err := c.Logits(ctx, texts, nil)
	if err != nil {
		return nil, err
	}
	return Predictions(c.Labels, logits), nil
}

// Predictions are the most probable labels that logits of shape [n][len(labels)] stand for.
func Predictions(labels []string, logits [][]float32) []Prediction {
	out := make([]Prediction, len(logits))
	for i, row := range logits {
		p := train.Softmax(row)
		best := train.Argmax(p)
		out[i] = Prediction{Label: labels[best], Score: p[best]}
	}
	return out
}

// readLabels reads id2label of a config.json.
func readLabels(path string) ([]string, error) {
	body, err := os.ReadFile(path)
	if err != nil {
		return nil, &train.ConfigError{File: path, Field: "id2label", Problem: "cannot be read: " + err.Error()}
	}
	var config struct {
		ID2Label map[string]string `json:"id2label"`
	}
	if err := json.Unmarshal(body, &config); err != nil {
		return nil, &train.ConfigError{File: path, Field: "id2label", Problem: err.Error()}
	}
	labels := make([]string, len(config.ID2Label))
	for i := range labels {
		label, ok := config.ID2Label[strconv.Itoa(i)]
		if !ok {
			return nil, &train.ConfigError{File: path, Field: "id2label", Problem: fmt.Sprintf("has %d entries, but none for %d", len(labels), i)}
		}
		labels[i] = label
	}
	if len(labels) < 2 {
		return nil, &train.ConfigError{File: path, Field: "id2label", Problem: fmt.Sprintf("has %d entries, want at least 2", len(labels))}
	}
	return labels, nil
}

// readMaxLength is how many tokens the model takes: what its tokenizer says, and no more than it has positions for.
func readMaxLength(modelDir, tokenizerConfig string) (int, error) {
	config, err := model.ReadConfig(modelDir)
	if err != nil {
		return 0, err
	}
	most := config.MaxLength()
	body, err := os.ReadFile(tokenizerConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return most, nil
	}
	var t struct {
		MaxLength float64 `json:"model_max_length"` // 1e30 where it is not known
	}
	if err == nil {
		err = json.Unmarshal(body, &t)
	}
	if err != nil {
		return 0, &train.ConfigError{File: tokenizerConfig, Field: "model_max_length", Problem: err.Error()}
	}
	if t.MaxLength >= 1 && t.MaxLength < float64(most) {
		return int(t.MaxLength), nil
	}
	return most, nil
}
