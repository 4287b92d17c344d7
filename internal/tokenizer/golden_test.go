package tokenizer

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const sharedDir = "../../../shared/data"

// minilm finds bert-base-uncased's tokenizer.json, which comes with the MiniLM model: in the folder that DURATUNE_MINILM
// names or where the set-up puts it.
func minilm(tb testing.TB) string {
	tb.Helper()
	dir := os.Getenv("DURATUNE_MINILM")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			tb.Fatal(err)
		}
		dir = filepath.Join(cache, "duratune", "assets", "all-minilm-l6-v2")
	}
	path := filepath.Join(dir, "tokenizer.json")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		tb.Skipf("minilm: %s not found; go tool task setup puts it there", path)
	}
	return path
}

func roberta(tb testing.TB) string {
	tb.Helper()
	return shared(tb, "tokenizer", "roberta_tokenizer.json")
}

func shared(tb testing.TB, name ...string) string {
	tb.Helper()
	path := filepath.Join(append([]string{sharedDir}, name...)...)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		tb.Skipf("shared: %s not found", path)
	}
	return path
}

func load(tb testing.TB, path string) *Tokenizer {
	tb.Helper()
	t, err := Load(path)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

func readJSON(tb testing.TB, path string, v any) {
	tb.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// hardTexts are strings chosen to go wrong, some of them not UTF-8.
func hardTexts(tb testing.TB) []string {
	tb.Helper()
	var rows []struct{ Text, B64 string }
	readJSON(tb, shared(tb, "tokenizer", "hard_texts.json"), &rows)
	var texts []string
	for _, r := range rows {
		if raw, err := base64.StdEncoding.DecodeString(r.B64); err == nil && r.B64 != "" {
			r.Text = string(raw)
		}
		texts = append(texts, r.Text)
	}
	return texts
}

// TestHard compares with what Hugging Face tokenizers 0.23.3 said about the hard strings.
func TestHard(t *testing.T) {
	tests := []struct {
		name, expected string
		path           func(testing.TB) string
	}{
		{"WordPiece", "hard_expected.json", minilm},
		{"BPE", "roberta_hard_expected.json", roberta},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var expected struct {
				Rows []struct {
					Raw    []int32 `json:"raw_ids"`
					Full   []int32 `json:"full_ids_unpadded"`
					Decode string
				}
			}
			readJSON(t, shared(t, "tokenizer", tt.expected), &expected)
			tok := load(t, tt.path(t))
			equal := 0
			for i, text := range hardTexts(t) {
				want := expected.Rows[i]
				raw := tok.AppendIDs(nil, text, 0)
				raw = raw[1 : len(raw)-1]
				full := tok.AppendIDs(nil, text, 128)
				if !slices.Equal(raw, want.Raw) || !slices.Equal(full, want.Full) {
					t.Errorf("row %d: %.100q\n got %v\nwant %v", i, text, raw, want.Raw)
					continue
				}
				if got := tok.Decode(want.Raw, true); got != want.Decode {
					t.Errorf("row %d: decoded\n got %q\nwant %q", i, got, want.Decode)
					continue
				}
				equal++
			}
			t.Logf("%d of %d equal", equal, len(expected.Rows))
		})
	}
}
