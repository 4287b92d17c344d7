//go:build torch

package engine

import (
	"context"
	"fmt"
	"math"

	"github.com/duratune/duratune/internal/torch"
	"github.com/duratune/duratune/internal/train"
)

// Step puts forward, backward, clipping and one AdamW update on the device and returns before they are done.
func (g *GPU) Step(ctx context.Context, step int64, lr float64, b train.Batch) error {
	if g.spec.Inference {
		return errInference
	}
	if err := checkBatch(g.spec, g.config, step, b); err != nil {
		return err
	}
	return g.thread.Do(ctx, func() error {
		if len(g.pending) == torch.StatsRows {
			if err := g.drain(); err != nil {
				return err
			}
		}
		if err := g.step(step, lr, b); err != nil {
			return fmt.Errorf("engine: step %d: %w", step, err)
		}
		g.pending = append(g.pending, step)
		g.note()
		return nil
	})
}

func (g *GPU) step(step int64, lr float64, b train.Batch) error {
	n, micro := len(b.Labels), g.spec.MicroStep
	if g.spec.BatchSize <= micro {
		return g.run(torch.RunStep, step, lr, b, 0, n)
	}
	kind := torch.RunMicroFirst
	for from := 0; from < n; from += micro {
		if err := g.run(kind, step, lr, b, from, min(from+micro, n)); err != nil {
			return err
		}
		kind = torch.RunMicroMore
	}
	return g.run(torch.RunUpdate, step, lr, b, 0, 0)
}

// run lays rows [from, to) out and puts them on the device.
func (g *GPU) run(kind int, step int64, lr float64, b train.Batch, from, to int) error {
	seqs := b.Inputs[from:to]
	s := trainShape(g.spec, seqs).typedIf(g.config.Typed(seqs))
	if g.spec.Precision != "bf16" && g.config.AttentionDropout > 0 { // attention then pads to what bounds a row
		s.maxKey = min(s.maxKey, roundUp(longest(seqs), 32))
	}
	ints, err := g.card.Stage(s.ints)
	if err != nil {
		return err
	}
	s.fill(ints, g.config, seqs)
	if kind != torch.RunUpdate {
		for _, seq := range seqs {
			g.given += int64(len(seq.IDs))
		}
		g.computed += int64(s.tokens)
	}
	s.target(ints, b.Labels[from:to], len(b.Labels), g.spec.LabelSmoothing)
	header(ints, g.spec, step, lr, len(g.pending))
	return g.card.Run(kind, s.rows, s.tokens, s.maxKey, s.typed, s.ints, dropoutSeed(g.spec.Seed, step, from))
}

// dropoutSeed keys the dropout of a micro-batch.
func dropoutSeed(seed, step int64, from int) uint64 {
	x := uint64(seed)
	for _, y := range []uint64{uint64(step), uint64(from)} {
		x += y + 0x9e3779b97f4a7c15 // splitmix64
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		x ^= x >> 31
	}
	return x
}

// Sync waits for the device and returns the steps done since the last Sync.
func (g *GPU) Sync(ctx context.Context) ([]train.StepStats, error) {
	if err := g.thread.Do(ctx, g.drain); err != nil {
		return nil, fmt.Errorf("engine: sync: %w", err)
	}
	stats := g.stats
	g.stats = nil
	return stats, nil
}

// drain reads the statistics off the device.
func (g *GPU) drain() error {
	if len(g.pending) == 0 {
		return nil
	}
	read := g.read[:2*len(g.pending)]
	if err := g.card.Stats(read); err != nil {
		return err
	}
	for i, step := range g.pending {
		loss, norm := read[2*i], read[2*i+1]
		g.stats = append(g.stats, train.StepStats{Step: step, Loss: loss, GradNorm: norm, Finite: finite(loss) && finite(norm)})
	}
	g.pending = g.pending[:0]
	return nil
}

func finite(x float32) bool { return !math.IsNaN(float64(x)) && !math.IsInf(float64(x), 0) }

// Logits runs the model in evaluation mode, long sequences first in large batches, and returns the results in the order of
// inputs.
func (g *GPU) Logits(ctx context.Context, inputs []train.Sequence, progress func(done int)) ([][]float32, error) {
	if err := checkRows(g.spec, g.config, inputs, func(i int) string { return fmt.Sprintf("input %d", i) }); err != nil {
		return nil, err
	}
	out := make([][]float32, len(inputs))
	err := inBatches(inputs, evalRows[len(evalRows)-1], gpuEvalTokens, progress, func(chunk []int, tokens int) error {
		return g.thread.Do(ctx, func() error { return g.logits(inputs, chunk, tokens, out) })
	})
	if err != nil {
		return nil, fmt.Errorf("engine: logits: %w", err)
	}
	return out, nil
}

// logits fills out for the inputs that chunk names.
func (g *GPU) logits(inputs []train.Sequence, chunk []int, tokens int, out [][]float32) error {
	seqs := make([]train.Sequence, len(chunk))
	for i, at := range chunk {
		seqs[i] = inputs[at]
	}
	s := evalShape(g.spec, len(chunk), tokens).typedIf(g.config.Typed(seqs))
	ints, err := g.card.Stage(s.ints)
	if err != nil {
		return err
	}
	s.fill(ints, g.config, seqs)
	if err := g.card.Run(torch.RunEval, s.rows, s.tokens, s.maxKey, s.typed, s.ints, 0); err != nil {
		return err
	}
	values := make([]float32, len(chunk)*s.labels)
	if err := g.card.Logits(values, len(chunk)); err != nil {
		return err
	}
	for i, at := range chunk {
		out[at] = values[i*s.labels : (i+1)*s.labels : (i+1)*s.labels]
	}
	g.note()
	return nil
}
