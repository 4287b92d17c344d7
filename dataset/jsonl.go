package dataset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// jsonl reads one JSON object a line.
type jsonl struct {
	lines  *lineReader
	text   string // path
	others []otherColumn
}

func newJSONL(lines *lineReader, opt Options) *jsonl {
	return &jsonl{lines: lines, text: opt.Text, others: opt.columns()}
}

func (j *jsonl) read(rec *record) error {
	*rec = record{}
	line, err := j.lines.nextRow()
	rec.line = j.lines.line
	if err != nil {
		return err
	}
	rec.text = line // for the quarantine
	if reason := invalidUTF8(line); reason != "" {
		return &RowError{Reason: reason, Kind: KindEncoding} // encoding/json would replace the bytes in silence
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(line, &object); err != nil || object == nil {
		return &RowError{Reason: "not a JSON object" + jsonProblem(line, err)}
	}
	for _, column := range j.others {
		raw, _ := lookup(object, column.name)
		*column.of(rec) = jsonLabel(raw)
	}
	raw, ok := lookup(object, j.text)
	if !ok {
		return &RowError{Column: j.text, Reason: "the row has no such field", Kind: KindNoText}
	}
	if rec.text, rec.hasText, err = jsonText(raw); err != nil {
		return &RowError{Column: j.text, Reason: err.Error()}
	}
	return nil
}

// lookup finds a field by its name or, where there is none, by its dotted path.
func lookup(object map[string]json.RawMessage, path string) (json.RawMessage, bool) {
	if raw, ok := object[path]; ok {
		return raw, true
	}
	name, rest, nested := strings.Cut(path, ".")
	if !nested {
		return nil, false
	}
	var inner map[string]json.RawMessage
	if json.Unmarshal(object[name], &inner) != nil {
		return nil, false
	}
	return lookup(inner, rest)
}

func jsonText(raw json.RawMessage) (b []byte, ok bool, err error) {
	if raw[0] == 'n' {
		return nil, false, nil
	}
	if raw[0] != '"' {
		return nil, false, errors.New("the text is not a string")
	}
	var s string
	err = json.Unmarshal(raw, &s)
	return []byte(s), true, err
}

func jsonLabel(raw json.RawMessage) value {
	var v any
	if len(raw) == 0 || json.Unmarshal(raw, &v) != nil {
		return value{}
	}
	switch v := v.(type) {
	case string:
		return value{kind: text, str: v}
	case float64:
		return number(v)
	case bool:
		if v {
			return value{kind: boolean, num: 1}
		}
		return value{kind: boolean}
	case nil:
		return value{}
	default:
		return value{kind: other, str: "an object or a list"}
	}
}

// jsonProblem explains a line that is not an object.
func jsonProblem(line []byte, err error) string {
	if bytes.HasPrefix(bytes.TrimSpace(line), []byte("[")) {
		return ": JSON Lines has one object a line, not one list"
	}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Sprintf(": %s at offset %d", syntax.Error(), syntax.Offset)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return ": it ends too early"
	}
	return ""
}
