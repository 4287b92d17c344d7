package dataset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"

	"github.com/apache/arrow/go/v17/arrow/memory"
	pq "github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/schema"
)

const (
	parquetBuffer = 256 << 10 // bytes read ahead of a column
	maxPage       = 512 << 20 // bytes of a page; writers aim at 1 MiB
	maxPageValues = 1 << 24   // and at 20,000 values
	rowBytes      = 8         // that a row counts for beside its text
)

// parquet reads its columns in step, page by page. arrow reads footer, page headers and compression. The values are
// decoded here: arrow's decoders allocate what a page says it holds (51 GB for a number of 4 bytes), which ends the
// process and cannot be recovered, and pqarrow's goroutines panic where nobody recovers.
type parquet struct {
	name        string
	file        *file.Reader
	text        column
	others      []parquetColumn
	group       int   // next row group
	left        int64 // rows of the current group not read yet
	limit, seen int64 // bytes of rows: an index of a few bits can stand for any text
}

func newParquet(name string, f fs.File, opt Options, limit int64) (*parquet, error) {
	source, ok := f.(pq.ReaderAtSeeker)
	if !ok {
		return nil, &SourceError{name, "Parquet needs a file that can be read at any place"}
	}
	props := pq.NewReaderProperties(limited{memory.NewGoAllocator()})
	props.BufferedStreamEnabled, props.BufferSize = true, parquetBuffer
	r, err := file.NewParquetReader(source, file.WithReadProps(props))
	if err != nil {
		return nil, &SourceError{name, err.Error()}
	}
	p := &parquet{name: name, file: r, limit: limit}
	s := r.MetaData().Schema
	if p.text, err = findColumn(name, s, opt.Text); err != nil {
		return nil, err
	}
	if p.text.kind != pq.Types.ByteArray {
		return nil, &SourceError{name, fmt.Sprintf("column %s is of type %s, not a string", quote(opt.Text), p.text.kind)}
	}
	for _, other := range opt.columns() {
		c := parquetColumn{of: other.of}
		if c.column, err = findColumn(name, s, other.name); err != nil {
			return nil, err
		}
		if _, ok := c.size(); !ok || other.text && c.kind != pq.Types.ByteArray {
			return nil, other.wrongType(name, c.kind.String())
		}
		p.others = append(p.others, c)
	}
	return p, nil
}

// parquetColumn is a column beside the text.
type parquetColumn struct {
	column
	of func(*record) *value
}

// limited refuses absurd sizes, which a broken header can announce.
type limited struct{ memory.Allocator }

// Allocate panics on an absurd size.
func (l limited) Allocate(n int) []byte {
	if n > maxPage {
		panic(fmt.Errorf("%d bytes in one piece, the limit is %d", n, maxPage)) //nolint:forbidigo // the interface has no error; input.guard recovers it
	}
	return l.Allocator.Allocate(n)
}

// Reallocate panics on an absurd size.
func (l limited) Reallocate(n int, b []byte) []byte {
	if n > maxPage {
		panic(fmt.Errorf("%d bytes in one piece, the limit is %d", n, maxPage)) //nolint:forbidigo // as above
	}
	return l.Allocator.Reallocate(n, b)
}

// findColumn finds a leaf column by its dotted path.
func findColumn(file string, s *schema.Schema, path string) (column, error) {
	var have []string
	for i := range s.NumColumns() {
		c := s.Column(i)
		if c.Path() == path {
			if c.MaxRepetitionLevel() > 0 {
				return column{}, &SourceError{file, "column " + quote(path) + " is a list"}
			}
			return column{path: path, index: i, kind: c.PhysicalType(), maxLevel: uint64(c.MaxDefinitionLevel())}, nil
		}
		have = append(have, c.Path())
	}
	return column{}, missingColumn(file, path, have)
}

func (p *parquet) read(rec *record) error {
	*rec = record{}
	for p.left == 0 {
		if p.group == p.file.NumRowGroups() {
			return io.EOF
		}
		g := p.file.RowGroup(p.group)
		p.group++
		p.left = g.NumRows()
		err := p.text.open(g)
		for i := range p.others {
			err = errors.Join(err, p.others[i].open(g))
		}
		if err != nil {
			return p.at(err)
		}
	}
	var err error
	if rec.text, rec.hasText, err = p.text.next(); err != nil {
		return p.at(err)
	}
	for i := range p.others {
		c := &p.others[i]
		raw, there, err := c.next()
		if err != nil {
			return p.at(err)
		}
		if there {
			*c.of(rec) = c.value(raw)
		}
	}
	p.left--
	if p.seen += int64(len(rec.text)+len(rec.pair.str)) + rowBytes; p.seen > p.limit {
		return p.at(fmt.Errorf("expands to more than %d bytes", p.limit))
	}
	return nil
}

func (p *parquet) at(err error) error {
	return &SourceError{p.name, fmt.Sprintf("row group %d: %v", p.group-1, err)}
}

// column is one leaf column of the file.
type column struct {
	path     string
	index    int
	kind     pq.Type
	maxLevel uint64 // definition level of a value that is there; the levels below are nulls

	pages  file.PageReader // of the current row group
	dict   dictionary
	left   int     // values and nulls of the page not read yet
	levels *hybrid // nil where nothing can be null
	values values
}

// open starts the column in a row group.
func (c *column) open(g *file.RowGroupReader) (err error) {
	c.dict, c.left = dictionary{}, 0
	if c.pages, err = g.GetColumnPageReader(c.index); err != nil {
		return fmt.Errorf("column %s: %w", quote(c.path), err)
	}
	return nil
}

// next returns the bytes of the next value; ok is false for a null.
func (c *column) next() (raw []byte, ok bool, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("column %s: %w", quote(c.path), err)
		}
	}()
	for c.left == 0 {
		if err := c.nextPage(); err != nil {
			return nil, false, err
		}
	}
	c.left--
	if c.levels != nil {
		level, err := c.levels.next()
		if err != nil || level < c.maxLevel {
			return nil, false, err
		}
	}
	raw, err = c.values.next()
	return raw, true, err
}

// size is the width of a value in bytes, 0 for strings and for booleans, which are bits.
func (c *column) size() (n int, ok bool) {
	switch c.kind {
	case pq.Types.ByteArray, pq.Types.Boolean:
		return 0, true
	case pq.Types.Int32, pq.Types.Float:
		return 4, true
	case pq.Types.Int64, pq.Types.Double:
		return 8, true
	}
	return 0, false
}

// value reads a label.
func (c *column) value(raw []byte) value {
	switch c.kind {
	case pq.Types.Boolean:
		return value{kind: boolean, num: int64(raw[0])}
	case pq.Types.Int32:
		return value{kind: integer, num: int64(int32(binary.LittleEndian.Uint32(raw)))}
	case pq.Types.Int64:
		return value{kind: integer, num: int64(binary.LittleEndian.Uint64(raw))}
	case pq.Types.Float:
		return number(float64(math.Float32frombits(binary.LittleEndian.Uint32(raw))))
	case pq.Types.Double:
		return number(math.Float64frombits(binary.LittleEndian.Uint64(raw)))
	}
	return value{kind: text, str: string(raw)}
}
