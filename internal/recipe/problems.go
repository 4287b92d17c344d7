package recipe

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Problem is one thing that is wrong with a recipe.
type Problem struct {
	Path string `json:"path"`           // e.g. "train.learning_rate" or "examples[1].label"; "" for the document as a whole
	Got  string `json:"got"`            // e.g. "-1"
	Want string `json:"want,omitempty"` // e.g. "> 0"; empty where Got says it all
}

// Error is one line, e.g. "train.learning_rate: got -1, want > 0".
func (p *Problem) Error() string {
	text := p.Got
	if p.Want != "" {
		text = fmt.Sprintf("got %s, want %s", p.Got, p.Want)
	}
	if p.Path == "" {
		return text
	}
	return p.Path + ": " + text
}

// Problems is everything that is wrong with a recipe: first what could not be read, then what breaks a rule.
type Problems []*Problem

// Error is one line a problem, or a single line if there is one.
func (p Problems) Error() string {
	if len(p) == 1 {
		return "invalid recipe: " + p[0].Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "invalid recipe, %d problems:", len(p))
	for _, problem := range p {
		b.WriteString("\n  " + problem.Error())
	}
	return b.String()
}

// Unwrap lets errors.As find a single *[Problem].
func (p Problems) Unwrap() []error {
	errs := make([]error, len(p))
	for i, problem := range p {
		errs[i] = problem
	}
	return errs
}

// err is nil if there are no problems: an empty list in an error would not be.
func (p Problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

func (p *Problems) add(path, got, want string) { *p = append(*p, &Problem{path, got, want}) }

// check adds a problem unless ok.
func (p *Problems) check(ok bool, path string, got any, want string) {
	if !ok {
		p.add(path, show(got), want)
	}
}

// has reports whether path already has a problem: one that cannot be read is not also out of bounds.
func (p Problems) has(path string) bool {
	for _, problem := range p {
		if problem.Path == path {
			return true
		}
	}
	return false
}

// maxShown bounds a value in a message, in characters.
const maxShown = 60

// show writes a value as in the document, shortened.
func show(v any) string {
	body, err := json.Marshal(v)
	if err != nil { // a NaN, which JSON has no word for
		return fmt.Sprint(v)
	}
	if string(body) == "null" {
		return "nothing"
	}
	return cut(string(body))
}

func cut(s string) string {
	if utf8.RuneCountInString(s) <= maxShown {
		return s
	}
	return string([]rune(s)[:maxShown]) + "…"
}
