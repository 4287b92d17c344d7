package dataset

import (
	"fmt"
	"io"
	"strings"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// arrowIPC reads Arrow's IPC format: files (Feather 2) and streams (as Hugging Face's datasets keeps).
type arrowIPC struct {
	name        string
	reader      *ipc.Reader
	text        arrowColumn
	others      []arrowOther
	rec         arrow.Record // current batch
	row         int          // next row in it
	limit, seen int64        // bytes of rows
}

// arrowOther is a column beside the text.
type arrowOther struct {
	arrowColumn
	of func(*record) *value
}

func newArrowIPC(name string, next func() ([]byte, io.Reader, error), opt Options, limit int64) (*arrowIPC, error) {
	a := &arrowIPC{name: name, limit: limit}
	mem := &budget{Allocator: memory.NewGoAllocator()}
	reader, err := ipc.NewReaderFromMessageReader(&messages{mem: mem, next: next}, ipc.WithAllocator(mem))
	if err != nil {
		return nil, &SourceError{name, err.Error()}
	}
	a.reader = reader
	schema := reader.Schema()
	if a.text, err = findArrow(name, schema, opt.Text); err != nil {
		return nil, err
	}
	if !stringType(a.text.kind) {
		return nil, &SourceError{name, fmt.Sprintf("column %s is of type %s, not a string", quote(opt.Text), a.text.kind)}
	}
	for _, other := range opt.columns() {
		c := arrowOther{of: other.of}
		if c.arrowColumn, err = findArrow(name, schema, other.name); err != nil {
			return nil, err
		}
		if !stringType(c.kind) && (other.text || !numberType(c.kind)) {
			return nil, other.wrongType(name, c.kind.String())
		}
		a.others = append(a.others, c)
	}
	return a, nil
}

func (a *arrowIPC) read(rec *record) error {
	*rec = record{}
	for a.rec == nil || a.row == int(a.rec.NumRows()) {
		if !a.reader.Next() {
			if err := a.reader.Err(); err != nil {
				return &SourceError{a.name, err.Error()}
			}
			return io.EOF
		}
		a.rec, a.row = a.reader.Record(), 0
	}
	if text, ok := a.text.at(a.rec, a.row); ok {
		rec.text, rec.hasText = []byte(text.str), true
	}
	for _, other := range a.others {
		*other.of(rec), _ = other.at(a.rec, a.row)
	}
	a.row++
	if a.seen += int64(len(rec.text)+len(rec.pair.str)) + rowBytes; a.seen > a.limit {
		return &SourceError{a.name, fmt.Sprintf("expands to more than %d bytes", a.limit)}
	}
	return nil
}

// arrowColumn is a column of a batch, or a field of a struct column.
type arrowColumn struct {
	path []int // index of the column, and of each field below it
	kind arrow.DataType
}

// findArrow finds a column by its name or, where there is none, by its dotted path.
func findArrow(file string, schema *arrow.Schema, name string) (arrowColumn, error) {
	fields, rest := schema.Fields(), name
	var c arrowColumn
	for {
		at, below := -1, ""
		for i, f := range fields {
			if f.Name == rest {
				at, below = i, ""
				break
			}
			if tail, ok := strings.CutPrefix(rest, f.Name+"."); ok && f.Type.ID() == arrow.STRUCT {
				at, below = i, tail
			}
		}
		if at < 0 {
			var have []string
			for _, f := range schema.Fields() {
				have = append(have, f.Name)
			}
			return c, missingColumn(file, name, have)
		}
		c.path, c.kind = append(c.path, at), fields[at].Type
		if below == "" {
			return c, nil
		}
		fields, rest = fields[at].Type.(*arrow.StructType).Fields(), below
	}
}

// at is a value of a batch; ok is false for a null.
func (c arrowColumn) at(rec arrow.Record, row int) (value, bool) {
	column := rec.Column(c.path[0])
	for _, field := range c.path[1:] {
		if column.IsNull(row) {
			return value{}, false
		}
		column = column.(*array.Struct).Field(field)
	}
	return arrowValue(column, row)
}

func arrowValue(column arrow.Array, row int) (value, bool) {
	if column.IsNull(row) {
		return value{}, false
	}
	switch c := column.(type) {
	case *array.Dictionary:
		return arrowValue(c.Dictionary(), c.GetValueIndex(row))
	case array.StringLike: // all string and binary types
		return value{kind: text, str: c.Value(row)}, true
	case *array.Binary:
		return value{kind: text, str: string(c.Value(row))}, true
	case *array.LargeBinary:
		return value{kind: text, str: string(c.Value(row))}, true
	case *array.Boolean:
		if c.Value(row) {
			return value{kind: boolean, num: 1}, true
		}
		return value{kind: boolean}, true
	case *array.Float32:
		return number(float64(c.Value(row))), true
	case *array.Float64:
		return number(c.Value(row)), true
	}
	return integerValue(column, row), true
}

func integerValue(column arrow.Array, row int) value {
	v := value{kind: integer}
	switch c := column.(type) {
	case *array.Int8:
		v.num = int64(c.Value(row))
	case *array.Int16:
		v.num = int64(c.Value(row))
	case *array.Int32:
		v.num = int64(c.Value(row))
	case *array.Int64:
		v.num = c.Value(row)
	case *array.Uint8:
		v.num = int64(c.Value(row))
	case *array.Uint16:
		v.num = int64(c.Value(row))
	case *array.Uint32:
		v.num = int64(c.Value(row))
	case *array.Uint64:
		v.num = int64(c.Value(row))
	default:
		return value{kind: other, str: "of type " + column.DataType().String()}
	}
	return v
}

func stringType(t arrow.DataType) bool {
	if d, ok := t.(*arrow.DictionaryType); ok {
		t = d.ValueType
	}
	switch t.ID() {
	case arrow.STRING, arrow.LARGE_STRING, arrow.STRING_VIEW, arrow.BINARY, arrow.LARGE_BINARY:
		return true
	default:
		return false
	}
}

func numberType(t arrow.DataType) bool {
	if d, ok := t.(*arrow.DictionaryType); ok {
		t = d.ValueType
	}
	return t.ID() == arrow.BOOL || arrow.IsInteger(t.ID()) || t.ID() == arrow.FLOAT32 || t.ID() == arrow.FLOAT64
}
