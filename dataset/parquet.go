package dataset

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/apache/arrow/go/v17/arrow/memory"
	pq "github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/schema"
)

const (
	parquetBatch  = 1024      // rows decoded at a time
	parquetBuffer = 256 << 10 // read ahead a column
	maxPage       = 512 << 20 // bytes of a page; writers aim at 1 MiB
)

// parquet reads the two columns in step. It stays below pqarrow, whose goroutines could panic where nobody recovers, and
// which would hold a whole row group.
type parquet struct {
	name        string
	file        *file.Reader
	text, label column
	group       int   // next row group
	left        int64 // rows of the current group not decoded yet
	at, n       int   // position in the decoded batch and its size
}

// column is one leaf column of the file.
type column struct {
	path   string
	index  int
	chunk  file.ColumnChunkReader // of the current row group
	levels [parquetBatch]int16
	filled int // values decoded
	maxDef int16

	bytes  []pq.ByteArray
	int32s []int32
	int64s []int64
	bools  []bool
	floats []float32
	double []float64
	at     int // next value; null rows have none
}

func newParquet(name string, f fs.File, opt Options) (*parquet, error) {
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
	p := &parquet{name: name, file: r}
	s := r.MetaData().Schema
	if p.text.index, err = findColumn(name, s, opt.Text); err != nil {
		return nil, err
	}
	if p.label.index, err = findColumn(name, s, opt.Label); err != nil {
		return nil, err
	}
	p.text.path, p.label.path = opt.Text, opt.Label
	if t := s.Column(p.text.index).PhysicalType(); t != pq.Types.ByteArray {
		return nil, &SourceError{name, fmt.Sprintf("column %s is of type %s, not a string", quote(opt.Text), t)}
	}
	return p, p.label.allocate(name, s.Column(p.label.index).PhysicalType())
}

// limited refuses absurd sizes, which a broken page header can announce.
type limited struct{ memory.Allocator }

func (l limited) Allocate(n int) []byte {
	if n > maxPage {
		panic(fmt.Errorf("a page of %d bytes, the limit is %d", n, maxPage))
	}
	return l.Allocator.Allocate(n)
}

func (l limited) Reallocate(n int, b []byte) []byte {
	if n > maxPage {
		panic(fmt.Errorf("a page of %d bytes, the limit is %d", n, maxPage))
	}
	return l.Allocator.Reallocate(n, b)
}

// findColumn finds a leaf column by its dotted path.
func findColumn(file string, s *schema.Schema, path string) (int, error) {
	var have []string
	for i := range s.NumColumns() {
		c := s.Column(i)
		if c.Path() == path {
			if c.MaxRepetitionLevel() > 0 {
				return 0, &SourceError{file, "column " + quote(path) + " is a list"}
			}
			return i, nil
		}
		have = append(have, c.Path())
	}
	return 0, missingColumn(file, path, have)
}

// allocate makes room for a batch of the column's type.
func (c *column) allocate(file string, t pq.Type) error {
	switch t {
	case pq.Types.ByteArray:
		c.bytes = make([]pq.ByteArray, parquetBatch)
	case pq.Types.Int32:
		c.int32s = make([]int32, parquetBatch)
	case pq.Types.Int64:
		c.int64s = make([]int64, parquetBatch)
	case pq.Types.Boolean:
		c.bools = make([]bool, parquetBatch)
	case pq.Types.Float:
		c.floats = make([]float32, parquetBatch)
	case pq.Types.Double:
		c.double = make([]float64, parquetBatch)
	default:
		return &SourceError{file, fmt.Sprintf("column %s is of type %s, not a string, an integer or a boolean", quote(c.path), t)}
	}
	return nil
}

func (p *parquet) read(rec *record) error {
	*rec = record{}
	for p.at == p.n {
		if err := p.fill(); err != nil {
			return err
		}
	}
	if p.text.present(p.at) {
		rec.text, rec.hasText = p.text.bytes[p.text.at], true
		p.text.at++
	}
	if p.label.present(p.at) {
		rec.label = p.label.value()
		p.label.at++
	}
	p.at++
	return nil
}

// fill decodes the next batch of both columns.
func (p *parquet) fill() error {
	if p.text.bytes == nil {
		p.text.bytes = make([]pq.ByteArray, parquetBatch)
	}
	for p.left == 0 {
		if p.group == p.file.NumRowGroups() {
			return io.EOF
		}
		g := p.file.RowGroup(p.group)
		p.group++
		p.left = g.NumRows()
		if err := errors.Join(p.text.open(g), p.label.open(g)); err != nil {
			return &SourceError{p.name, err.Error()}
		}
	}
	n, err := p.text.decode()
	m, err2 := p.label.decode()
	if err := errors.Join(err, err2); err != nil {
		return &SourceError{p.name, err.Error()}
	}
	if n != m || n == 0 || int64(n) > p.left {
		return &SourceError{p.name, fmt.Sprintf("row group %d: columns %s and %s end at different rows", p.group-1, quote(p.text.path), quote(p.label.path))}
	}
	p.at, p.n = 0, n
	p.left -= int64(n)
	return nil
}

// open starts the column in a row group.
func (c *column) open(g *file.RowGroupReader) (err error) {
	if c.chunk, err = g.Column(c.index); err != nil {
		return fmt.Errorf("column %s: %w", quote(c.path), err)
	}
	c.maxDef = c.chunk.Descriptor().MaxDefinitionLevel()
	return nil
}

// decode reads a batch: as many rows as there are, parquetBatch at most.
func (c *column) decode() (rows int, err error) {
	var n int64
	switch r := c.chunk.(type) {
	case *file.ByteArrayColumnChunkReader:
		n, c.filled, err = r.ReadBatch(parquetBatch, c.bytes, c.levels[:], nil)
	case *file.Int32ColumnChunkReader:
		n, c.filled, err = r.ReadBatch(parquetBatch, c.int32s, c.levels[:], nil)
	case *file.Int64ColumnChunkReader:
		n, c.filled, err = r.ReadBatch(parquetBatch, c.int64s, c.levels[:], nil)
	case *file.BooleanColumnChunkReader:
		n, c.filled, err = r.ReadBatch(parquetBatch, c.bools, c.levels[:], nil)
	case *file.Float32ColumnChunkReader:
		n, c.filled, err = r.ReadBatch(parquetBatch, c.floats, c.levels[:], nil)
	case *file.Float64ColumnChunkReader:
		n, c.filled, err = r.ReadBatch(parquetBatch, c.double, c.levels[:], nil)
	}
	c.at = 0
	if err = errors.Join(err, c.chunk.Err()); err != nil {
		return 0, fmt.Errorf("column %s: %w", quote(c.path), err)
	}
	return int(n), nil
}

// present reports whether the i-th row of the batch has a value; nested columns lack one on every level above.
func (c *column) present(i int) bool { return c.maxDef == 0 || c.levels[i] == c.maxDef }

// value is the next label.
func (c *column) value() value {
	switch {
	case c.bytes != nil:
		return value{kind: text, str: string(c.bytes[c.at])}
	case c.int32s != nil:
		return value{kind: integer, num: int64(c.int32s[c.at])}
	case c.int64s != nil:
		return value{kind: integer, num: c.int64s[c.at]}
	case c.bools != nil:
		v := value{kind: boolean}
		if c.bools[c.at] {
			v.num = 1
		}
		return v
	case c.floats != nil:
		return number(float64(c.floats[c.at]))
	default:
		return number(c.double[c.at])
	}
}
