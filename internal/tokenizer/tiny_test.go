package tokenizer

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tiny are the committed tokenizers, which internal/py/tokenizer/tiny.py has trained.
var tiny = []string{"wordpiece", "bytelevel"}

func tinyPath(name string) string { return filepath.Join("testdata", name+".json") }

// tinyRow is a text, maybe with a second, and what Hugging Face makes of it.
type tinyRow struct {
	Text string  `json:"text"`
	Pair *string `json:"pair"`
	row
}

func tinyRows(tb testing.TB, name string) (rows []tinyRow, maxLength int) {
	tb.Helper()
	var golden struct {
		MaxLength int       `json:"max_length"`
		Rows      []tinyRow `json:"rows"`
	}
	readJSON(tb, filepath.Join("testdata", name+".golden.json"), &golden)
	return golden.Rows, golden.MaxLength
}

// TestTiny compares all that can be asked with what Hugging Face answered.
func TestTiny(t *testing.T) {
	for _, name := range tiny {
		t.Run(name, func(t *testing.T) {
			tok := load(t, tinyPath(name))
			rows, maxLength := tinyRows(t, name)
			for _, want := range rows {
				var e *Encoding
				if want.Pair != nil {
					e = tok.EncodePair(want.Text, *want.Pair, maxLength)
					checkPair(t, tok, want.Text, *want.Pair, maxLength, want.IDs, want.Types)
				} else {
					e = tok.Encode(want.Text, maxLength)
					if diff := cmp.Diff(want.IDs, tok.AppendIDs(nil, want.Text, maxLength)); diff != "" {
						t.Errorf("AppendIDs(%+q) (-want +got)\n%s", want.Text, diff)
					}
				}
				got := row{ints(e.Ids), e.TypeIds, e.Tokens, e.CharOffsets, e.SpecialTokenMask, tok.Decode(want.IDs, true), tok.Decode(want.IDs, false)}
				if diff := cmp.Diff(want.row, got); diff != "" {
					t.Errorf("%+q (-want +got)\n%s", want.Text, diff)
				}
			}
		})
	}
}

// checkPair compares AppendPair, behind other ids, with what Hugging Face answered.
func checkPair(t *testing.T, tok *Tokenizer, first, second string, maxLength int, wantIDs []int32, wantTypes []int) {
	t.Helper()
	ids, types := tok.AppendPair([]int32{7}, []int8{9}, first, second, maxLength)
	want := []int8{9}
	for _, typ := range wantTypes {
		want = append(want, int8(typ))
	}
	if diff := cmp.Diff(append([]int32{7}, wantIDs...), ids) + cmp.Diff(want, types); diff != "" {
		t.Errorf("AppendPair(%+.300q, %+.300q, %d) (-want +got)\n%.2000s", first, second, maxLength, diff)
	}
}
