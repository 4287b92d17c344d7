package safetensors

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// golden is what the reference library wrote for goldenTensors (internal/py/safetensors/golden.py).
const golden = "testdata/golden.safetensors"

func goldenTensors() []Tensor {
	tensors := []Tensor{
		{Name: "b.weight", DType: "F32", Shape: []int64{2, 3}, Data: make([]byte, 24)},
		{Name: "a.weight", DType: "F32", Shape: []int64{3}, Data: make([]byte, 12)},
		{Name: "position_ids", DType: "I64", Shape: []int64{1, 2}, Data: make([]byte, 16)},
		{Name: "half", DType: "F16", Shape: []int64{2, 2}, Data: make([]byte, 8)},
		{Name: "brain", DType: "BF16", Shape: []int64{4}, Data: make([]byte, 8)},
		{Name: "flag", DType: "BOOL", Shape: []int64{3}, Data: make([]byte, 3)},
		{Name: "bytes", DType: "U8", Shape: []int64{5}, Data: make([]byte, 5)},
		{Name: "scalar", DType: "F64", Shape: []int64{}, Data: make([]byte, 8)},
		{Name: "empty", DType: "F32", Shape: []int64{0, 4}, Data: []byte{}},
		{Name: "odd \"name\"\\ \u2028 é 😀 \x01\n\t\x7f<&>", DType: "I32", Shape: []int64{1}, Data: make([]byte, 4)},
	}
	for k, t := range tensors {
		for i := range t.Data {
			t.Data[i] = byte((7*k + i) % 251)
		}
	}
	return tensors
}

func TestWriteEqualsReference(t *testing.T) {
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := Write(&got, map[string]string{"format": "pt"}, goldenTensors()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("got  %q\nwant %q", got.Bytes(), want)
	}
}

func TestOpenReadsReference(t *testing.T) {
	f, err := Open(golden)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, want := range goldenTensors() {
		got, err := f.Tensor(want.Name)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	if len(f.Names()) != len(goldenTensors()) {
		t.Errorf("names %q", f.Names())
	}
	if diff := cmp.Diff(map[string]string{"format": "pt"}, f.Metadata()); diff != "" {
		t.Error(diff)
	}
	if f.Path() != golden || f.Has("absent") || !f.Has("scalar") {
		t.Errorf("path %q, has absent %v, has scalar %v", f.Path(), f.Has("absent"), f.Has("scalar"))
	}
}

func TestReaderSeeksAndRereads(t *testing.T) {
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(map[string]string{"format": "pt"}, goldenTensors())
	if err != nil {
		t.Fatal(err)
	}
	if r.Size() != int64(len(want)) {
		t.Errorf("size %d, want %d", r.Size(), len(want))
	}
	if err := iotest.TestReader(r, want); err != nil {
		t.Error(err)
	}
	for off := range want { // every offset, across the borders of the parts
		buf := make([]byte, min(37, len(want)-off))
		if n, err := r.ReadAt(buf, int64(off)); err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(buf[:n], want[off:off+len(buf)]) {
			t.Fatalf("ReadAt(%d) = %d, %v", off, n, err)
		}
	}
}

func TestNewReaderDoesNotCopyOrReorder(t *testing.T) {
	tensors := goldenTensors()
	r, err := NewReader(nil, tensors)
	if err != nil {
		t.Fatal(err)
	}
	if tensors[0].Name != "b.weight" {
		t.Error("the caller's slice was reordered")
	}
	before, _ := io.ReadAll(r)
	tensors[0].Data[0]++
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	after, _ := io.ReadAll(r)
	if bytes.Equal(before, after) {
		t.Error("the data were copied")
	}
}

func TestWriteRefuses(t *testing.T) {
	two := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	for _, tc := range []struct {
		name    string
		tensors []Tensor
		want    string
	}{
		{"duplicate", []Tensor{{"a", "F32", []int64{2}, two}, {"a", "F32", []int64{2}, two}}, "tensor a: appears twice"},
		{"short data", []Tensor{{"a", "F32", []int64{3}, two}}, "tensor a: 8 bytes of data, F32 [3] takes 12"},
		{"dtype", []Tensor{{"a", "f32", []int64{2}, two}}, `tensor a: unknown dtype "f32"`},
		{"negative", []Tensor{{"a", "F32", []int64{-2}, two}}, "tensor a: negative dimension in shape [-2]"},
		{"overflow", []Tensor{{"a", "F32", []int64{1 << 31, 1 << 31}, two}}, "tensor a: shape [2147483648 2147483648] overflows"},
		{"half a byte", []Tensor{{"a", "F4", []int64{3}, two}}, "tensor a: shape [3] of F4 does not end at a byte"},
		{"metadata's name", []Tensor{{"__metadata__", "F32", []int64{2}, two}}, "tensor __metadata__: not a name for a tensor"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := Write(io.Discard, nil, tc.tensors)
			if err == nil || err.Error() != tc.want {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
	if err := Write(io.Discard, map[string]string{"k": "\xff"}, nil); err == nil {
		t.Error("metadata that is not UTF-8 was written")
	}
}
