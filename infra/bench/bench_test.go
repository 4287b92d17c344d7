package main

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/duratune/duratune/internal/plot"
)

func TestRunSaysWhatItNeeds(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), nil, &out); err == nil || !strings.Contains(err.Error(), "accuracy") {
		t.Errorf("no case: got %v", err)
	}
	absent := filepath.Join(t.TempDir(), "none")
	if err := run(t.Context(), []string{"accuracy", "-model", t.TempDir(), "-data", absent}, &out); err != nil {
		t.Fatal(err)
	}
	if want := "skipped accuracy_minilm_sms: shared: SMS Spam Collection not found at " + absent + "\n"; out.String() != want {
		t.Errorf("got %q, want %q", &out, want)
	}
	t.Setenv("DURATUNE_PEERS", "")
	if err := run(t.Context(), []string{"accuracy", "-model", t.TempDir(), "-data", t.TempDir()}, &out); err == nil || !strings.Contains(err.Error(), "DURATUNE_PEERS") {
		t.Errorf("no peers: got %v", err)
	}
}

func TestParseReadsTrainersHistory(t *testing.T) {
	got, err := parse([]byte(`{"versions": {"torch": "2.11.0"}, "seconds": 12.5, "log_history": [
		{"step": 8, "loss": 0.5, "learning_rate": 1e-5}, {"step": 16, "loss": 0.25},
		{"step": 16, "eval_loss": 0.1, "eval_accuracy": 0.9, "eval_f1": 0.8, "eval_runtime": 2.5}, {"step": 16, "train_loss": 0.4}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if got.Accuracy != 0.9 || got.F1 != 0.8 || got.EvalLoss != 0.1 || got.Seconds != 10 || len(got.Loss) != 2 || got.Loss[1] != (plot.Point{Step: 16, Value: 0.25}) {
		t.Errorf("got %+v", got)
	}
	for _, text := range []string{`Traceback`, `{"log_history": []}`} {
		if _, err := parse([]byte(text)); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
}

// twoSeeds is a benchmark that has run.
func twoSeeds(out *bytes.Buffer) accuracy {
	curve := func(v ...float64) (points []plot.Point) {
		for i, v := range v {
			points = append(points, plot.Point{Step: int64(8 * (i + 1)), Value: v})
		}
		return points
	}
	peer := map[string]string{"transformers": "5.17.0"}
	return accuracy{settings: defaults, out: out, train: source{{Label: 1}, {}}, pairs: []pair{
		{1, outcome{Accuracy: 0.98, F1: 0.9, Loss: curve(0.5, 0.2), Seconds: 10}, outcome{Accuracy: 0.97, F1: 0.9, Loss: curve(0.4, 0.2), Seconds: 20, versions: peer}},
		{2, outcome{Accuracy: 0.96, F1: 0.8, Loss: curve(0.5, 0.2), Seconds: 10}, outcome{Accuracy: 0.97, F1: 0.8, Loss: curve(0.6, 0.2), Seconds: 20}},
	}}
}

func TestMeanComparesTheMeans(t *testing.T) {
	b := twoSeeds(nil)
	text, err := json.Marshal(b.mean())
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]float64{
		"ours": 0.97, "peer": 0.97, "ratio": 1, "f1_ours": 0.85, "f1_peer": 0.85, "difference_points": 0, "seconds_ours": 10, "seconds_peer": 20,
	} {
		if got, ok := m[key].(float64); !ok || math.Abs(got-want) > 1e-12 {
			t.Errorf("%s is %v, want %v", key, m[key], want)
		}
	}
	if d := deviation([]float64{1, 3}); math.Abs(d-math.Sqrt2) > 1e-12 {
		t.Errorf("deviation is %v, want √2", d)
	}
	if gap, level := b.lossGap(); gap > 1e-12 || math.Abs(level-0.35) > 1e-12 {
		t.Errorf("the mean curves are %v apart at %v, want 0 at 0.35", gap, level)
	}
}

func TestPublishWritesPageAndPicture(t *testing.T) {
	b, dir := twoSeeds(nil), t.TempDir()
	if err := b.publish(dir); err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "accuracy_minilm_sms_*_duratune.md"))
	if err != nil || len(pages) != 1 {
		t.Fatalf("pages are %v, %v", pages, err)
	}
	text, err := os.ReadFile(pages[0])
	if err != nil {
		t.Fatal(err)
	}
	picture := strings.TrimSuffix(filepath.Base(pages[0]), ".md") + ".png"
	for _, want := range []string{"within the 0.3 points", "| 97.00 ± 1.41 | 97.00 ± 0.00 | +0.00 points |", "](" + picture + ")", "transformers 5.17.0", "(1 spam)"} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("the page does not say %q:\n%s", want, text)
		}
	}
	if png, err := os.ReadFile(filepath.Join(dir, picture)); err != nil || !bytes.HasPrefix(png, []byte("\x89PNG")) {
		t.Errorf("no picture: %v", err)
	}
}

func TestSpeedComparesInTurn(t *testing.T) {
	dir, out := t.TempDir(), &bytes.Buffer{}
	python := filepath.Join(dir, "python")
	if err := os.WriteFile(python, []byte("#!/bin/sh\necho '{\"steps_s\": 20, \"samples_s\": 160, \"train_seconds\": 4}'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	paces := []float64{50, 30, 40}
	ours := func(*speed, context.Context, duel) (rate, error) {
		r := rate{StepsPerSecond: paces[0], Seconds: 1 / paces[0]}
		paces = paces[1:]
		return r, nil
	}
	b := speed{python: python, rounds: 2, out: out, train: source{{IDs: []int32{1}}}, device: "a device"}
	err := b.fight(t.Context(), []duel{
		{name: "steps", ours: ours, batch: 8, epochs: 1, unit: "steps/s", figure: steps},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.rounds = 1
	if err := b.fight(t.Context(), []duel{{name: "seconds", ours: ours, unit: seconds, figure: wall}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []speedLine{
		{Case: "steps", Ours: 40, Peer: 20, Ratio: 2, Unit: "steps/s", Rounds: 2},
		{Case: "seconds", Ours: 1.0 / 40, Peer: 4, Ratio: 160, Unit: "s", Rounds: 1},
	} {
		text, _ := out.ReadBytes('\n')
		var got speedLine
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if got.Case != want.Case || got.Ours != want.Ours || got.Peer != want.Peer || math.Abs(got.Ratio-want.Ratio) > 1e-9 || got.Unit != want.Unit ||
			got.Rounds != want.Rounds || got.Device != "a device" {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}
