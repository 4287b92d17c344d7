package recipe

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"
)

// maxSize bounds a document, in bytes; Temporal itself refuses an input of twice that.
const maxSize = 1 << 20

// Decode reads a document over [Defaults], validates it and returns the frozen recipe. The error is [Problems], which
// lists everything that is wrong; only a document that is not JSON at all has a single one.
func Decode(raw []byte) (Recipe, error) {
	if problem := syntax(raw); problem != nil {
		return Recipe{}, Problems{problem}
	}
	r := Defaults()
	var d decoder
	d.value("", raw, reflect.ValueOf(&r).Elem())
	r.freeze()
	problems := d.problems
	for _, p := range r.rules() {
		if !problems.covers(p.Path) {
			problems = append(problems, p)
		}
	}
	if len(problems) > 0 {
		return Recipe{}, problems
	}
	return r, nil
}

// covers reports whether path or something it belongs to could not be read.
func (p Problems) covers(path string) bool {
	for {
		if p.has(path) {
			return true
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return false
		}
		path = path[:i]
	}
}

// syntax checks everything that keeps a document from being one JSON object.
func syntax(raw []byte) *Problem {
	switch {
	case len(raw) > maxSize:
		return &Problem{Got: fmt.Sprintf("%d bytes", len(raw)), Want: fmt.Sprintf("at most %d", maxSize)}
	case !utf8.Valid(raw):
		return &Problem{Got: "bytes that are not UTF-8", Want: "a JSON object"}
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	var doc json.RawMessage
	if err := dec.Decode(&doc); err != nil {
		at := len(raw)
		if s, ok := errors.AsType[*json.SyntaxError](err); ok {
			at = int(s.Offset)
		}
		return &Problem{Got: fmt.Sprintf("not JSON at %s: %v", position(raw, at), err)}
	}
	if _, err := dec.Token(); err != io.EOF {
		return &Problem{Got: "more text after the closing brace at " + position(raw, int(dec.InputOffset()))}
	}
	if kind(doc) != "object" {
		return &Problem{Got: kind(doc), Want: "object"}
	}
	return nil
}

// position turns an offset into line and column, both from 1.
func position(raw []byte, offset int) string {
	before := raw[:min(offset, len(raw))]
	line := bytes.Count(before, []byte("\n"))
	column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:])
	return fmt.Sprintf("line %d, column %d", line+1, max(column, 1))
}

// decoder writes valid JSON into Go values, key by key, and goes on after a problem. encoding/json stops at the first
// one, takes any case of a key and the last of two equal ones, and lets null pass.
type decoder struct{ problems Problems }

func (d *decoder) value(path string, raw json.RawMessage, v reflect.Value) {
	switch {
	case v.Type() == reflect.TypeFor[Duration]():
		d.duration(path, raw, v)
	case v.Type() == reflect.TypeFor[Text]() && kind(raw) != "object":
		d.value(path, raw, v.Field(0))
	case v.Kind() == reflect.Struct:
		d.object(path, raw, v)
	case v.Kind() == reflect.Slice:
		d.array(path, raw, v)
	default:
		d.scalar(path, raw, v)
	}
}

func (d *decoder) object(path string, raw json.RawMessage, v reflect.Value) {
	if d.wrongKind(path, raw, "object") {
		return
	}
	fields := map[string]reflect.Value{}
	for field, value := range v.Fields() {
		fields[key(field)] = value
	}
	seen := map[string]bool{}
	for name, member := range members(raw) {
		at := join(path, name)
		field, known := fields[name]
		switch {
		case seen[name]:
			d.problems.add(at, "the key twice", "")
		case !known:
			d.problems.add(at, "unknown key"+suggest(name, v.Type()), "")
		default:
			d.value(at, member, field)
		}
		seen[name] = true
	}
}

func (d *decoder) array(path string, raw json.RawMessage, v reflect.Value) {
	if d.wrongKind(path, raw, "array") {
		return
	}
	var elements []json.RawMessage
	if err := json.Unmarshal(raw, &elements); err != nil {
		d.problems.add(path, err.Error(), "")
		return
	}
	list := reflect.MakeSlice(v.Type(), len(elements), len(elements))
	for i, element := range elements {
		d.value(fmt.Sprintf("%s[%d]", path, i), element, list.Index(i))
	}
	v.Set(list)
}

func (d *decoder) duration(path string, raw json.RawMessage, v reflect.Value) {
	var duration Duration
	if kind(raw) != "string" || json.Unmarshal(raw, &duration) != nil {
		d.problems.add(path, cut(string(raw)), `a duration such as "90s" or "1h30m"`)
		return
	}
	v.Set(reflect.ValueOf(duration))
}

func (d *decoder) scalar(path string, raw json.RawMessage, v reflect.Value) {
	want := map[reflect.Kind]string{
		reflect.String: "string", reflect.Bool: "boolean", reflect.Int: "number", reflect.Int64: "number", reflect.Float64: "number",
	}[v.Kind()]
	if d.wrongKind(path, raw, want) {
		return
	}
	if err := json.Unmarshal(raw, v.Addr().Interface()); err != nil {
		if v.CanInt() {
			want = "an integer of 64 bits"
		}
		d.problems.add(path, cut(string(raw)), want)
	}
}

func (d *decoder) wrongKind(path string, raw json.RawMessage, want string) bool {
	got := kind(raw)
	if got == want {
		return false
	}
	if got == "string" || got == "number" || got == "boolean" {
		got += " " + cut(string(raw))
	}
	d.problems.add(path, got, want)
	return true
}

// members yields the keys and values of a valid object in its order.
func members(raw json.RawMessage) func(yield func(string, json.RawMessage) bool) {
	return func(yield func(string, json.RawMessage) bool) {
		dec := json.NewDecoder(bytes.NewReader(raw))
		_, err := dec.Token()
		for err == nil && dec.More() {
			var name json.Token
			var value json.RawMessage
			if name, err = dec.Token(); err != nil {
				return
			}
			if err = dec.Decode(&value); err != nil || !yield(fmt.Sprint(name), value) {
				return
			}
		}
	}
}

// kind names the type of a JSON value.
func kind(raw json.RawMessage) string {
	switch bytes.TrimLeft(raw, " \t\r\n")[0] {
	case '{':
		return "object"
	case '[':
		return "array"
	case '"':
		return "string"
	case 't', 'f':
		return "boolean"
	case 'n':
		return "null"
	}
	return "number"
}

// key is a field's name in JSON.
func key(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

func join(path, name string) string {
	name = cut(name)
	if path == "" {
		return name
	}
	return path + "." + name
}
