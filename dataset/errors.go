package dataset

import (
	"fmt"
	"strconv"
	"strings"
)

// RowError says which row of which file cannot be used, and why.
type RowError struct {
	File   string // as the source was named
	Row    int64  // 1-based, among the rows of the file
	Line   int64  // 1-based line the row begins on; 0 in formats without lines
	Column string // "" where the row as a whole is meant
	Reason string
	Kind   ErrorKind // for counting
}

// Error names file, row, line, column and reason.
func (e *RowError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: row %d", e.File, e.Row)
	if e.Line > 0 {
		fmt.Fprintf(&b, " (line %d)", e.Line)
	}
	if e.Column != "" {
		fmt.Fprintf(&b, ": column %q", e.Column)
	}
	return b.String() + ": " + e.Reason
}

// SourceError says what is wrong with a source as a whole: a file or the rows taken together.
type SourceError struct {
	Source string // file or URI
	Reason string
}

// Error names source and reason.
func (e *SourceError) Error() string { return e.Source + ": " + e.Reason }

// Limits of what an error quotes, so that no message carries a whole row.
const (
	maxQuoted = 64
	maxListed = 20
)

// quote prints a value from the data, shortened.
func quote(s string) string {
	if len(s) > maxQuoted {
		s = strings.ToValidUTF8(s[:maxQuoted], "") + "…"
	}
	return strconv.Quote(s)
}

// list prints names from the data, shortened.
func list(names []string) string {
	var quoted []string
	for i, name := range names {
		if i == maxListed {
			return fmt.Sprintf("%s and %d more", strings.Join(quoted, ", "), len(names)-i)
		}
		quoted = append(quoted, quote(name))
	}
	return strings.Join(quoted, ", ")
}

// missingColumn says that a column is not there, and which are.
func missingColumn(file, column string, have []string) error {
	return &SourceError{file, fmt.Sprintf("no column %s; the columns are %s", quote(column), list(have))}
}
