package activities

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/model"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/tokenizer"
	"github.com/duratune/duratune/internal/train"
)

// Objects is the folder of downloads below a worker's CacheDir, for [artifact.Fetch].
const Objects = "objects"

// FetchModelInput names a base model.
type FetchModelInput struct {
	Run       Run          `json:"run"`
	Model     recipe.Model `json:"model"`
	Labels    []string     `json:"labels"`
	MaxLength int          `json:"max_length"`
	Pairs     bool         `json:"pairs,omitempty"` // rows are pairs of texts
}

// FetchModelResult is the base model in the store.
type FetchModelResult struct {
	Model     artifact.Ref `json:"model"`            // manifest
	Commit    string       `json:"commit,omitempty"` // what the revision or alias stood for: a commit of the hub, or the id of a logged model
	ModelType string       `json:"model_type"`       // as in config.json
}

// Folder is the manifest of a model folder in the store.
type Folder struct {
	Source string                  `json:"source"`
	Commit string                  `json:"commit,omitempty"`
	Files  map[string]artifact.Ref `json:"files"` // by name
}

// Files of a model folder. Weights come as one file, or as shards with an index. Pickles (*.bin) are never read.
const (
	configFile    = "config.json"
	tokenizerFile = "tokenizer.json"
	weightsFile   = "model.safetensors"
	weightsIndex  = "model.safetensors.index.json"
)

// tokenizerFiles are taken from a model folder where they exist.
var tokenizerFiles = []string{tokenizerFile, "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt", "special_tokens_map.json"}

// termsFiles say under what terms a model may be used; they are taken where they exist.
var termsFiles = []string{"README.md", "LICENSE", "LICENSE.txt"}

// modelError says what is wrong with a model folder.
type modelError struct{ source, problem string }

func (e *modelError) Error() string { return fmt.Sprintf("base model %s: %s", e.source, e.problem) }

// FetchModel checks a base model (config, tokenizer, weights) and brings its files into the store, where every worker
// finds them.
func (c *CPU) FetchModel(ctx context.Context, in FetchModelInput) (res FetchModelResult, err error) {
	defer func() { err = edge(err) }()
	if err := in.Run.guard(ctx); err != nil {
		return res, err
	}
	temp, err := os.MkdirTemp(c.Scratch, "base-")
	if err != nil {
		return res, err
	}
	defer os.RemoveAll(temp)
	dir, commit, err := c.locateModel(ctx, in.Model, filepath.Join(temp, "model"))
	if err != nil {
		return res, err
	}
	files, err := listModel(in.Model.Base, dir)
	if err != nil {
		return res, err
	}
	cfg, loaded, err := checkModel(in, dir)
	if err != nil {
		return res, err
	}
	if err := c.logModelConfig(ctx, in, dir, baseTags(commit, loaded)); err != nil {
		return res, err
	}
	folder := Folder{Source: in.Model.Base, Commit: commit, Files: map[string]artifact.Ref{}}
	prefix := in.Run.attempt(ctx, in.Run.Key+"/model")
	for _, name := range files {
		ref, err := putFile(ctx, c.Store, prefix+"/"+name, filepath.Join(dir, name), func(int64) { beat(ctx, Heartbeat{Phase: "store " + name}) })
		if err != nil {
			return res, fmt.Errorf("base model %s: %s: %w", in.Model.Base, name, err)
		}
		folder.Files[name] = ref
	}
	manifest, err := putManifest(ctx, c.Store, prefix, folder)
	return FetchModelResult{Model: manifest, Commit: commit, ModelType: cfg.Type}, err
}

// listModel picks the files of a folder that matter.
func listModel(source, dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, &modelError{source, "cannot be read: " + err.Error()}
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return pickModel(source, names)
}

// pickModel says which of the files of a model folder to take. The error names every file that is missing.
func pickModel(source string, names []string) ([]string, error) {
	var picked, pickles []string
	whole := slices.Contains(names, weightsFile)
	for _, name := range names {
		shard := strings.HasSuffix(name, ".safetensors") || name == weightsIndex
		switch {
		case name == configFile, name == weightsFile, slices.Contains(tokenizerFiles, name), slices.Contains(termsFiles, name), shard && !whole:
			picked = append(picked, name)
		case strings.HasPrefix(name, "pytorch_model") && strings.HasSuffix(name, ".bin"):
			pickles = append(pickles, name)
		}
	}
	slices.Sort(picked)
	var missing []string
	for _, name := range []string{configFile, tokenizerFile} {
		if !slices.Contains(picked, name) {
			missing = append(missing, name+" is missing")
		}
	}
	switch {
	case whole || slices.Contains(picked, weightsIndex):
	case len(pickles) > 0:
		missing = append(missing, fmt.Sprintf("its weights are pickled (%s), and a pickle can run code, so it is never read; "+
			"save_pretrained of a recent transformers writes %s", pickles[0], weightsFile))
	default:
		missing = append(missing, fmt.Sprintf("%s (or shards with %s) is missing", weightsFile, weightsIndex))
	}
	if len(missing) > 0 {
		return nil, &modelError{source, strings.Join(missing, "; ")}
	}
	return picked, nil
}

// checkModel refuses what the engine or the tokenizer would refuse, before any device waits for it.
func checkModel(in FetchModelInput, dir string) (cfg model.Config, loaded model.Loaded, err error) {
	source := in.Model.Base
	if cfg, err = model.ReadConfig(dir); err != nil {
		return cfg, loaded, inSource(err, dir, source)
	}
	if in.MaxLength > cfg.MaxLength() {
		return cfg, loaded, &modelError{source, fmt.Sprintf("has positions for %d tokens, but the recipe's tokenizer.max_length is %d", cfg.MaxLength(), in.MaxLength)}
	}
	tok, err := tokenizer.Load(filepath.Join(dir, tokenizerFile))
	if err != nil {
		return cfg, loaded, inSource(err, dir, source)
	}
	if tok.VocabSize() > cfg.Vocab {
		return cfg, loaded, &modelError{source, fmt.Sprintf("tokenizer.json has %d tokens, but the embeddings have %d rows", tok.VocabSize(), cfg.Vocab)}
	}
	if in.Pairs && cfg.Type == model.BERT && tok.PairTypes() > cfg.TokenType {
		return cfg, loaded, &modelError{source, fmt.Sprintf("tokenizer.json gives pairs of texts %d token types, but the model has %d (type_vocab_size)", tok.PairTypes(), cfg.TokenType)}
	}
	layout := model.NewLayout(cfg, len(in.Labels))
	loaded, err = model.Load(dir, cfg, layout, 0, false, make([]float32, layout.Size))
	return cfg, loaded, inSource(err, dir, source)
}

// inSource names the model as the recipe does, not by the worker's folder.
func inSource(err error, dir, source string) error {
	named := func(file string) string { return source + strings.TrimPrefix(file, dir) }
	if e, ok := errors.AsType[*train.TensorError](err); ok {
		e.File = named(e.File)
	}
	if e, ok := errors.AsType[*train.ConfigError](err); ok {
		e.File = named(e.File)
	}
	if e, ok := errors.AsType[*tokenizer.UnsupportedError](err); ok {
		e.File = named(e.File)
	}
	return err
}

// putFile stores a local file.
func putFile(ctx context.Context, store artifact.Store, key, path string, progress artifact.Progress) (artifact.Ref, error) {
	f, err := os.Open(path)
	if err != nil {
		return artifact.Ref{}, err
	}
	defer f.Close()
	return store.Put(ctx, key, f, progress)
}

// putManifest stores v as the manifest that makes the objects below prefix real.
func putManifest(ctx context.Context, store artifact.Store, prefix string, v any) (artifact.Ref, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return artifact.Ref{}, fmt.Errorf("manifest: %w", err)
	}
	return store.PutIfAbsent(ctx, prefix+"/manifest.json", body)
}

// maxManifest bounds what is read of a manifest.
const maxManifest = 16 << 20

// getManifest reads the manifest that ref names.
func getManifest[T any](ctx context.Context, store artifact.Store, ref artifact.Ref) (T, error) {
	var v T
	r, err := store.Open(ctx, ref)
	if err != nil {
		return v, fmt.Errorf("manifest %s: %w", ref.URI, err)
	}
	defer r.Close()
	body, err := io.ReadAll(io.LimitReader(r, maxManifest))
	if err != nil {
		return v, fmt.Errorf("manifest %s: %w", ref.URI, err)
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return v, fmt.Errorf("manifest %s: %w: %w", ref.URI, artifact.ErrCorrupt, err)
	}
	return v, nil
}

// materialize brings the files of a model folder to local disk and returns the folder. It is keyed by the manifest's
// digest, so that it is downloaded once a worker. Scratch is on the same file system.
func materialize(ctx context.Context, store artifact.Store, cacheDir, scratch string, ref artifact.Ref) (string, error) {
	dir := filepath.Join(cacheDir, "models", ref.SHA256)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	folder, err := getManifest[Folder](ctx, store, ref)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(cmp.Or(scratch, cacheDir), "partial-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	for name, file := range folder.Files {
		path, err := artifact.Fetch(ctx, store, file, filepath.Join(cacheDir, Objects))
		if err != nil {
			return "", fmt.Errorf("base model file %s: %w", name, err)
		}
		if err := os.Link(path, filepath.Join(temp, name)); err != nil {
			return "", err
		}
	}
	if err := os.Rename(temp, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return dir, nil
}
