package safetensors

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// file is a whole file made of a header and n bytes of data.
func file(header string, n int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, n)...)
}

func TestOpenRefuses(t *testing.T) {
	f32 := func(name string, offsets string) string {
		return `"` + name + `":{"dtype":"F32","shape":[2],"data_offsets":` + offsets + `}`
	}
	for _, tc := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "0 bytes are too few"},
		{"zip", append([]byte("PK\x03\x04"), make([]byte, 60)...), "a PyTorch pickle, which is never read"},
		{"pickle", append([]byte{0x80, 2, 0x8a, 0x0a}, make([]byte, 60)...), "a PyTorch pickle, which is never read"},
		{"git-lfs", []byte("version https://git-lfs.github.com/spec/v1\noid sha256:00\n"), "git lfs pull"},
		{"long header", append(binary.LittleEndian.AppendUint64(nil, 100_000_001), '{'), "the limit is 100000000"},
		{"huge header", append(binary.LittleEndian.AppendUint64(nil, math.MaxUint64), '{'), "the limit is 100000000"},
		{"truncated header", file(`{}`, 0)[:9], "truncated"},
		{"no header", file("", 8), "does not begin with {"},
		{"not UTF-8", file("{\"\xff\":{}}", 0), "not UTF-8"},
		{"not JSON", file(`{"a":`, 0), "unexpected EOF"},
		{"trailing", file(`{}{}`, 0), "after the closing brace"},
		{"array", file(` []`, 0), "does not begin with {"},
		{"no dtype", file(`{"a":{"shape":[2],"data_offsets":[0,8]}}`, 8), "tensor a: no dtype"},
		{"no shape", file(`{"a":{"dtype":"F32","data_offsets":[0,8]}}`, 8), "tensor a: no shape"},
		{"null shape", file(`{"a":{"dtype":"F32","shape":null,"data_offsets":[0,4]}}`, 4), "tensor a: got <nil>, want ["},
		{"null dimension", file(`{"a":{"dtype":"F32","shape":[null],"data_offsets":[0,0]}}`, 0), "tensor a: <nil> is not an integer"},
		{"fraction", file(`{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}`, 8), "tensor a: 2.0 is not an integer"},
		{"text dimension", file(`{"a":{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}}`, 8), "tensor a: 2 is not an integer"},
		{"one offset", file(`{`+f32("a", `[0]`)+`}`, 8), "tensor a: data_offsets [0] are not"},
		{"backwards", file(`{`+f32("a", `[8,0]`)+`}`, 8), "tensor a: data_offsets [8 0] are not"},
		{"negative", file(`{`+f32("a", `[-8,0]`)+`}`, 8), "tensor a: data_offsets [-8 0] are not"},
		{"gap", file(`{`+f32("a", `[0,8]`)+`,`+f32("b", `[9,17]`)+`}`, 17), "tensor b: data_offsets [9, 17] overlap or leave a gap"},
		{"overlap", file(`{`+f32("a", `[0,8]`)+`,`+f32("b", `[4,12]`)+`}`, 12), "tensor b: data_offsets [4, 12] overlap"},
		{"wrong size", file(`{`+f32("a", `[0,12]`)+`}`, 12), "tensor a: data_offsets [0, 12] hold 12 bytes, F32 [2] takes 8"},
		{"truncated data", file(`{`+f32("a", `[0,8]`)+`}`, 7), "tensor a: data_offsets [0, 8] lie beyond the file's 7 bytes"},
		{"data left over", file(`{`+f32("a", `[0,8]`)+`}`, 9), "1 bytes after the last tensor"},
		{"duplicate", file(`{`+f32("a", `[0,8]`)+`,`+f32("a", `[8,16]`)+`}`, 16), `"a" appears twice`},
		{"duplicate field", file(`{"a":{"dtype":"F32","dtype":"I32","shape":[],"data_offsets":[0,4]}}`, 4), `tensor a: "dtype" appears twice`},
		{"metadata", file(`{"__metadata__":{"format":1}}`, 0), "1 is not a string"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "model.safetensors")
			if err := os.WriteFile(path, tc.data, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(path)
			if e, ok := errors.AsType[*Error](err); !ok || e.File != path || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

func TestOpenOtherFiles(t *testing.T) {
	if _, err := Open(t.TempDir()); !errors.Is(err, ErrNotSafetensors) {
		t.Errorf("folder: %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	// A header of 0x0280 bytes begins like a pickle of protocol 2.
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, file("{}"+strings.Repeat(" ", 0x280-2), 0), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = f.Tensor("a")
	if want := path + ": tensor a: missing"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestFloat32s(t *testing.T) {
	half := []uint16{0x3c00, 0xc000, 0x7bff, 0x0001, 0x8001, 0x03ff, 0x0400, 0x0000, 0x8000, 0x7c00, 0xfc00}
	want := []float32{1, -2, 65504, 0x1p-24, -0x1p-24, 0x1p-14 - 0x1p-24, 0x1p-14, 0,
		float32(math.Copysign(0, -1)), float32(math.Inf(1)), float32(math.Inf(-1))}
	got, err := Float32s(Tensor{DType: "F16", Data: words(half)})
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if !math.Signbit(float64(got[8])) {
		t.Error("-0 lost its sign")
	}
	nan, err := Float32s(Tensor{DType: "F16", Data: words([]uint16{0x7e00})})
	if err != nil || nan[0] == nan[0] {
		t.Errorf("NaN became %v, %v", nan, err)
	}
	got, err = Float32s(Tensor{DType: "BF16", Data: words([]uint16{0x3f80, 0xc000, 0x0001})})
	if diff := cmp.Diff([]float32{1, -2, 0x1p-133}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	got, err = Float32s(Tensor{DType: "F32", Data: binary.LittleEndian.AppendUint32(nil, math.Float32bits(0.1))})
	if diff := cmp.Diff([]float32{0.1}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if _, err := Float32s(Tensor{Name: "ids", DType: "I64"}); err == nil || err.Error() != "tensor ids: got dtype I64, want F32, F16 or BF16" {
		t.Error(err)
	}
}

func words(list []uint16) []byte {
	var b []byte
	for _, w := range list {
		b = binary.LittleEndian.AppendUint16(b, w)
	}
	return b
}

// FuzzHeader holds parseHeader to its promise: whatever it accepts fills the data without overlap or gap.
func FuzzHeader(f *testing.F) {
	data, err := os.ReadFile(golden)
	if err != nil {
		f.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(data)
	f.Add(data[8:8+n], int64(len(data))-8-int64(n))
	f.Add([]byte(`{"a":{"dtype":"F32","shape":[9223372036854775807,2],"data_offsets":[0,8]}}`), int64(8))
	f.Add([]byte(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"b":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}`), int64(1))
	f.Fuzz(func(t *testing.T, header []byte, dataLen int64) {
		if dataLen < 0 {
			t.Skip()
		}
		entries, _, err := parseHeader(header, dataLen)
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		var at int64
		for _, e := range entries {
			if want, err := size(e.name, e.dtype, e.shape); e.begin != at || e.end-e.begin != want || err != nil {
				t.Fatalf("entry %+v at %d, %v", e, at, err)
			}
			at = e.end
		}
		if at != dataLen {
			t.Fatalf("entries end at %d of %d", at, dataLen)
		}
	})
}
