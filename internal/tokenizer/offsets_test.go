package tokenizer

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestHardOffsets compares places in bytes and in characters with those that were recorded. Texts that are not UTF-8 are
// left out: theirs count what was put in place of the invalid bytes.
func TestHardOffsets(t *testing.T) {
	var expected struct {
		Rows []struct {
			Category string  `json:"cat"`
			Chars    [][]int `json:"raw_off"`
			Bytes    [][]int `json:"raw_boff"`
		}
	}
	readJSON(t, shared(t, "tokenizer", "hard_expected.json"), &expected)
	tok, compared := load(t, minilm(t)), 0
	for i, text := range hardTexts(t) {
		want := expected.Rows[i]
		if want.Category == "invalid_utf8" {
			continue
		}
		compared++
		e := tok.Encode(text, 0)
		inner := func(list [][]int) [][]int { return append([][]int{}, list[1:len(list)-1]...) } // without [CLS] and [SEP]
		if diff := cmp.Diff(want.Bytes, inner(e.Offsets)); diff != "" {
			t.Errorf("row %d: %.100q: bytes (-want +got)\n%s", i, text, diff)
		}
		if diff := cmp.Diff(want.Chars, inner(e.CharOffsets)); diff != "" {
			t.Errorf("row %d: %.100q: characters (-want +got)\n%s", i, text, diff)
		}
	}
	t.Logf("%d texts", compared)
}

// TestInvalidOffsets: offsets are of the text that was given, not of the one with U+FFFD in it.
func TestInvalidOffsets(t *testing.T) {
	tests := []struct {
		text         string
		bytes, chars []int // of the last token but </s>
	}{
		{"\xffz", []int{1, 2}, []int{1, 2}},
		{"\xe2\x82z", []int{2, 3}, []int{1, 2}},
		{"\xed\xa0\x80z", []int{3, 4}, []int{3, 4}},
		{"\xf0\x9f\x98\xf0\x9f\x98\x80z", []int{7, 8}, []int{2, 3}},
		{"z\xc3", []int{1, 2}, []int{1, 2}},
	}
	tok := load(t, tinyPath("bytelevel"))
	for _, tt := range tests {
		e := tok.Encode(tt.text, 0)
		last := len(e.Ids) - 2
		if !slices.Equal(e.Offsets[last], tt.bytes) || !slices.Equal(e.CharOffsets[last], tt.chars) {
			t.Errorf("%+q: got bytes %v and characters %v, want %v and %v", tt.text, e.Offsets[last], e.CharOffsets[last], tt.bytes, tt.chars)
		}
	}
}
