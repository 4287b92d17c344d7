//go:build torch

package engine

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/duratune/duratune/internal/model"
	"github.com/duratune/duratune/internal/torch"
	"github.com/duratune/duratune/internal/train"
)

// errInference is returned by what needs an optimizer.
var errInference = errors.New("engine: opened for inference")

// clipEpsilon is what torch.nn.utils.clip_grad_norm_ adds to the norm.
const clipEpsilon = 1e-6

// Step runs forward, backward, clipping and one AdamW update at the given learning rate.
func (e *Engine) Step(ctx context.Context, step int64, lr float64, b train.Batch) error {
	if e.spec.Inference {
		return errInference
	}
	if err := checkBatch(e.spec, e.config, step, b); err != nil {
		return err
	}
	if e.frozen {
		nan := float32(math.NaN())
		e.stats = append(e.stats, train.StepStats{Step: step, Loss: nan, GradNorm: nan})
		return nil
	}
	return e.thread.Do(ctx, func() error { return e.step(step, lr, b) })
}

// checkBatch refuses what the model cannot take, naming the row.
func checkBatch(spec train.Spec, config model.Config, step int64, b train.Batch) error {
	if len(b.Inputs) == 0 || len(b.Labels) != len(b.Inputs) || len(b.Rows) != len(b.Inputs) {
		return fmt.Errorf("engine: step %d: %d sequences, %d labels, %d rows", step, len(b.Inputs), len(b.Labels), len(b.Rows))
	}
	if err := checkRows(spec, config, b.Inputs, func(i int) string { return fmt.Sprintf("row %d", b.Rows[i]) }); err != nil {
		return err
	}
	for i, label := range b.Labels {
		if label < 0 || label >= int64(len(spec.Labels)) {
			return fmt.Errorf("engine: row %d: label %d, want 0 to %d", b.Rows[i], label, len(spec.Labels)-1)
		}
	}
	return nil
}

func (e *Engine) step(step int64, lr float64, b train.Batch) error {
	defer e.clearWordRows(b.Inputs)
	var loss float64
	for from := 0; from < len(b.Labels); from += e.spec.MicroStep {
		l, err := e.microStep(step, b, from, min(from+e.spec.MicroStep, len(b.Labels)))
		if err != nil {
			return fmt.Errorf("engine: step %d: %w", step, err)
		}
		loss += l
	}
	norm, err := torch.L2(e.buf.Grad)
	if err != nil {
		return err
	}
	st := train.StepStats{Step: step, Loss: float32(loss), GradNorm: float32(norm)}
	st.Finite = !math.IsNaN(loss) && !math.IsInf(loss, 0) && !math.IsNaN(norm) && !math.IsInf(norm, 0)
	e.stats = append(e.stats, st)
	if !st.Finite {
		e.frozen = true
		return nil
	}
	clip := 1.0
	if e.spec.MaxGradNorm > 0 {
		clip = math.Min(1, e.spec.MaxGradNorm/(norm+clipEpsilon))
	}
	return e.adam.Step(step+1, lr, clip)
}

// microStep adds the gradients of rows [from, to) and returns their part of the batch's mean loss.
func (e *Engine) microStep(step int64, b train.Batch, from, to int) (float64, error) {
	s := torch.NewScope()
	defer s.Close()
	s.Accumulate = from > 0
	in := e.model.Pack(s, b.Inputs[from:to], b.Rows[from:to], e.spec.Seed, step)
	labels := torch.Of(s, b.Labels[from:to], int64(to-from))
	var loss torch.Tensor
	torch.WithGrad(true, func() {
		logits := e.model.Forward(s, e.anchor, in)
		loss = s.Mul(s.CrossEntropySum(logits, labels, e.spec.LabelSmoothing), 1/float64(len(b.Labels)))
		s.Backward(loss)
	})
	if !e.buf.ShadowGrad.IsNone() {
		s.Collect(e.buf.Grad, e.buf.ShadowGrad, e.layout.Matrices)
	}
	return s.Scalar(loss), s.Err()
}

// clearWordRows makes the word table's gradient zero again: only the rows of the batch's tokens are not.
func (e *Engine) clearWordRows(inputs []train.Sequence) {
	grads, d := e.scope.Floats(e.buf.Grad), e.config.Hidden
	for _, seq := range inputs {
		for _, id := range seq.IDs {
			clear(grads[int(id)*d : (int(id)+1)*d]) // the word table is the first of the buffer
		}
	}
}

// Sync returns the steps done since the last Sync. On a CPU there is nothing to wait for.
func (e *Engine) Sync(context.Context) ([]train.StepStats, error) {
	stats := e.stats
	e.stats = nil
	return stats, nil
}
