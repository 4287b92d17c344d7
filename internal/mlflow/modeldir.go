package mlflow

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v3"

	"github.com/duratune/duratune/internal/recipe"
)

// Versions that the model directory states. The exact ones describe what the format was checked against; the ranges
// are what an environment must hold, and give no "mismatch" warning in any that does.
const (
	mlflowVersion       = "3.17.2"
	transformersVersion = "5.17.0"
	pythonVersion       = "3.11.7"
)

// requirements of a model, one a line.
var requirements = []string{"mlflow>=3,<4", "torch>=2", "transformers>=4.41"}

// tokenizerClass maps the architectures that can be written to the tokenizer class that every transformers version
// from 4.41 to 5 knows (5 has the Fast names as aliases; without them 4.x needs a vocab.txt).
var tokenizerClass = map[string]string{
	"DistilBertForSequenceClassification": "DistilBertTokenizerFast",
	"BertForSequenceClassification":       "BertTokenizerFast",
	"RobertaForSequenceClassification":    "RobertaTokenizerFast",
}

// DirSpec is what a model directory is made of.
type DirSpec struct {
	ModelID     string    // of the logged model
	RunID       string    // of its run
	ArtifactURI string    // of the logged model
	Created     time.Time // equal in every attempt
	BaseModel   string    // name_or_path of the base model, e.g. distilbert/distilbert-base-uncased; may be empty

	Config       []byte // config.json, with architectures and id2label; written as it is
	Weights      string // path of model.safetensors, header metadata {"format":"pt"}; linked or copied
	TokenizerDir string // folder with tokenizer.json, and tokenizer_config.json, vocab.txt, … where there are
	MaxLength    int    // model_max_length, where tokenizer_config.json has none

	Signature    Signature
	BatchSize    int // model_config {"batch_size": …} of the pyfunc flavor; 0: no config
	InputExample []recipe.Text
	License      string // LICENSE.txt; "" writes the note that Python writes when it found none
	ModelCard    []byte // model_card.md; may be empty
}

// WriteModelDir writes the folder that mlflow.transformers and mlflow.pyfunc (MLflow 3, transformers 4.41 to 5) load.
// dir must be empty or hold an earlier attempt.
func WriteModelDir(dir string, spec DirSpec) error {
	w := dirWriter{dir: dir}
	arch, err := architecture(spec.Config)
	if err != nil {
		return err
	}
	w.file("model/config.json", spec.Config)
	w.link("model/model.safetensors", spec.Weights)
	w.tokenizer(spec, arch)
	w.examples(spec.InputExample)
	w.file("LICENSE.txt", []byte(cmp.Or(spec.License, noLicense(spec.BaseModel))))
	if len(spec.ModelCard) > 0 {
		w.file("model_card.md", spec.ModelCard)
	}
	// As in Python, model_size_bytes is what was written before MLmodel and the environment files.
	size := w.size
	w.environment()
	w.mlmodel(spec, arch, size)
	return w.err
}

// architecture returns config.json's class name, if it is one that can be written. Labels must be named: without
// id2label every loader says LABEL_0.
func architecture(config []byte) (string, error) {
	var c struct {
		Architectures []string          `json:"architectures"`
		ID2Label      map[string]string `json:"id2label"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return "", fmt.Errorf("model directory: config.json: %w", err)
	}
	if len(c.Architectures) != 1 || tokenizerClass[c.Architectures[0]] == "" {
		return "", fmt.Errorf("model directory: config.json: architectures: got %q, want one of DistilBertForSequenceClassification, "+
			"BertForSequenceClassification, RobertaForSequenceClassification", c.Architectures)
	}
	if len(c.ID2Label) == 0 {
		return "", errors.New("model directory: config.json: id2label is missing")
	}
	return c.Architectures[0], nil
}

// dirWriter writes files below dir until the first error.
type dirWriter struct {
	dir  string
	size int64 // bytes of all files so far
	err  error
}

func (w *dirWriter) path(name string) string {
	p := filepath.Join(w.dir, filepath.FromSlash(name))
	if w.err == nil {
		w.err = os.MkdirAll(filepath.Dir(p), 0o755)
	}
	return p
}

func (w *dirWriter) file(name string, data []byte) {
	p := w.path(name)
	if w.err == nil {
		w.err = os.WriteFile(p, data, 0o644)
		w.size += int64(len(data))
	}
}

// link hard-links a large file, or copies it where that cannot be done.
func (w *dirWriter) link(name, source string) {
	p := w.path(name)
	if w.err != nil {
		return
	}
	if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.err = err
		return
	}
	if os.Link(source, p) != nil {
		w.err = copyFile(p, source)
	}
	if w.err == nil {
		info, err := os.Stat(p)
		if err == nil {
			w.size += info.Size()
		}
		w.err = err
	}
}

func copyFile(dst, src string) error {
	r, err := os.Open(src)
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := os.Create(dst)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// json writes v indented by two spaces, as Hugging Face and MLflow do.
func (w *dirWriter) json(name string, v any, end string) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil && w.err == nil {
		w.err = fmt.Errorf("model directory: %s: %w", name, err)
	}
	w.file(name, []byte(strings.TrimSuffix(b.String(), "\n")+end))
}

// yaml writes v with sorted keys, laid out as PyYAML does.
func (w *dirWriter) yaml(name string, v any) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	enc.CompactSeqIndent()
	if err := errors.Join(enc.Encode(v), enc.Close()); err != nil && w.err == nil {
		w.err = fmt.Errorf("model directory: %s: %w", name, err)
	}
	w.file(name, b.Bytes())
}

// examples writes the input example in both forms.
func (w *dirWriter) examples(texts []recipe.Text) {
	text, err := pythonJSON(texts)
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("model directory: input example: %w", err)
	}
	w.file("input_example.json", text)
	w.json("serving_input_example.json", map[string]any{"inputs": texts}, "")
}

// environment writes the three files that rebuild an environment.
func (w *dirWriter) environment() {
	w.file("requirements.txt", []byte(strings.Join(requirements, "\n")))
	w.yaml("conda.yaml", map[string]any{
		"name": "mlflow-env", "channels": []string{"conda-forge"},
		"dependencies": []any{"python=" + pythonVersion, "pip", map[string]any{"pip": requirements}},
	})
	w.file("python_env.yaml", []byte("python: "+pythonVersion+"\nbuild_dependencies:\n- pip\n- setuptools\n- wheel\ndependencies:\n- -r requirements.txt\n"))
}

// mlmodel writes the file that makes the folder a model.
func (w *dirWriter) mlmodel(spec DirSpec, arch string, size int64) {
	signature, err := spec.Signature.fields()
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("model directory: %w", err)
	}
	pyfunc := map[string]any{
		"env":           map[string]any{"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
		"loader_module": "mlflow.transformers", "python_version": pythonVersion,
	}
	if spec.BatchSize > 0 {
		pyfunc["config"] = map[string]any{"batch_size": spec.BatchSize}
	}
	transformers := map[string]any{
		"code": nil, "components": []string{"tokenizer"}, "instance_type": "TextClassificationPipeline", "model_binary": "model",
		"pipeline_model_type": arch, "source_model_name": spec.BaseModel, "task": "text-classification",
		"tokenizer_type": tokenizerClass[arch], "torch_dtype": "torch.float32", "transformers_version": transformersVersion,
	}
	w.yaml("MLmodel", map[string]any{
		"artifact_path": spec.ArtifactURI, "flavors": map[string]any{"python_function": pyfunc, "transformers": transformers},
		"is_signature_from_type_hint": false, "mlflow_version": mlflowVersion, "model_id": spec.ModelID, "model_size_bytes": size,
		"model_uuid": spec.ModelID, "prompts": nil, "run_id": spec.RunID,
		"saved_input_example_info": map[string]any{
			"artifact_path": "input_example.json", "serving_input_path": "serving_input_example.json", "type": "json_object",
		},
		"signature": signature, "type_hint_from_example": false,
		"utc_time_created": spec.Created.UTC().Format("2006-01-02 15:04:05.000000"),
	})
}

// noLicense is the note that Python leaves when it finds no licence.
func noLicense(base string) string {
	return "A license file could not be found for the '" + base + "' repository. \n" +
		"To ensure that you are in compliance with the license requirements for this model, please visit the model repository here: https://huggingface.co/" + base
}

// tokenizer copies the base model's tokenizer files and makes those that old readers need and that it lacks.
func (w *dirWriter) tokenizer(spec DirSpec, arch string) {
	const to = "components/tokenizer/"
	raw, err := os.ReadFile(filepath.Join(spec.TokenizerDir, "tokenizer.json"))
	if err != nil {
		// Without it transformers 5 loads the model all the same, and predicts something else.
		w.err = cmp.Or(w.err, fmt.Errorf("model directory: %w", err))
		return
	}
	w.file(to+"tokenizer.json", raw)
	config := map[string]any{}
	if err := w.optional(spec.TokenizerDir, "tokenizer_config.json", &config); err != nil {
		w.err = cmp.Or(w.err, err)
		return
	}
	special := specialTokens(config)
	if config["model_max_length"] == nil && spec.MaxLength > 0 {
		config["model_max_length"] = spec.MaxLength
	}
	if config["tokenizer_class"] == nil {
		config["tokenizer_class"] = strings.TrimSuffix(tokenizerClass[arch], "Fast")
	}
	w.json(to+"tokenizer_config.json", config, "\n")
	w.json(to+"special_tokens_map.json", special, "\n")
	for _, name := range []string{"vocab.txt", "vocab.json", "merges.txt"} {
		data, err := os.ReadFile(filepath.Join(spec.TokenizerDir, name))
		switch {
		case err == nil:
			w.file(to+name, data)
		case !errors.Is(err, fs.ErrNotExist):
			w.err = cmp.Or(w.err, fmt.Errorf("model directory: %w", err))
		case name == "vocab.txt":
			w.vocab(to+name, raw)
		}
	}
}

// optional decodes a JSON file that may be missing.
func (w *dirWriter) optional(dir, name string, into any) error {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.UseNumber() // model_max_length may be 1e30
		err = dec.Decode(into)
	}
	if err != nil {
		return fmt.Errorf("model directory: tokenizer: %s: %w", name, err)
	}
	return nil
}

// specialTokens picks the *_token entries; a token may be a string or an object with its content.
func specialTokens(config map[string]any) map[string]any {
	out := map[string]any{}
	for _, name := range []string{"bos_token", "cls_token", "eos_token", "mask_token", "pad_token", "sep_token", "unk_token"} {
		if v := config[name]; v != nil {
			out[name] = v
		}
	}
	return out
}

// vocab writes a WordPiece vocabulary one token a line; for other models there is nothing to write.
func (w *dirWriter) vocab(name string, tokenizer []byte) {
	var t struct {
		Model struct {
			Type  string          `json:"type"`
			Vocab json.RawMessage `json:"vocab"`
		} `json:"model"`
	}
	var ids map[string]int
	if json.Unmarshal(tokenizer, &t) != nil || t.Model.Type != "WordPiece" || json.Unmarshal(t.Model.Vocab, &ids) != nil {
		return
	}
	tokens := make([]string, 0, len(ids))
	for token := range ids {
		tokens = append(tokens, token)
	}
	slices.SortFunc(tokens, func(a, b string) int { return cmp.Compare(ids[a], ids[b]) })
	w.file(name, []byte(strings.Join(tokens, "\n")+"\n"))
}
