//go:build torch

package engine

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/duratune/duratune/internal/train"
)

func TestOpenRefusesWhatItCannotRun(t *testing.T) {
	g := readGolden(t, "testdata/bert")
	var config *train.ConfigError
	var tensor *train.TensorError
	tests := []struct {
		name   string
		change func(*train.Spec)
		as     any
		want   string
	}{
		{"one label", func(s *train.Spec) { s.Labels = s.Labels[:1] }, nil, "1 labels"},
		{"no length", func(s *train.Spec) { s.MaxLength = 0 }, nil, "max length 0"},
		{"precision", func(s *train.Spec) { s.Precision = "fp8" }, nil, "fp8"},
		{"too long for the positions", func(s *train.Spec) { s.MaxLength = 33 }, &config, "max_position_embeddings"},
		{"no folder", func(s *train.Spec) { s.ModelDir = t.TempDir() }, &config, "config.json"},
		{"other number of labels", func(s *train.Spec) { s.Labels = append(s.Labels, "more") }, &tensor, "classifier"},
	}
	for _, tt := range tests {
		spec := g.spec()
		tt.change(&spec)
		e, err := Open(t.Context(), spec)
		if err == nil || e != nil || !strings.Contains(err.Error(), tt.want) || (tt.as != nil && !errors.As(err, tt.as)) {
			t.Errorf("%s: got %v, %v", tt.name, e, err)
		}
	}
}

func TestStepRefusesRowsItCannotTake(t *testing.T) {
	g := readGolden(t, "testdata/bert")
	e := openEngine(t, g.spec())
	one := func(ids []int32, label int64) train.Batch {
		return train.Batch{Inputs: []train.Sequence{{IDs: ids}}, Labels: []int64{label}, Rows: []int64{77}}
	}
	typed := func(ids []int32, types ...int8) train.Batch {
		return train.Batch{Inputs: []train.Sequence{{IDs: ids, Types: types}}, Labels: []int64{0}, Rows: []int64{77}}
	}
	tests := []struct {
		name  string
		batch train.Batch
		want  string
	}{
		{"empty batch", train.Batch{}, "0 sequences"},
		{"labels missing", train.Batch{Inputs: []train.Sequence{{IDs: []int32{1}}}, Rows: []int64{0}}, "0 labels"},
		{"empty row", one(nil, 0), "row 77: 0 tokens"},
		{"long row", one(make([]int32, 33), 0), "row 77: 33 tokens"},
		{"unknown token", one([]int32{2, 96}, 0), "row 77: token id 96"},
		{"negative token", one([]int32{-1}, 0), "row 77: token id -1"},
		{"types missing", typed([]int32{2, 3}, 1), "row 77: 1 token types for 2 tokens"},
		{"unknown type", typed([]int32{2, 3}, 0, 2), "row 77: token type 2 is beyond the model's 2"},
		{"unknown label", one([]int32{2}, 3), "row 77: label 3"},
	}
	for _, tt := range tests {
		if err := e.Step(t.Context(), 0, 1e-3, tt.batch); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	if stats, err := e.Sync(t.Context()); err != nil || len(stats) > 0 {
		t.Errorf("refused steps are reported: %v, %v", stats, err)
	}
}

func TestLogitsKeepTheOrderOfTheirInputs(t *testing.T) {
	g := readGolden(t, "testdata/distilbert")
	spec := g.spec()
	spec.Inference = true
	e := openEngine(t, spec)
	var inputs []train.Sequence
	for _, b := range g.batches {
		inputs = append(inputs, b.Inputs...)
	}
	inputs = slices.Concat(inputs, inputs) // more than one pack
	var done []int
	got, err := e.Logits(t.Context(), inputs, func(n int) { done = append(done, n) })
	if err != nil {
		t.Fatal(err)
	}
	if len(done) < 2 || done[len(done)-1] != len(inputs) || !slices.IsSorted(done) {
		t.Errorf("progress was %v of %d", done, len(inputs))
	}
	for i, in := range inputs {
		alone, err := e.Logits(t.Context(), []train.Sequence{in}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for c := range alone[0] {
			if math.Abs(float64(alone[0][c]-got[i][c])) > 1e-5 {
				t.Errorf("input %d: %v in a batch, %v alone", i, got[i], alone[0])
			}
		}
	}
	if none, err := e.Logits(t.Context(), nil, nil); err != nil || len(none) > 0 {
		t.Errorf("no inputs: %v, %v", none, err)
	}
}

// TestEvaluationBatchIsHalved: a batch that does not fit is halved until it does, every row is done once, and a row that does
// not fit alone is the device's error.
func TestEvaluationBatchIsHalved(t *testing.T) {
	const rows, length = 40, 16
	inputs := make([]train.Sequence, rows)
	for i := range inputs {
		inputs[i].IDs = make([]int32, length)
	}
	for _, tt := range []struct{ fit, tries int }{{1024, 1}, {rows, 1}, {10, 6}, {7, 11}, {1, 45}, {0, 6}} { // rows that fit; calls
		seen, tries := map[int]int{}, 0
		err := inBatches(inputs, rows, 1<<20, nil, func(chunk []int, tokens int) error {
			if tries++; len(chunk) > tt.fit {
				return fmt.Errorf("forward: %w", train.ErrOutOfMemory)
			}
			if tokens != len(chunk)*length {
				t.Errorf("%d tokens in %d rows", tokens, len(chunk))
			}
			for _, i := range chunk {
				seen[i]++
			}
			return nil
		})
		if tt.fit == 0 {
			if !errors.Is(err, train.ErrOutOfMemory) || tries != tt.tries {
				t.Errorf("no row fits: %v after %d tries", err, tries)
			}
			continue
		}
		if err != nil || len(seen) != rows || slices.Max(slices.Collect(maps.Values(seen))) != 1 || tries != tt.tries {
			t.Errorf("%d rows fit: %v, %d rows done in %d tries, want each once in %d", tt.fit, err, len(seen), tries, tt.tries)
		}
	}
}

func TestInferenceHasNoOptimizer(t *testing.T) {
	g := readGolden(t, "testdata/roberta")
	spec := g.spec()
	spec.Inference = true
	e := openEngine(t, spec)
	_, err := e.Snapshot(t.Context())
	for what, err := range map[string]error{
		"Step": e.Step(t.Context(), 0, 1, g.batches[0]), "Restore": e.Restore(t.Context(), nil, nil), "Snapshot": err,
	} {
		if !errors.Is(err, errInference) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

func TestIdentityAndMemory(t *testing.T) {
	e := openEngine(t, readGolden(t, "testdata/bert").spec())
	id := e.Identity()
	if id.Device != "cpu" || id.InstructionSet == "" || id.Threads < 1 || id.Libtorch != "2.11.0" || id.Precision != "fp32" {
		t.Errorf("identity is %+v", id)
	}
	if m := e.Usage(); m.PeakHost < 10<<20 || m.PeakDevice != 0 {
		t.Errorf("memory is %+v", m)
	}
}

// Batches are packed, so that hardly two have as many tokens, and oneDNN (bf16) keeps what it makes for each number.
func TestMemoryStaysFlatWithManyShapes(t *testing.T) {
	spec := readGolden(t, "testdata/distilbert").spec()
	spec.Precision, spec.BatchSize = "bf16", 16
	spec.MicroStep = spec.BatchSize
	e := openEngine(t, spec)
	tokens := func(from, to int) int64 { // a step for each number of tokens
		for n := from; n < to; n++ {
			var b train.Batch
			for left := n; left > 0; left -= spec.MaxLength {
				b.Inputs = append(b.Inputs, train.Sequence{IDs: slices.Repeat([]int32{5}, min(left, spec.MaxLength))})
				b.Labels, b.Rows = append(b.Labels, 0), append(b.Rows, int64(n))
			}
			if err := e.Step(t.Context(), int64(n), 1e-5, b); err != nil {
				t.Fatal(err)
			}
		}
		return residentBytes(t)
	}
	before := tokens(1, 100)
	grown := tokens(100, 400) - before
	t.Logf("resident %d MiB, grown by %d KiB over 300 steps of as many shapes", before>>20, grown>>10)
	if grown > 64<<20 {
		t.Errorf("the process grew by %d bytes", grown)
	}
}
