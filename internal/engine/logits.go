//go:build torch

package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/duratune/duratune/internal/torch"
	"github.com/duratune/duratune/internal/train"
)

// evalTokens bounds the tokens of an evaluation batch: enough for the matrix products to be efficient, little enough for
// their operands to stay in the cache.
const evalTokens = 1024

// Logits runs the model in evaluation mode, long sequences first, and returns the results in the order of inputs.
func (e *Engine) Logits(ctx context.Context, inputs []train.Sequence, progress func(done int)) ([][]float32, error) {
	if err := checkRows(e.spec, e.config, inputs, func(i int) string { return fmt.Sprintf("input %d", i) }); err != nil {
		return nil, err
	}
	out := make([][]float32, len(inputs))
	err := inBatches(inputs, len(inputs), evalTokens, progress, func(chunk []int, _ int) error {
		return e.thread.Do(ctx, func() error { return e.logits(inputs, chunk, out) })
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// inBatches calls do with the indices of inputs and the number of their tokens, long sequences first, so many rows and tokens
// at a time, and tells progress (may be nil) the rows done. A row with more tokens than a batch may have is one by itself. A
// batch that memory does not suffice for is halved, and those after it are as small, until it is a single row.
func inBatches(inputs []train.Sequence, rows, maxTokens int, progress func(done int), do func(chunk []int, tokens int) error) error {
	order := make([]int, len(inputs))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(len(inputs[b].IDs), len(inputs[a].IDs)) })
	for done := 0; done < len(order); {
		n, tokens := 0, 0
		for done+n < len(order) && n < rows && (n == 0 || tokens+len(inputs[order[done+n]].IDs) <= maxTokens) {
			tokens += len(inputs[order[done+n]].IDs)
			n++
		}
		err := do(order[done:done+n], tokens)
		if errors.Is(err, train.ErrOutOfMemory) && n > 1 {
			maxTokens = tokens / 2
			continue
		}
		if err != nil {
			return err
		}
		done += n
		if progress != nil {
			progress(done)
		}
	}
	return nil
}

// logits fills out for the inputs that chunk names.
func (e *Engine) logits(inputs []train.Sequence, chunk []int, out [][]float32) error {
	s := torch.NewScope()
	defer s.Close()
	seqs := make([]train.Sequence, len(chunk))
	for i, at := range chunk {
		seqs[i] = inputs[at]
	}
	values := s.Floats(e.model.Forward(s, e.anchor, e.model.Pack(s, seqs, nil, 0, 0)))
	if err := s.Err(); err != nil {
		return fmt.Errorf("engine: logits: %w", err)
	}
	c := len(e.spec.Labels)
	for i, at := range chunk {
		out[at] = slices.Clone(values[i*c : (i+1)*c])
	}
	return nil
}
