//go:build torch

package engine

import (
	"math"
	"slices"
	"testing"

	"github.com/duratune/duratune/internal/model"
	"github.com/duratune/duratune/internal/train"
)

// The backward pass drops what the forward pass dropped: the loss rises along the gradient as the gradient says.
func TestGPUDropoutHasItsGradient(t *testing.T) {
	places := map[string]map[string]any{
		"attention": {"attention_dropout": 0.3, "attention_probs_dropout_prob": 0.3},
		"hidden":    {"dropout": 0.3, "hidden_dropout_prob": 0.3},
		"head":      {"seq_classif_dropout": 0.3, "classifier_dropout": 0.3},
	}
	eachGolden(t, func(t *testing.T, g *golden) {
		eachDevice(t, func(t *testing.T, device int) {
			for place, fields := range places {
				for _, padding := range paddings {
					spec := g.spec()
					spec.ModelDir, spec.Padding = withConfig(t, g, fields), padding
					spec.MicroStep, spec.BatchSize, spec.MaxGradNorm = 4, 6, 0
					e := openCard(t, spec, device)
					compareSlope(t, e, g.batches[0], place, 0.0003, 0.01)
					if e.config.Type == model.DistilBERT { // a ReLU's kinks are nearer than what bf16 tells apart
						continue
					}
					spec.Precision = "bf16"
					compareSlope(t, openCard(t, spec, device), g.batches[0], place, 0.03, 0.3)
				}
			}
		})
	})
}

// compareSlope moves the weights that far along their gradient, both ways.
func compareSlope(t *testing.T, e *GPU, b train.Batch, place string, far, limit float64) {
	t.Helper()
	weights, grads := gpuWeights(t, e), gpuGradients(t, e, b)
	var norm float64
	for _, x := range grads {
		norm += float64(x) * float64(x)
	}
	norm = math.Sqrt(norm)
	lossAt := func(by float64) float64 {
		moved := slices.Clone(weights)
		for i, x := range grads {
			moved[i] += float32(by * float64(x) / norm)
		}
		if err := e.thread.Do(t.Context(), func() error { return e.card.Write(moved, nil, nil) }); err != nil {
			t.Fatal(err)
		}
		return lossesOf(t, e, b, 1)[0]
	}
	slope := (lossAt(far) - lossAt(-far)) / (2 * far)
	t.Logf("%s, %s, dropout in %s: the loss rises by %.4f, its gradient is %.4f", e.spec.Precision, e.spec.Padding, place, slope, norm)
	if math.Abs(slope/norm-1) > limit {
		t.Errorf("%s, %s, dropout in %s: the loss rises by %v along its gradient of %v", e.spec.Precision, e.spec.Padding, place, slope, norm)
	}
}

// lossesOf are the losses of steps that move no weight, and differ in what they drop.
func lossesOf(t *testing.T, e *GPU, b train.Batch, steps int64) (losses []float64) {
	t.Helper()
	for s := range steps {
		if err := e.Step(t.Context(), s, 0, b); err != nil {
			t.Fatal(err)
		}
	}
	stats, err := e.Sync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range stats {
		losses = append(losses, float64(st.Loss))
	}
	return losses
}

// gpuWeights are the weights in the device's order.
func gpuWeights(t *testing.T, e *GPU) []float32 {
	t.Helper()
	file, _ := snap(t, e)
	flat := make([]float32, e.layout.Size)
	if err := e.layout.Fill(flat, file, ""); err != nil {
		t.Fatal(err)
	}
	return flat
}

// A GPU's kernels drop as much in fp32 and bf16 as libtorch's operations on the CPU, by what it does to the loss.
func TestGPUDropsAsMuchAsOnTheCPU(t *testing.T) {
	needGPU(t)
	eachGolden(t, func(t *testing.T, g *golden) {
		const steps = 2000
		spread := func(precision string, device int) (mean, deviation float64) {
			spec := g.spec()
			spec.ModelDir, spec.Precision = withDropout(t, g, 0.2), precision
			losses := lossesOf(t, openCard(t, spec, device), g.batches[0], steps)
			for _, x := range losses {
				mean += x / steps
			}
			for _, x := range losses {
				deviation += (x - mean) * (x - mean) / steps
			}
			return mean, math.Sqrt(deviation)
		}
		for _, precision := range []string{"fp32", "bf16"} {
			want, wantDeviation := spread(precision, cpuDevice)
			got, deviation := spread(precision, 0)
			t.Logf("%s: losses of %.4f ± %.4f on the CPU, %.4f ± %.4f on the GPU", precision, want, wantDeviation, got, deviation)
			// Five times the error of the estimate of a mean and of a deviation.
			if off := math.Abs(got - want); off > 5*wantDeviation*math.Sqrt(2.0/steps) {
				t.Errorf("%s: the mean is off by %v", precision, off)
			}
			if off := math.Abs(deviation/wantDeviation - 1); off > 5*math.Sqrt(1.0/steps) {
				t.Errorf("%s: the deviation is off by %v of itself", precision, off)
			}
		}
	})
}
