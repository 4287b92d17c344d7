package model

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/duratune/duratune/internal/safetensors"
	"github.com/duratune/duratune/internal/train"
)

func tiny(arch string) Config {
	c := Config{Type: arch, Layers: 2, Hidden: 8, Heads: 2, Inner: 12, Vocab: 10, Positions: 6, Activation: GELU, NormEpsilon: 1e-12, InitRange: 0.02}
	if arch != DistilBERT {
		c.TokenType = 2
	}
	if arch == RoBERTa {
		c.PadID = 1
	}
	return c
}

// folder is a model folder in the making: fp32 tensors that hold their index in the layout.
type folder []safetensors.Tensor

func newFolder(l *Layout) folder {
	var f folder
	for i, w := range l.Weights {
		f = append(f, safetensors.Tensor{Name: w.Name, DType: "F32", Shape: w.Shape, Data: fill(w.Size, float32(i+1))})
	}
	return f
}

func fill(n int64, v float32) []byte {
	var data []byte
	for range n {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	return data
}

func (f folder) rename(replace ...string) folder {
	r := strings.NewReplacer(replace...)
	out := slices.Clone(f)
	for i := range out {
		out[i].Name = r.Replace(out[i].Name)
	}
	return out
}

func (f folder) without(part string) folder {
	return slices.DeleteFunc(slices.Clone(f), func(t safetensors.Tensor) bool { return strings.Contains(t.Name, part) })
}

func (f folder) with(name string, shape ...int64) folder {
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	return append(slices.Clone(f), safetensors.Tensor{Name: name, DType: "F32", Shape: shape, Data: fill(n, 1)})
}

func write(t *testing.T, path string, tensors []safetensors.Tensor) {
	t.Helper()
	f, err := os.Create(path)
	if err == nil {
		err = safetensors.Write(f, nil, tensors)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (f folder) save(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "model.safetensors"), f)
	return dir
}

// check that every weight but the drawn ones holds its index.
func checkValues(t *testing.T, l *Layout, dst []float32, drawn []string) {
	t.Helper()
	for i, w := range l.Weights {
		if slices.Contains(drawn, w.Name) {
			continue
		}
		for _, v := range dst[w.Offset : w.Offset+w.Size] {
			if v != float32(i+1) {
				t.Errorf("%s holds %v, want %d", w.Name, v, i+1)
				break
			}
		}
	}
}

func TestLoadTakesEveryNaming(t *testing.T) {
	for _, arch := range []string{DistilBERT, BERT, RoBERTa} {
		l := NewLayout(tiny(arch), 3)
		full := newFolder(l)
		tests := []struct {
			name   string
			folder folder
		}{
			{"as saved", full},
			{"without prefix", full.rename(arch+".", "")},
			{"TensorFlow names", full.rename("LayerNorm.weight", "LayerNorm.gamma", "LayerNorm.bias", "LayerNorm.beta")},
			{"with position ids", full.with(arch+".embeddings.position_ids", 1, 6)},
		}
		for _, tt := range tests {
			dst := make([]float32, l.Size)
			rep, err := Load(tt.folder.save(t), tiny(arch), l, 1, true, dst)
			if err != nil || len(rep.Drawn)+len(rep.Dropped) > 0 {
				t.Errorf("%s, %s: %+v, %v", arch, tt.name, rep, err)
			}
			checkValues(t, l, dst, nil)
		}
	}
}

func TestLoadDrawsTheHeadOfABaseModel(t *testing.T) {
	tests := []struct {
		arch    string
		cut     string // what a pre-trained model lacks
		extra   string // what it has instead
		drawn   []string
		dropped []string
	}{
		{DistilBERT, "classifier", "vocab_projector.bias",
			[]string{"classifier.bias", "classifier.weight", "pre_classifier.bias", "pre_classifier.weight"}, []string{"vocab_projector.bias"}},
		{BERT, "classifier", "cls.predictions.bias", []string{"classifier.bias", "classifier.weight"}, []string{"cls.predictions.bias"}},
		{RoBERTa, "classifier", "lm_head.bias",
			[]string{"classifier.dense.bias", "classifier.dense.weight", "classifier.out_proj.bias", "classifier.out_proj.weight"}, []string{"lm_head.bias"}},
	}
	for _, tt := range tests {
		c := tiny(tt.arch)
		c.Hidden, c.Inner = 64, 64 // enough numbers for statistics
		l := NewLayout(c, 3)
		dir := newFolder(l).without(tt.cut).with(tt.extra, 4).save(t)
		load := func(seed int64) []float32 {
			dst := make([]float32, l.Size)
			rep, err := Load(dir, c, l, seed, false, dst)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(Loaded{tt.drawn, tt.dropped}, rep); diff != "" {
				t.Errorf("%s: (-want +got)\n%s", tt.arch, diff)
			}
			checkValues(t, l, dst, tt.drawn)
			return dst
		}
		a, b, other := load(1), load(1), load(2)
		if !slices.Equal(a, b) || slices.Equal(a, other) {
			t.Errorf("%s: the head is no function of the seed", tt.arch)
		}
		var sum, n float64
		for _, name := range tt.drawn {
			w := l.At(name)
			for _, v := range a[w.Offset : w.Offset+w.Size] {
				if len(w.Shape) == 1 && v != 0 {
					t.Fatalf("%s: bias %s is %v", tt.arch, name, v)
				}
				if len(w.Shape) == 2 {
					sum, n = sum+float64(v)*float64(v), n+1
				}
			}
		}
		if std := math.Sqrt(sum / n); math.Abs(std-0.02) > 0.003 {
			t.Errorf("%s: standard deviation %v, want 0.02", tt.arch, std)
		}
		var e *train.TensorError
		if _, err := Load(dir, c, l, 1, true, make([]float32, l.Size)); !errors.As(err, &e) {
			t.Errorf("%s: a whole head was asked for: %v", tt.arch, err)
		}
	}
}

func TestLoadNamesTheTensorThatIsWrong(t *testing.T) {
	c := tiny(BERT)
	l := NewLayout(c, 2)
	full := newFolder(l)
	query := "bert.encoder.layer.1.attention.self.query.weight"
	tests := []struct {
		name, tensor string
		folder       folder
	}{
		{"missing", query, full.without(query)},
		{"half a module", "classifier.bias", full.without("classifier.bias")},
		{"extra", "bert.encoder.layer.2.output.dense.bias", full.with("bert.encoder.layer.2.output.dense.bias", 8)},
		{"another head", "qa_outputs.weight", full.with("qa_outputs.weight", 2, 8)},
		{"misshapen", "classifier.weight", full.without("classifier.weight").with("classifier.weight", 3, 8)},
		{"twice", "bert." + "embeddings.LayerNorm.bias", full.with("embeddings.LayerNorm.bias", 8)},
	}
	for _, tt := range tests {
		_, err := Load(tt.folder.save(t), c, l, 1, false, make([]float32, l.Size))
		var e *train.TensorError
		if !errors.As(err, &e) || !strings.HasSuffix(e.Tensor, strings.TrimPrefix(tt.tensor, "bert.")) {
			t.Errorf("%s: got %v, want a TensorError for %s", tt.name, err, tt.tensor)
		}
	}
}

func TestLoadTakesHalvesAndShards(t *testing.T) {
	c := tiny(DistilBERT)
	l := NewLayout(c, 2)
	halves := newFolder(l)
	for i := range halves {
		var data []byte
		for range l.Weights[i].Size { // small integers are exact in bf16
			data = binary.LittleEndian.AppendUint16(data, uint16(math.Float32bits(float32(i+1))>>16))
		}
		halves[i].DType, halves[i].Data = "BF16", data
	}
	dir, index := t.TempDir(), map[string]string{}
	for i, part := range [][]safetensors.Tensor{halves[:5], halves[5:]} {
		name := []string{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}[i]
		write(t, filepath.Join(dir, name), part)
		for _, x := range part {
			index[x.Name] = name
		}
	}
	text, err := json.Marshal(map[string]any{"metadata": map[string]any{}, "weight_map": index})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "model.safetensors.index.json"), text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	dst := make([]float32, l.Size)
	if _, err := Load(dir, c, l, 1, true, dst); err != nil {
		t.Fatal(err)
	}
	checkValues(t, l, dst, nil)
}

func TestLoadNeverReadsPickle(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "pytorch_model.bin"), []byte("PK"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := tiny(BERT)
	l := NewLayout(c, 2)
	_, err := Load(dir, c, l, 1, false, make([]float32, l.Size))
	var e *train.TensorError
	if !errors.As(err, &e) || !strings.HasSuffix(e.File, "pytorch_model.bin") {
		t.Errorf("got %v, want a TensorError for pytorch_model.bin", err)
	}
}

func TestCheckpointsAreCheckedBeforeTheyAreTaken(t *testing.T) {
	l := NewLayout(tiny(RoBERTa), 2)
	full := newFolder(l)
	pair := append(full.rename("roberta.", "exp_avg.roberta.", "classifier.", "exp_avg.classifier."),
		full.rename("roberta.", "exp_avg_sq.roberta.", "classifier.", "exp_avg_sq.classifier.")...)
	open := func(f folder) *safetensors.File {
		file, err := safetensors.Open(filepath.Join(f.save(t), "model.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		return file
	}
	if err := l.Check(open(full), ""); err != nil {
		t.Error(err)
	}
	good := open(pair)
	if err := l.Check(good, "exp_avg.", "exp_avg_sq."); err != nil {
		t.Error(err)
	}
	dst := make([]float32, l.Size)
	if err := l.Fill(dst, good, "exp_avg_sq."); err != nil {
		t.Error(err)
	}
	checkValues(t, l, dst, nil)
	if diff := cmp.Diff([]safetensors.Tensor(full), l.Tensors(dst, "")); diff != "" {
		t.Errorf("Tensors of what was filled: (-want +got)\n%s", diff)
	}
	var e *train.TensorError
	for name, f := range map[string]folder{
		"missing":   full.without("classifier.dense.bias"),
		"extra":     full.with("x", 1),
		"misshapen": full.without("classifier.dense.bias").with("classifier.dense.bias", 9),
	} {
		if err := l.Check(open(f), ""); !errors.As(err, &e) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestQueryKeyValueAreNeighbours(t *testing.T) {
	for _, arch := range []string{DistilBERT, BERT, RoBERTa} {
		c := tiny(arch)
		l := NewLayout(c, 2)
		b := namesOf(c).block(1)
		for _, of := range []func(string) string{weight, bias} {
			q, k, v := l.At(of(b.query)), l.At(of(b.key)), l.At(of(b.value))
			if q.Offset%align != 0 || k.Offset != q.Offset+q.Size || v.Offset != k.Offset+k.Size {
				t.Errorf("%s: query at %d, key at %d, value at %d", arch, q.Offset, k.Offset, v.Offset)
			}
		}
		if l.Weights[0].Name != arch+".embeddings.word_embeddings.weight" || l.Weights[0].Offset != 0 {
			t.Errorf("%s: the buffer begins with %s", arch, l.Weights[0].Name)
		}
	}
}
