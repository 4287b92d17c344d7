package recipe

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPairs: where the rows are pairs, so are the texts of the signature and the examples, the defaults included.
func TestPairs(t *testing.T) {
	const document = `{"name": "n", "data": {"source": "file:d.csv", "text_pair": "b", "labels": ["ham", "spam"]}, "model": {"base": "file:m"}, "signature": %, "examples": [{"text": "a", "text_pair": "b", "label": "ham"}]}`
	for signature, want := range map[string][]Text{
		`{}`: {{"This is a test!", "And this is also a test."}, {"And this is also a test.", "This is a test!"}},
		`{"inputs": [{"text": "a", "text_pair": "b"}]}`:                                                     {{"a", "b"}},
		`{"inputs": [{"text_pair": "b", "text": "a"}], "input_example": [{"text": "a", "text_pair": "b"}]}`: {{"a", "b"}},
	} {
		r, err := Decode([]byte(strings.Replace(document, "%", signature, 1)))
		if err != nil || !cmp.Equal(r.Signature.Inputs, want) || !cmp.Equal(r.Signature.InputExample, want) {
			t.Errorf("%s: %+v, %v", signature, r.Signature, err)
		}
		frozen, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Decode(frozen)
		if diff := cmp.Diff(r, again); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", signature, err, diff)
		}
	}
	_, err := Decode([]byte(strings.Replace(document, "%", `{"inputs": ["a"]}`, 1)))
	if want := `signature.inputs[0].text_pair: got "", want a second text, since data.text_pair is set`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestTextIsAString: a recipe of single texts is written as it always was.
func TestTextIsAString(t *testing.T) {
	r, err := Decode([]byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(r)
	if err != nil || strings.Contains(string(body), "text_pair") || !strings.Contains(string(body), `"inputs":["This is a test!","And this is also a test."]`) {
		t.Errorf("%s, %v", body, err)
	}
	var s Signature
	if err := json.Unmarshal([]byte(`{"inputs": ["a", {"text": "b", "text_pair": "c"}]}`), &s); err != nil || !cmp.Equal(s.Inputs, []Text{{Text: "a"}, {"b", "c"}}) {
		t.Errorf("%+v, %v", s, err)
	}
}
