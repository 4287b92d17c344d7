package safetensors

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// folder writes files into a new folder; a value is a file's text, or its tensors.
func folder(t *testing.T, files map[string]any) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		var b bytes.Buffer
		switch c := content.(type) {
		case string:
			b.WriteString(c)
		case []Tensor:
			if err := Write(&b, map[string]string{"from": name}, c); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func bytesTensor(name string, data ...byte) Tensor {
	return Tensor{Name: name, DType: "U8", Shape: []int64{int64(len(data))}, Data: data}
}

func TestOpenModel(t *testing.T) {
	one, two := []Tensor{bytesTensor("a", 1), bytesTensor("b", 2)}, []Tensor{bytesTensor("c", 3)}
	for _, tc := range []struct {
		name  string
		files map[string]any
		want  []string
	}{
		{"single", map[string]any{"model.safetensors": one}, []string{"a", "b"}},
		{"single before index", map[string]any{"model.safetensors": two, "model.safetensors.index.json": "{"}, []string{"c"}},
		{"shards", map[string]any{
			"1.safetensors": one, "2.safetensors": two,
			"model.safetensors.index.json": `{"metadata":{"total_size":3},"weight_map":{"a":"1.safetensors","b":"1.safetensors","c":"2.safetensors"}}`,
		}, []string{"a", "b", "c"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, err := OpenModel(folder(t, tc.files))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if diff := cmp.Diff(tc.want, f.Names()); diff != "" {
				t.Error(diff)
			}
			last, err := f.Tensor(tc.want[len(tc.want)-1])
			if err != nil || len(last.Data) != 1 || f.Metadata()["from"] == "" {
				t.Errorf("tensor %+v, metadata %v, %v", last, f.Metadata(), err)
			}
		})
	}
}

func TestOpenModelRefuses(t *testing.T) {
	a, b := []Tensor{bytesTensor("a", 1)}, []Tensor{bytesTensor("b", 2)}
	index := func(m string) map[string]any {
		return map[string]any{"1.safetensors": a, "2.safetensors": b, "model.safetensors.index.json": m}
	}
	for _, tc := range []struct {
		name  string
		files map[string]any
		want  string
		is    error
	}{
		{"nothing", nil, "no model.safetensors and no model.safetensors.index.json", fs.ErrNotExist},
		{"pickle beside", map[string]any{"pytorch_model.bin": "PK"}, "pytorch_model.bin: a PyTorch pickle", ErrNotSafetensors},
		{"renamed pickle", map[string]any{"model.safetensors": "PK\x03\x04"}, "a PyTorch pickle", ErrNotSafetensors},
		{"not JSON", index(`{"weight_map":`), "index: unexpected EOF", nil},
		{"no map", index(`{"metadata":{}}`), "no weight_map", nil},
		{"parent", index(`{"weight_map":{"a":"../1.safetensors"}}`), `"../1.safetensors" is not the name of a file beside`, nil},
		{"absolute", index(`{"weight_map":{"a":"/etc/passwd"}}`), `"/etc/passwd" is not the name`, nil},
		{"subfolder", index(`{"weight_map":{"a":"x/1.safetensors"}}`), `"x/1.safetensors" is not the name`, nil},
		{"backslash", index(`{"weight_map":{"a":"x\\1.safetensors"}}`), `is not the name`, nil},
		{"twice", index(`{"weight_map":{"a":"1.safetensors","a":"2.safetensors"}}`), `"a" appears twice`, nil},
		{"missing shard", index(`{"weight_map":{"a":"3.safetensors"}}`), "shard 3.safetensors is missing", fs.ErrNotExist},
		{"missing tensor", index(`{"weight_map":{"a":"1.safetensors","c":"1.safetensors"}}`), "tensor c: shard 1.safetensors does not hold it", nil},
		{"unlisted tensor", index(`{"weight_map":{"a":"2.safetensors"}}`), "tensor b: the index does not place it here", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := OpenModel(folder(t, tc.files))
			if e, ok := errors.AsType[*Error](err); !ok || e.File == "" || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
			if tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("%v is not %v", err, tc.is)
			}
		})
	}
}
