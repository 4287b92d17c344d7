//go:build torch

package engine

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/duratune/duratune/internal/train"
)

// The benchmarks take a model folder and encoded rows ("label id id …" a line) from the environment:
//
//	DURATUNE_BENCH_MODEL=… DURATUNE_BENCH_ROWS=… go test -tags torch -run - -bench . ./internal/engine
func benchSetup(b *testing.B, precision string, batch int) (*Engine, []train.Batch) {
	b.Helper()
	dir, batches := benchInputs(b, batch)
	e, err := open(b.Context(), train.Spec{
		ModelDir: dir, Labels: []string{"ham", "spam"}, MaxLength: 128, Padding: "longest", BatchSize: batch, Precision: precision,
		Seed: 42, AdamBeta1: 0.9, AdamBeta2: 0.999, AdamEpsilon: 1e-8, MaxGradNorm: 1,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { e.Close() })
	return e, batches
}

func benchInputs(b *testing.B, batch int) (dir string, batches []train.Batch) {
	b.Helper()
	dir, file := os.Getenv("DURATUNE_BENCH_MODEL"), os.Getenv("DURATUNE_BENCH_ROWS")
	if dir == "" || file == "" {
		b.Skip("DURATUNE_BENCH_MODEL and DURATUNE_BENCH_ROWS are not set")
	}
	return dir, readRows(b, file, batch)
}

// readRows groups encoded rows into batches.
func readRows(tb testing.TB, file string, batch int) []train.Batch {
	tb.Helper()
	f, err := os.Open(file)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	var out []train.Batch
	lines := bufio.NewScanner(f)
	for row := int64(0); lines.Scan(); row++ {
		if row%int64(batch) == 0 {
			out = append(out, train.Batch{})
		}
		last := &out[len(out)-1]
		var ids []int32
		for i, field := range strings.Fields(lines.Text()) {
			n, err := strconv.Atoi(field)
			if err != nil {
				tb.Fatal(err)
			}
			if i == 0 {
				last.Labels = append(last.Labels, int64(n))
				continue
			}
			ids = append(ids, int32(n))
		}
		last.Inputs = append(last.Inputs, train.Sequence{IDs: ids})
		last.Rows = append(last.Rows, row)
	}
	return out
}

func benchStep(b *testing.B, precision string, batch int) {
	e, batches := benchSetup(b, precision, batch)
	rows, step := 0, int64(0)
	for b.Loop() {
		next := batches[int(step)%len(batches)]
		if err := e.Step(b.Context(), step, 5e-5, next); err != nil {
			b.Fatal(err)
		}
		rows += len(next.Rows)
		step++
	}
	if _, err := e.Sync(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "samples/s")
}

func BenchmarkStepFP32Batch8(b *testing.B) { benchStep(b, "fp32", 8) }
func BenchmarkStepBF16Batch8(b *testing.B) { benchStep(b, "bf16", 8) }

func BenchmarkLogits(b *testing.B) {
	e, batches := benchSetup(b, "auto", 8)
	var inputs []train.Sequence
	for _, batch := range batches[:140] {
		inputs = append(inputs, batch.Inputs...)
	}
	for b.Loop() {
		if _, err := e.Logits(b.Context(), inputs, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(inputs)*b.N)/b.Elapsed().Seconds(), "samples/s")
}
