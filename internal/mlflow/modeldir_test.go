package mlflow_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	yaml "go.yaml.in/yaml/v3"

	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/recipe"
)

// The differences between a directory of ours and the one that Python's log_model leaves for the same model and the
// tutorial's arguments, by field, each with its reason. Any other difference fails, and so does one that is gone.
var (
	fieldReasons = map[string]string{
		"MLmodel:artifact_path":                        "identity: each is its own logged model",
		"MLmodel:model_id":                             "identity",
		"MLmodel:model_uuid":                           "identity",
		"MLmodel:run_id":                               "identity",
		"MLmodel:utc_time_created":                     "when it was made",
		"MLmodel:model_size_bytes":                     "two more tokenizer files; the test's weights are a stand-in",
		"MLmodel:flavors.transformers.tokenizer_type":  "the Fast name loads in every transformers from 4.41 to 5; Python 5's own name fails in 4.x without vocab.txt",
		"conda.yaml:dependencies":                      "pip unpinned: any pip will do",
		"conda.yaml:dependencies.2.pip":                "ranges rather than pins: a pin warns of a mismatch in every other environment",
		"python_env.yaml:build_dependencies":           "unpinned: any pip, setuptools and wheel will do",
		"components/tokenizer/special_tokens_map.json": "transformers 4.x reads it; 5 no longer writes it",
		"components/tokenizer/vocab.txt":               "slow tokenizers of transformers 4.x read it (WordPiece only)",
		"requirements.txt":                             "ranges, and only what loading needs, rather than pins of all that was imported",
	}
	goldenReasons = map[string]string{
		"MLmodel:flavors.transformers.transformers_version": "another version of the peer",
		"MLmodel:signature.params":                          "the tutorial passes params=model_config to infer_signature; the golden did not",
		"conda.yaml:dependencies.2.pip":                     "ranges rather than pins",
		"requirements.txt":                                  "ranges rather than pins",
		"input_example.json":                                "Python's separators",
	}
)

// texts are the tutorial's input example.
var texts = recipe.Texts("Pass in a string", "And have it mark as spam or not.")

// weightsFile is a stand-in for weights; a model directory only carries them.
func weightsFile(t *testing.T) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "model.safetensors")
	if err := os.WriteFile(p, []byte("weights"), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestModelDirLikePython compares with what internal/py/mlflow/interop.py recorded.
func TestModelDirLikePython(t *testing.T) {
	for _, arch := range []string{"distilbert", "bert", "roberta"} {
		t.Run(arch, func(t *testing.T) {
			python := filepath.Join("testdata", "python", arch)
			ours := t.TempDir()
			spec := dirSpec(t, python)
			if err := mlflow.WriteModelDir(ours, spec); err != nil {
				t.Fatal(err)
			}
			if err := mlflow.WriteModelDir(ours, spec); err != nil {
				t.Errorf("over an earlier attempt: %v", err)
			}
			want, got := fields(t, python), fields(t, ours)
			delete(got, "model/model.safetensors") // not recorded
			allowed := map[string]bool{}
			for name := range fieldReasons {
				allowed[name] = arch != "roberta" || !strings.HasSuffix(name, "vocab.txt")
			}
			compare(t, want, got, allowed)
		})
	}
}

// dirSpec reads config and tokenizer of a recorded directory.
func dirSpec(t *testing.T, dir string) mlflow.DirSpec {
	t.Helper()
	config, err := os.ReadFile(filepath.Join(dir, "model", "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	return mlflow.DirSpec{
		ModelID: "m-0123", RunID: "4567", ArtifactURI: "mlflow-artifacts:/1/models/m-0123/artifacts",
		Created: time.Date(2026, 11, 25, 10, 23, 55, 390_070_000, time.UTC), Config: config, Weights: weightsFile(t),
		TokenizerDir: filepath.Join(dir, "components", "tokenizer"), Signature: mlflow.TextClassification(false, 8), BatchSize: 8, InputExample: texts,
	}
}

// TestModelDirLikeGolden compares with a directory that was loaded by three versions of transformers.
func TestModelDirLikeGolden(t *testing.T) {
	golden := filepath.Join("..", "..", "..", "shared", "data", "mlflow", "golden_model", "model_dir")
	if _, err := os.Stat(golden); err != nil {
		t.Skipf("shared: %s not found", golden)
	}
	spec := dirSpec(t, golden)
	spec.ModelID, spec.RunID = "m-0b615266ea22449b8f06da910e63d55c", "b4a17a744fdf409fae65c6de572887b5"
	spec.ArtifactURI = "mlflow-artifacts:/20/models/m-0b615266ea22449b8f06da910e63d55c/artifacts"
	spec.Created = time.Date(2026, 11, 25, 10, 57, 3, 910_725_000, time.UTC)
	spec.Weights = filepath.Join(golden, "model", "model.safetensors")
	spec.InputExample = recipe.Texts("win free cash now", "see you at lunch")
	ours := t.TempDir()
	if err := mlflow.WriteModelDir(ours, spec); err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{"MLmodel:model_size_bytes": true} // one space in input_example.json
	for name := range goldenReasons {
		allowed[name] = true
	}
	compare(t, fields(t, golden), fields(t, ours), allowed)
}

// compare fails on differences that are not allowed, and on allowed ones that do not exist.
func compare(t *testing.T, want, got map[string]string, allowed map[string]bool) {
	t.Helper()
	for name := range union(want, got) {
		if want[name] != got[name] && !allowed[name] {
			t.Errorf("%s:\n Python %q\n ours   %q", name, want[name], got[name])
		}
	}
	for name, ok := range allowed {
		if ok && want[name] == got[name] {
			t.Errorf("%s: is listed as a difference and is none", name)
		}
	}
}

func union(a, b map[string]string) map[string]bool {
	out := map[string]bool{}
	for k := range a {
		out[k] = true
	}
	for k := range b {
		out[k] = true
	}
	return out
}

// fields flattens a model directory: YAML files by field, JSON files of the tokenizer by content, others as they are.
func fields(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		switch {
		case filepath.Ext(name) == ".yaml" || name == "MLmodel":
			var v any
			err = yaml.Unmarshal(data, &v)
			flatten(out, name+":", v)
		case strings.HasPrefix(name, "components") && filepath.Ext(name) == ".json":
			var v any
			err = yaml.Unmarshal(data, &v) // JSON is YAML
			out[name] = fmt.Sprint(v)      // maps print sorted
		default:
			out[name] = string(data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func flatten(out map[string]string, prefix string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, item := range v {
			flatten(out, prefix+k+".", item)
		}
	case []any:
		for i, item := range v {
			if _, deeper := item.(map[string]any); !deeper {
				out[strings.TrimSuffix(prefix, ".")] += fmt.Sprintf("%v, ", item)
				continue
			}
			flatten(out, fmt.Sprintf("%s%d.", prefix, i), item)
		}
	default:
		prefix = strings.TrimSuffix(prefix, ".")
		out[prefix] = fmt.Sprintf("%T %v", v, v)
	}
}

// TestModelDirText pins the layout of MLmodel as PyYAML has it: sorted keys, lists not indented.
func TestModelDirText(t *testing.T) {
	dir := t.TempDir()
	spec := dirSpec(t, filepath.Join("testdata", "python", "distilbert"))
	if err := mlflow.WriteModelDir(dir, spec); err != nil {
		t.Fatal(err)
	}
	ours, err := os.ReadFile(filepath.Join(dir, "MLmodel"))
	if err != nil {
		t.Fatal(err)
	}
	python, err := os.ReadFile(filepath.Join("testdata", "python", "distilbert", "MLmodel"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(keys(python), keys(ours)); diff != "" {
		t.Errorf("order and indentation of keys (-Python +ours):\n%s", diff)
	}
}

// keys returns each line up to its colon; PyYAML folds long values, which carry none.
func keys(b []byte) []string {
	var out []string
	for line := range bytes.Lines(b) {
		if key, _, ok := strings.Cut(string(line), ":"); ok && !strings.Contains(key, `"`) {
			out = append(out, key)
		} else if strings.HasPrefix(strings.TrimSpace(string(line)), "- ") {
			out = append(out, string(line))
		}
	}
	return out
}

// TestModelDirRefused names what is wrong with the parts.
func TestModelDirRefused(t *testing.T) {
	good := dirSpec(t, filepath.Join("testdata", "python", "bert"))
	for _, test := range []struct {
		name   string
		change func(*mlflow.DirSpec)
		want   string
	}{
		{"config", func(s *mlflow.DirSpec) { s.Config = []byte("{") }, "config.json"},
		{"architecture", func(s *mlflow.DirSpec) {
			s.Config = []byte(`{"architectures": ["BertForMaskedLM"], "id2label": {"0": "a"}}`)
		}, "BertForMaskedLM"},
		{"labels", func(s *mlflow.DirSpec) { s.Config = []byte(`{"architectures": ["BertForSequenceClassification"]}`) }, "id2label"},
		{"weights", func(s *mlflow.DirSpec) { s.Weights = "/nowhere" }, "/nowhere"},
		{"tokenizer", func(s *mlflow.DirSpec) { s.TokenizerDir = t.TempDir() }, "tokenizer.json"},
		{"signature", func(s *mlflow.DirSpec) { s.Signature.Params = []mlflow.ParamSpec{{Default: func() {}}} }, "signature params"},
	} {
		t.Run(test.name, func(t *testing.T) {
			spec := good
			test.change(&spec)
			if err := mlflow.WriteModelDir(t.TempDir(), spec); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
	if err := mlflow.WriteModelDir(filepath.Join(weightsFile(t), "x"), good); err == nil {
		t.Error("a folder that cannot be made: no error")
	}
}

// TestModelDirTokenizerWithoutConfig fills what the base model lacks.
func TestModelDirTokenizerWithoutConfig(t *testing.T) {
	spec := dirSpec(t, filepath.Join("testdata", "python", "bert"))
	raw, err := os.ReadFile(filepath.Join(spec.TokenizerDir, "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	spec.TokenizerDir, spec.MaxLength = t.TempDir(), 128
	if err := os.WriteFile(filepath.Join(spec.TokenizerDir, "tokenizer.json"), raw, 0o644); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := mlflow.WriteModelDir(dir, spec); err != nil {
		t.Fatal(err)
	}
	got := fields(t, dir)
	if want := "map[model_max_length:128 tokenizer_class:BertTokenizer]"; got["components/tokenizer/tokenizer_config.json"] != want {
		t.Errorf("got %s, want %s", got["components/tokenizer/tokenizer_config.json"], want)
	}
	if !strings.HasPrefix(got["components/tokenizer/vocab.txt"], "[PAD]\n[UNK]\n[CLS]\n") {
		t.Errorf("vocab.txt: %.40q", got["components/tokenizer/vocab.txt"])
	}
}

// TestModelDirOddTexts writes examples that JSON and YAML must escape.
func TestModelDirOddTexts(t *testing.T) {
	spec := dirSpec(t, filepath.Join("testdata", "python", "bert"))
	spec.InputExample = append(recipe.Texts(`"quoted", a: b`, "é 日 🙂 <&>", "line\nbreak"), recipe.Text{Text: "first <", Pair: `"second"`})
	dir := t.TempDir()
	if err := mlflow.WriteModelDir(dir, spec); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "input_example.json"))
	// As json.dumps gives it.
	want := `["\"quoted\", a: b", "\u00e9 \u65e5 \ud83d\ude42 <&>", "line\nbreak", {"text": "first <", "text_pair": "\"second\""}]`
	if string(got) != want || err != nil {
		t.Errorf("got  %s\nwant %s (%v)", got, want, err)
	}
}
