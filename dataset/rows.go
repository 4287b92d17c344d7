package dataset

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// Bounds of an Arrow file of rows, on rows and on bytes of text. They decide where files and batches end, so the same
// rows always give the same files.
const (
	ShardRows  = 65_536 // that WriteShards puts into a file at most
	shardBytes = 256 << 20
	batchRows  = 4_096
	batchBytes = 4 << 20
)

const labelsKey = "duratune.labels" // schema metadata: the class names as a JSON list, in index order

var rowFields = []arrow.Field{
	{Name: "row", Type: arrow.PrimitiveTypes.Int64},
	{Name: "text", Type: arrow.BinaryTypes.String},
	{Name: "label", Type: arrow.PrimitiveTypes.Int64},
}

// pairMark tells the length of a second text from what begins a row, which is never negative.
const pairMark = 1 << 63

// pairField comes behind them where the rows are pairs.
var pairField = arrow.Field{Name: "text_pair", Type: arrow.BinaryTypes.String}

// RowWriter writes rows as an Arrow file: row int64, text utf8, label int64 and, of pairs, text_pair utf8; compressed with zstd,
// without nulls.
type RowWriter struct {
	*fileWriter
	pairs bool
	bytes int // of text in the batch
}

// NewRowWriter starts a file on w, of pairs or of single texts. The class names go into its schema.
func NewRowWriter(w io.Writer, labels []string, pairs bool) (*RowWriter, error) {
	return newRowWriter(w, labels, pairs, memory.NewGoAllocator())
}

func newRowWriter(w io.Writer, labels []string, pairs bool, mem memory.Allocator) (*RowWriter, error) {
	names, err := json.Marshal(labels)
	if err != nil {
		return nil, err
	}
	meta := arrow.NewMetadata([]string{labelsKey}, []string{string(names)})
	fields := rowFields
	if pairs {
		fields = slices.Concat(fields, []arrow.Field{pairField})
	}
	f, err := newFileWriter(w, mem, arrow.NewSchema(fields, &meta), ipc.WithZstd())
	return &RowWriter{fileWriter: f, pairs: pairs}, err
}

// Write appends a row.
func (w *RowWriter) Write(r Row) error {
	w.builder.Field(0).(*array.Int64Builder).Append(r.Index)
	w.builder.Field(1).(*array.StringBuilder).Append(r.Text)
	w.builder.Field(2).(*array.Int64Builder).Append(int64(r.Label))
	if w.pairs {
		w.builder.Field(3).(*array.StringBuilder).Append(r.Pair)
	}
	w.bytes += len(r.Text) + len(r.Pair)
	if w.builder.Field(0).Len() < batchRows && w.bytes < batchBytes {
		return nil
	}
	w.bytes = 0
	return w.flush()
}

// Close ends the file. It does not close the underlying writer.
func (w *RowWriter) Close() error { return w.close() }

// WriteShards writes rows as Arrow files 00000.arrow, 00001.arrow, … in dir, at most 65,536 rows each, and returns how
// many rows there were and the digest of them all in order: hex SHA-256 over row number, class, length and bytes of
// each text (of a pair, of both), whatever the files. done (may be nil) is told each finished file, which it may move or remove.
func WriteShards(ctx context.Context, rows iter.Seq2[Row, error], labels []string, dir string, done func(path string, rows int) error) (n int, digest string, err error) {
	s := shards{dir: dir, labels: labels, done: done}
	defer func() { err = errors.Join(err, s.end()) }()
	sum := sha256.New()
	var head []byte
	for row, err := range rows {
		if err != nil {
			return n, "", err
		}
		if n%progressEvery == 0 && ctx.Err() != nil {
			return n, "", ctx.Err()
		}
		head = binary.LittleEndian.AppendUint64(head[:0], uint64(row.Index))
		head = binary.LittleEndian.AppendUint64(head, uint64(row.Label))
		head = binary.LittleEndian.AppendUint64(head, uint64(len(row.Text)))
		sum.Write(head)
		sum.Write([]byte(row.Text))
		if row.Pair != "" {
			sum.Write(binary.LittleEndian.AppendUint64(head[:0], uint64(len(row.Pair))|pairMark))
			sum.Write([]byte(row.Pair))
		}
		if err := s.write(row); err != nil {
			return n, "", err
		}
		n++
	}
	return n, hex.EncodeToString(sum.Sum(nil)), nil
}

// shards is the state of WriteShards.
type shards struct {
	dir    string
	labels []string
	done   func(path string, rows int) error

	file  *os.File // nil between two shards
	w     *RowWriter
	count int // shards begun
	rows  int // in the open shard
	bytes int
}

func (s *shards) write(r Row) error {
	if s.file != nil && (s.rows == ShardRows || s.bytes+len(r.Text)+len(r.Pair) > shardBytes) {
		if err := s.end(); err != nil {
			return err
		}
	}
	if s.file == nil {
		if err := s.begin(r.Pair != ""); err != nil {
			return err
		}
	}
	s.rows++
	s.bytes += len(r.Text) + len(r.Pair)
	return s.w.Write(r)
}

func (s *shards) begin(pairs bool) (err error) {
	if s.file, err = os.Create(filepath.Join(s.dir, fmt.Sprintf("%05d.arrow", s.count))); err != nil {
		return err
	}
	s.count++
	s.rows, s.bytes = 0, 0
	s.w, err = NewRowWriter(s.file, s.labels, pairs)
	return err
}

func (s *shards) end() error {
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file = nil
	if err := errors.Join(s.w.Close(), f.Close()); err != nil {
		return err
	}
	if s.done == nil {
		return nil
	}
	return s.done(f.Name(), s.rows)
}

// ReadRows yields the rows of an Arrow file that a [RowWriter] wrote.
func ReadRows(path string) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		f, err := os.Open(path)
		if err != nil {
			yield(Row{}, err)
			return
		}
		defer f.Close()
		if err := readRows(f, memory.NewGoAllocator(), yield); err != nil {
			yield(Row{}, &SourceError{path, err.Error()})
		}
	}
}

func readRows(r ipc.ReadAtSeeker, mem memory.Allocator, yield func(Row, error) bool) error {
	f, err := openArrow(r, mem, rowFields, pairField)
	if err != nil {
		return err
	}
	defer f.Close()
	for i := range f.NumRecords() {
		rows, err := rowsAt(f, i)
		if err != nil {
			return fmt.Errorf("batch %d: %w", i, err)
		}
		for _, row := range rows {
			if !yield(row, nil) {
				return nil
			}
		}
	}
	return nil
}

// rowsAt copies the rows of a batch.
func rowsAt(f *ipc.FileReader, i int) (out []Row, err error) {
	defer recovered(&err)
	rec, err := recordAt(f, i)
	if err != nil {
		return nil, err
	}
	defer rec.Release()
	rows, texts, labels := rec.Column(0).(*array.Int64), rec.Column(1).(*array.String), rec.Column(2).(*array.Int64)
	pair := func(int) string { return "" }
	if rec.NumCols() > 3 {
		pair = rec.Column(3).(*array.String).Value
	}
	for i := range int(rec.NumRows()) {
		out = append(out, Row{Index: rows.Value(i), Text: strings.Clone(texts.Value(i)), Pair: strings.Clone(pair(i)), Label: int(labels.Value(i))})
	}
	return out, nil
}
