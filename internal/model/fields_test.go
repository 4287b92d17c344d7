package model

import (
	"encoding/json"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
)

// harmless are the fields of transformers' configurations that do not change what a classifier computes here.
var harmless = map[string]string{
	"_name_or_path": "says where it came from", "architectures": "says which classes saved it", "transformers_version": "says who wrote it",
	"id2label": "the recipe names the labels", "label2id": "the recipe names the labels",
	"dtype": "how weights are stored, which the file says itself; the recipe's precision decides how they are computed with",
	"output_attentions": "what forward returns", "output_hidden_states": "what forward returns", "return_dict": "what forward returns",
	"use_cache": "of decoders", "bos_token_id": "of generation", "eos_token_id": "of generation",
	"tie_word_embeddings":     "of models that predict tokens",
	"chunk_size_feed_forward": "computes the same in pieces",
	"qa_dropout":              "of the head that answers questions",
	"sinusoidal_pos_embds":    "how a new model's position table is drawn; it is in the file, and trained, like any other",
}

// TestEveryFieldIsKnown: each field that transformers' configurations have is read, or is known not to matter.
func TestEveryFieldIsKnown(t *testing.T) {
	python := os.Getenv("DURATUNE_PEERS")
	if python == "" {
		t.Skip("peers: DURATUNE_PEERS not set")
	}
	const script = `import json, transformers as t
print(json.dumps({c.model_type: sorted(c().to_dict()) for c in (t.DistilBertConfig, t.BertConfig, t.RobertaConfig)}))`
	out, err := exec.CommandContext(t.Context(), python, "-c", script).Output()
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string][]string
	if err := json.Unmarshal(out, &fields); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
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
		t.Errorf("transformers' configurations have %d fields, want at least 60: %s", n, out)
	}
}
