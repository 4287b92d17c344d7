package tokenizer

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sugarme/tokenizer"
)

// TestSugarme: sugarme's own methods give Hugging Face's ids with our model behind them, alone, in batches and in pairs.
func TestSugarme(t *testing.T) {
	for _, name := range tiny {
		t.Run(name, func(t *testing.T) {
			tok := load(t, tinyPath(name))
			s := tok.Sugarme()
			rows, _ := tinyRows(t, name)
			var inputs []tokenizer.EncodeInput
			var want [][]int32
			for _, r := range rows {
				if strings.ContainsRune(r.Text, utf8.RuneError) || r.Pair != nil && strings.ContainsRune(*r.Pair, utf8.RuneError) {
					continue // its NormalizedString panics
				}
				text := tokenizer.NewInputSequence(r.Text)
				if r.Pair == nil {
					inputs = append(inputs, tokenizer.NewSingleEncodeInput(text))
					want = append(want, tok.AppendIDs(nil, r.Text, 0))
				} else {
					inputs = append(inputs, tokenizer.NewDualEncodeInput(text, tokenizer.NewInputSequence(*r.Pair)))
					want = append(want, ints(tok.EncodePair(r.Text, *r.Pair, 0).Ids))
				}
			}
			batch, err := s.EncodeBatch(inputs, true)
			if err != nil {
				t.Fatal(err)
			}
			for i, e := range batch {
				one, err := s.Encode(inputs[i], true)
				if err != nil {
					t.Fatal(err)
				}
				if got := ints(e.Ids); !slices.Equal(got, want[i]) || !slices.Equal(ints(one.Ids), want[i]) {
					t.Errorf("%v: got %v, alone %v, want %v", inputs[i], got, one.Ids, want[i])
				}
				if got := s.Decode(e.Ids, false); got != tok.Decode(want[i], false) {
					t.Errorf("%v: decoded %q, want %q", inputs[i], got, tok.Decode(want[i], false))
				}
			}
		})
	}
}

// TestModel: the vocabulary is there in both directions, and is a copy.
func TestModel(t *testing.T) {
	tok := load(t, tinyPath("wordpiece"))
	m := tok.Sugarme().GetModel()
	vocab := m.GetVocab()
	if len(vocab) != m.GetVocabSize() || len(vocab) != tok.VocabSize() {
		t.Errorf("%d tokens, sizes %d and %d", len(vocab), m.GetVocabSize(), tok.VocabSize())
	}
	for token, id := range vocab {
		if got, ok := m.TokenToId(token); !ok || got != id {
			t.Errorf("TokenToId(%q) = %d, %t, want %d", token, got, ok, id)
		}
		if got, ok := m.IdToToken(id); !ok || got != token && token != "Duratune" { // it is normalized
			t.Errorf("IdToToken(%d) = %q, %t, want %q", id, got, ok, token)
		}
	}
	clear(vocab)
	if len(m.GetVocab()) == 0 {
		t.Error("GetVocab gives the vocabulary itself away")
	}
	for _, id := range []int{-1, tok.VocabSize(), math.MaxInt} {
		if token, ok := m.IdToToken(id); ok {
			t.Errorf("IdToToken(%d) = %q", id, token)
		}
	}
	if id, ok := m.TokenToId("no such token"); ok {
		t.Errorf("got %d for a token that is not there", id)
	}
	dir := t.TempDir()
	if err := m.Save(dir, "my"); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "my-vocab.txt"))
	if err != nil || !strings.HasPrefix(string(data), "[PAD]\n[UNK]\n[CLS]\n") {
		t.Errorf("saved %.40q, %v", data, err)
	}
	if err := m.Save(filepath.Join(dir, "none")); err == nil {
		t.Error("saved into a folder that does not exist")
	}
}

func TestProperties(t *testing.T) {
	w, b := load(t, tinyPath("wordpiece")), load(t, tinyPath("bytelevel"))
	if w.Kind() != "WordPiece" || b.Kind() != "BPE" || w.PadID() != 0 || b.PadID() != 1 {
		t.Errorf("got %s with padding %d, %s with padding %d", w.Kind(), w.PadID(), b.Kind(), b.PadID())
	}
	far := load(t, write(t, "wordpiece", func(f map[string]any) {
		f["added_tokens"] = nil // their ids would move
		set("model.vocab.far", 5000)(f)
	}))
	if far.VocabSize() != 5001 {
		t.Errorf("got the size %d with 5000 as the highest id", far.VocabSize())
	}
}
