package safetensors

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// Names that Hugging Face gives the weights of a model.
const (
	modelName = "model.safetensors"
	indexName = "model.safetensors.index.json"
)

// OpenModel opens the weights of a Hugging Face model folder: model.safetensors or, where that is absent, the shards that
// model.safetensors.index.json lists. An index must agree with its shards tensor by tensor.
func OpenModel(dir string) (*File, error) {
	path := filepath.Join(dir, modelName)
	f, err := Open(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	index := filepath.Join(dir, indexName)
	weights, err := readIndex(index)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noWeights(dir)
	}
	if err != nil {
		return nil, inFile(err, index)
	}
	f = &File{path: index, tensors: make(map[string]Tensor, len(weights))}
	if err := f.addShards(dir, weights); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// noWeights says what a folder without safetensors has instead.
func noWeights(dir string) error {
	e := &Error{File: dir, Problem: "no " + modelName + " and no " + indexName, Err: fs.ErrNotExist}
	for _, pickle := range []string{"pytorch_model.bin", "pytorch_model.bin.index.json"} {
		if _, err := os.Stat(filepath.Join(dir, pickle)); err == nil {
			return &Error{File: filepath.Join(dir, pickle), Problem: convertHint, Err: ErrNotSafetensors}
		}
	}
	return e
}

// readIndex returns the index's map from tensor to shard.
func readIndex(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxHeader+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxHeader || !utf8.Valid(data) {
		return nil, &Error{Problem: fmt.Sprintf("larger than %d bytes or not UTF-8", maxHeader)}
	}
	var weights map[string]string
	p := newParser(data)
	err = p.object(func(key string) (err error) {
		if key != "weight_map" {
			var skipped any
			return p.dec.Decode(&skipped)
		}
		weights, err = p.strings()
		return err
	})
	if err == nil {
		err = p.end()
	}
	if err != nil {
		return nil, asError(err, "index")
	}
	for tensor, shard := range weights {
		if !filepath.IsLocal(shard) || strings.ContainsAny(shard, `/\`) {
			return nil, badTensor(tensor, "%q is not the name of a file beside the index", shard)
		}
	}
	if len(weights) == 0 {
		return nil, &Error{Problem: "no weight_map"}
	}
	return weights, nil
}

// addShards opens every shard once and takes in its tensors, which must be those that the index maps to it.
func (f *File) addShards(dir string, weights map[string]string) error {
	shards := map[string]bool{}
	for _, shard := range weights {
		shards[shard] = true
	}
	names := make([]string, 0, len(shards))
	for shard := range shards {
		names = append(names, shard)
	}
	slices.Sort(names)
	for _, shard := range names {
		s, err := Open(filepath.Join(dir, shard))
		if errors.Is(err, fs.ErrNotExist) {
			return &Error{File: f.path, Problem: fmt.Sprintf("shard %s is missing", shard), Err: err}
		}
		if err != nil {
			return err
		}
		f.maps = append(f.maps, s.maps...)
		if f.metadata == nil {
			f.metadata = s.metadata
		}
		for name, t := range s.tensors {
			if weights[name] != shard {
				return &Error{File: s.path, Tensor: name, Problem: fmt.Sprintf("the index does not place it here (%q)", weights[name])}
			}
			f.tensors[name] = t
		}
	}
	for tensor, shard := range weights {
		if !f.Has(tensor) {
			return &Error{File: f.path, Tensor: tensor, Problem: fmt.Sprintf("shard %s does not hold it", shard)}
		}
	}
	return nil
}
