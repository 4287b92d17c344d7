//go:build torch

package engine

import (
	"errors"
	"math"
	"slices"
	"testing"

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
