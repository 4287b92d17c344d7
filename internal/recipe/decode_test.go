package recipe

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// minimal holds what is required and nothing else.
const minimal = `{"name": "n", "data": {"source": "file:d.csv", "labels": ["ham", "spam"]}, "model": {"base": "file:m"}}`

// with sets a key of minimal, given as a path, to a JSON value.
func with(t *testing.T, path, value string) []byte {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal([]byte(minimal), &doc); err != nil {
		t.Fatal(err)
	}
	at := doc
	keys := strings.Split(path, ".")
	for _, k := range keys[:len(keys)-1] {
		if _, ok := at[k]; !ok {
			at[k] = map[string]any{}
		}
		at = at[k].(map[string]any)
	}
	at[keys[len(keys)-1]] = json.RawMessage(value)
	body, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestDecodeFillsDefaults(t *testing.T) {
	got, err := Decode([]byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	want := Defaults()
	want.Name, want.Data.Source, want.Model.Base = "n", "file:d.csv", "file:m"
	want.Data.Labels = []string{"ham", "spam"}
	want.Signature.InputExample = Texts("This is a test!", "And this is also a test.")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Zero is a value where it means something: it must not be taken for "left out".
func TestDecodeKeepsZero(t *testing.T) {
	got, err := Decode(with(t, "train", `{"max_grad_norm": 0, "adam_beta1": 0, "seed": 0}`))
	if err != nil {
		t.Fatal(err)
	}
	if got.Train.MaxGradNorm != 0 || got.Train.AdamBeta1 != 0 || got.Train.Seed != 0 || got.Train.AdamBeta2 != 0.999 {
		t.Errorf("train %+v", got.Train)
	}
}

func TestFrozenIsStable(t *testing.T) {
	first, err := Decode(with(t, "load_test.max_p99", `"1h30m"`))
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(first)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Decode(body)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, second); diff != "" {
		t.Error(diff)
	}
	a, errA := first.Digest()
	b, errB := second.Digest()
	if a != b || len(a) != 64 || errA != nil || errB != nil {
		t.Errorf("digests %s, %s, %v, %v", a, b, errA, errB)
	}
	if first.LoadTest.MaxP99 != Duration(90*time.Minute) {
		t.Errorf("max_p99 %v", first.LoadTest.MaxP99)
	}
}

func TestDecodeReportsEverything(t *testing.T) {
	_, err := Decode([]byte(`{
		"name": "two words", "Experiment": "x", "epochs": 2,
		"data": {"source": 7, "labels": ["ham", "ham", ""], "test_fraction": 1, "text": null},
		"model": "file:m",
		"tokenizer": {"max_length": 1.5, "max_length": 64},
		"train": {"learning_rat": 1, "learning_rate": -1, "epochs": "3", "warmup": 1, "precision": "fp16"},
		"examples": [{"text": "a", "label": "ham"}, {"text": "", "label": "spam", "weight": 1}],
		"load_test": {"max_p99": 250, "duration": "ten"},
		"zebra": {}
	}`))
	want := []string{
		"Experiment: unknown key, did you mean experiment?",
		"epochs: unknown key, did you mean train.epochs?",
		"data.source: got number 7, want string",
		"data.text: got null, want string",
		`model: got string "file:m", want object`,
		"tokenizer.max_length: got 1.5, want an integer of 64 bits",
		"tokenizer.max_length: the key twice",
		"train.learning_rat: unknown key, did you mean learning_rate?",
		`train.epochs: got string "3", want number`,
		"train.warmup: unknown key, known are epochs, batch_size, eval_batch_size, gradient_accumulation_steps, learning_rate, schedule, warmup_steps, " +
			"warmup_ratio, weight_decay, adam_beta1, adam_beta2, adam_epsilon, max_grad_norm, label_smoothing, logging_steps, precision, seed",
		"examples[1].weight: unknown key, known are text, text_pair, label",
		`load_test.max_p99: got 250, want a duration such as "90s" or "1h30m"`,
		`load_test.duration: got "ten", want a duration such as "90s" or "1h30m"`,
		"zebra: unknown key, known are name, experiment, data, model, tokenizer, train, selection, examples, signature, tracking, load_test, checkpoint, limits, resume_from",
		`name: got "two words", want 1 to 100 letters, digits, '.', '_' and '-'`,
		`data.labels[1]: got "ham", want each label once`,
		`data.labels[2]: got "", want 1 to 250 printable characters`,
		"data.test_fraction: got 1, want more than 0 and less than 1",
		"train.learning_rate: got -1, want > 0 and <= 1",
		`train.precision: got "fp16", want auto, fp32, tf32 or bf16`,
		`examples[1].text: got "", want a text`,
		`examples[1].label: got "spam", want one of data.labels`,
	}
	problems, ok := errors.AsType[Problems](err)
	if !ok {
		t.Fatalf("%T: %v", err, err)
	}
	var got []string
	for _, p := range problems {
		got = append(got, p.Error())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if text := err.Error(); !strings.HasPrefix(text, "invalid recipe, 22 problems:\n  Experiment: ") {
		t.Error(text)
	}
	if first, ok := errors.AsType[*Problem](err); !ok || first != problems[0] {
		t.Errorf("errors.As found %v", first)
	}
}

func TestDecodeRefusesDocuments(t *testing.T) {
	for name, tc := range map[string]struct{ doc, want string }{
		"empty":     {"", "invalid recipe: not JSON at line 1, column 1: EOF"},
		"array":     {"[]", "invalid recipe: got array, want object"},
		"null":      {"null", "invalid recipe: got null, want object"},
		"syntax":    {"{\"name\": \"n\",\n  \"data\" {}}", "invalid recipe: not JSON at line 2, column 10: invalid character '{' after object key"},
		"cut off":   {`{"name": "n"`, "invalid recipe: not JSON at line 1, column 12: unexpected EOF"},
		"comment":   {"{ // a comment\n}", "invalid recipe: not JSON at line 1, column 3: invalid character '/' looking for beginning of object key string"},
		"trailing":  {minimal + "\n{}", "invalid recipe: more text after the closing brace at line 2, column 1"},
		"not UTF-8": {"{\"name\": \"\xff\"}", "invalid recipe: got bytes that are not UTF-8, want a JSON object"},
		"too large": {strings.Repeat(" ", 1<<20+1), "invalid recipe: got 1048577 bytes, want at most 1048576"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Decode([]byte(tc.doc)); err == nil || err.Error() != tc.want {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
		})
	}
}

// The recipes that ship with the project decode; sms-spam is the tutorial to the letter.
func TestShippedRecipes(t *testing.T) {
	files, err := filepath.Glob("../../workflows/recipes/*.json")
	if err != nil || len(files) < 3 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Decode(body)
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if name := strings.TrimSuffix(filepath.Base(file), ".json"); r.Name != name {
			t.Errorf("%s: name %q", file, r.Name)
		}
	}
}

func TestTutorialRecipe(t *testing.T) {
	body, err := os.ReadFile("../../workflows/recipes/sms-spam.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(body)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Examples) != 2 || got.Examples[0].Label != "ham" || got.Examples[1].Label != "spam" {
		t.Errorf("examples %+v", got.Examples)
	}
	got.Examples = nil
	want := Recipe{
		Name: "sms-spam", Experiment: "Spam Classifier Training",
		Data: Data{Source: "hf://ucirvine/sms_spam", Format: "auto", Text: "sms", Label: "label", Labels: []string{"ham", "spam"},
			TestFraction: 0.2, SplitSeed: 42, ShuffleSeed: 22, CSV: Defaults().Data.CSV, Split: Defaults().Data.Split, Rows: Defaults().Data.Rows},
		Model:     Model{Base: "hf://distilbert/distilbert-base-uncased", Revision: "main"},
		Tokenizer: Tokenizer{MaxLength: 128, Padding: "max_length"},
		Train: Train{Epochs: 3, BatchSize: 8, EvalBatchSize: 8, GradientAccumulationSteps: 1, LearningRate: 5e-5, Schedule: "linear",
			AdamBeta1: 0.9, AdamBeta2: 0.999, AdamEpsilon: 1e-8, MaxGradNorm: 1, LoggingSteps: 8, Precision: "auto", Seed: 42},
		Signature: Signature{Inputs: Texts("This is a test!", "And this is also a test."),
			InputExample: Texts("Pass in a string", "And have it mark as spam or not."), ModelConfig: ModelConfig{BatchSize: 8}},
		Tracking:   Tracking{ModelName: "fine_tuned", RegisteredModel: "sms-spam", Alias: "champion", PromoteIf: "passed", MaxP: 1},
		LoadTest:   LoadTest{RatePerSecond: 50, Duration: Duration(10 * time.Second), MaxP99: Duration(250 * time.Millisecond)},
		Checkpoint: Checkpoint{Keep: 1},
		Limits:     Limits{MaxWallTime: Duration(6 * time.Hour), MaxStepTime: Duration(time.Minute)},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// FuzzDecode holds Decode to its promises: no panic, typed errors, and what it accepts is a fixed point.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte(`{"train": {"learning_rate": 1e999, "epochs": 1e2}, "examples": [{}, null], "data": {"labels": [1]}}`))
	f.Add([]byte(`{"":"","a.b":1,"data":{"source":"file:%zz"}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := Decode(raw)
		if err != nil {
			problems, ok := errors.AsType[Problems](err)
			if !ok || len(problems) == 0 {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		body, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Decode(body)
		if diff := cmp.Diff(r, again); err != nil || diff != "" {
			t.Fatal(err, diff)
		}
	})
}

// TestDecodeWithoutLabels: a frozen recipe without labels is a recipe.
func TestDecodeWithoutLabels(t *testing.T) {
	r, err := Decode([]byte(`{"name": "n", "data": {"source": "file:d.csv"}, "model": {"base": "file:m"}, "examples": [{"text": "a", "label": "any"}]}`))
	if err != nil || len(r.Data.Labels) != 0 {
		t.Fatalf("%q, %v", r.Data.Labels, err)
	}
	frozen, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Decode(frozen)
	if diff := cmp.Diff(r, again); diff != "" || err != nil {
		t.Errorf("%v: %s", err, diff)
	}
}
