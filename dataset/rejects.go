package dataset

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// ErrorKind groups [RowError]s, for counting.
type ErrorKind string

// The kinds of row errors.
const (
	KindMalformed    ErrorKind = "malformed"     // the row as a whole cannot be read
	KindUnclosed     ErrorKind = "unclosed"      // nobody knows where the next row begins: never skipped
	KindTooLong      ErrorKind = "too long"      // more bytes than a row may have
	KindEncoding     ErrorKind = "encoding"      // bytes that are not of the encoding
	KindNUL          ErrorKind = "NUL byte"      // in the text
	KindNoText       ErrorKind = "no text"       // missing or null
	KindEmptyText    ErrorKind = "empty text"    // no characters, or white space alone
	KindNoLabel      ErrorKind = "no label"      // missing, null or empty
	KindUnknownLabel ErrorKind = "unknown label" // none of the class names
	KindNoShare      ErrorKind = "no share"      // the split column names neither side
	KindNoGroup      ErrorKind = "no group"      // missing or null
)

// Bounds of what is kept of the rows that cannot be used.
const (
	maxFirst    = 10       // examples
	maxRejected = 64 << 10 // bytes of a text in quarantine
)

// Rejects takes the rows that cannot be used and counts them, so that reading goes on. Fields but the first two are
// filled by [Read].
type Rejects struct {
	MaxShare float64   // of all rows; more end Read with a [*SourceError]
	Keep     io.Writer // the quarantine: gets a line of JSON a row ([Rejected]); nil keeps none

	Rows  int64               // rejected
	Kinds map[ErrorKind]int64 // rejected, by kind
	First []RowError          // the first ones, at most 10
}

// Rejected is a row in quarantine.
type Rejected struct {
	File   string    `json:"file"`
	Row    int64     `json:"row"`            // 1-based, among the rows of the file
	Line   int64     `json:"line,omitempty"` // 1-based line the row begins on
	Column string    `json:"column,omitempty"`
	Kind   ErrorKind `json:"kind"`
	Reason string    `json:"reason"`
	Text   string    `json:"text,omitempty"`      // what could be read of it, at most 64 KiB, as UTF-8
	Pair   string    `json:"text_pair,omitempty"` // of the second text, likewise
	Label  string    `json:"label,omitempty"`
}

// add takes a row.
func (r *Rejects) add(e *RowError, rec *record) error {
	if r.Kinds == nil {
		r.Kinds = map[ErrorKind]int64{}
	}
	r.Rows++
	r.Kinds[e.Kind]++
	if len(r.First) < maxFirst {
		r.First = append(r.First, *e)
	}
	if r.Keep == nil {
		return nil
	}
	text, pair := rec.text[:min(len(rec.text), maxRejected)], rec.pair.str[:min(len(rec.pair.str), maxRejected)]
	line, err := json.Marshal(Rejected{e.File, e.Row, e.Line, e.Column, e.Kind, e.Reason,
		strings.ToValidUTF8(string(text), "\uFFFD"), strings.ToValidUTF8(pair, "\uFFFD"), rec.label.String()})
	if err != nil {
		return fmt.Errorf("quarantine %s row %d: %w", e.File, e.Row, err)
	}
	_, err = r.Keep.Write(append(line, '\n'))
	return err
}

// check refuses a source with too many bad rows; used is how many others there are.
func (r *Rejects) check(source string, used int64) error {
	all := r.Rows + used
	if r.Rows == 0 || float64(r.Rows) <= r.MaxShare*float64(all) {
		return nil
	}
	return &SourceError{source, fmt.Sprintf("%d of %d rows cannot be used (%s), more than the share of %g that may be left out; the first: %s",
		r.Rows, all, r.Summary(), r.MaxShare, r.First[0].Error())}
}

// Summary names the kinds with their counts, most frequent first.
func (r *Rejects) Summary() string {
	kinds := slices.SortedFunc(maps.Keys(r.Kinds), func(a, b ErrorKind) int {
		if d := r.Kinds[b] - r.Kinds[a]; d != 0 {
			return int(d)
		}
		return strings.Compare(string(a), string(b))
	})
	parts := make([]string, len(kinds))
	for i, kind := range kinds {
		parts[i] = fmt.Sprintf("%d %s", r.Kinds[kind], kind)
	}
	return strings.Join(parts, ", ")
}
