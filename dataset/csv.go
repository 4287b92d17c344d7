package dataset

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
)

// Dialect says how a CSV file is written. The zero Dialect is that of RFC 4180 with a header.
type Dialect struct {
	Delimiter byte // 0: a comma
	NoQuotes  bool // a quote means nothing
	Quote     byte // 0: "
	NoHeader  bool // the columns are called 0, 1, 2, …
}

// csv reads RFC 4180, as Python's csv module and pandas do: a quote opens a field only at its start, and quoted line breaks are kept as they are. encoding/csv is not used: it drops carriage returns and has no limit on what
// an unclosed quote swallows.
type csv struct {
	lines *lineReader
	buf   []byte // the unquoted fields of a record, one after the other
	ends  []int  // where each field ends in buf
	width int    // fields of a record
	first bool   // the first record is read, and no header

	comma, quote []byte // quote is nil where there is none

	text   int // column
	others []csvColumn
}

// csvColumn is a column beside the text.
type csvColumn struct {
	index int
	of    func(*record) *value
}

func newCSV(name string, lines *lineReader, opt Options) (*csv, error) {
	d := opt.CSV
	c := &csv{lines: lines, comma: []byte{cmp.Or(d.Delimiter, ',')}, quote: []byte{cmp.Or(d.Quote, '"')}}
	if d.NoQuotes {
		c.quote = nil
	}
	if err := lines.skipBOM(); err != nil {
		return nil, err
	}
	err := c.record()
	if errors.Is(err, io.EOF) {
		return nil, &SourceError{name, "no header"}
	}
	if e, ok := errors.AsType[*RowError](err); ok {
		return nil, &SourceError{name, "header: " + e.Reason}
	}
	if err != nil {
		return nil, err
	}
	c.width = len(c.ends)
	columns := make([]string, c.width)
	for i := range columns {
		columns[i] = string(c.field(i))
		if d.NoHeader {
			columns[i] = strconv.Itoa(i)
		}
	}
	c.first = d.NoHeader
	if c.text, err = find(name, columns, opt.Text); err != nil {
		return nil, err
	}
	for _, column := range opt.columns() {
		index, err := find(name, columns, column.name)
		if err != nil {
			return nil, err
		}
		c.others = append(c.others, csvColumn{index, column.of})
	}
	return c, nil
}

// find finds a column of a header.
func find(file string, columns []string, name string) (int, error) {
	at := slices.Index(columns, name)
	if at < 0 {
		return 0, missingColumn(file, name, columns)
	}
	if slices.Contains(columns[at+1:], name) {
		return 0, &SourceError{file, "two columns are called " + quote(name)}
	}
	return at, nil
}

func (c *csv) read(rec *record) error {
	*rec = record{line: c.lines.line + 1}
	if c.first {
		c.first, rec.line = false, 1
	} else if err := c.record(); err != nil {
		return err
	}
	if len(c.ends) != c.width {
		return &RowError{Reason: fmt.Sprintf("%d fields, the first line has %d", len(c.ends), c.width)}
	}
	for _, column := range c.others {
		*column.of(rec) = value{kind: text, str: string(c.field(column.index))}
	}
	rec.text, rec.hasText = c.field(c.text), true
	return nil
}

func (c *csv) field(i int) []byte {
	start := 0
	if i > 0 {
		start = c.ends[i-1]
	}
	return c.buf[start:c.ends[i]]
}

// record splits the next record that is not an empty line into its fields.
func (c *csv) record() error {
	c.buf, c.ends = c.buf[:0], c.ends[:0]
	var line []byte
	var err error
	for len(line) == 0 || len(line) == 1 && line[0] == '\r' {
		if line, err = c.lines.next(); err != nil {
			return err
		}
	}
	for {
		var more bool
		if len(line) > 0 && c.quote != nil && line[0] == c.quote[0] {
			line, more, err = c.quoted(line[1:])
		} else {
			var plain []byte
			if plain, line, more = bytes.Cut(line, c.comma); !more {
				plain = bytes.TrimSuffix(plain, []byte("\r")) // of the line's end; within quotes it is kept
			}
			c.buf = append(c.buf, plain...)
		}
		if err != nil {
			return err
		}
		c.ends = append(c.ends, len(c.buf))
		if !more {
			return nil
		}
	}
}

// quoted reads a field whose opening quote is taken off, over as many lines as it has. It returns what follows the comma
// behind it; more is false at the end of the record.
func (c *csv) quoted(line []byte) (rest []byte, more bool, err error) {
	opened := c.lines.line
	for {
		part, rest, closed := bytes.Cut(line, c.quote)
		c.buf = append(c.buf, part...)
		switch {
		case closed && len(rest) > 0 && rest[0] == c.quote[0]: // a doubled quote
			c.buf = append(c.buf, c.quote...)
			line = rest[1:]
			continue
		case closed:
			if string(rest) == "\r" { // of the line's end
				rest = nil
			}
			if len(rest) > 0 && rest[0] != c.comma[0] {
				return nil, false, &RowError{Line: opened, Reason: "text behind a closing quote; a quote within a quoted field is doubled"}
			}
			return bytes.TrimPrefix(rest, c.comma), len(rest) > 0, nil
		}
		if line, err = c.lines.next(); errors.Is(err, io.EOF) {
			return nil, false, &RowError{Line: opened, Reason: "a quote is opened and never closed", Kind: KindUnclosed}
		}
		if err != nil {
			return nil, false, err
		}
		if c.buf = append(c.buf, '\n'); len(c.buf)+len(line) > c.lines.max {
			return nil, false, &RowError{Line: opened, Reason: fmt.Sprintf("longer than %d bytes; is a quote not closed?", c.lines.max), Kind: KindUnclosed}
		}
	}
}
