package recipe

import (
	"bytes"
	"encoding/json"
)

// Text is what a model classifies: one text, in JSON a string, or a pair of texts, in JSON an object as the pipelines of
// transformers take it.
type Text struct {
	Text string `json:"text"`
	Pair string `json:"text_pair,omitempty"` // the second text; "": there is one text only
}

// Texts makes single texts of strings.
func Texts(texts ...string) []Text {
	out := make([]Text, len(texts))
	for i, text := range texts {
		out[i].Text = text
	}
	return out
}

// MarshalJSON writes a string or, of a pair, an object. Whether < and & are escaped is left to who encodes it.
func (t Text) MarshalJSON() ([]byte, error) {
	type object Text
	var v any = object(t)
	if t.Pair == "" {
		v = t.Text
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return b.Bytes(), err
}

// UnmarshalJSON reads both.
func (t *Text) UnmarshalJSON(data []byte) error {
	*t = Text{}
	if kind(data) == "string" {
		return json.Unmarshal(data, &t.Text)
	}
	type object Text
	return json.Unmarshal(data, (*object)(t))
}
