//go:build torch

package engine

import (
	"testing"
	"time"

	"github.com/duratune/duratune/internal/train"
)

// The cases of issue 7 on a GPU, each with all batches of the rows: once to capture, then timed with a Sync every 8 steps, as
// the tutorial logs. DURATUNE_BENCH_MODEL and DURATUNE_BENCH_ROWS are as in bench_test.go.
//
//	engine.test -test.run - -test.bench GPU -test.benchtime 1x

func gpuBenchSetup(b *testing.B, precision, padding string, batch int) (*GPU, []train.Batch) {
	b.Helper()
	needGPU(b)
	dir, batches := benchInputs(b, batch)
	e := openCard(b, train.Spec{
		ModelDir: dir, Labels: []string{"ham", "spam"}, MaxLength: 128, Padding: padding, BatchSize: batch, Precision: precision,
		Seed: 42, AdamBeta1: 0.9, AdamBeta2: 0.999, AdamEpsilon: 1e-8, MaxGradNorm: 1,
	}, 0)
	return e, batches
}

func gpuEpoch(b *testing.B, e *GPU, batches []train.Batch, step int64) {
	b.Helper()
	for i, batch := range batches {
		if err := e.Step(b.Context(), step+int64(i), 5e-5, batch); err != nil {
			b.Fatal(err)
		}
		if i%8 == 7 || i+1 == len(batches) {
			stats, err := e.Sync(b.Context())
			if err != nil || !stats[len(stats)-1].Finite {
				b.Fatalf("%v, %+v", err, stats)
			}
		}
	}
}

func benchGPUStep(b *testing.B, precision, padding string, batch int) {
	e, batches := gpuBenchSetup(b, precision, padding, batch)
	start := time.Now()
	gpuEpoch(b, e, batches, 0)
	first := time.Since(start)
	rows := 0
	for _, batch := range batches {
		rows += len(batch.Rows)
	}
	step := int64(0)
	for b.Loop() {
		step += int64(len(batches))
		gpuEpoch(b, e, batches, step)
	}
	seconds := b.Elapsed().Seconds() / float64(b.N)
	b.ReportMetric(float64(len(batches))/seconds, "steps/s")
	b.ReportMetric(float64(rows)/seconds, "samples/s")
	b.ReportMetric(first.Seconds(), "first-epoch-s")
	b.ReportMetric(float64(e.Usage().PeakDevice)/(1<<20), "device-MiB")
}

func BenchmarkGPUBatch8MaxLength(b *testing.B)      { benchGPUStep(b, "bf16", "max_length", 8) }
func BenchmarkGPUBatch8(b *testing.B)               { benchGPUStep(b, "bf16", "longest", 8) }
func BenchmarkGPUBatch64(b *testing.B)              { benchGPUStep(b, "bf16", "longest", 64) }
func BenchmarkGPUBatch64MaxLength(b *testing.B)     { benchGPUStep(b, "bf16", "max_length", 64) }
func BenchmarkGPUBatch8MaxLengthTF32(b *testing.B)  { benchGPUStep(b, "tf32", "max_length", 8) }
func BenchmarkGPUBatch8MaxLengthFloat(b *testing.B) { benchGPUStep(b, "fp32", "max_length", 8) }

func BenchmarkGPULogits(b *testing.B) {
	e, batches := gpuBenchSetup(b, "auto", "longest", 8)
	var inputs []train.Sequence
	for _, batch := range batches {
		inputs = append(inputs, batch.Inputs...)
	}
	inputs = inputs[:1115]
	for range 2 { // captures
		if _, err := e.Logits(b.Context(), inputs, nil); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, err := e.Logits(b.Context(), inputs, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(inputs)*b.N)/b.Elapsed().Seconds(), "samples/s")
}

func BenchmarkGPUSnapshot(b *testing.B) {
	e, batches := gpuBenchSetup(b, "bf16", "max_length", 8)
	gpuEpoch(b, e, batches[:16], 0)
	var stall, fetch time.Duration
	for b.Loop() {
		start := time.Now()
		s, err := e.Snapshot(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		stall += time.Since(start)
		if _, err := s.Weights(); err != nil {
			b.Fatal(err)
		}
		fetch += time.Since(start)
		s.Release()
	}
	b.ReportMetric(stall.Seconds()*1e3/float64(b.N), "stall-ms")
	b.ReportMetric(fetch.Seconds()*1e3/float64(b.N), "on-host-ms")
}
