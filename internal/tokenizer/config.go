package tokenizer

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/sugarme/tokenizer"
)

// maxFile bounds tokenizer.json; the largest in use, with 250,000 tokens, have 17 MB.
const maxFile = 256 << 20

// UnsupportedError says which part of a tokenizer.json this package does not do exactly, or cannot make sense of.
type UnsupportedError struct {
	File      string
	Component string // its path in the JSON, such as model.type
	Problem   string // what is there, and what could be
}

func (e *UnsupportedError) Error() string {
	if e.Component == "" {
		return fmt.Sprintf("%s: %s", e.File, e.Problem)
	}
	return fmt.Sprintf("%s: %s: %s", e.File, e.Component, e.Problem)
}

// section is an object of the JSON. The first thing that is wrong in any of them is kept in its failure.
type section struct {
	path   string
	values map[string]any
	*failure
}

type failure struct{ err *UnsupportedError }

// fail keeps the first problem.
func (s section) fail(key, format string, args ...any) {
	if s.err == nil {
		s.err = &UnsupportedError{Component: printable(s.at(key)), Problem: fmt.Sprintf(format, args...)}
	}
}

// printable keeps a path, which may hold a token of the file, to one line.
func printable(path string) string {
	const most = 100
	path = strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, path)
	if len(path) > most {
		return strings.ToValidUTF8(path[:most], "") + "…"
	}
	return path
}

func (s section) at(key string) string {
	if s.path == "" || key == "" {
		return s.path + key
	}
	return s.path + "." + key
}

// must reads a value that Hugging Face requires too.
func must[T any](s section, key string) T {
	v, ok := s.values[key].(T)
	if !ok {
		s.fail(key, "got %s, want %s", show(s.values[key]), kindOf(v))
	}
	return v
}

// may reads a value that may be missing or null.
func may[T any](s section, key string, fallback T) T {
	if s.values[key] == nil {
		return fallback
	}
	return must[T](s, key)
}

// only refuses any other value than those given.
func (s section) only(key string, want ...any) {
	if !slices.ContainsFunc(want, func(w any) bool { return w == s.plain(key) }) {
		var list []string
		for _, w := range want {
			list = append(list, show(w))
		}
		s.fail(key, "%s is not supported, only %s", show(s.values[key]), strings.Join(list, " or "))
	}
}

// plain is a value that can be compared.
func (s section) plain(key string) any {
	switch v := s.values[key].(type) {
	case map[string]any, []any:
		return show(v)
	default:
		return v
	}
}

// typ reads the type of a component; there may be none.
func (s section) typ() string {
	if s.values == nil {
		return ""
	}
	return may(s, "type", "")
}

func (s section) child(key string) section {
	return section{s.at(key), may[map[string]any](s, key, nil), s.failure}
}

// id reads a number as an id.
func (s section) id(key string, v any) int32 {
	f, ok := v.(float64)
	if !ok || f != math.Trunc(f) || f < 0 || f > math.MaxInt32 {
		s.fail(key, "got %s, want an id", show(v))
		return 0
	}
	return int32(f)
}

func kindOf(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case bool:
		return "a boolean"
	case float64:
		return "a number"
	case []any:
		return "a list"
	default:
		return "an object"
	}
}

// show writes a value for a message, long ones cut.
func show(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	const most = 60
	if len(b) > most {
		return strings.ToValidUTF8(string(b[:most]), "") + "…"
	}
	return string(b)
}

// readConfig reads the file into sugarme's Config. sugarme's own reader leaves the file open, and takes what follows the
// JSON for nothing.
func readConfig(path string) (*tokenizer.Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("tokenizer: read %s: %w", path, err)
	}
	if len(data) > maxFile {
		return nil, &UnsupportedError{Problem: fmt.Sprintf("is larger than %d MB", maxFile>>20)}
	}
	var cfg tokenizer.Config
	if err := json.Unmarshal(data, &cfg); err != nil {
		return nil, &UnsupportedError{Problem: "is not a tokenizer.json: " + err.Error()}
	}
	return &cfg, nil
}

// vocabulary is the tokens of a model, in the order of their ids.
type vocabulary struct {
	list []string
	ids  []int32
	byID map[int32]string
	id   map[string]int32
}

func readVocabulary(model section) vocabulary {
	v := vocabulary{byID: map[int32]string{}, id: map[string]int32{}}
	entries := must[map[string]any](model, "vocab")
	for token, id := range entries {
		v.id[token] = model.id("vocab."+token, id)
		if len(token) > maxWord {
			model.fail("vocab", "has a token of %d bytes, more than %d", len(token), maxWord)
		}
		v.list = append(v.list, token)
	}
	slices.SortFunc(v.list, func(a, b string) int { return cmp.Or(cmp.Compare(v.id[a], v.id[b]), cmp.Compare(a, b)) })
	for _, token := range v.list {
		id := v.id[token]
		v.ids = append(v.ids, id)
		v.byID[id] = token
	}
	if len(v.list) == 0 {
		model.fail("vocab", "is empty")
	}
	return v
}
