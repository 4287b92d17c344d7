//go:build torch

package engine

import (
	"bytes"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/duratune/duratune/internal/model"
	"github.com/duratune/duratune/internal/torch"
	"github.com/duratune/duratune/internal/train"
)

// cpuDevice runs the GPU's code in libtorch's operations on the CPU.
const cpuDevice = -1

// eachDevice runs f with the GPU's code on the CPU and, where there is one, on a GPU.
func eachDevice(t *testing.T, f func(t *testing.T, device int)) {
	t.Run("on the CPU", func(t *testing.T) { f(t, cpuDevice) })
	t.Run("on a GPU", func(t *testing.T) {
		needGPU(t)
		f(t, 0)
	})
}

func needGPU(tb testing.TB) {
	tb.Helper()
	if n, err := torch.GPUs(); err != nil || n == 0 {
		tb.Skipf("no GPU: not run (%d devices, %v)", n, err)
	}
}

// Graphs and own kernels are given up with a line in the log only, which nobody would miss in a test.
func TestGPUDoesAllItCan(t *testing.T) {
	needGPU(t)
	g := readGolden(t, filepath.Join("testdata", model.DistilBERT))
	var log bytes.Buffer
	was := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(was)
	for _, precision := range []string{"fp32", "tf32", "bf16"} {
		spec := g.spec()
		spec.Precision = precision
		e := openCard(t, spec, 0)
		gpuSteps(t, g, e, 0, 2)
		if _, err := e.Logits(t.Context(), g.batches[0].Inputs, nil); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(log.String(), "slower") {
		t.Error(log.String())
	}
}

func openCard(tb testing.TB, spec train.Spec, device int) *GPU {
	tb.Helper()
	g, err := openGPU(tb.Context(), spec, device)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := g.Close(); err != nil {
			tb.Error(err)
		}
	})
	return g
}

// paddings are the ways to lay a batch out.
var paddings = []string{"longest", "max_length"}

func TestGPULogitsMatchTransformers(t *testing.T) {
	eachGolden(t, func(t *testing.T, g *golden) {
		eachDevice(t, func(t *testing.T, device int) {
			for precision, limit := range map[string]float64{"fp32": 1e-5, "bf16": 0.05} {
				spec := g.spec()
				spec.Precision = precision
				got, err := openCard(t, spec, device).Logits(t.Context(), g.batches[0].Inputs, nil)
				if err != nil {
					t.Fatal(err)
				}
				want, _ := values[float32](t, g.file, "logits")
				d := worst(slices.Concat(got...), want, 0)
				t.Logf("%s: largest difference of logits: %.1e", precision, d)
				if d > limit {
					t.Errorf("%s: logits differ by %v of their scale, want at most %v", precision, d, limit)
				}
			}
		})
	})
}

func TestGPUGradientsMatchTransformers(t *testing.T) {
	eachGolden(t, func(t *testing.T, g *golden) {
		eachDevice(t, func(t *testing.T, device int) {
			for precision, limit := range map[string]float64{"fp32": 1e-4, "bf16": 0.25} {
				for _, padding := range paddings {
					spec := g.spec()
					spec.Precision, spec.Padding = precision, padding
					spec.MicroStep, spec.BatchSize = 4, 6 // the second micro-batch has two rows that fill up
					spec.MaxGradNorm = 0                  // the update leaves them as it clipped them
					compareGPUGradients(t, g, openCard(t, spec, device), limit)
				}
			}
		})
	})
}

func compareGPUGradients(t *testing.T, g *golden, e *GPU, limit float64) {
	t.Helper()
	grads := make([]float32, e.layout.Size)
	err := e.thread.Do(t.Context(), func() error {
		if err := e.step(0, 0, g.batches[0]); err != nil {
			return err
		}
		return e.card.Gradients(grads)
	})
	if err != nil {
		t.Fatal(err)
	}
	var largest float64
	for _, w := range e.layout.Weights {
		want, _ := values[float32](t, g.file, "grad."+w.Name)
		if isKeyBias(w.Name) {
			continue
		}
		d := worst(grads[w.Offset:w.Offset+w.Size], want, 1e-2)
		if d > limit {
			t.Errorf("%s, %s: %s differs by %v of its scale", e.identity.Precision, e.spec.Padding, w.Name, d)
		}
		largest = math.Max(largest, d)
	}
	t.Logf("%s, %s: largest difference of gradients: %.1e", e.identity.Precision, e.spec.Padding, largest)
}

func TestGPUTenStepsMatchPyTorch(t *testing.T) {
	eachGolden(t, func(t *testing.T, g *golden) {
		eachDevice(t, func(t *testing.T, device int) {
			for precision, limit := range map[string]float64{"fp32": 1e-4, "bf16": 0.05} {
				for _, padding := range paddings {
					for _, micro := range []int{6, 4} {
						spec := g.spec()
						spec.Precision, spec.Padding, spec.MicroStep = precision, padding, micro
						compareGPUSteps(t, g, openCard(t, spec, device), limit)
					}
				}
			}
		})
	})
}

func compareGPUSteps(t *testing.T, g *golden, e *GPU, limit float64) {
	t.Helper()
	stats := gpuSteps(t, g, e, 0, len(g.batches))
	losses, _ := values[float32](t, g.file, "losses")
	norms, _ := values[float32](t, g.file, "norms")
	var loss, norm float64
	for s, st := range stats {
		if st.Step != int64(s) || !st.Finite {
			t.Errorf("step %d: %+v", s, st)
		}
		loss = math.Max(loss, math.Abs(float64(st.Loss-losses[s])))
		norm = math.Max(norm, math.Abs(float64(st.GradNorm-norms[s]))/float64(norms[s]))
	}
	t.Logf("%s, %s, micro-batch %d: losses differ by %.1e, norms by %.1e", e.identity.Precision, e.spec.Padding, e.spec.MicroStep, loss, norm)
	if len(stats) != len(losses) || loss > limit || norm > 4*limit {
		t.Errorf("%d steps, losses differ by %v, norms by %v of themselves", len(stats), loss, norm)
	}
	if e.identity.Precision != "fp32" {
		return
	}
	weights, _ := snap(t, e)
	for _, w := range e.layout.Weights {
		got, _ := values[float32](t, weights, w.Name)
		want, _ := values[float32](t, g.file, "after."+w.Name)
		// Twice the loss's limit: where a gradient is next to nothing, Adam's division makes its rounding a visible step.
		if d := worst(got, want, 0.02); d > 2*limit && !isKeyBias(w.Name) {
			t.Errorf("%s: differs by %v of its scale after ten steps", w.Name, d)
		}
	}
}

// gpuSteps runs the golden's batches [from, to).
func gpuSteps(t *testing.T, g *golden, e *GPU, from, to int) []train.StepStats {
	t.Helper()
	for s := from; s < to; s++ {
		if err := e.Step(t.Context(), int64(s), g.Rates[s], g.batches[s]); err != nil {
			t.Fatal(err)
		}
	}
	stats, err := e.Sync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return stats
}

func TestGPUStepThatIsNotFiniteChangesNothing(t *testing.T) {
	eachGolden(t, func(t *testing.T, g *golden) {
		eachDevice(t, func(t *testing.T, device int) {
			e := openCard(t, g.spec(), device)
			gpuSteps(t, g, e, 0, 2)
			weights, optimizer := snap(t, e)
			good := digest(t, e)

			broken := make([]float32, e.layout.Size)
			if err := e.layout.Fill(broken, weights, ""); err != nil {
				t.Fatal(err)
			}
			broken[e.layout.Decayed] = float32(math.Inf(1)) // the embeddings' gamma
			if err := e.thread.Do(t.Context(), func() error { return e.card.Write(broken, nil, nil) }); err != nil {
				t.Fatal(err)
			}
			before := digest(t, e)
			stats := gpuSteps(t, g, e, 2, 4)
			if len(stats) != 2 || stats[0].Finite || stats[1].Finite {
				t.Errorf("stats are %+v, want two steps that are not finite", stats)
			}
			if digest(t, e) != before {
				t.Error("a step that was not finite changed weights or moments")
			}
			if err := e.Restore(t.Context(), weights, optimizer); err != nil {
				t.Fatal(err)
			}
			if digest(t, e) != good {
				t.Error("Restore did not bring the snapshot back")
			}
			if st := gpuSteps(t, g, e, 2, 3); !st[0].Finite {
				t.Errorf("after Restore: %+v", st[0])
			}
		})
	})
}

func TestGPUReportsPadding(t *testing.T) {
	g := readGolden(t, filepath.Join("testdata", model.BERT))
	spec := g.spec()
	spec.Padding = "max_length"
	e := openCard(t, spec, cpuDevice)
	gpuSteps(t, g, e, 0, 1)
	tokens := 0
	for _, seq := range g.batches[0].Inputs {
		tokens += len(seq.IDs)
	}
	want := 1 - float64(tokens)/float64(len(g.batches[0].Inputs)*spec.MaxLength)
	if got := e.Usage().Padding; math.Abs(got-want) > 1e-12 {
		t.Errorf("got a share of %v, want %v", got, want)
	}
}

// Heads of a size that no fused kernel takes are slower, and no less right.
func TestGPUHeadsOfAnySize(t *testing.T) {
	needGPU(t)
	g := readGolden(t, filepath.Join("testdata", model.BERT))
	for _, dropout := range []float64{0, 0.2} {
		for precision, limit := range map[string]float64{"fp32": 1e-4, "bf16": 0.25} {
			spec := g.spec()
			spec.ModelDir = withConfig(t, g, map[string]any{"num_attention_heads": 16, "attention_probs_dropout_prob": dropout})
			spec.Precision, spec.MicroStep, spec.BatchSize, spec.MaxGradNorm = precision, 4, 6, 0
			card, cpu := openCard(t, spec, 0), openCard(t, spec, cpuDevice)
			logits := func(e *GPU) []float32 {
				l, err := e.Logits(t.Context(), g.batches[0].Inputs, nil)
				if err != nil {
					t.Fatal(err)
				}
				return slices.Concat(l...)
			}
			if d := worst(logits(card), logits(cpu), 0); d > limit {
				t.Errorf("%s: logits differ by %v of their scale", precision, d)
			}
			got, want := gpuGradients(t, card, g.batches[0]), gpuGradients(t, cpu, g.batches[0])
			if d := worst(got, want, 0); d > limit && dropout == 0 || math.IsInf(d, 1) {
				t.Errorf("%s: gradients differ by %v of their scale", precision, d)
			}
		}
	}
}
