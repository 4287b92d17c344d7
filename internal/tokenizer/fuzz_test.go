package tokenizer

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzEncode: no text panics, the two ways through agree, and offsets lie in the text and between characters.
func FuzzEncode(f *testing.F) {
	var toks []*Tokenizer
	for _, name := range tiny {
		toks = append(toks, load(f, tinyPath(name)))
		rows, _ := tinyRows(f, name)
		for i, r := range rows {
			f.Add(r.Text, i%10)
		}
	}
	for _, s := range []string{"abc\xffdef", "\xc3(", "a\x80b", "caf\xe9", "\xed\xa0\x80 <mask>\xff", "\xf0\x9f\x98"} {
		f.Add(s, 0)
	}
	f.Fuzz(func(t *testing.T, text string, maxLength int) {
		for _, tok := range toks {
			checkEncode(t, tok, text, maxLength)
		}
	})
}

func checkEncode(t *testing.T, tok *Tokenizer, text string, maxLength int) {
	t.Helper()
	ids := tok.AppendIDs(nil, text, maxLength)
	e := tok.Encode(text, maxLength)
	if got := ints(e.Ids); !slices.Equal(got, ids) {
		t.Fatalf("%s: %+q, %d: Encode has %v, AppendIDs %v", tok.Kind(), text, maxLength, got, ids)
	}
	if maxLength > 0 && len(ids) > maxLength {
		t.Fatalf("%s: %+q: %d ids, want at most %d", tok.Kind(), text, len(ids), maxLength)
	}
	if valid := tok.AppendIDs(nil, replaceInvalid(text), maxLength); !slices.Equal(valid, ids) {
		t.Fatalf("%s: %+q: got %v, with U+FFFD for invalid bytes %v", tok.Kind(), text, ids, valid)
	}
	at := runeIndex(text)
	for i, o := range e.Offsets {
		c := e.CharOffsets[i]
		if o[0] < 0 || o[1] < o[0] || o[1] > len(text) {
			t.Fatalf("%s: %+q: token %d has the offsets %v", tok.Kind(), text, i, o)
		}
		if at[o[0]] != c[0] || at[o[1]] != c[1] {
			t.Fatalf("%s: %+q: token %d has bytes %v but characters %v", tok.Kind(), text, i, o, c)
		}
	}
	for _, id := range ids {
		if id < 0 || int(id) >= tok.VocabSize() {
			t.Fatalf("%s: %+q: id %d of %d", tok.Kind(), text, id, tok.VocabSize())
		}
	}
	tok.EncodePair(text, text, maxLength)
	if s := tok.Decode(ids, true); utf8.ValidString(text) && !utf8.ValidString(s) {
		t.Fatalf("%s: %+q decodes to %+q", tok.Kind(), text, s)
	}
}

// FuzzLoad: no file panics. What loads can encode; what does not is refused by name.
func FuzzLoad(f *testing.F) {
	for _, name := range tiny {
		data, err := os.ReadFile(tinyPath(name))
		if err != nil {
			f.Fatal(err)
		}
		// The whole file is a poor seed: most of it is vocabulary.
		f.Add(string(data[:strings.Index(string(data), `"model":`)]) + modelSeeds[name] + "}")
	}
	for _, s := range []string{"", "{}", "null", "[]", `{"model":{"type":"Unigram"}}`, `{"version":"1.0","model":{"type":"WordPiece","vocab":{"a":0}}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, file string) {
		path := filepath.Join(t.TempDir(), "tokenizer.json")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		tok, err := Load(path)
		if err != nil {
			if bad := (*UnsupportedError)(nil); !errors.As(err, &bad) || bad.File != path || bad.Problem == "" {
				t.Fatalf("got %v, want an *UnsupportedError that names the file", err)
			}
			return
		}
		for _, text := range []string{"", "a b [SEP] <mask>", "ab\u00e9\u4eba\xff  ", strings.Repeat("ab", 300)} {
			for _, n := range []int{0, 1, 3, 64} {
				tok.AppendIDs(nil, text, n)
				e := tok.EncodePair(text, "b", n)
				tok.Decode(ints(e.Ids), true)
			}
			tok.Encode(text, 0)
		}
		tok.PadID()
	})
}

var modelSeeds = map[string]string{
	"wordpiece": `"model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,` +
		`"vocab":{"[PAD]":0,"[UNK]":1,"[CLS]":2,"[SEP]":3,"[MASK]":4,"a":5,"##b":6}}`,
	"bytelevel": `"model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,` +
		`"byte_fallback":false,"ignore_merges":false,"vocab":{"<s>":0,"<pad>":1,"</s>":2,"<unk>":3,"a":4,"b":5,"ab":6},"merges":[["a","b"]]}`,
}
