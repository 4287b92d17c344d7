package mlflow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// Signature is a model's schema, as Python's ModelSignature. Its JSON forms stand as strings in MLmodel.
type Signature struct {
	Inputs  []ColSpec
	Outputs []ColSpec
	Params  []ParamSpec // nil: null
}

// ColSpec is a column; a nameless one stands for a list.
type ColSpec struct {
	Type     string `json:"type"` // string, long, double, …
	Name     string `json:"name,omitempty"`
	Required bool   `json:"required"`
}

// ParamSpec is a parameter of predict. Shape is nil for a scalar.
type ParamSpec struct {
	Name    string `json:"name"`
	Default any    `json:"default"`
	Shape   []int  `json:"shape"`
	Type    string `json:"type"`
}

// TextClassification is what Python's infer_signature gives for a list of texts (or of pairs, dicts with text and text_pair), the
// pipeline's label and score, and params={"batch_size": batchSize}; with batchSize 0, for no params.
func TextClassification(pairs bool, batchSize int) Signature {
	s := Signature{
		Inputs:  []ColSpec{{Type: "string", Required: true}},
		Outputs: []ColSpec{{Type: "string", Name: "label", Required: true}, {Type: "double", Name: "score", Required: true}},
	}
	if pairs {
		s.Inputs = []ColSpec{{Type: "string", Name: "text", Required: true}, {Type: "string", Name: "text_pair", Required: true}}
	}
	if batchSize > 0 {
		s.Params = []ParamSpec{{Name: "batch_size", Default: batchSize, Type: "long"}}
	}
	return s
}

// fields is the signature as MLmodel holds it.
func (s Signature) fields() (map[string]any, error) {
	out := map[string]any{"params": nil}
	for name, v := range map[string]any{"inputs": s.Inputs, "outputs": s.Outputs} {
		text, err := pythonJSON(v)
		if err != nil {
			return nil, fmt.Errorf("signature %s: %w", name, err)
		}
		out[name] = string(text)
	}
	if s.Params != nil {
		text, err := pythonJSON(s.Params)
		if err != nil {
			return nil, fmt.Errorf("signature params: %w", err)
		}
		out["params"] = string(text)
	}
	return out, nil
}

// pythonJSON encodes v as Python's json.dumps does: ", " and ": " between items, ASCII only.
func pythonJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	var out strings.Builder
	inString, escaped := false, false
	for _, r := range strings.TrimSuffix(b.String(), "\n") {
		switch {
		case r > 0xffff:
			r -= 0x10000 // as a surrogate pair
			fmt.Fprintf(&out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
			continue
		case r > 0x7e:
			fmt.Fprintf(&out, `\u%04x`, r)
			continue
		}
		out.WriteRune(r)
		switch {
		case escaped:
			escaped = false
		case inString && r == '\\':
			escaped = true
		case r == '"':
			inString = !inString
		case !inString && (r == ',' || r == ':'):
			out.WriteByte(' ')
		}
	}
	return []byte(out.String()), nil
}
