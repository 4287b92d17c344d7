package tokenizer

import (
	"compress/gzip"
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestCodePoints compares each code point by itself with what Hugging Face's normalizers and pre-tokenizer were recorded
// to make of it, from another script than the one that wrote unicode.txt.
func TestCodePoints(t *testing.T) {
	f, err := os.Open(shared(t, "tokenizer", "bert_codepoint_oracle.json.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var oracle map[string][]any // uncased, cased, 0 in a word, 1 space, 2 punctuation
	if err := json.NewDecoder(z).Decode(&oracle); err != nil {
		t.Fatal(err)
	}
	u := loadUnicode()
	uncased := &bertNormalizer{clean: true, cjk: true, strip: true, lower: true, unicode: u}
	cased := &bertNormalizer{clean: true, cjk: true, unicode: u}
	bad := 0
	for c := range rune(utf8.MaxRune + 1) {
		want := []any{string(c), string(c), 0.0} // what is not listed stays as it is
		if listed, ok := oracle[strconv.Itoa(int(c))]; ok {
			want = listed
		} else if !utf8.ValidRune(c) {
			continue
		}
		kind := 0.0
		switch {
		case u.is(c, isSpace):
			kind = 1
		case u.is(c, isPunct):
			kind = 2
		}
		if got := []any{uncased.normalized(string(c)), cased.normalized(string(c)), kind}; !slices.Equal(got, want) {
			if bad++; bad < 10 {
				t.Errorf("%U: got %q, want %q", c, got, want)
			}
		}
	}
	t.Logf("%d code points listed, %d wrong", len(oracle), bad)
}

// TestUnicodeText: the file has the form that its reader takes for granted.
func TestUnicodeText(t *testing.T) {
	section := ""
	for line := range strings.Lines(unicodeText) {
		line = strings.TrimSpace(line)
		switch {
		case line == "", line[0] == '#':
			continue
		case line[0] == '[':
			section = strings.Trim(line, "[]")
			class, isClass := strings.CutPrefix(section, "class ")
			if n, err := strconv.Atoi(class); propertyNames[section] == 0 && (!isClass || err != nil || n < 1 || n > 254) {
				t.Errorf("unknown section %q", section)
			}
			continue
		}
		for item := range strings.FieldsSeq(line) {
			from, to, isMapping := strings.Cut(item, "=")
			if isMapping != (section == "lower" || section == "nfd") {
				t.Errorf("%s: %q", section, item)
			}
			from, step, _ := strings.Cut(from, "/")
			if step != "" && step != "2" {
				t.Errorf("%s: %q", section, item)
			}
			last := rune(-1)
			for n := range strings.SplitSeq(from, "-") {
				r, err := strconv.ParseInt(n, 16, 32)
				if err != nil || rune(r) <= last || !utf8.ValidRune(rune(r)) {
					t.Errorf("%s: %q", section, item)
				}
				last = rune(r)
			}
			for n := range strings.SplitSeq(to, ",") {
				if _, err := strconv.ParseUint(n, 16, 21); isMapping && err != nil {
					t.Errorf("%s: %q", section, item)
				}
			}
		}
	}
}
