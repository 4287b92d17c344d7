//go:build torch

package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/duratune/duratune/internal/model"
	"github.com/duratune/duratune/internal/torch"
	"github.com/duratune/duratune/internal/train"
)

// GPU is a train.Engine on a CUDA device. A step is one graph, captured on the first batch of its shape; the host only fills
// in ids and labels, and waits in Sync.
type GPU struct {
	spec     train.Spec
	config   model.Config
	layout   *model.Layout
	identity train.Identity

	thread *torch.Thread
	card   *torch.Card

	pending []int64           // steps whose statistics lie on the device, in their rows' order
	stats   []train.StepStats // read before a Sync, because the device's rows were full
	read    []float32         // two a row

	given, computed int64 // tokens of training batches: of their rows, and with what padded them
	closed          bool
}

// useGPU reports whether there is a GPU that libtorch can use. Why not is said once, since it decides how long a run takes.
var useGPU = sync.OnceValue(func() bool {
	n, err := torch.GPUs()
	switch {
	case err != nil:
		slog.Warn("training on the CPU: the GPU cannot be used", "why", err)
	case n == 0:
		slog.Info("training on the CPU: there is no GPU")
	}
	return err == nil && n > 0
})

// openGPU opens the first GPU, or device -1: the CPU, with the GPU's code, for tests.
func openGPU(ctx context.Context, spec train.Spec, device int) (*GPU, error) {
	config, _, err := readSpec(&spec)
	if err != nil {
		return nil, err
	}
	if spec.Precision == "auto" {
		spec.Precision = "bf16"
	}
	thread, err := torch.NewThread(1)
	if err != nil {
		return nil, err
	}
	g := &GPU{
		spec: spec, config: config, layout: model.NewLayout(config, len(spec.Labels)), thread: thread,
		read: make([]float32, 2*torch.StatsRows),
	}
	if err := thread.Do(ctx, func() error { return g.load(device) }); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

var (
	architectures = map[string]int{model.DistilBERT: 0, model.BERT: 1, model.RoBERTa: 2}
	functions     = map[model.Activation]int{model.GELU: 0, model.GELUTanh: 1, model.ReLU: 2, model.SiLU: 3, model.Tanh: 4}
)

// precisions are the resolved ones.
var precisions = map[string]int{"fp32": torch.CardFP32, "tf32": torch.CardTF32, "bf16": torch.CardBF16}

// cardConfig says what the device has to hold.
func (g *GPU) cardConfig(device int) torch.CardConfig {
	c, l, s := g.config, g.layout, g.spec
	attended := c.HiddenDropout
	if c.Type == model.DistilBERT {
		attended = 0
	}
	positionPad := -1
	if c.Type == model.RoBERTa {
		positionPad = c.PadID
	}
	return torch.CardConfig{
		Device: device, Precision: precisions[s.Precision], Type: architectures[c.Type], Activation: functions[c.Activation],
		Layers: c.Layers, Heads: c.Heads, Hidden: c.Hidden, Inner: c.Inner, Labels: len(s.Labels),
		Vocab: c.Vocab, Positions: c.Positions, Types: c.TokenType, WordPad: c.PadID, PositionPad: positionPad,
		Size: l.Size, Tables: l.Matrices, Decayed: l.Decayed, Offsets: l.Offsets(c), NormEps: c.NormEpsilon,
		DropHidden: c.HiddenDropout, DropAttention: c.AttentionDropout, DropAttended: attended, DropHead: c.HeadDropout,
		Beta1: s.AdamBeta1, Beta2: s.AdamBeta2, AdamEps: s.AdamEpsilon, Decay: s.WeightDecay, Clip: s.MaxGradNorm,
		MaxLength: s.MaxLength, MaxInts: max(trainShape(s, nil).typedIf(true).ints, largestEval(s).typedIf(true).ints), MaxRows: evalRows[len(evalRows)-1], Train: !s.Inference,
	}
}

// load wakes the device and reads the weights meanwhile: each takes some tenths of a second.
func (g *GPU) load(device int) error {
	c, l, s := g.config, g.layout, g.spec
	values := make([]float32, l.Size)
	var loaded model.Loaded
	var loadErr error
	var reading sync.WaitGroup
	reading.Go(func() { loaded, loadErr = model.Load(s.ModelDir, c, l, s.Seed, s.Inference, values) })
	card, info, err := torch.OpenCard(g.cardConfig(device))
	reading.Wait()
	g.card = card
	if err := cmp.Or(err, loadErr); err != nil {
		return err
	}
	g.identity = train.Identity{
		Device: info.Name, InstructionSet: fmt.Sprintf("%d.%d", info.Major, info.Minor), Libtorch: torch.Version, Precision: s.Precision,
	}
	if len(loaded.Drawn)+len(loaded.Dropped) > 0 {
		slog.Info("weights differ from the folder's", "dir", s.ModelDir, "drawn", loaded.Drawn, "dropped", loaded.Dropped)
	}
	return card.Write(values, nil, nil)
}

// note logs why the device does not do all it could.
func (g *GPU) note() {
	if why := g.card.Note(); why != "" {
		slog.Warn("the GPU runs slower than it could", "why", why)
	}
}

// Identity says what the bits depend on besides the inputs.
func (g *GPU) Identity() train.Identity { return g.identity }

// Usage reports the peak bytes that libtorch held on the device, the peak of the process and what was padding.
func (g *GPU) Usage() train.Usage {
	m := train.Usage{PeakHost: peakHost()}
	if g.computed > 0 {
		m.Padding = 1 - float64(g.given)/float64(g.computed)
	}
	// A device that does not answer says so in the next step.
	_ = g.thread.Do(context.Background(), func() (err error) { m.PeakDevice, err = g.card.Memory(); return err })
	return m
}

// Close frees the device and ends the thread. A second call does nothing.
func (g *GPU) Close() error {
	if g.closed {
		return nil
	}
	g.closed = true
	err := g.thread.Do(context.Background(), func() error {
		if g.card != nil {
			g.card.Close()
		}
		return nil
	})
	g.thread.Close()
	torch.Trim()
	return err
}
