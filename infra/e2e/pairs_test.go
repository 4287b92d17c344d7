//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestPairs fine-tunes a BERT on pairs of texts, from the source to the registered model, and has Python classify pairs with it.
func TestPairs(t *testing.T) {
	w := shared
	texts := filepath.Join(w.State, "data", "pairs.jsonl")
	writePairs(t, texts)
	run := w.start(t, "finetune/e2e/pairs", map[string]any{
		"name": "pairs", "data": map[string]any{"source": "file:pairs.jsonl", "text_pair": "text_pair", "labels": []string{"other", "same"}},
		"model": map[string]any{"base": "file:all-minilm-l6-v2"}, "tokenizer": map[string]any{"max_length": 16},
		"train":     map[string]any{"epochs": 1},
		"tracking":  map[string]any{"registered_model": "pairs", "alias": "champion"},
		"load_test": map[string]any{"duration": "2s", "max_p99": "60s"},
	})
	res := w.finish(t, run)
	if !res.LoadTest.Passed || res.LoadTest.Compared != pythonTexts/5 || res.Alias != "champion" {
		t.Fatalf("load test %+v, alias %q", res.LoadTest, res.Alias)
	}
	t.Logf("epochs %+v, load test %+v", res.Epochs, res.LoadTest)
	comparePython(t, w, res, texts)
}

// writePairs writes questions with answers about the same city, or another. Some are cut at 16 tokens.
func writePairs(t *testing.T, path string) {
	t.Helper()
	cities := []string{"Rome", "Oslo", "Lima", "Cairo", "Delhi"}
	var out bytes.Buffer
	for i := range pythonTexts {
		asked, told := cities[i%5], cities[(i+i%2*(1+i/10%4))%5]
		row := map[string]string{"text": fmt.Sprintf("How far is %s, in hours by train or %d km?", asked, i), "text_pair": fmt.Sprintf("%s is %d hours away", told, i%24), "label": "other"}
		if asked == told {
			row["label"] = "same"
		}
		if err := json.NewEncoder(&out).Encode(row); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
