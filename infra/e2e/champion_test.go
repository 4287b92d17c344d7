//go:build e2e

package e2e

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.temporal.io/sdk/client"

	"github.com/duratune/duratune/workflows"
)

// small writes every n-th mail as a source of its own.
func (w *world) small(t *testing.T, name string, n int) string {
	t.Helper()
	f, err := os.Open(filepath.Join(w.paths.Assets, "spam-assassin", "mails.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out strings.Builder
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for i := 0; lines.Scan(); i++ {
		if i%n == 0 {
			out.WriteString(lines.Text() + "\n")
		}
	}
	if err := os.WriteFile(filepath.Join(w.State, "data", name), []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return "file:" + name
}

// duel is the quickstart on few rows, whose winner is the champion.
func (w *world) duel(t *testing.T, changes map[string]any) map[string]any {
	t.Helper()
	r := w.recipe(t, "quickstart.json", map[string]any{
		"data":     map[string]any{"source": w.small(t, "duel.jsonl", 4)},
		"tracking": map[string]any{"registered_model": "duel", "alias": "champion", "promote_if": "better"}, "examples": []any{},
		"train": map[string]any{"learning_rate": 2e-4}, "tokenizer": map[string]any{"max_length": 16}, "load_test": map[string]any{"duration": "2s"},
	})
	merge(r, changes)
	return r
}

// TestTwoCandidatesAtOnce: a first model gets the alias of nobody; two better ones, with the same weights, challenge it at
// once. One becomes the champion and names the first as its predecessor; the other, compared with that one, is no better.
func TestTwoCandidatesAtOnce(t *testing.T) {
	w := shared
	poor := map[string]any{"train": map[string]any{"learning_rate": 1e-7}} // learns next to nothing
	res := w.finish(t, w.start(t, "finetune/e2e/duel-1", w.duel(t, poor)))
	t.Log(res.Promotion)
	if res.Alias != "champion" || res.Version != "1" || !strings.Contains(res.Promotion, "no version held the alias") {
		t.Fatalf("the first model: %+v", res)
	}
	var runs []client.WorkflowRun
	for _, id := range []string{"finetune/e2e/duel-2", "finetune/e2e/duel-3"} {
		runs = append(runs, w.start(t, id, w.duel(t, nil)))
	}
	winner, loser := w.finish(t, runs[0]), w.finish(t, runs[1])
	if loser.Alias != "" {
		winner, loser = loser, winner
	}
	t.Logf("winner: %s\nloser: %s", winner.Promotion, loser.Promotion)
	holder, err := w.tracking.GetAlias(t.Context(), "duel", "champion")
	if err != nil {
		t.Fatal(err)
	}
	if winner.Alias != "champion" || winner.Version != holder.Version || holder.Tags["duratune.former_champion"] != "1" || !strings.Contains(winner.Promotion, "which was version 1's") {
		t.Errorf("the winner: %+v, holder %+v", winner, holder)
	}
	if loser.Alias != "" || loser.Version == "" || loser.Version == winner.Version ||
		!strings.HasPrefix(loser.Promotion, "refused: version "+loser.Version+" is registered, but version "+winner.Version+" keeps the alias champion") {
		t.Errorf("the loser: %+v", loser)
	}
	for _, r := range []workflows.Result{winner, loser} {
		run, err := w.tracking.GetRun(t.Context(), r.MLflowRunID)
		if err != nil {
			t.Fatal(err)
		}
		if run.Tags["duratune.promotion"] != r.Promotion || run.Tags["gate"] != "passed" || !strings.Contains(r.Promotion, "McNemar") {
			t.Errorf("%s, tags of the run: %v", r.Promotion, run.Tags)
		}
	}
	t.Run("predict", func(t *testing.T) { w.predict(t, "models:/duel@champion") })
}

// predict classifies a text and a file with the champion, by the command that users run.
func (w *world) predict(t *testing.T, model string) {
	t.Helper()
	task := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "go", append([]string{"tool", "task", "--silent", "predict", "MODEL=" + model}, args...)...)
		cmd.Dir, cmd.Env, cmd.Stderr = w.root, append(os.Environ(), w.ClientEnv()...), os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	type predicted struct {
		Label  string             `json:"label"`
		Score  float64            `json:"score"`
		Scores map[string]float64 `json:"scores"`
	}
	var one predicted
	if err := json.Unmarshal([]byte(task("TEXT=it's 100% FREE, $$$ \"click\" here")), &one); err != nil || len(one.Scores) != 2 || one.Scores[one.Label] != one.Score {
		t.Errorf("a text: %+v, %v", one, err)
	}
	in, out := filepath.Join(w.State, "data", "duel.jsonl"), filepath.Join(t.TempDir(), "out.jsonl")
	task("FILE="+in, "OUT="+out)
	body, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	right, rows := 0, 0
	for line := range strings.Lines(string(body)) {
		var row struct {
			Label      string    `json:"label"`
			Prediction predicted `json:"prediction"`
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		rows++
		if row.Label == row.Prediction.Label {
			right++
		}
	}
	t.Logf("%d of %d mails right", right, rows)
	if rows < 1000 || right*100 < rows*85 {
		t.Errorf("%d of %d mails right, want at least 85 %% of the file", right, rows)
	}
}

// finish waits for the end of a run that must succeed.
func (w *world) finish(t *testing.T, run client.WorkflowRun) workflows.Result {
	t.Helper()
	var res workflows.Result
	if err := run.Get(t.Context(), &res); err != nil {
		t.Fatal(err)
	}
	return res
}
