//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/duratune/duratune/workflows"
)

// pythonTexts is how many messages are classified by both languages.
const pythonTexts = 200

// labelled is a label and its score, as Python lists it.
type labelled [2]any

// checkPython has Python open the model of a run by every URI and every loader, and compares labels and scores of messages
// with those that `task predict` gives.
func checkPython(t *testing.T, w *world, res workflows.Result, sms string) {
	t.Helper()
	texts := filepath.Join(t.TempDir(), "texts.jsonl")
	writeTexts(t, sms, texts)
	comparePython(t, w, res, texts)
}

// comparePython does so with the texts of a file.
func comparePython(t *testing.T, w *world, res workflows.Result, texts string) {
	t.Helper()
	python := os.Getenv("DURATUNE_PEERS")
	if python == "" {
		t.Skip("peers: DURATUNE_PEERS not set")
	}
	model, err := w.tracking.GetModel(t.Context(), res.ModelID)
	if err != nil {
		t.Fatal(err)
	}
	local := t.TempDir()
	if _, err := w.tracking.DownloadDir(t.Context(), model.ArtifactURI, local, nil); err != nil {
		t.Fatal(err)
	}
	uris := []string{"models:/" + res.ModelID, "models:/" + res.RegisteredModel + "@" + res.Alias, "runs:/" + res.MLflowRunID + "/fine_tuned", local}
	want := w.predictTexts(t, uris[0], texts)
	var got struct {
		Models map[string]struct {
			Transformers []labelled `json:"transformers"`
			Pyfunc       []labelled `json:"pyfunc"`
			Auto         []labelled `json:"auto"`
			Serving      []labelled `json:"serving"`
		} `json:"models"`
	}
	out := w.command(t, python, append([]string{"internal/py/mlflow_check.py", w.MLflowURL(), texts}, uris...)...)
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var largest float64
	for _, uri := range uris {
		m := got.Models[uri]
		for loader, answers := range map[string][]labelled{"transformers": m.Transformers, "pyfunc": m.Pyfunc, "the Auto classes": m.Auto} {
			largest = max(largest, compareAnswers(t, uri+" by "+loader, want, answers))
		}
		if len(m.Serving) != 2 {
			t.Errorf("%s: the serving example gives %v, want two answers", uri, m.Serving)
		}
	}
	t.Logf("%d messages, %d URIs, 3 loaders each: labels equal, scores at most %.1e apart", len(want), len(uris), largest)
}

// writeTexts takes messages from all over the collection.
func writeTexts(t *testing.T, sms, path string) {
	t.Helper()
	body, err := os.ReadFile(sms)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(body)), "\n")
	var out bytes.Buffer
	for i := range pythonTexts {
		_, text, _ := strings.Cut(lines[i*len(lines)/pythonTexts], "\t")
		if err := json.NewEncoder(&out).Encode(map[string]string{"text": text}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// predictTexts classifies a file of texts by the engine.
func (w *world) predictTexts(t *testing.T, uri, texts string) (answers []labelled) {
	t.Helper()
	out := w.command(t, "go", "run", "-tags", "torch", "./infra/predict", "-model", uri, "-file", texts)
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		var line struct {
			Prediction struct {
				Label string  `json:"label"`
				Score float64 `json:"score"`
			} `json:"prediction"`
		}
		if err := json.Unmarshal(s.Bytes(), &line); err != nil {
			t.Fatalf("%v: %s", err, s.Bytes())
		}
		answers = append(answers, labelled{line.Prediction.Label, line.Prediction.Score})
	}
	if len(answers) != pythonTexts {
		t.Fatalf("%d predictions, want %d", len(answers), pythonTexts)
	}
	return answers
}

// compareAnswers returns the largest difference of scores.
func compareAnswers(t *testing.T, what string, want, got []labelled) (largest float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d answers, want %d", what, len(got), len(want))
		return 0
	}
	for i := range want {
		w, _ := want[i][1].(float64)
		g, _ := got[i][1].(float64)
		d := math.Abs(w - g)
		if got[i][0] != want[i][0] || !(d <= 1e-5) {
			t.Errorf("%s: message %d: %v, want %v", what, i, got[i], want[i])
		}
		largest = max(largest, d)
	}
	return largest
}

// command runs a program in the checkout, with the addresses of the stack.
func (w *world) command(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = w.root
	cmd.Env = append(os.Environ(), w.ClientEnv()...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, stderr.Bytes())
	}
	return out
}
