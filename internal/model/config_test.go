package model

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/duratune/duratune/internal/train"
)

func TestDefaultsAreTransformers(t *testing.T) {
	tests := []struct {
		text string
		want Config
	}{
		{`{"model_type": "distilbert"}`, Config{
			Type: DistilBERT, Layers: 6, Hidden: 768, Heads: 12, Inner: 3072, Vocab: 30522, Positions: 512, Activation: GELU,
			NormEpsilon: 1e-12, HiddenDropout: 0.1, AttentionDropout: 0.1, HeadDropout: 0.2, InitRange: 0.02,
		}},
		{`{"model_type": "bert"}`, Config{
			Type: BERT, Layers: 12, Hidden: 768, Heads: 12, Inner: 3072, Vocab: 30522, Positions: 512, TokenType: 2, Activation: GELU,
			NormEpsilon: 1e-12, HiddenDropout: 0.1, AttentionDropout: 0.1, HeadDropout: 0.1, InitRange: 0.02,
		}},
		{`{"model_type": "roberta", "classifier_dropout": 0.3, "hidden_act": "gelu_new", "layer_norm_eps": 1e-5, "type_vocab_size": 1}`, Config{
			Type: RoBERTa, Layers: 12, Hidden: 768, Heads: 12, Inner: 3072, Vocab: 50265, Positions: 512, TokenType: 1, PadID: 1,
			Activation: GELUTanh, NormEpsilon: 1e-5, HiddenDropout: 0.1, AttentionDropout: 0.1, HeadDropout: 0.3, InitRange: 0.02,
		}},
		{`{"model_type": "bert", "pad_token_id": null, "classifier_dropout": null, "hidden_dropout_prob": 0, "pruned_heads": {}, "problem_type": "single_label_classification"}`, Config{
			Type: BERT, Layers: 12, Hidden: 768, Heads: 12, Inner: 3072, Vocab: 30522, Positions: 512, TokenType: 2, PadID: -1, Activation: GELU,
			NormEpsilon: 1e-12, AttentionDropout: 0.1, InitRange: 0.02,
		}},
	}
	for _, tt := range tests {
		got, err := parseConfig("config.json", []byte(tt.text))
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.text, diff)
		}
	}
}

func TestConfigNamesTheFieldItRefuses(t *testing.T) {
	tests := []struct{ text, field string }{
		{`{`, "(file)"},
		{`[]`, "(file)"},
		{`{}`, "model_type"},
		{`{"model_type": "deberta"}`, "model_type"},
		{`{"model_type": "bert", "hidden_size": "768"}`, "hidden_size"},
		{`{"model_type": "bert", "hidden_size": 770}`, "num_attention_heads"},
		{`{"model_type": "bert", "hidden_size": 0}`, "hidden_size"},
		{`{"model_type": "bert", "num_hidden_layers": 100000}`, "num_hidden_layers"},
		{`{"model_type": "bert", "type_vocab_size": 0}`, "type_vocab_size"},
		{`{"model_type": "bert", "hidden_act": "quick_gelu"}`, "hidden_act"},
		{`{"model_type": "distilbert", "activation": "mish"}`, "activation"},
		{`{"model_type": "distilbert", "n_heads": 7}`, "n_heads"},
		{`{"model_type": "distilbert", "dropout": 1}`, "dropout"},
		{`{"model_type": "distilbert", "seq_classif_dropout": -0.1}`, "seq_classif_dropout"},
		{`{"model_type": "bert", "layer_norm_eps": 0}`, "layer_norm_eps"},
		{`{"model_type": "bert", "initializer_range": -1}`, "initializer_range"},
		{`{"model_type": "bert", "pad_token_id": 30522}`, "pad_token_id"},
		{`{"model_type": "bert", "pad_token_id": "0"}`, "pad_token_id"},
		{`{"model_type": "roberta", "pad_token_id": null}`, "pad_token_id"},
		{`{"model_type": "bert", "position_embedding_type": "relative_key"}`, "position_embedding_type"},
		{`{"model_type": "bert", "problem_type": "multi_label_classification"}`, "problem_type"},
		{`{"model_type": "bert", "is_decoder": true}`, "is_decoder"},
		{`{"model_type": "bert", "add_cross_attention": true}`, "add_cross_attention"},
		{`{"model_type": "bert", "is_encoder_decoder": true}`, "is_encoder_decoder"},
		{`{"model_type": "bert", "pruned_heads": {"0": [1]}}`, "pruned_heads"},
		{`{"model_type": "bert", "quantization_config": {"bits": 8}}`, "quantization_config"},
		{`{"model_type": "bert", "per_layer_config": {"0": {"hidden_act": "relu"}}}`, "per_layer_config"},
		{`{"model_type": "bert", "hidden_size": 768, "embedding_size": 128}`, "embedding_size"},
	}
	for _, tt := range tests {
		_, err := parseConfig("dir/config.json", []byte(tt.text))
		var e *train.ConfigError
		if !errors.As(err, &e) || e.Field != tt.field || e.File != "dir/config.json" {
			t.Errorf("%s: got %v, want a ConfigError for %s", tt.text, err, tt.field)
		}
	}
}

func TestReadConfigOfAFolder(t *testing.T) {
	dir := t.TempDir()
	var e *train.ConfigError
	if _, err := ReadConfig(dir); !errors.As(err, &e) {
		t.Errorf("without a file: %v", err)
	}
	path := filepath.Join(dir, "config.json")
	if err := os.WriteFile(path, []byte(`{"model_type": "bert"`+strings.Repeat(" ", maxConfigBytes)+`}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadConfig(dir); !errors.As(err, &e) {
		t.Errorf("too long a file: %v", err)
	}
	if err := os.WriteFile(path, []byte(`{"model_type": "bert"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if c, err := ReadConfig(dir); err != nil || c.Type != BERT {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestPositions(t *testing.T) {
	ids := []int32{0, 7, 1, 9, 2} // 1 is RoBERTa's padding id
	for _, tt := range []struct {
		config Config
		want   []int64
		length int
	}{
		{Config{Type: BERT, Positions: 512}, []int64{0, 1, 2, 3, 4}, 512},
		{Config{Type: RoBERTa, Positions: 514, PadID: 1}, []int64{2, 3, 1, 4, 5}, 512},
	} {
		if diff := cmp.Diff(tt.want, tt.config.AppendPositions(nil, ids)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.config.Type, diff)
		}
		if got := tt.config.MaxLength(); got != tt.length {
			t.Errorf("%s: longest sequence %d, want %d", tt.config.Type, got, tt.length)
		}
	}
}
