package dataset

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// arrowStream is rows of text and label as an Arrow stream.
func arrowStream(t *testing.T, rows int, text string, opts ...ipc.Option) []byte {
	t.Helper()
	schema := arrow.NewSchema([]arrow.Field{{Name: "text", Type: arrow.BinaryTypes.String}, {Name: "label", Type: arrow.PrimitiveTypes.Int8}}, nil)
	b := array.NewRecordBuilder(memory.NewGoAllocator(), schema)
	defer b.Release()
	for i := range rows {
		b.Field(0).(*array.StringBuilder).Append(text)
		b.Field(1).(*array.Int8Builder).Append(int8(i % 2))
	}
	rec := b.NewRecord()
	defer rec.Release()
	var out bytes.Buffer
	w := ipc.NewWriter(&out, append(opts, ipc.WithSchema(schema))...)
	if err := errors.Join(w.Write(rec), w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestArrowBombs: neither what a batch expands to nor what a message announces takes memory without bound.
func TestArrowBombs(t *testing.T) {
	rows, err := checkRead(t, FormatArrow, arrowStream(t, 1<<8, strings.Repeat("x", 1<<15), ipc.WithZstd())) // 8 MiB; MaxBytes is 4 MiB
	if err == nil || err.Error() != "f: expands to more than 4194304 bytes" || len(rows) < 100 {
		t.Errorf("%d rows, %v", len(rows), err)
	}
	huge := arrowStream(t, 2, "x")
	binary.LittleEndian.PutUint32(huge[4:], 1<<31-8) // the length of the first message
	if _, err := checkRead(t, FormatArrow, huge); err == nil || !strings.Contains(err.Error(), "a message of 2147483640 bytes") {
		t.Errorf("a huge message: %v", err)
	}
	if _, err := checkRead(t, FormatArrow, arrowStream(t, 2, "x")[:100]); err == nil || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Errorf("cut off: %v", err)
	}
	mem := &budget{Allocator: memory.NewGoAllocator(), left: 100}
	in := input{name: "f", format: allocating{mem}}
	if err := in.next(nil); err == nil || !strings.Contains(err.Error(), "a batch of more than") {
		t.Errorf("over the budget: %v", err)
	}
}

// allocating reads by allocating without end.
type allocating struct{ mem memory.Allocator }

func (a allocating) read(*record) error {
	b := a.mem.Allocate(64)
	_ = a.mem.Reallocate(128, b)
	return io.EOF
}

// TestArrowCompressed: a compressed stream is read, a compressed file, which is read in place, is refused.
func TestArrowCompressed(t *testing.T) {
	if rows, err := checkRead(t, FormatAuto, []byte(gzipped(string(arrowStream(t, 4, "x"))))); err != nil || len(rows) != 4 {
		t.Errorf("%d rows, %v", len(rows), err)
	}
	if _, err := checkRead(t, FormatAuto, []byte(gzipped(arrowMagic+"\x00\x00"))); err == nil || !strings.Contains(err.Error(), "write it as a stream") {
		t.Errorf("a compressed file: %v", err)
	}
}
