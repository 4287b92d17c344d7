package model

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// harmless are the fields of transformers' configurations that do not change what a classifier computes here.
var harmless = map[string]string{
	"_name_or_path": "says where it came from", "architectures": "says which classes saved it", "transformers_version": "says who wrote it",
	"id2label": "the recipe names the labels", "label2id": "the recipe names the labels",
	"dtype":             "how weights are stored, which the file says itself; the recipe's precision decides how they are computed with",
	"output_attentions": "what forward returns", "output_hidden_states": "what forward returns", "return_dict": "what forward returns",
	"use_cache": "of decoders", "bos_token_id": "of generation", "eos_token_id": "of generation",
	"tie_word_embeddings":     "of models that predict tokens",
	"chunk_size_feed_forward": "computes the same in pieces",
	"qa_dropout":              "of the head that answers questions",
	"sinusoidal_pos_embds":    "how a new model's position table is drawn; it is in the file, and trained, like any other",
}

// ask runs a script by the peers' Python and decodes the JSON that it prints.
func ask(t *testing.T, into any, script string, args ...string) {
	t.Helper()
	python := os.Getenv("DURATUNE_PEERS")
	if python == "" {
		t.Skip("peers: DURATUNE_PEERS not set")
	}
	out, err := exec.CommandContext(t.Context(), python, append([]string{"-c", script}, args...)...).Output()
	if err == nil {
		err = json.Unmarshal(out, into)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestEveryFieldIsKnown: each field that transformers' configurations have is read, or is known not to matter.
func TestEveryFieldIsKnown(t *testing.T) {
	var fields map[string][]string
	ask(t, &fields, `import json, transformers as t
print(json.dumps({c.model_type: sorted(c().to_dict()) for c in (t.DistilBertConfig, t.BertConfig, t.RobertaConfig)}))`)
	read := map[string]bool{}
	for f := range reflect.TypeFor[file]().Fields() {
		read[strings.Split(f.Tag.Get("json"), ",")[0]] = true
	}
	n := 0
	for _, arch := range []string{DistilBERT, BERT, RoBERTa} {
		for _, name := range fields[arch] {
			n++
			if known := harmless[name]; !read[name] && known == "" || read[name] && known != "" {
				t.Errorf("%s: field %s is read: %v, harmless: %q; want one of them", arch, name, read[name], known)
			}
		}
	}
	if n < 60 {
		t.Errorf("transformers' configurations have %d fields, want at least 60: %v", n, fields)
	}
}

// TestTotalFLOsAreTrainers: a training by Trainer logs total_flos; ours is 6 × padded tokens × the weights that the layout
// counts. Eleven rows of up to eight tokens, two epochs, batches of four.
func TestTotalFLOsAreTrainers(t *testing.T) {
	var logged map[string]float64
	dir := t.TempDir()
	ask(t, &logged, `import contextlib, json, sys, transformers as t
size = dict(vocab_size=30, max_position_embeddings=12, num_labels=3)
bert = dict(size, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2)
rows = [dict(input_ids=[3] * 8, attention_mask=[1] * 8, labels=i % 3) for i in range(11)]
out = {}
with contextlib.redirect_stdout(sys.stderr):
    for config in (t.DistilBertConfig(**size, dim=8, hidden_dim=12, n_layers=2, n_heads=2), t.BertConfig(**bert), t.RobertaConfig(**bert)):
        config.save_pretrained(sys.argv[1] + "/" + config.model_type)
        args = t.TrainingArguments(output_dir=sys.argv[1], num_train_epochs=2, per_device_train_batch_size=4, report_to=[], use_cpu=True, save_strategy="no", logging_strategy="no")
        trainer = t.Trainer(model=t.AutoModelForSequenceClassification.from_config(config), args=args, train_dataset=rows)
        out[config.model_type] = trainer.train().metrics["total_flos"]
print(json.dumps(out))`, dir)
	for _, arch := range []string{DistilBERT, BERT, RoBERTa} {
		config, err := ReadConfig(filepath.Join(dir, arch))
		if err != nil {
			t.Fatal(err)
		}
		if got := 6 * float64(2*11*8) * float64(NewLayout(config, 3).Parameters()); got != logged[arch] || got == 0 {
			t.Errorf("%s: %.0f floating-point operations, Trainer says %.0f", arch, got, logged[arch])
		}
	}
}

// saveBases saves what people fine-tune, in each architecture: the bare model and the one that predicts masked tokens. It
// prints what transformers finds missing and unexpected when it makes a classifier of them.
const saveBases = `import json, pathlib, sys, transformers as t
size = dict(vocab_size=30, max_position_embeddings=12)
bert = dict(size, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2)
configs = [t.DistilBertConfig(**size, dim=8, hidden_dim=12, n_layers=2, n_heads=2), t.BertConfig(**bert), t.RobertaConfig(**bert)]
out = {}
for config in configs:
    for kind in (t.AutoModel, t.AutoModelForMaskedLM):
        folder = pathlib.Path(sys.argv[1]) / f"{config.model_type}-{kind.__name__}"
        kind.from_config(config).save_pretrained(folder)
        info = t.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3, output_loading_info=True)[1]
        out[folder.name] = dict(Drawn=sorted(info["missing_keys"]), Dropped=sorted(info["unexpected_keys"]))
print(json.dumps(out))`

// TestBasesLoadAsInTransformers: what is drawn anew and what is dropped of a base model are what transformers names.
func TestBasesLoadAsInTransformers(t *testing.T) {
	dir := t.TempDir()
	var want map[string]Loaded
	ask(t, &want, saveBases, dir)
	if len(want) != 6 {
		t.Fatalf("%d models, want 6", len(want))
	}
	for name, w := range want {
		c, err := ReadConfig(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		l := NewLayout(c, 3)
		got, err := Load(filepath.Join(dir, name), c, l, 1, false, make([]float32, l.Size))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		slices.Sort(got.Dropped)
		if diff := cmp.Diff(w, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-transformers +got):\n%s", name, diff)
		}
		t.Logf("%s: drawn %v, dropped %v", name, got.Drawn, got.Dropped)
	}
}
