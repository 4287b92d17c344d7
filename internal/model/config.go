package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/duratune/duratune/internal/train"
)

// The architectures, by the model_type of config.json.
const (
	DistilBERT = "distilbert"
	BERT       = "bert"
	RoBERTa    = "roberta"
)

// Activation is the function between the two matrices of a feed-forward block.
type Activation string

// The activations, several names of Hugging Face's being one function.
const (
	GELU     Activation = "gelu"
	GELUTanh Activation = "gelu_tanh"
	ReLU     Activation = "relu"
	SiLU     Activation = "silu"
	Tanh     Activation = "tanh"
)

var activations = map[string]Activation{
	"gelu": GELU, "gelu_python": GELU,
	"gelu_new": GELUTanh, "gelu_pytorch_tanh": GELUTanh, "gelu_python_tanh": GELUTanh, "gelu_fast": GELUTanh, "gelu_accurate": GELUTanh,
	"relu": ReLU, "silu": SiLU, "swish": SiLU, "tanh": Tanh,
}

// Config is what of config.json decides the numbers.
type Config struct {
	Type      string // DistilBERT, BERT or RoBERTa
	Layers    int
	Hidden    int // a multiple of Heads
	Heads     int
	Inner     int // width of the feed-forward block
	Vocab     int
	Positions int // rows of the position table
	TokenType int // rows of the token type table; 0: none
	PadID     int // -1: none

	Activation       Activation
	NormEpsilon      float64
	HiddenDropout    float64 // after the embeddings and after each block
	AttentionDropout float64 // on the attention probabilities
	HeadDropout      float64
	InitRange        float64 // standard deviation of new matrices
}

// file is config.json as far as it matters. Pointers tell absent from zero; the names of the architectures do not overlap.
type file struct {
	ModelType string `json:"model_type"`

	// BERT and RoBERTa
	HiddenSize       *int     `json:"hidden_size"`
	NumLayers        *int     `json:"num_hidden_layers"`
	NumHeads         *int     `json:"num_attention_heads"`
	IntermediateSize *int     `json:"intermediate_size"`
	HiddenAct        *string  `json:"hidden_act"`
	HiddenDropout    *float64 `json:"hidden_dropout_prob"`
	ProbsDropout     *float64 `json:"attention_probs_dropout_prob"`
	HeadDropout      *float64 `json:"classifier_dropout"`
	TypeVocabSize    *int     `json:"type_vocab_size"`
	LayerNormEps     *float64 `json:"layer_norm_eps"`

	// DistilBERT
	Dim              *int     `json:"dim"`
	DistilLayers     *int     `json:"n_layers"`
	DistilHeads      *int     `json:"n_heads"`
	HiddenDim        *int     `json:"hidden_dim"`
	Activation       *string  `json:"activation"`
	Dropout          *float64 `json:"dropout"`
	AttentionDropout *float64 `json:"attention_dropout"`
	SeqDropout       *float64 `json:"seq_classif_dropout"`

	// all
	VocabSize   *int            `json:"vocab_size"`
	Positions   *int            `json:"max_position_embeddings"`
	PadTokenID  json.RawMessage `json:"pad_token_id"` // null differs from absent
	InitRange   *float64        `json:"initializer_range"`
	ProblemType *string         `json:"problem_type"`

	// what would change the numbers in a way that is not built
	PositionType     *string         `json:"position_embedding_type"`
	IsDecoder        bool            `json:"is_decoder"`
	EncoderDecoder   bool            `json:"is_encoder_decoder"`
	CrossAttention   bool            `json:"add_cross_attention"`
	EmbeddingSize    *int            `json:"embedding_size"`
	PrunedHeads      json.RawMessage `json:"pruned_heads"`
	PerLayerConfig   json.RawMessage `json:"per_layer_config"`
	QuantizationConf json.RawMessage `json:"quantization_config"`
}

// maxConfigBytes bounds what is read; the longest config.json on the hub is far below.
const maxConfigBytes = 8 << 20

// ReadConfig reads config.json of a Hugging Face model folder. A field that is wrong or not supported is a
// *train.ConfigError; fields that do not change the numbers are ignored. The defaults are transformers'.
func ReadConfig(dir string) (Config, error) {
	path := filepath.Join(dir, "config.json")
	info, err := os.Stat(path)
	if err != nil {
		return Config{}, &train.ConfigError{File: path, Field: "(file)", Problem: "cannot be read: " + err.Error()}
	}
	if info.Size() > maxConfigBytes {
		return Config{}, &train.ConfigError{File: path, Field: "(file)", Problem: fmt.Sprintf("%d bytes, want at most %d", info.Size(), maxConfigBytes)}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return Config{}, &train.ConfigError{File: path, Field: "(file)", Problem: "cannot be read: " + err.Error()}
	}
	return parseConfig(path, text)
}

func parseConfig(path string, text []byte) (Config, error) {
	var f file
	if err := json.Unmarshal(text, &f); err != nil {
		field := "(file)"
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && e.Field != "" {
			field = e.Field
		}
		return Config{}, &train.ConfigError{File: path, Field: field, Problem: err.Error()}
	}
	p := &problems{file: path}
	p.refuse(f)
	var c Config
	switch f.ModelType {
	case DistilBERT:
		c = p.distilbert(f)
	case BERT, RoBERTa:
		c = p.bert(f)
	default:
		p.add("model_type", "got %q, want %s, %s or %s", f.ModelType, DistilBERT, BERT, RoBERTa)
	}
	if p.err == nil {
		p.check(c, f.ModelType)
	}
	if p.err != nil {
		return Config{}, p.err
	}
	return c, nil
}

// problems keeps the first problem of a config.
type problems struct {
	file string
	err  error
}

func (p *problems) add(field, format string, args ...any) {
	if p.err == nil {
		p.err = &train.ConfigError{File: p.file, Field: field, Problem: fmt.Sprintf(format, args...)}
	}
}

// refuse names what is in the file and not supported.
func (p *problems) refuse(f file) {
	if f.PositionType != nil && *f.PositionType != "absolute" {
		p.add("position_embedding_type", "got %q, want absolute", *f.PositionType)
	}
	if f.ProblemType != nil && *f.ProblemType != "single_label_classification" {
		p.add("problem_type", "got %q, want single_label_classification", *f.ProblemType)
	}
	for _, flag := range []struct {
		field string
		on    bool
	}{{"is_decoder", f.IsDecoder}, {"is_encoder_decoder", f.EncoderDecoder}, {"add_cross_attention", f.CrossAttention}} {
		if flag.on {
			p.add(flag.field, "got true, want false: only encoders are supported")
		}
	}
	for _, raw := range []struct {
		field string
		value json.RawMessage
	}{{"pruned_heads", f.PrunedHeads}, {"per_layer_config", f.PerLayerConfig}, {"quantization_config", f.QuantizationConf}} {
		if s := strings.Join(strings.Fields(string(raw.value)), ""); s != "" && s != "null" && s != "{}" {
			p.add(raw.field, "is not supported")
		}
	}
	if f.EmbeddingSize != nil && f.HiddenSize != nil && *f.EmbeddingSize != *f.HiddenSize {
		p.add("embedding_size", "got %d, want hidden_size %d", *f.EmbeddingSize, *f.HiddenSize)
	}
}

func or[T any](p *T, fallback T) T {
	if p == nil {
		return fallback
	}
	return *p
}

// bert is the configuration of BERT and RoBERTa, whose defaults differ in the vocabulary and the padding id only.
func (p *problems) bert(f file) Config {
	vocab, pad := 30522, 0
	if f.ModelType == RoBERTa {
		vocab, pad = 50265, 1
	}
	hidden := or(f.HiddenDropout, 0.1)
	return Config{
		Type: f.ModelType, Layers: or(f.NumLayers, 12), Hidden: or(f.HiddenSize, 768), Heads: or(f.NumHeads, 12),
		Inner: or(f.IntermediateSize, 3072), Vocab: or(f.VocabSize, vocab), Positions: or(f.Positions, 512),
		TokenType: or(f.TypeVocabSize, 2), PadID: p.padID(f.PadTokenID, pad), Activation: p.activation("hidden_act", f.HiddenAct),
		NormEpsilon: or(f.LayerNormEps, 1e-12), HiddenDropout: hidden, AttentionDropout: or(f.ProbsDropout, 0.1),
		HeadDropout: or(f.HeadDropout, hidden), InitRange: or(f.InitRange, 0.02),
	}
}

// distilbert has no field for the epsilon of its layer norms: transformers fixes it.
func (p *problems) distilbert(f file) Config {
	return Config{
		Type: DistilBERT, Layers: or(f.DistilLayers, 6), Hidden: or(f.Dim, 768), Heads: or(f.DistilHeads, 12),
		Inner: or(f.HiddenDim, 3072), Vocab: or(f.VocabSize, 30522), Positions: or(f.Positions, 512),
		PadID: p.padID(f.PadTokenID, 0), Activation: p.activation("activation", f.Activation), NormEpsilon: 1e-12,
		HiddenDropout: or(f.Dropout, 0.1), AttentionDropout: or(f.AttentionDropout, 0.1), HeadDropout: or(f.SeqDropout, 0.2),
		InitRange: or(f.InitRange, 0.02),
	}
}

func (p *problems) padID(raw json.RawMessage, fallback int) int {
	switch {
	case len(raw) == 0:
		return fallback
	case bytes.Equal(raw, []byte("null")):
		return -1
	}
	var id int
	if err := json.Unmarshal(raw, &id); err != nil {
		p.add("pad_token_id", "got %s, want an integer or null", raw)
	}
	return id
}

func (p *problems) activation(field string, name *string) Activation {
	a, ok := activations[or(name, "gelu")]
	if !ok {
		known := make([]string, 0, len(activations))
		for n := range activations {
			known = append(known, n)
		}
		slices.Sort(known)
		p.add(field, "got %q, want one of %s", *name, strings.Join(known, ", "))
	}
	return a
}

// fieldNames are the names by which the architectures' configs know the same things.
func fieldNames(modelType string) map[string]string {
	if modelType == DistilBERT {
		return map[string]string{"layers": "n_layers", "hidden": "dim", "heads": "n_heads", "inner": "hidden_dim",
			"dropout": "dropout", "attention": "attention_dropout", "head": "seq_classif_dropout"}
	}
	return map[string]string{"layers": "num_hidden_layers", "hidden": "hidden_size", "heads": "num_attention_heads",
		"inner": "intermediate_size", "dropout": "hidden_dropout_prob", "attention": "attention_probs_dropout_prob", "head": "classifier_dropout"}
}

// check bounds every number, so that sizes computed from them cannot overflow.
func (p *problems) check(c Config, modelType string) {
	name := fieldNames(modelType)
	for _, n := range []struct {
		field      string
		value, max int
	}{
		{name["layers"], c.Layers, 1000}, {name["hidden"], c.Hidden, 1 << 16}, {name["heads"], c.Heads, 1 << 12},
		{name["inner"], c.Inner, 1 << 18}, {"vocab_size", c.Vocab, 1 << 22}, {"max_position_embeddings", c.Positions, 1 << 20},
	} {
		if n.value < 1 || n.value > n.max {
			p.add(n.field, "got %d, want 1 to %d", n.value, n.max)
		}
	}
	if modelType != DistilBERT && (c.TokenType < 1 || c.TokenType > 1<<16) {
		p.add("type_vocab_size", "got %d, want 1 to %d", c.TokenType, 1<<16)
	}
	if c.Heads > 0 && c.Hidden%c.Heads != 0 {
		p.add(name["heads"], "got %d, want a divisor of %s, which is %d", c.Heads, name["hidden"], c.Hidden)
	}
	for _, d := range []struct {
		field string
		value float64
	}{{name["dropout"], c.HiddenDropout}, {name["attention"], c.AttentionDropout}, {name["head"], c.HeadDropout}} {
		if !(d.value >= 0 && d.value < 1) {
			p.add(d.field, "got %v, want at least 0 and less than 1", d.value)
		}
	}
	if !(c.NormEpsilon > 0 && c.NormEpsilon < 1) {
		p.add("layer_norm_eps", "got %v, want more than 0 and less than 1", c.NormEpsilon)
	}
	if !(c.InitRange > 0) || math.IsInf(c.InitRange, 0) {
		p.add("initializer_range", "got %v, want more than 0", c.InitRange)
	}
	if c.PadID >= c.Vocab || c.PadID < -1 {
		p.add("pad_token_id", "got %d, want an id of the vocabulary of %d", c.PadID, c.Vocab)
	}
	if modelType == RoBERTa && (c.PadID < 0 || c.PadID+1 >= c.Positions) {
		p.add("pad_token_id", "got %d, want one: RoBERTa counts positions from it, below max_position_embeddings %d", c.PadID, c.Positions)
	}
}

// MaxLength is the longest sequence the position table has room for, in tokens.
func (c Config) MaxLength() int {
	if c.Type == RoBERTa {
		return c.Positions - c.PadID - 1
	}
	return c.Positions
}

// Typed reports whether the model tells tokens of these sequences apart by their types: of the architectures only BERT does, and a
// single text's are all 0.
func (c Config) Typed(seqs []train.Sequence) bool {
	return c.Type == BERT && slices.ContainsFunc(seqs, func(s train.Sequence) bool { return s.Types != nil })
}

// AppendPositions appends the positions of a sequence's tokens. RoBERTa counts from behind the padding id and leaves out
// tokens that are the padding id themselves (create_position_ids_from_input_ids).
func (c Config) AppendPositions(dst []int64, ids []int32) []int64 {
	if c.Type != RoBERTa {
		for i := range ids {
			dst = append(dst, int64(i))
		}
		return dst
	}
	at := int64(c.PadID)
	for _, id := range ids {
		if int(id) == c.PadID {
			dst = append(dst, int64(c.PadID))
			continue
		}
		at++
		dst = append(dst, at)
	}
	return dst
}
