package dataset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strings"
)

// Row is one labelled text, or pair of texts.
type Row struct {
	Index int64  // from Read: position in the source, 0-based; from a Split: rank in split order (see [SplitRows])
	Text  string // valid UTF-8 without NUL, not white space alone
	Pair  string // the second text, likewise; "": the source has no pairs
	Label int    // class index
	Group string // value of Options.Group; rows of a group stay together where [SplitSpec] says so
	Share Share  // the side that the source gives the row, if it does
}

// Share is the side of a split that a source gives a row.
type Share uint8

// The shares.
const (
	AnyShare Share = iota // not given: decided by the split
	TrainShare
	TestShare
	ValidationShare
	numShares
)

// File is one file of a source.
type File struct {
	Name string // how errors name it; its ending hints at the format
	// Open opens the file. Parquet needs an io.ReaderAt and io.Seeker, as *os.File is.
	Open  func() (fs.File, error)
	Share Share // of all its rows; AnyShare leaves it to Options.Split
}

// Options say how to read a source.
type Options struct {
	Format string   // auto (or ""), tsv, csv, jsonl, parquet, arrow, or folder: each file is a text, its folder the label
	CSV    Dialect  // of csv
	Text   string   // column of the text; a dotted path reaches into nested ones; unused by tsv and folder
	Pair   string   // column of the second text of a pair, likewise; "": rows are of one text
	Label  string   // column of the label, likewise
	Labels []string // class names in index order, at least two
	Group  string   // column that keeps rows together; "" is none
	Split  string   // column that names the share of a row: train, validation or test, or whether it is a test row; "" is none

	Encoding string // of tsv, csv and jsonl, by a name of the WHATWG Encoding Standard ("latin1", "utf-16"); "" is UTF-8
	Replace  bool   // invalid bytes become U+FFFD; else a row with some cannot be used

	Rejects *Rejects // takes the rows that cannot be used; nil: the first one ends Read

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
	pair    value
	label   value
	group   value
	share   value
	line    int64
}

// columns are the columns beside the text, with the place that each has in a record.
func (o Options) columns() []otherColumn {
	columns := []otherColumn{{o.Label, func(r *record) *value { return &r.label }, false}}
	if o.Group != "" {
		columns = append(columns, otherColumn{o.Group, func(r *record) *value { return &r.group }, false})
	}
	if o.Split != "" {
		columns = append(columns, otherColumn{o.Split, func(r *record) *value { return &r.share }, false})
	}
	if o.Pair != "" {
		columns = append(columns, otherColumn{o.Pair, func(r *record) *value { return &r.pair }, true})
	}
	return columns
}

// otherColumn is a column with texts, or with short values: names, integers or booleans.
type otherColumn struct {
	name string
	of   func(*record) *value
	text bool
}

// wrongType says that a column cannot have values of this type.
func (c otherColumn) wrongType(file, kind string) error {
	want := "a string, an integer or a boolean"
	if c.text {
		want = "a string"
	}
	return &SourceError{file, fmt.Sprintf("column %s is of type %s, not %s", quote(c.name), kind, want)}
}

// format yields the records of one file, io.EOF after the last. A *RowError concerns that row alone.
type format interface {
	read(*record) error
}

// Read yields the rows of all files in order, as one data set. It ends with the first error: a [*RowError] (no label, an
// unknown label, no text, invalid UTF-8, a NUL byte) unless opt.Rejects takes it, a [*SourceError] (an empty or unreadable
// file, a missing column, fewer than two classes in all, too many rows rejected), an error of the file system, or ctx's.
func Read(ctx context.Context, files []File, opt Options) iter.Seq2[Row, error] {
	opt = opt.withDefaults()
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
		if err := r.check(files); err != nil {
			yield(Row{}, err)
		}
	}
}

// withDefaults fills in what is left out.
func (o Options) withDefaults() Options {
	o.MaxRow, o.MaxBytes = cmp.Or(o.MaxRow, defaultMaxRow), cmp.Or(o.MaxBytes, defaultMaxBytes)
	if o.Progress == nil {
		o.Progress = func(int64) {}
	}
	return o
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
			row, err = r.row(&rec, f.Share)
		}
		if err != nil {
			if err = r.reject(locate(err, f.Name, n, rec.line), &rec); err != nil {
				return false, err
			}
			continue
		}
		r.rows++
		r.counts[row.Label]++
		if !yield(row, nil) {
			return false, nil
		}
	}
}

// row checks a record. share is its file's.
func (r *reader) row(rec *record, share Share) (_ Row, err error) {
	if !rec.hasText {
		return Row{}, &RowError{Column: r.Text, Reason: "the row has no text", Kind: KindNoText}
	}
	text, kind, reason := r.Options.text(rec.text)
	if reason != "" {
		return Row{}, &RowError{Column: r.Text, Reason: reason, Kind: kind}
	}
	label, problem := r.class(rec.label)
	if problem != "" {
		kind := KindUnknownLabel
		if rec.label.empty() {
			kind = KindNoLabel
		}
		return Row{}, &RowError{Column: r.Label, Reason: problem, Kind: kind}
	}
	row := Row{Index: r.rows, Text: string(text), Label: label, Share: share}
	if r.Pair != "" {
		if row.Pair, err = r.pair(rec.pair); err != nil {
			return Row{}, err
		}
	}
	if r.Group != "" {
		if rec.group.empty() {
			return Row{}, &RowError{Column: r.Group, Reason: "the row has no group", Kind: KindNoGroup}
		}
		row.Group = rec.group.String()
	}
	if r.Split != "" && share == AnyShare {
		if row.Share = rec.share.share(); row.Share == AnyShare {
			return Row{}, &RowError{Column: r.Split, Reason: fmt.Sprintf("%s names no share; it is train, validation or test, or whether the row is a test row", quote(rec.share.String())), Kind: KindNoShare}
		}
	}
	return row, nil
}

// pair checks the second text of a row.
func (r *reader) pair(v value) (string, error) {
	if v.kind == missing {
		return "", &RowError{Column: r.Pair, Reason: "the row has no text", Kind: KindNoText}
	}
	if v.kind != text {
		return "", &RowError{Column: r.Pair, Reason: "the text is not a string", Kind: KindMalformed}
	}
	pair, kind, reason := r.Options.text([]byte(v.str))
	if reason != "" {
		return "", &RowError{Column: r.Pair, Reason: reason, Kind: kind}
	}
	return string(pair), nil
}

// share is the side that a value of the split column names.
func (v value) share() Share {
	switch strings.ToLower(strings.TrimSpace(v.String())) {
	case "train", "training", "false", "0":
		return TrainShare
	case "test", "true", "1":
		return TestShare
	case "validation", "valid", "val", "dev":
		return ValidationShare
	}
	return AnyShare
}

// locate fills in where a *RowError happened.
func locate(err error, file string, row, line int64) error {
	if e, ok := errors.AsType[*RowError](err); ok {
		e.File, e.Row = file, row
		if e.Line == 0 {
			e.Line = line
		}
		if e.Kind == "" {
			e.Kind = KindMalformed
		}
	}
	return err
}

// reject hands a row that cannot be used to the Rejects; an error that they do not take is returned.
func (r *reader) reject(err error, rec *record) error {
	e, ok := errors.AsType[*RowError](err)
	if !ok || r.Rejects == nil || e.Kind == KindUnclosed {
		return err
	}
	return r.Rejects.add(e, rec)
}

// check refuses data that nothing can be learned from.
func (r *reader) check(files []File) error {
	name := sourceName(files)
	if r.Rejects != nil {
		if err := r.Rejects.check(name, r.rows); err != nil {
			return err
		}
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

// sourceName names all files together.
func sourceName(files []File) string {
	switch len(files) {
	case 0:
		return "the source"
	case 1:
		return files[0].Name
	}
	return fmt.Sprintf("%s and %d more", files[0].Name, len(files)-1)
}
