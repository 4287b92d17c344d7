package activities

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/train"
)

// save begins a checkpoint of the engine's state and returns as soon as that is copied: the upload runs beside training.
// It waits for the checkpoint before, so that there is one copy at a time. An upload that fails ends the training.
func (e *epoch) save(ctx context.Context, st train.State, complete bool) error {
	if err := e.saved(); err != nil {
		return err
	}
	began := time.Now()
	snap, err := e.engine.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("checkpoint at step %d: %w", st.Step, err)
	}
	c := train.Checkpoint{RunKey: e.in.Run.Key, Tokens: e.in.Tokens.SHA256, Epoch: e.in.Epoch, Complete: complete, State: st, Identity: e.engine.Identity(), Lineage: e.from.Lineage}
	if e.from.Version > 0 && e.from.Identity != c.Identity {
		c.Lineage++
	}
	done := make(chan error, 1)
	e.saving = done
	go func() {
		err := e.upload(ctx, snap, c, began)
		if err != nil {
			e.giveUp(err)
		}
		done <- err
	}()
	return nil
}

// saved waits for the upload that runs, if any, and returns how it ended.
func (e *epoch) saved() error {
	if e.saving == nil {
		return nil
	}
	err := <-e.saving
	e.saving = nil
	return err
}

// upload commits a copied state. The points before it go into the metric log first: a later attempt starts behind them.
func (e *epoch) upload(ctx context.Context, snap train.Snapshot, c train.Checkpoint, began time.Time) error {
	if err := e.track.flush(ctx, c.State.Step); err != nil {
		snap.Release()
		return err
	}
	prefix := fmt.Sprintf("%s/step-%09d", e.in.Run.attempt(ctx, e.in.Run.epoch(e.in.Epoch)), c.State.Step)
	ref, err := train.Save(ctx, e.Store, prefix, snap, &c, func(int64) {
		e.beat(ctx, func(h *Heartbeat) { h.Phase = "checkpoint" })
	})
	if err != nil {
		return err
	}
	e.last.set(ref, c)
	measureCheckpoint(ctx, c, time.Since(began))
	e.beat(ctx, func(h *Heartbeat) { h.Checkpoint, h.Failures = ref, nil }) // progress: earlier failures count no more
	return nil
}

// committed is the last checkpoint of an epoch that is real.
type committed struct {
	mu       sync.Mutex
	ref      artifact.Ref
	manifest train.Checkpoint
}

func (c *committed) set(ref artifact.Ref, manifest train.Checkpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ref, c.manifest = ref, manifest
}

func (c *committed) get() (artifact.Ref, train.Checkpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ref, c.manifest
}

// pulse is an epoch's heartbeat, which training and the upload beside it share.
type pulse struct {
	mu   sync.Mutex
	beat Heartbeat
}

// beat changes the heartbeat and sends it.
func (e *epoch) beat(ctx context.Context, change func(*Heartbeat)) {
	e.pulse.mu.Lock()
	defer e.pulse.mu.Unlock()
	change(&e.pulse.beat)
	beat(ctx, e.pulse.beat)
}
