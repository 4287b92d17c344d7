//go:build torch

package torch

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/duratune/duratune/infra/libtorch"
	"github.com/duratune/duratune/internal/torch/native"
	"github.com/duratune/duratune/internal/train"
)

// CardConfig says which model a Card holds, on which device; see cuda.h for the fields.
type CardConfig = native.CardConfig

// CardInfo is a GPU's name, its compute capability, and whether the step runs on kernels of our own.
type CardInfo = native.CardInfo

// What a run does with its batch.
const (
	RunEval       = iota // logits
	RunStep              // forward, backward, update
	RunMicroFirst        // forward and backward of the first micro-batch
	RunMicroMore         // of another one
	RunUpdate            // the update after the micro-batches
)

// The precisions and architectures of a CardConfig.
const (
	CardFP32 = iota
	CardTF32
	CardBF16
)

// HeaderInts is the length of a batch's header, StatsRows how many steps' statistics a Card keeps.
const (
	HeaderInts = 8
	StatsRows  = 4096
)

// Card is a model with its optimizer on a GPU (or, for tests, on the CPU), whose work is captured in CUDA graphs. All calls are
// made on the thread that opened it; Run returns before the device is done.
type Card struct{ c *native.Card }

// OpenCard allocates a model's memory on the device, all zero. Errors: train.ErrNoLibtorch where the plugin is missing or is not
// of this build, train.ErrOutOfMemory, train.ErrDevice.
func OpenCard(c CardConfig) (*Card, CardInfo, error) {
	if c.Device >= 0 {
		path, err := pluginPath()
		if err != nil {
			return nil, CardInfo{}, err
		}
		c.Plugin, c.PluginHash = path, libtorch.PluginHash()
	}
	card, info, err := native.OpenCard(c)
	if err != nil {
		return nil, CardInfo{}, cardError("open the device", err)
	}
	return &Card{card}, info, nil
}

// pluginPath is where the CUDA plugin lies: $DURATUNE_CUDA_PLUGIN, or where the set-up builds it.
func pluginPath() (string, error) {
	path := os.Getenv("DURATUNE_CUDA_PLUGIN")
	if path == "" {
		root, err := libtorch.Root()
		if err != nil {
			return "", err
		}
		path = libtorch.PluginPath(root)
	}
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("torch: CUDA plugin %s: want an absolute path in DURATUNE_CUDA_PLUGIN: %w", path, train.ErrNoLibtorch)
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("torch: CUDA plugin: %w; run the set-up, or name it in DURATUNE_CUDA_PLUGIN: %w", err, train.ErrNoLibtorch)
	}
	return path, nil
}

func cardError(op string, err error) error {
	if err == nil {
		return nil
	}
	return classify(op, err.Error())
}

// Close frees the device's memory.
func (c *Card) Close() { c.c.Close() }

// Stage gives n ints for the next batch, laid out as in cuda.h. It waits until the copy that used them before is done.
func (c *Card) Stage(n int) ([]int32, error) {
	ints, err := c.c.Stage(n)
	return ints, cardError("stage", err)
}

// Run copies the staged n ints, with token types or without, to the device and does what kind says with them. maxKey bounds the segments; seed keys dropout.
func (c *Card) Run(kind, rows, tokens, maxKey int, typed bool, n int, seed uint64) error {
	return cardError("run", c.c.Run(kind, rows, tokens, maxKey, typed, n, seed))
}

// Logits waits for the last RunEval and reads its logits, rows·labels of them.
func (c *Card) Logits(out []float32, rows int) error {
	return cardError("logits", c.c.Logits(out, rows))
}

// Stats waits for the device and reads loss and norm of the first len(out)/2 rows of the statistics.
func (c *Card) Stats(out []float32) error { return cardError("statistics", c.c.Stats(out)) }

// Write replaces weights and moments (nil leaves them) and lifts the latch of a step that was not finite.
func (c *Card) Write(w, m, v []float32) error { return cardError("write", c.c.Write(w, m, v)) }

// Gradients reads the sum of the micro-batches' gradients, for tests.
func (c *Card) Gradients(out []float32) error { return cardError("gradients", c.c.Gradients(out)) }

// Memory is the most bytes the allocator held on the device.
func (c *Card) Memory() (int64, error) {
	n, err := c.c.Memory()
	return n, cardError("memory", err)
}

// Note is, once, why graphs or own kernels are not used; else "".
func (c *Card) Note() string { return c.c.Note() }

// CardCopy is a copy of weights and moments.
type CardCopy struct {
	c    *native.Copy
	size int64
}

// Copy copies weights and moments, of size elements each, on the device.
func (c *Card) Copy(size int64) (*CardCopy, error) {
	p, err := c.c.Copy()
	if err != nil {
		return nil, cardError("copy", err)
	}
	return &CardCopy{p, size}, nil
}

// Fetch brings the copy to the host, beside what the device is doing. It runs on a thread of its own.
func (c *CardCopy) Fetch() (w, m, v []float32, err error) {
	w, m, v, err = c.c.Fetch(c.size)
	return w, m, v, cardError("fetch", err)
}

// Free frees what Fetch returned.
func (c *CardCopy) Free() { c.c.Free() }
