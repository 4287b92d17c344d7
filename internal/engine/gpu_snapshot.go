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

// gpuSnapshot is a copy that was made on the device at once and comes to the host in the background.
type gpuSnapshot struct {
	layout      *model.Layout
	copy        *torch.CardCopy
	fetched     chan struct{} // closed when value, m and v, or err, are there
	value, m, v []float32
	err         error
	release     sync.Once
}

// Snapshot copies weights and moments on the device, which takes less than a step, and lets training go on.
func (g *GPU) Snapshot(ctx context.Context) (train.Snapshot, error) {
	if g.spec.Inference {
		return nil, errInference
	}
	snap := &gpuSnapshot{layout: g.layout, fetched: make(chan struct{})}
	err := g.thread.Do(ctx, func() (err error) {
		snap.copy, err = g.card.Copy(g.layout.Size)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("engine: snapshot: %w", err)
	}
	go snap.fetch()
	return snap, nil
}

func (s *gpuSnapshot) fetch() {
	defer close(s.fetched)
	thread, err := torch.NewThread(1)
	if err != nil {
		s.err = err
		return
	}
	defer thread.Close()
	s.err = thread.Do(context.Background(), func() (err error) {
		s.value, s.m, s.v, err = s.copy.Fetch()
		return err
	})
}

// Weights waits for the copy and returns the weights by their Hugging Face names.
func (s *gpuSnapshot) Weights() ([]safetensors.Tensor, error) {
	if <-s.fetched; s.err != nil {
		return nil, fmt.Errorf("engine: snapshot: %w", s.err)
	}
	return s.layout.Tensors(s.value, ""), nil
}

// Optimizer waits for the copy and returns the moments.
func (s *gpuSnapshot) Optimizer() ([]safetensors.Tensor, error) {
	if <-s.fetched; s.err != nil {
		return nil, fmt.Errorf("engine: snapshot: %w", s.err)
	}
	return slices.Concat(s.layout.Tensors(s.m, firstMoment), s.layout.Tensors(s.v, secondMoment)), nil
}

// Release frees the copy, after it came to the host.
func (s *gpuSnapshot) Release() {
	s.release.Do(func() {
		<-s.fetched
		s.copy.Free()
	})
}

// Restore replaces weights and, where it is not nil, optimizer state, after all of it was checked. It lifts the latch of a
// step that was not finite.
func (g *GPU) Restore(ctx context.Context, weights, optimizer *safetensors.File) error {
	if g.spec.Inference {
		return errInference
	}
	if err := g.layout.Check(weights, ""); err != nil {
		return err
	}
	read := func(f *safetensors.File, prefix string) ([]float32, error) {
		flat := make([]float32, g.layout.Size)
		return flat, g.layout.Fill(flat, f, prefix)
	}
	w, err := read(weights, "")
	var m, v []float32
	if optimizer != nil && err == nil {
		if err := g.layout.Check(optimizer, firstMoment, secondMoment); err != nil {
			return err
		}
		var err2 error
		m, err = read(optimizer, firstMoment)
		v, err2 = read(optimizer, secondMoment)
		err = errors.Join(err, err2)
	}
	if err != nil {
		return fmt.Errorf("engine: restore: %w", err)
	}
	if err := g.thread.Do(ctx, func() error { return g.card.Write(w, m, v) }); err != nil {
		return fmt.Errorf("engine: restore: %w", err)
	}
	g.pending, g.stats = g.pending[:0], nil
	return nil
}
