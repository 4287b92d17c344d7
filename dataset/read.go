package dataset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"unicode/utf8"
)

// Row is one labelled text.
type Row struct {
	Index int64  // from Read: position in the source, 0-based; from a Split: rank in split order (see [SplitRows])
	Text  string // valid UTF-8 without NUL
	Label int    // class index
}

// File is one file of a source.
type File struct {
	Name string // how errors name it; its ending hints at the format
	// Open opens the file. Parquet needs an io.ReaderAt and io.Seeker, as *os.File is.
	Open func() (fs.File, error)
}

// Options say how to read a source.
type Options struct {
	Format string   // auto (or ""), tsv, csv, jsonl or parquet
	Text   string   // column of the text; a dotted path reaches into nested ones; unused by tsv
	Label  string   // column of the label, likewise
	Labels []string // class names in index order, at least two

	MaxRow   int   // bytes a row may have (default 16 MiB)
	MaxBytes int64 // bytes a compressed file may expand to (default 64 GiB; at most 256 times its size beyond 64 MiB)

	Progress func(rows int64) // told how many rows are read; may be nil
}

const (
	defaultMaxRow   = 16 << 20
	defaultMaxBytes = 64 << 30

	progressEvery = 1024 // rows between two looks at the context and calls of progress
)

// record is a row as a format yields it; text is valid until the next one.
type record struct {
	text    []byte
	hasText bool
	label   value
	line    int64
}

// format yields the records of one file, io.EOF after the last. A *RowError concerns that row alone.
type format interface {
	read(*record) error
}

// Read yields the rows of all files in order, as one data set. It ends with the first error: a [*RowError] (no label, an
// unknown label, no text, invalid UTF-8, a NUL byte), a [*SourceError] (an empty or unreadable file, a missing column,
// fewer than two classes in all), an error of the file system, or ctx's.
func Read(ctx context.Context, files []File, opt Options) iter.Seq2[Row, error] {
	if opt.MaxRow == 0 {
		opt.MaxRow = defaultMaxRow
	}
	if opt.MaxBytes == 0 {
		opt.MaxBytes = defaultMaxBytes
	}
	if opt.Progress == nil {
		opt.Progress = func(int64) {}
	}
	return func(yield func(Row, error) bool) {
		r := reader{Options: opt, classes: newClasses(opt.Labels), counts: make([]int64, len(opt.Labels))}
		for _, f := range files {
			if more, err := r.file(ctx, f, yield); err != nil || !more {
				if err != nil {
					yield(Row{}, err)
				}
				return
			}
		}
		r.Progress(r.rows)
		if err := r.checkClasses(files); err != nil {
			yield(Row{}, err)
		}
	}
}

// reader is the state of one Read across its files.
type reader struct {
	Options
	classes
	rows   int64
	counts []int64 // rows a class
}

// file yields the rows of one file. more is false where the consumer wants none.
func (r *reader) file(ctx context.Context, f File, yield func(Row, error) bool) (more bool, err error) {
	in, err := openInput(f, r.Options)
	if err != nil {
		return false, err
	}
	defer in.close()
	var rec record
	for n := int64(1); ; n++ {
		if r.rows%progressEvery == 0 {
			r.Progress(r.rows)
			if err := ctx.Err(); err != nil {
				return false, err
			}
		}
		err := in.next(&rec)
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		var row Row
		if err == nil {
			row, err = r.row(&rec)
		}
		if err != nil {
			return false, locate(err, f.Name, n, rec.line)
		}
		r.rows++
		r.counts[row.Label]++
		if !yield(row, nil) {
			return false, nil
		}
	}
}

// row checks a record.
func (r *reader) row(rec *record) (Row, error) {
	if !rec.hasText {
		return Row{}, &RowError{Column: r.Text, Reason: "the row has no text"}
	}
	if len(rec.text) > r.MaxRow { // Parquet; the text formats see to it as they read
		return Row{}, &RowError{Column: r.Text, Reason: fmt.Sprintf("longer than %d bytes", r.MaxRow)}
	}
	if reason := badText(rec.text); reason != "" {
		return Row{}, &RowError{Column: r.Text, Reason: reason}
	}
	label, problem := r.class(rec.label)
	if problem != "" {
		return Row{}, &RowError{Column: r.Label, Reason: problem}
	}
	return Row{Index: r.rows, Text: string(rec.text), Label: label}, nil
}

// badText says why a text cannot be used.
func badText(b []byte) string {
	if !utf8.Valid(b) {
		for i := 0; i < len(b); {
			c, n := utf8.DecodeRune(b[i:])
			if c == utf8.RuneError && n == 1 {
				return fmt.Sprintf("invalid UTF-8: byte 0x%02x at offset %d", b[i], i)
			}
			i += n
		}
	}
	for i, c := range b {
		if c == 0 {
			return fmt.Sprintf("NUL byte at offset %d", i)
		}
	}
	return ""
}

// locate fills in where a *RowError happened.
func locate(err error, file string, row, line int64) error {
	if e, ok := errors.AsType[*RowError](err); ok {
		e.File, e.Row = file, row
		if e.Line == 0 {
			e.Line = line
		}
	}
	return err
}

// checkClasses refuses data that nothing can be learned from.
func (r *reader) checkClasses(files []File) error {
	name := "the source"
	if len(files) > 0 {
		name = files[0].Name
	}
	if len(files) > 1 {
		name = fmt.Sprintf("%s and %d more", name, len(files)-1)
	}
	if r.rows == 0 {
		return &SourceError{name, "no rows"}
	}
	for i, n := range r.counts {
		if n == r.rows {
			return &SourceError{name, fmt.Sprintf("all %d rows have the label %s; training needs at least two classes", n, quote(r.names[i]))}
		}
	}
	return nil
}
