package tokenizer

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// write puts a changed copy of a committed tokenizer into a file.
func write(tb testing.TB, name string, change func(file map[string]any)) string {
	tb.Helper()
	var file map[string]any
	readJSON(tb, tinyPath(name), &file)
	change(file)
	data, err := json.Marshal(file)
	if err != nil {
		tb.Fatal(err)
	}
	path := filepath.Join(tb.TempDir(), "tokenizer.json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// set changes one value; a nil value removes it.
func set(path string, value any) func(map[string]any) {
	return func(file map[string]any) {
		keys := strings.Split(path, ".")
		for _, k := range keys[:len(keys)-1] {
			file = at(file, k)
		}
		last := keys[len(keys)-1]
		if file[last] = value; value == nil {
			delete(file, last)
		}
	}
}

// TestUnsupported: what is not done exactly is refused by name, with its place in the file.
func TestUnsupported(t *testing.T) {
	type object = map[string]any
	tests := []struct {
		base   string
		change func(map[string]any)
		path   string
		names  string
	}{
		{"wordpiece", set("version", "2.0"), "version", `"2.0"`},
		{"wordpiece", set("model.type", "Unigram"), "model.type", `"Unigram"`},
		{"wordpiece", set("model", nil), "model", "missing"},
		{"wordpiece", set("model", "BPE"), "", "cannot unmarshal"},
		{"wordpiece", set("model.vocab", object{}), "model.vocab", "empty"},
		{"wordpiece", set("model.vocab", []any{}), "model.vocab", "want an object"},
		{"wordpiece", set("model.vocab.xyz", -1), "model.vocab.xyz", "-1"},
		{"wordpiece", set("model.vocab.xyz", 1.5), "model.vocab.xyz", "1.5"},
		{"wordpiece", set("model.vocab.xyz", 1<<40), "model.vocab.xyz", "want an id"},
		{"wordpiece", set("model.vocab.xyz", "1"), "model.vocab.xyz", `"1"`},
		{"wordpiece", set("model.vocab.x\ny", "1"), "model.vocab.x\ufffdy", `"1"`},
		{"wordpiece", set("model.vocab."+strings.Repeat("x", 1<<16), 1), "model.vocab", "65536 bytes"},
		{"wordpiece", set("model.unk_token", "[NONE]"), "model.unk_token", `"[NONE]"`},
		{"wordpiece", set("model.max_input_chars_per_word", 1e18), "model.max_input_chars_per_word", "1e+18"},
		{"wordpiece", set("model.continuing_subword_prefix", nil), "model.continuing_subword_prefix", "want a string"},
		{"wordpiece", set("normalizer", nil), "normalizer.type", "null"},
		{"wordpiece", set("normalizer.type", "NFKC"), "normalizer.type", `"NFKC"`},
		{"wordpiece", set("normalizer.lowercase", "yes"), "normalizer.lowercase", `"yes"`},
		{"wordpiece", set("normalizer.strip_accents", 1), "normalizer.strip_accents", "want a boolean"},
		{"wordpiece", set("pre_tokenizer.type", "Whitespace"), "pre_tokenizer.type", `"Whitespace"`},
		{"wordpiece", set("truncation", object{"direction": "Left"}), "truncation.direction", `"Left"`},
		{"wordpiece", set("padding.direction", "Left"), "padding.direction", `"Left"`},
		{"wordpiece", set("padding.pad_id", nil), "padding.pad_id", "want an id"},
		{"wordpiece", set("post_processor.type", "Magic"), "post_processor.type", `"Magic"`},
		{"wordpiece", set("post_processor.single", []any{}), "post_processor.single", "once"},
		{"wordpiece", set("post_processor.single", []any{1}), "post_processor.single[0].Sequence.id", "null"},
		{"wordpiece", set("post_processor.special_tokens", object{}), "post_processor.special_tokens", `"[CLS]"`},
		{"wordpiece", set("post_processor.special_tokens.[SEP].tokens", []any{1}), "post_processor.special_tokens.[SEP].tokens", "1"},
		{"wordpiece", set("post_processor.special_tokens.[SEP].ids", []any{"1"}), "post_processor.special_tokens.[SEP].ids", `"1"`},
		{"wordpiece", set("post_processor", object{"type": "BertProcessing", "sep": "x"}), "post_processor.cls", "null"},
		{"wordpiece", set("post_processor", object{"type": "Sequence", "processors": []any{object{"type": "Magic"}}}),
			"post_processor.processors[0].type", `"Magic"`},
		{"wordpiece", set("decoder.type", "CTC"), "decoder.type", `"CTC"`},
		{"wordpiece", set("added_tokens", []any{object{"id": 9999, "content": "new"}}), "added_tokens[0].id", "9999"},
		{"wordpiece", set("added_tokens", []any{object{"id": 1, "content": "[UNK]", "single_word": true}}), "added_tokens[0].single_word", "true"},
		{"bytelevel", set("normalizer", object{"type": "NFC"}), "normalizer", `"NFC"`},
		{"bytelevel", set("pre_tokenizer.type", "Metaspace"), "pre_tokenizer.type", `"Metaspace"`},
		{"bytelevel", set("pre_tokenizer", object{"type": "Sequence"}), "pre_tokenizer.type", `"Sequence"`},
		{"bytelevel", set("model.dropout", 0.1), "model.dropout", "0.1"},
		{"bytelevel", set("model.byte_fallback", true), "model.byte_fallback", "true"},
		{"bytelevel", set("model.end_of_word_suffix", "</w>"), "model.end_of_word_suffix", "/w"},
		{"bytelevel", set("model.vocab.Ġ", nil), "model.vocab", "'Ġ'"},
		{"bytelevel", set("model.merges", []any{"a"}), "model.merges[0]", `"a"`},
		{"bytelevel", set("model.merges", []any{"Ġ t", []any{"a", "\x00"}}), "model.merges[1]", "a"},
		{"bytelevel", set("model.merges", nil), "model.merges", "want a list"},
	}
	for _, tt := range tests {
		t.Run(tt.path, func(t *testing.T) {
			path := write(t, tt.base, tt.change)
			_, err := Load(path)
			bad := (*UnsupportedError)(nil)
			if !errors.As(err, &bad) {
				t.Fatalf("got %v, want an *UnsupportedError", err)
			}
			if bad.File != path || bad.Component != tt.path || !strings.Contains(bad.Problem, tt.names) {
				t.Errorf("got %+v, want %s at %s", *bad, tt.names, tt.path)
			}
			if msg := err.Error(); !strings.HasPrefix(msg, path) || strings.Contains(msg, "\n") || len(msg) > len(path)+300 {
				t.Errorf("got the message %q", msg)
			}
		})
	}
}

func TestLoadMissing(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "tokenizer.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want a missing file", err)
	}
}

// TestAccepted: old and new ways to write the same.
func TestAccepted(t *testing.T) {
	mergesAsPairs := func(f map[string]any) {
		model := at(f, "model")
		list, _ := model["merges"].([]any)
		for i, m := range list {
			if s, ok := m.(string); ok {
				left, right, _ := strings.Cut(s, " ")
				list[i] = []any{left, right}
			}
		}
	}
	mergesAsStrings := func(f map[string]any) {
		model := at(f, "model")
		list, _ := model["merges"].([]any)
		for i, m := range list {
			if p, ok := m.([]any); ok {
				list[i] = p[0].(string) + " " + p[1].(string)
			}
		}
		model["merges"] = append([]any{"#version: 0.2"}, list...)
	}
	tests := []struct {
		name, base string
		change     func(map[string]any)
	}{
		{"no model type", "wordpiece", set("model.type", nil)},
		{"no model type", "bytelevel", set("model.type", nil)},
		{"strip_accents null", "wordpiece", set("normalizer.strip_accents", nil)},
		{"truncation of its own", "wordpiece", set("truncation", map[string]any{"direction": "Right", "max_length": 3, "strategy": "OnlyFirst", "stride": 1})},
		{"dropout 0", "bytelevel", set("model.dropout", 0)},
		{"merges as pairs", "bytelevel", mergesAsPairs},
		{"merges as strings", "bytelevel", mergesAsStrings},
		{"use_regex missing", "bytelevel", set("pre_tokenizer.use_regex", nil)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tok := load(t, write(t, tt.base, tt.change))
			rows, maxLength := tinyRows(t, tt.base)
			for _, want := range rows {
				if got := tok.AppendIDs(nil, want.Text, maxLength); want.Pair == nil && !slices.Equal(got, want.IDs) {
					t.Errorf("%+q: got %v, want %v", want.Text, got, want.IDs)
				}
			}
		})
	}
}
