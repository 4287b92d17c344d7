package dataset

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// kind is the type that a label has in a file.
type kind uint8

const (
	missing kind = iota
	text
	integer
	boolean
	other // anything else; str says what
)

// value is a label as a file holds it.
type value struct {
	kind kind
	str  string // of text, or a description of other
	num  int64  // of integer; 0 or 1 of boolean
}

// empty reports that there is no label.
func (v value) empty() bool {
	return v.kind == missing || v.kind == text && strings.TrimSpace(v.str) == ""
}

// String is the label as a person would write it.
func (v value) String() string {
	switch v.kind {
	case integer:
		return strconv.FormatInt(v.num, 10)
	case boolean:
		return strconv.FormatBool(v.num == 1)
	default:
		return strings.ToValidUTF8(v.str, "\uFFFD")
	}
}

// number is the value of a floating-point label: writers turn integer columns with gaps into floats.
func number(f float64) value {
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return value{kind: integer, num: int64(f)}
	}
	if math.IsNaN(f) {
		return value{}
	}
	return value{kind: other, str: strconv.FormatFloat(f, 'g', -1, 64)}
}

// classes maps labels to class indices.
type classes struct {
	names []string
	index map[string]int
}

func newClasses(names []string) classes {
	c := classes{names: names, index: make(map[string]int, len(names))}
	for i, name := range names {
		c.index[name] = i
	}
	return c
}

// class returns the class index of a label, or the reason why it has none. A name is tried first, also for numbers ("1")
// and booleans ("true", "True"); then an integer is an index, and false and true are 0 and 1.
func (c classes) class(v value) (index int, problem string) {
	switch v.kind {
	case text:
		return c.named(v.str)
	case integer:
		if i, ok := c.index[strconv.FormatInt(v.num, 10)]; ok {
			return i, ""
		}
		if v.num >= 0 && v.num < int64(len(c.names)) {
			return int(v.num), ""
		}
		return 0, c.unknown(strconv.FormatInt(v.num, 10))
	case boolean:
		name := [...]string{"false", "true"}[v.num]
		for _, n := range []string{name, strings.ToUpper(name[:1]) + name[1:]} {
			if i, ok := c.index[n]; ok {
				return i, ""
			}
		}
		if int(v.num) < len(c.names) {
			return int(v.num), ""
		}
		return 0, c.unknown(name)
	case other:
		return 0, "the label is " + v.str + ", not a name, an integer or a boolean"
	default:
		return 0, "the row has no label"
	}
}

// named finds the class of a label that is text; text formats write numbers and booleans so, too.
func (c classes) named(s string) (int, string) {
	if i, ok := c.index[s]; ok {
		return i, ""
	}
	s = strings.TrimSpace(s)
	if i, ok := c.index[s]; ok {
		return i, ""
	}
	if s == "" {
		return c.class(value{})
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return c.class(value{kind: integer, num: n})
	}
	switch s {
	case "true", "True", "TRUE":
		return c.class(value{kind: boolean, num: 1})
	case "false", "False", "FALSE":
		return c.class(value{kind: boolean})
	}
	return 0, c.unknown(s)
}

func (c classes) unknown(s string) string {
	return fmt.Sprintf("unknown label %s; the labels are %s", quote(s), list(c.names))
}
