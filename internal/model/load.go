package model

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sync/errgroup"

	"github.com/duratune/duratune/internal/safetensors"
	"github.com/duratune/duratune/internal/train"
)

// Loaded says what of a model folder was not taken as it was.
type Loaded struct {
	Drawn   []string // weights of the head that the folder lacks: drawn from the seed (matrices) or zero (biases)
	Dropped []string // tensors of the folder that a classifier does not have, e.g. a masked-LM head
}

// ignored are tensors that carry no weight: buffers that old versions of transformers saved.
var ignored = regexp.MustCompile(`(^|\.)embeddings\.(position_ids|token_type_ids)$`)

// dropped are the heads of pre-training, and RoBERTa's pooler, which its classifier does not use.
var dropped = map[string]*regexp.Regexp{
	DistilBERT: regexp.MustCompile(`^(vocab_transform|vocab_layer_norm|vocab_projector)\.`),
	BERT:       regexp.MustCompile(`^cls\.`),
	RoBERTa:    regexp.MustCompile(`^(lm_head\.|(roberta\.)?pooler\.)`),
}

// Load reads the weights of a model folder into dst, which has l.Size elements, all zero. Names may lack the architecture's
// prefix and may be those of old TensorFlow conversions (gamma, beta). A head that the folder lacks is drawn from the seed,
// unless wholeHead forbids it. Errors: *train.TensorError.
func Load(dir string, c Config, l *Layout, seed int64, wholeHead bool, dst []float32) (Loaded, error) {
	f, err := safetensors.OpenModel(dir)
	if err != nil {
		return Loaded{}, tensorError(err, dir)
	}
	defer f.Close()

	prefix := namesOf(c).prefix
	var rep Loaded
	seen := map[string]bool{} // wanted names
	var copies []func() error
	for _, name := range f.Names() {
		if ignored.MatchString(name) {
			continue
		}
		want, ok := l.resolve(name, prefix)
		switch {
		case !ok && dropped[c.Type].MatchString(name):
			rep.Dropped = append(rep.Dropped, name)
			continue
		case !ok:
			return Loaded{}, &train.TensorError{File: f.Path(), Tensor: name, Problem: "is no part of a " + c.Type + " classifier"}
		case seen[want.Name]:
			return Loaded{}, &train.TensorError{File: f.Path(), Tensor: name, Problem: "is there twice, with and without the prefix " + prefix}
		}
		seen[want.Name] = true
		t, err := f.Tensor(name)
		if err != nil {
			return Loaded{}, tensorError(err, f.Path())
		}
		copies = append(copies, func() error { return copyTensor(dst[want.Offset:want.Offset+want.Size], t, want.Shape, f.Path()) })
	}
	// One core would be busy with the first touch of so much memory for longer than a GPU takes to wake.
	var cores errgroup.Group
	cores.SetLimit(runtime.GOMAXPROCS(0))
	for _, c := range copies {
		cores.Go(c)
	}
	if err := cores.Wait(); err != nil {
		return Loaded{}, tensorError(err, f.Path())
	}
	err = draw(&rep, c, l, seen, seed, wholeHead, f.Path(), dst)
	return rep, err
}

// resolve finds the weight that a tensor of a file is.
func (l *Layout) resolve(name, prefix string) (Weight, bool) {
	if module, ok := strings.CutSuffix(name, "LayerNorm.gamma"); ok {
		name = module + "LayerNorm.weight"
	} else if module, ok := strings.CutSuffix(name, "LayerNorm.beta"); ok {
		name = module + "LayerNorm.bias"
	}
	for _, n := range []string{name, prefix + name} {
		if i, ok := l.index[n]; ok {
			return l.Weights[i], true
		}
	}
	return Weight{}, false
}

// draw fills what the file lacks. A module of the head is drawn as a whole or not at all.
func draw(rep *Loaded, c Config, l *Layout, seen map[string]bool, seed int64, wholeHead bool, file string, dst []float32) error {
	for _, w := range l.Weights {
		if seen[w.Name] {
			continue
		}
		module := w.Name[:strings.LastIndexByte(w.Name, '.')]
		if !w.Head || wholeHead || seen[weight(module)] || seen[bias(module)] {
			return &train.TensorError{File: file, Tensor: w.Name, Problem: fmt.Sprintf("is missing, want shape %v", w.Shape)}
		}
		rep.Drawn = append(rep.Drawn, w.Name)
		if len(w.Shape) == 2 {
			normal(dst[w.Offset:w.Offset+w.Size], c.InitRange, seed, w.Name)
		}
	}
	slices.Sort(rep.Drawn)
	return nil
}

// normal draws from N(0, std²), as a function of seed and name alone.
func normal(dst []float32, std float64, seed int64, name string) {
	h := fnv.New64a()
	h.Write([]byte(name))
	r := rand.New(rand.NewPCG(uint64(seed), h.Sum64()))
	for i := range dst {
		dst[i] = float32(r.NormFloat64() * std)
	}
}

// Check compares a checkpoint with the layout: its tensors are the layout's, once for each prefix, all fp32, and no others.
// Errors: *train.TensorError.
func (l *Layout) Check(f *safetensors.File, prefixes ...string) error {
	for _, name := range f.Names() {
		known := slices.ContainsFunc(prefixes, func(p string) bool {
			bare, ok := strings.CutPrefix(name, p)
			_, found := l.index[bare]
			return ok && found
		})
		if !known {
			return &train.TensorError{File: f.Path(), Tensor: name, Problem: "is no part of the model"}
		}
	}
	for _, prefix := range prefixes {
		for _, w := range l.Weights {
			t, err := f.Tensor(prefix + w.Name)
			switch {
			case err != nil:
				return tensorError(err, f.Path())
			case t.DType != "F32":
				return &train.TensorError{File: f.Path(), Tensor: t.Name, Problem: "got dtype " + t.DType + ", want F32"}
			case !slices.Equal(t.Shape, w.Shape):
				return shapeError(f.Path(), t, w.Shape)
			}
		}
	}
	return nil
}

// Fill copies the tensors of a checkpoint that was checked into dst.
func (l *Layout) Fill(dst []float32, f *safetensors.File, prefix string) error {
	for _, w := range l.Weights {
		t, err := f.Tensor(prefix + w.Name)
		if err == nil {
			err = copyTensor(dst[w.Offset:w.Offset+w.Size], t, w.Shape, f.Path())
		}
		if err != nil {
			return tensorError(err, f.Path())
		}
	}
	return nil
}

// Tensors are views of buf by the layout's names with a prefix.
func (l *Layout) Tensors(buf []float32, prefix string) []safetensors.Tensor {
	out := make([]safetensors.Tensor, len(l.Weights))
	for i, w := range l.Weights {
		data := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(buf[w.Offset:]))), 4*w.Size)
		out[i] = safetensors.Tensor{Name: prefix + w.Name, DType: "F32", Shape: w.Shape, Data: data}
	}
	return out
}

func copyTensor(dst []float32, t safetensors.Tensor, shape []int64, file string) error {
	if !slices.Equal(t.Shape, shape) {
		return shapeError(file, t, shape)
	}
	if t.DType == "F32" { // the common case, without a copy in between; all machines that libtorch runs on are little-endian
		copy(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(dst))), 4*len(dst)), t.Data)
		return nil
	}
	values, err := safetensors.Float32s(t)
	if err != nil {
		return err
	}
	copy(dst, values)
	return nil
}

func shapeError(file string, t safetensors.Tensor, want []int64) error {
	return &train.TensorError{File: file, Tensor: t.Name, Problem: fmt.Sprintf("shape %v, want %v", t.Shape, want)}
}

// tensorError gives the errors of package safetensors their type at this boundary.
func tensorError(err error, file string) error {
	var e *safetensors.Error
	if !errors.As(err, &e) {
		return err
	}
	if e.File != "" {
		file = e.File
	}
	return &train.TensorError{File: file, Tensor: e.Tensor, Problem: e.Problem}
}
