//go:build torch

package engine

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/duratune/duratune/internal/model"
	"github.com/duratune/duratune/internal/torch"
	"github.com/duratune/duratune/internal/train"
)

func TestGPUResumedRunHasTheSameBits(t *testing.T) {
	eachGolden(t, func(t *testing.T, g *golden) {
		eachDevice(t, func(t *testing.T, device int) {
			for _, precision := range []string{"fp32", "bf16"} {
				spec := g.spec()
				spec.ModelDir, spec.Precision = withDropout(t, g, 0.2), precision
				straight := openCard(t, spec, device)
				wantStats := gpuSteps(t, g, straight, 0, 8)
				want := digest(t, straight)

				first := openCard(t, spec, device)
				if again := gpuSteps(t, g, first, 0, 3); !slices.Equal(again, wantStats[:3]) {
					t.Errorf("%s: a second engine has %+v, the first one %+v", precision, again, wantStats[:3])
				}
				weights, optimizer := snap(t, first)
				gpuSteps(t, g, first, 3, 5)
				second := openCard(t, spec, device)
				if err := second.Restore(t.Context(), weights, optimizer); err != nil {
					t.Fatal(err)
				}
				gotStats := gpuSteps(t, g, second, 3, 8)
				if got := digest(t, second); got != want {
					t.Errorf("%s: resumed run ends with %s, the straight one with %s", precision, got, want)
				}
				if !slices.Equal(gotStats, wantStats[3:]) {
					t.Errorf("%s: got %+v, want %+v", precision, gotStats, wantStats[3:])
				}
			}
		})
	})
}

// What a resumed run rests on, by the name of the weight: two engines give the same bits, and so does one engine twice.
func TestGPUGradientsHaveTheSameBits(t *testing.T) {
	eachGolden(t, func(t *testing.T, g *golden) {
		eachDevice(t, func(t *testing.T, device int) {
			for _, precision := range []string{"fp32", "tf32", "bf16"} {
				for _, padding := range paddings {
					spec := g.spec()
					spec.ModelDir, spec.Precision, spec.Padding = withDropout(t, g, 0.2), precision, padding
					spec.MicroStep, spec.BatchSize, spec.MaxGradNorm = 4, 6, 0
					one, two := openCard(t, spec, device), openCard(t, spec, device)
					want := gpuGradients(t, one, g.batches[0])
					sameGradients(t, one, "the same engine again", gpuGradients(t, one, g.batches[0]), want)
					sameGradients(t, one, "a second engine", gpuGradients(t, two, g.batches[0]), want)
				}
			}
		})
	})
}

// gpuGradients are the gradients of a step that moves no weight.
func gpuGradients(t *testing.T, e *GPU, b train.Batch) []float32 {
	t.Helper()
	grads := make([]float32, e.layout.Size)
	err := e.thread.Do(t.Context(), func() error { return errors.Join(e.step(0, 0, b), e.card.Gradients(grads)) })
	if err != nil {
		t.Fatal(err)
	}
	return grads
}

func sameGradients(t *testing.T, e *GPU, who string, got, want []float32) {
	t.Helper()
	for _, w := range e.layout.Weights {
		a, b, differ, largest := got[w.Offset:w.Offset+w.Size], want[w.Offset:w.Offset+w.Size], 0, 0.0
		for i := range a {
			if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
				differ++
				largest = math.Max(largest, math.Abs(float64(a[i]-b[i])))
			}
		}
		if differ > 0 {
			t.Errorf("%s, %s, %s: %d of %d elements of %s differ, by up to %g", e.identity.Precision, e.spec.Padding, who, differ, w.Size, w.Name, largest)
		}
	}
}

func TestGPUMemoryStaysFlat(t *testing.T) {
	g := readGolden(t, filepath.Join("testdata", model.DistilBERT))
	eachDevice(t, func(t *testing.T, device int) {
		steps := 2000
		if device == cpuDevice {
			steps = 200
		}
		e := openCard(t, g.spec(), device)
		many := func(from, to int) {
			for s := from; s < to; s++ {
				if err := e.Step(t.Context(), int64(s), 1e-5, g.batches[s%len(g.batches)]); err != nil {
					t.Fatal(err)
				}
				if s%8 == 7 {
					if _, err := e.Sync(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		many(0, steps)
		before, resident := e.Usage(), residentBytes(t)
		many(steps, 2*steps)
		after, grown := e.Usage(), residentBytes(t)-resident
		t.Logf("device peak %d MiB; resident %d MiB, grown by %d KiB over %d steps", after.PeakDevice>>20, resident>>20, grown>>10, steps)
		if after.PeakDevice != before.PeakDevice || grown > 8<<20 {
			t.Errorf("the device's peak went from %d to %d bytes, the process grew by %d", before.PeakDevice, after.PeakDevice, grown)
		}
	})
}

func residentBytes(t *testing.T) int64 {
	t.Helper()
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skipf("no resident size: %v", err)
	}
	pages, err := strconv.ParseInt(string(bytes.Fields(statm)[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// A batch that does not fit is train.ErrOutOfMemory, and leaves a device that others can use.
func TestGPUOutOfMemory(t *testing.T) {
	needGPU(t)
	g := readGolden(t, filepath.Join("testdata", model.BERT))
	spec := g.spec()
	spec.BatchSize, spec.MicroStep = 2048, 2048
	e := openCard(t, spec, 0)
	empty := fillDevice(t, e)
	b := g.batches[0]
	var large train.Batch
	for range spec.BatchSize {
		large.Inputs, large.Labels, large.Rows = append(large.Inputs, b.Inputs[0]), append(large.Labels, 0), append(large.Rows, 0)
	}
	if err := e.Step(t.Context(), 0, 1e-5, large); !errors.Is(err, train.ErrOutOfMemory) {
		t.Fatalf("got %v, want train.ErrOutOfMemory", err)
	}
	empty()
	spec.BatchSize, spec.MicroStep = 6, 6
	gpuSteps(t, g, openCard(t, spec, 0), 0, 2)
}

// fillDevice takes the device's memory until less than a small piece is left, and returns what gives it back.
func fillDevice(t *testing.T, e *GPU) (empty func()) {
	t.Helper()
	const smallest = 1 << 22 // floats
	config := e.cardConfig(0)
	config.Train = false
	var taken []*torch.Card
	err := e.thread.Do(t.Context(), func() error {
		for config.Size = 1 << 34; config.Size >= smallest; {
			card, _, err := torch.OpenCard(config)
			switch {
			case errors.Is(err, train.ErrOutOfMemory):
				config.Size /= 2
			case err != nil:
				return err
			default:
				taken = append(taken, card)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = e.thread.Do(context.Background(), func() error {
			for _, card := range taken {
				card.Close()
			}
			return nil
		})
	}
}
