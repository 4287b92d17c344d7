//go:build torch

package engine

import (
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"unsafe"

	"github.com/duratune/duratune/internal/model"
	"github.com/duratune/duratune/internal/safetensors"
	"github.com/duratune/duratune/internal/train"
)

// golden is what internal/py/goldens/models.py recorded of one model.
type golden struct {
	dir     string
	file    *safetensors.File
	batches []train.Batch
	labels  int

	LR             float64   `json:"lr"`
	WeightDecay    float64   `json:"weight_decay"`
	Beta1          float64   `json:"beta1"`
	Beta2          float64   `json:"beta2"`
	Eps            float64   `json:"eps"`
	MaxGradNorm    float64   `json:"max_grad_norm"`
	LabelSmoothing float64   `json:"label_smoothing"`
	Rates          []float64 `json:"rates"`
	Decayed        []string  `json:"decayed"`
}

// eachGolden runs f on a model of each architecture, and on BERT with pairs of texts, whose tokens are of two types.
func eachGolden(t *testing.T, f func(t *testing.T, g *golden)) {
	eachArchitecture(t, f)
	t.Run("pairs", func(t *testing.T) { f(t, readGolden(t, "testdata/pairs")) })
}

func eachArchitecture(t *testing.T, f func(t *testing.T, g *golden)) {
	for _, name := range []string{model.DistilBERT, model.BERT, model.RoBERTa} {
		t.Run(name, func(t *testing.T) { f(t, readGolden(t, filepath.Join("testdata", name))) })
	}
}

func readGolden(t *testing.T, dir string) *golden {
	t.Helper()
	g := &golden{dir: dir}
	readJSON(t, filepath.Join(g.dir, "golden.json"), g)
	var err error
	g.file, err = safetensors.Open(filepath.Join(g.dir, "golden.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.file.Close() })
	ids, shape := values[int32](t, g.file, "ids")
	lengths, _ := values[int32](t, g.file, "lengths")
	labels, _ := values[int64](t, g.file, "labels")
	var types []int32
	if _, err := g.file.Tensor("types"); err == nil {
		types, _ = values[int32](t, g.file, "types")
	}
	steps, rows, width := int(shape[0]), int(shape[1]), int(shape[2])
	for s := range steps {
		var b train.Batch
		for r := range rows {
			at := s*rows + r
			seq := train.Sequence{IDs: ids[at*width : at*width+int(lengths[at])]}
			if types != nil {
				for _, typ := range types[at*width : at*width+len(seq.IDs)] {
					seq.Types = append(seq.Types, int8(typ))
				}
			}
			b.Inputs = append(b.Inputs, seq)
			b.Labels = append(b.Labels, labels[at])
			b.Rows = append(b.Rows, int64(at))
			g.labels = max(g.labels, int(labels[at])+1)
		}
		g.batches = append(g.batches, b)
	}
	return g
}

func readJSON(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// recordMiniLM has the Python peer record MiniLM with its real weights.
func recordMiniLM(t *testing.T) *golden {
	t.Helper()
	python := os.Getenv("DURATUNE_PEERS")
	if python == "" {
		t.Skip("peers: DURATUNE_PEERS not set")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(cache, "duratune", "assets", "all-minilm-l6-v2")
	if _, err := os.Stat(base); err != nil {
		t.Skipf("MiniLM: %s not found", base)
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), python, "../py/goldens/models.py", dir, base)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return readGolden(t, filepath.Join(dir, "base"))
}

// values copies a tensor of a file out.
func values[E int32 | int64 | float32](t *testing.T, f *safetensors.File, name string) ([]E, []int64) {
	t.Helper()
	x, err := f.Tensor(name)
	if err != nil {
		t.Fatal(err)
	}
	var e E
	out := make([]E, len(x.Data)/int(unsafe.Sizeof(e)))
	copy(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(out))), len(x.Data)), x.Data)
	return out, x.Shape
}

func (g *golden) spec() train.Spec {
	return train.Spec{
		ModelDir: g.dir, Labels: slices.Repeat([]string{"x"}, g.labels), MaxLength: 32, Padding: "longest", BatchSize: 6, EvalBatch: 6,
		MicroStep: 6, Precision: "fp32", Seed: 1, WeightDecay: g.WeightDecay, AdamBeta1: g.Beta1, AdamBeta2: g.Beta2,
		AdamEpsilon: g.Eps, MaxGradNorm: g.MaxGradNorm, LabelSmoothing: g.LabelSmoothing,
	}
}

func openEngine(t *testing.T, spec train.Spec) *Engine {
	t.Helper()
	e, err := open(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// worst is the largest difference relative to the scale of want.
func worst(got, want []float32, floor float64) float64 {
	diff := 0.0
	for i := range want {
		diff = math.Max(diff, math.Abs(float64(got[i]-want[i])))
		if math.IsNaN(float64(got[i])) {
			return math.Inf(1)
		}
	}
	return diff / scale(want, floor)
}

// scale is the largest magnitude, or floor where that is larger.
func scale(values []float32, floor float64) float64 {
	for _, v := range values {
		floor = math.Max(floor, math.Abs(float64(v)))
	}
	return floor
}
