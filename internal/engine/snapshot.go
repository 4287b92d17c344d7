//go:build torch

package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/duratune/duratune/internal/model"
	"github.com/duratune/duratune/internal/safetensors"
	"github.com/duratune/duratune/internal/torch"
	"github.com/duratune/duratune/internal/train"
)

// Prefixes of AdamW's moments in a checkpoint.
const (
	firstMoment  = "exp_avg."
	secondMoment = "exp_avg_sq."
)

// snapshot is a copy of the buffers.
type snapshot struct {
	layout      *model.Layout
	scope       *torch.Scope
	value, m, v []float32
	release     sync.Once
}

// Snapshot copies weights and moments.
func (e *Engine) Snapshot(ctx context.Context) (train.Snapshot, error) {
	if e.spec.Inference {
		return nil, errInference
	}
	snap := &snapshot{layout: e.layout, scope: torch.NewScope()}
	err := e.thread.Do(ctx, func() error {
		for _, c := range []struct {
			dst *[]float32
			src torch.Tensor
		}{{&snap.value, e.buf.Value}, {&snap.m, e.adam.M}, {&snap.v, e.adam.V}} {
			dst := snap.scope.Empty(torch.Float32, torch.CPU, e.layout.Size)
			snap.scope.Copy(dst, c.src)
			*c.dst = snap.scope.Floats(dst)
		}
		return snap.scope.Err()
	})
	if err != nil {
		snap.Release()
		return nil, fmt.Errorf("engine: snapshot: %w", err)
	}
	return snap, nil
}

// Weights returns the weights by their Hugging Face names.
func (s *snapshot) Weights() ([]safetensors.Tensor, error) { return s.layout.Tensors(s.value, ""), nil }

// Optimizer returns the moments.
func (s *snapshot) Optimizer() ([]safetensors.Tensor, error) {
	return slices.Concat(s.layout.Tensors(s.m, firstMoment), s.layout.Tensors(s.v, secondMoment)), nil
}

// Release frees the copy.
func (s *snapshot) Release() { s.release.Do(s.scope.Close) }

// Restore replaces weights and, where it is not nil, optimizer state, after all of it was checked. It lifts the latch of a
// step that was not finite.
func (e *Engine) Restore(ctx context.Context, weights, optimizer *safetensors.File) error {
	if e.spec.Inference {
		return errInference
	}
	if err := e.layout.Check(weights, ""); err != nil {
		return err
	}
	if optimizer != nil {
		if err := e.layout.Check(optimizer, firstMoment, secondMoment); err != nil {
			return err
		}
	}
	err := e.thread.Do(ctx, func() error {
		err := e.layout.Fill(e.scope.Floats(e.buf.Value), weights, "")
		if optimizer != nil {
			err = errors.Join(err, e.layout.Fill(e.scope.Floats(e.adam.M), optimizer, firstMoment),
				e.layout.Fill(e.scope.Floats(e.adam.V), optimizer, secondMoment))
		}
		e.refreshShadow()
		return errors.Join(err, e.scope.Err())
	})
	if err != nil {
		return fmt.Errorf("engine: restore: %w", err)
	}
	e.frozen, e.stats = false, nil
	return nil
}
