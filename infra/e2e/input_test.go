//go:build e2e

package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/duratune/duratune/activities"
)

// TestBadInput sends recipes that cannot work. Each fails at once, with a type that is not retried and a message that says
// where and what.
func TestBadInput(t *testing.T) {
	w := shared
	data := filepath.Join(w.State, "data")
	write := func(name, content string) string {
		t.Helper()
		path := filepath.Join(data, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return "file:" + name
	}
	source := func(uri string) map[string]any {
		return map[string]any{"data": map[string]any{"source": uri, "format": "auto"}}
	}
	model := func(uri string) map[string]any { return map[string]any{"model": map[string]any{"base": uri}} }
	config := `{"model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536, "vocab_size": 30522,
		"max_position_embeddings": 512, "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "pad_token_id": 0}`
	write("no-weights/config.json", config)
	write("no-weights/tokenizer.json", minilm(t, w, "tokenizer.json"))
	write("pickle/config.json", config)
	write("pickle/tokenizer.json", minilm(t, w, "tokenizer.json"))
	write("pickle/pytorch_model.bin", "PK\x03\x04")
	write("not-safetensors/config.json", config)
	write("not-safetensors/tokenizer.json", minilm(t, w, "tokenizer.json"))
	write("not-safetensors/model.safetensors", strings.Repeat("no safetensors ", 100))
	write("odd-shape/config.json", strings.Replace(config, `"vocab_size": 30522`, `"vocab_size": 30523`, 1))
	write("odd-shape/tokenizer.json", minilm(t, w, "tokenizer.json"))
	write("odd-shape/model.safetensors", minilm(t, w, "model.safetensors"))
	write("unigram/config.json", config)
	write("unigram/tokenizer.json", `{"version":"1.0","model":{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0.0]]}}`)
	write("unigram/model.safetensors", minilm(t, w, "model.safetensors"))

	tests := []struct {
		name    string
		changes map[string]any
		kind    string
		says    []string
	}{
		{"unknown key", map[string]any{"train": map[string]any{"learning_rat": 1e-5}}, activities.TypeInvalidRecipe, []string{"train.learning_rat"}},
		{"wrong type", map[string]any{"train": map[string]any{"epochs": "three"}}, activities.TypeInvalidRecipe, []string{"train.epochs"}},
		{"several problems", map[string]any{"train": map[string]any{"epochs": 0, "learning_rate": -1}, "tokenizer": map[string]any{"padding": "left"}},
			activities.TypeInvalidRecipe, []string{"train.epochs", "train.learning_rate", "tokenizer.padding"}},
		{"no such source", source("file:no/such.jsonl"), activities.TypeDatasetInvalid, []string{"no/such.jsonl", "not found"}},
		{"outside the roots", source("file:///etc/passwd"), activities.TypeDatasetInvalid, []string{"DURATUNE_DATA_ROOTS"}},
		{"climbing out", source("file:../../../../../etc/passwd"), activities.TypeInvalidRecipe, []string{"data.source"}},
		{"empty", source(write("empty.jsonl", "")), activities.TypeDatasetInvalid, []string{"empty"}},
		{"row without a label", source(write("nolabel.jsonl", `{"text":"a","label":"ham"}`+"\n"+`{"text":"b"}`+"\n")), activities.TypeDatasetInvalid, []string{"row 2", "label"}},
		{"unknown label", source(write("unknown.jsonl", `{"text":"a","label":"ham"}`+"\n"+`{"text":"b","label":"egg"}`+"\n")), activities.TypeDatasetInvalid, []string{"row 2", "egg"}},
		{"one class", source(write("one.jsonl", strings.Repeat(`{"text":"a","label":"ham"}`+"\n", 20))), activities.TypeDatasetInvalid, []string{"ham"}},
		{"invalid UTF-8", source(write("latin1.jsonl", `{"text":"a","label":"ham"}`+"\n"+`{"text":"caf`+"\xe9"+`","label":"spam"}`+"\n")), activities.TypeDatasetInvalid, []string{"row 2", "UTF-8"}},
		{"no such model", model("file:no-such-model"), activities.TypeModelIncompatible, []string{"no-such-model"}},
		{"no weights", model("file:no-weights"), activities.TypeModelIncompatible, []string{"model.safetensors"}},
		{"pickle", model("file:pickle"), activities.TypeModelIncompatible, []string{"pytorch_model.bin"}},
		{"not safetensors", model("file:not-safetensors"), activities.TypeModelIncompatible, []string{"model.safetensors"}},
		{"odd shape", model("file:odd-shape"), activities.TypeModelIncompatible, []string{"word_embeddings.weight", "30523"}},
		{"unsupported tokenizer", model("file:unigram"), activities.TypeModelIncompatible, []string{"Unigram"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			id := "finetune/e2e/bad/" + strings.ReplaceAll(tt.name, " ", "-")
			app := failure(t, w.start(t, id, w.recipe(t, "quickstart.json", tt.changes)))
			t.Logf("%s: %s", app.Type(), app.Message())
			if app.Type() != tt.kind || !app.NonRetryable() {
				t.Errorf("type %s (retried: %v), want %s, not retried", app.Type(), !app.NonRetryable(), tt.kind)
			}
			for _, word := range tt.says {
				if !strings.Contains(app.Message(), word) {
					t.Errorf("message %q does not say %q", app.Message(), word)
				}
			}
			if strings.Contains(app.Message(), w.State) {
				t.Errorf("message names a path of the worker's machine: %q", app.Message())
			}
		})
	}
}

// minilm reads a file of the base model.
func minilm(t *testing.T, w *world, name string) string {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(w.paths.Assets, "all-minilm-l6-v2", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestSecretInRecipe plants a token in a URL: the recipe is refused or fails, and the token appears in no error.
func TestSecretInRecipe(t *testing.T) {
	w := shared
	const id = "finetune/e2e/secret-in-url"
	app := failure(t, w.start(t, id, w.recipe(t, "quickstart.json", map[string]any{"data": map[string]any{"source": "hf://user:" + plantedToken + "@owner/name"}})))
	if strings.Contains(app.Message(), plantedToken) {
		t.Errorf("%s: %s", app.Type(), app.Message())
	}
}

// checkSecrets looks for planted secrets and the stack's own keys in a history, in every log, and in MLflow's database.
func checkSecrets(t *testing.T, w *world, id string) {
	t.Helper()
	secrets := []string{plantedPassword, plantedToken, adminPassword, tunerPassword, w.SecretKey, w.AccessKey}
	look := func(place string, content []byte) {
		for _, s := range secrets {
			if bytes.Contains(content, []byte(s)) {
				t.Errorf("%s holds the secret %s…", place, s[:8])
			}
		}
	}
	events, _ := w.history(t, id)
	for _, e := range events {
		look("history", []byte(protojson.Format(e)))
	}
	logs, err := filepath.Glob(filepath.Join(w.State, "log", "*"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no logs: %v", err)
	}
	for _, path := range append(logs, filepath.Join(w.State, "mlflow.db")) {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		look(filepath.Base(path), content)
	}
}
