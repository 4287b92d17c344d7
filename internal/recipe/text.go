package recipe

import "encoding/json"

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

// MarshalJSON writes a string or, of a pair, an object.
func (t Text) MarshalJSON() ([]byte, error) {
	if t.Pair == "" {
		return json.Marshal(t.Text)
	}
	type object Text
	return json.Marshal(object(t))
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
