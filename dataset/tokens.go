package dataset

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"golang.org/x/sys/unix"
)

// encodingVersion is raised by hand whenever the same text, tokenizer.json and max_length give other token files.
const encodingVersion = 1

// TokenKey identifies the token batches of a share: a digest over its rows, the tokenizer.json, max_length and the
// version of the encoding. Nothing else decides what [Tokenize] writes.
func TokenKey(rowsDigest, tokenizerDigest string, maxLength int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "duratune tokens %d\n%s\n%s\n%d\n", encodingVersion, rowsDigest, tokenizerDigest, maxLength))
	return hex.EncodeToString(sum[:])
}

var tokenFields = []arrow.Field{
	{Name: "input_ids", Type: arrow.ListOfNonNullable(arrow.PrimitiveTypes.Int32)},
	{Name: "label", Type: arrow.PrimitiveTypes.Int64},
	{Name: "row", Type: arrow.PrimitiveTypes.Int64},
}

// typesField comes behind them where the rows are pairs.
var typesField = arrow.Field{Name: "token_type_ids", Type: arrow.ListOfNonNullable(arrow.PrimitiveTypes.Int8)}

// tokenWriter writes an Arrow file of unpadded sequences. It is not compressed, so that it can be mapped. The first chunk says
// whether there are token types.
type tokenWriter struct {
	w    io.Writer
	mem  memory.Allocator
	file *fileWriter // nil before the first chunk
}

func (w *tokenWriter) open(typed bool) (err error) {
	fields := tokenFields
	if typed {
		fields = slices.Concat(fields, []arrow.Field{typesField})
	}
	w.file, err = newFileWriter(w.w, w.mem, arrow.NewSchema(fields, nil))
	return err
}

// write writes an encoded chunk as one batch.
func (w *tokenWriter) write(c *chunk) error {
	if w.file == nil {
		if err := w.open(c.pairs()); err != nil {
			return err
		}
	}
	field := w.file.builder.Field
	start := 0
	for i, r := range c.rows {
		list := field(0).(*array.ListBuilder)
		list.Append(true)
		list.ValueBuilder().(*array.Int32Builder).AppendValues(c.ids[start:c.ends[i]], nil)
		field(1).(*array.Int64Builder).Append(int64(r.Label))
		field(2).(*array.Int64Builder).Append(r.Index)
		if c.pairs() {
			list := field(3).(*array.ListBuilder)
			list.Append(true)
			list.ValueBuilder().(*array.Int8Builder).AppendValues(c.types[start:c.ends[i]], nil)
		}
		start = c.ends[i]
	}
	return w.file.flush()
}

func (w *tokenWriter) close() error {
	if w.file == nil {
		if err := w.open(false); err != nil {
			return err
		}
	}
	return w.file.close()
}

// Tokens are the tokenized rows of a share in stored order, mapped into memory: opening reads no ids, and a row costs no
// copy. They may be used from several goroutines. A file that is truncated by someone else while it is mapped faults
// when it is read: open only files that are written once.
type Tokens struct {
	maps    [][]byte
	batches []tokenBatch
	rows    int
}

// tokenBatch is one record batch within a map.
type tokenBatch struct {
	first   int     // row it begins with
	offsets []int32 // of each sequence in ids, and the end of the last
	ids     []int32
	types   []int8 // nil: of single texts
	labels  []int64
	numbers []int64
}

// OpenTokens maps the files that [Tokenize] wrote, in order. Close unmaps them.
func OpenTokens(paths ...string) (*Tokens, error) {
	t := &Tokens{}
	for _, path := range paths {
		if err := t.open(path); err != nil {
			return nil, errors.Join(err, t.Close())
		}
	}
	return t, nil
}

func (t *Tokens) open(path string) error {
	data, err := mapFile(path)
	if err != nil {
		return err
	}
	t.maps = append(t.maps, data)
	batches, err := tokenBatches(data)
	if err != nil {
		return &SourceError{path, err.Error()}
	}
	t.add(batches)
	return nil
}

func (t *Tokens) add(batches []tokenBatch) {
	for _, b := range batches {
		b.first = t.rows
		t.rows += len(b.labels)
		t.batches = append(t.batches, b)
	}
}

func mapFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // the map outlives it
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() == 0 {
		return nil, &SourceError{path, "not an Arrow file"}
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, &os.PathError{Op: "mmap", Path: path, Err: err}
	}
	return data, nil
}

// tokenBatches finds the batches of a mapped file. Offsets are checked once, here, so that no row can reach outside.
func tokenBatches(data []byte) (batches []tokenBatch, err error) {
	defer recovered(&err)
	f, err := openArrow(bytes.NewReader(data), memory.NewGoAllocator(), tokenFields, typesField)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	nodes, typed := 4, len(f.Schema().Fields()) > len(tokenFields)
	if typed {
		nodes = 6
	}
	for i := range f.NumRecords() {
		rows, buffers, err := mappedBatch(data, i, nodes)
		if err != nil {
			return nil, fmt.Errorf("batch %d: %w", i, err)
		}
		b := tokenBatch{
			offsets: arrow.Int32Traits.CastFromBytes(buffers[1]),
			ids:     arrow.Int32Traits.CastFromBytes(buffers[3]),
			labels:  arrow.Int64Traits.CastFromBytes(buffers[5]),
			numbers: arrow.Int64Traits.CastFromBytes(buffers[7]),
		}
		if len(b.offsets) <= rows || len(b.labels) < rows || len(b.numbers) < rows {
			return nil, fmt.Errorf("batch %d: fewer values than its %d rows", i, rows)
		}
		b.offsets, b.labels, b.numbers = b.offsets[:rows+1], b.labels[:rows], b.numbers[:rows]
		end := int32(0)
		for _, o := range b.offsets {
			if o < end || int(o) > len(b.ids) {
				return nil, fmt.Errorf("batch %d: offsets out of order", i)
			}
			end = o
		}
		if typed {
			// One type an id, row by row, so that their offsets say the same.
			if !slices.Equal(arrow.Int32Traits.CastFromBytes(buffers[9])[:rows+1], b.offsets) || len(buffers[11]) < int(end) {
				return nil, fmt.Errorf("batch %d: not as many token types as ids", i)
			}
			b.types = arrow.Int8Traits.CastFromBytes(buffers[11])
		}
		batches = append(batches, b)
	}
	return batches, nil
}

// NumRows is the number of rows.
func (t *Tokens) NumRows() int { return t.rows }

// IDs are the token ids of the i-th stored row, special tokens included, valid until Close and not to be changed.
func (t *Tokens) IDs(i int) []int32 {
	b, i := t.find(i)
	return b.ids[b.offsets[i]:b.offsets[i+1]:b.offsets[i+1]]
}

// Types are the token types of the i-th stored row, one an id, like IDs; nil where rows are of one text.
func (t *Tokens) Types(i int) []int8 {
	b, i := t.find(i)
	if b.types == nil {
		return nil
	}
	return b.types[b.offsets[i]:b.offsets[i+1]:b.offsets[i+1]]
}

// Label is the class index of the i-th stored row.
func (t *Tokens) Label(i int) int64 {
	b, i := t.find(i)
	return b.labels[i]
}

// Row is the row number (see [SplitRows]) of the i-th stored row.
func (t *Tokens) Row(i int) int64 {
	b, i := t.find(i)
	return b.numbers[i]
}

func (t *Tokens) find(i int) (*tokenBatch, int) {
	n := sort.Search(len(t.batches), func(n int) bool { return t.batches[n].first > i }) - 1
	return &t.batches[n], i - t.batches[n].first
}

// Close unmaps the files; ids taken from them may not be used afterwards.
func (t *Tokens) Close() error {
	var errs []error
	for _, m := range t.maps {
		errs = append(errs, unix.Munmap(m))
	}
	t.maps, t.batches, t.rows = nil, nil, 0
	return errors.Join(errs...)
}
