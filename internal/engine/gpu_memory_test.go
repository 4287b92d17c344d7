//go:build torch

package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/duratune/duratune/internal/model"
	"github.com/duratune/duratune/internal/safetensors"
	"github.com/duratune/duratune/internal/torch"
	"github.com/duratune/duratune/internal/train"
)

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

// Engines that follow one another take the same memory, but for what cuBLAS may keep for a thread that has not ended yet.
func TestGPUEnginesLeaveNothing(t *testing.T) {
	needGPU(t)
	g := readGolden(t, filepath.Join("testdata", model.DistilBERT))
	var peaks []int64
	for range 12 {
		e, err := openGPU(t.Context(), g.spec(), 0)
		if err != nil {
			t.Fatal(err)
		}
		gpuSteps(t, g, e, 0, 2)
		peaks = append(peaks, e.Usage().PeakDevice)
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("peaks of %d bytes", peaks)
	if peaks[11]-peaks[1] > 128<<20 {
		t.Errorf("the last engine's peak is %d bytes, the second's was %d", peaks[11], peaks[1])
	}
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
	empty := fillDevice(t, e, 0)
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

// An evaluation goes on with fewer rows at a time, down to those that it has memory for.
func TestGPUEvaluationOutOfMemory(t *testing.T) {
	needGPU(t)
	spec := readGolden(t, filepath.Join("testdata", model.BERT)).spec()
	spec.ModelDir = wideModel(t, spec.ModelDir, len(spec.Labels))
	e := openCard(t, spec, 0)
	inputs := make([]train.Sequence, 1024)
	for i := range inputs {
		inputs[i].IDs = make([]int32, spec.MaxLength)
		for k := range inputs[i].IDs {
			inputs[i].IDs[k] = int32((7*i + k) % e.config.Vocab)
		}
	}
	evaluate := func() (logits [][]float32, batch int) {
		t.Helper()
		logits, err := e.Logits(t.Context(), inputs, func(done int) {
			if batch == 0 {
				batch = done
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return logits, batch
	}
	empty := fillDevice(t, e, 256<<20)
	got, tight := evaluate()
	empty()
	want, roomy := evaluate()
	t.Logf("%d rows at a time in 256 MiB, %d with the device's memory", tight, roomy)
	if tight >= roomy {
		t.Error("nothing was out of memory")
	}
	for i := range want {
		if d := worst(got[i], want[i], 0); d > 1e-4 {
			t.Fatalf("row %d differs by %v of its scale", i, d)
		}
	}
}

// wideModel is the model of a folder, with one layer so wide that a batch takes much memory.
func wideModel(t *testing.T, from string, labels int) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(from, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"], config["num_attention_heads"] = 1024, 8192, 1, 16
	if text, err = json.Marshal(config); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := model.ReadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	layout := model.NewLayout(c, labels)
	values, random := make([]float32, layout.Size), rand.New(rand.NewPCG(1, 2))
	for i := range values {
		values[i] = float32(0.02 * random.NormFloat64())
	}
	var body bytes.Buffer
	if err := safetensors.Write(&body, map[string]string{"format": "pt"}, layout.Tensors(values, "")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "model.safetensors"), body.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// fillDevice takes the device's memory until so many bytes, and less than a small piece, are left, and returns what gives it back.
func fillDevice(t *testing.T, e *GPU, left int64) (empty func()) {
	t.Helper()
	smallest := max(1<<22, e.layout.Size) // floats
	config := e.cardConfig(0)
	config.Train = false
	var taken []*torch.Card
	err := e.thread.Do(t.Context(), func() error {
		if left > 0 {
			config.Size = left / 4
			card, _, err := torch.OpenCard(config)
			if err != nil {
				return err
			}
			defer card.Close()
		}
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
