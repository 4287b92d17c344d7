package dataset

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// fileWriter writes record batches as an Arrow file.
type fileWriter struct {
	builder *array.RecordBuilder
	file    *ipc.FileWriter
}

func newFileWriter(w io.Writer, mem memory.Allocator, schema *arrow.Schema, opts ...ipc.Option) (*fileWriter, error) {
	f, err := ipc.NewFileWriter(&position{w: w}, append(opts, ipc.WithSchema(schema), ipc.WithAllocator(mem))...)
	if err != nil {
		return nil, err
	}
	return &fileWriter{builder: array.NewRecordBuilder(mem, schema), file: f}, nil
}

// flush writes what was appended to the builder as one batch.
func (f *fileWriter) flush() error {
	rec := f.builder.NewRecord()
	defer rec.Release()
	if rec.NumRows() == 0 {
		return nil
	}
	return f.file.Write(rec)
}

func (f *fileWriter) close() error {
	defer f.builder.Release()
	return errors.Join(f.flush(), f.file.Close())
}

// position lets arrow's file writer, which asks for its position and never moves, write to any writer.
type position struct {
	w io.Writer
	n int64
}

func (p *position) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	p.n += int64(n)
	return n, err
}

// Seek only tells where the file stands: Arrow asks for nothing else.
func (p *position) Seek(offset int64, whence int) (int64, error) {
	if offset != 0 || whence != io.SeekCurrent {
		return 0, errors.New("dataset: an Arrow file is written in one go")
	}
	return p.n, nil
}

// openArrow opens an Arrow file that has these columns, and perhaps one more.
func openArrow(r ipc.ReadAtSeeker, mem memory.Allocator, want []arrow.Field, more arrow.Field) (f *ipc.FileReader, err error) {
	defer recovered(&err)
	if _, err := readFooter(r); err != nil {
		return nil, err
	}
	if f, err = ipc.NewFileReader(r, ipc.WithAllocator(limited{mem})); err != nil {
		return nil, err
	}
	got := f.Schema().Fields()
	if len(got) == len(want)+1 {
		want = slices.Concat(want, []arrow.Field{more})
	}
	if !arrow.NewSchema(got, nil).Equal(arrow.NewSchema(want, nil)) {
		return nil, fmt.Errorf("columns %v, want %v", got, want)
	}
	return f, nil
}

// recordAt reads a batch without nulls. It may panic where the file is broken.
func recordAt(f *ipc.FileReader, i int) (arrow.Record, error) {
	rec, err := f.RecordAt(i)
	if err != nil {
		return nil, err
	}
	for i, c := range rec.Columns() {
		if c.NullN() > 0 {
			rec.Release()
			return nil, fmt.Errorf("column %s has nulls", rec.ColumnName(i))
		}
	}
	return rec, nil
}

// recovered turns a panic of a format library into an error.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("cannot be read: %v", p)
	}
}
