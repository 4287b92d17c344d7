package activities

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/recipe"
)

// gate is a store whose writes of keys that contain a text go through a function first.
type gate struct {
	artifact.Store
	text string
	pass func(ctx context.Context) error
}

func (g gate) Put(ctx context.Context, key string, body io.ReadSeeker, progress artifact.Progress) (artifact.Ref, error) {
	if strings.Contains(key, g.text) {
		if err := g.pass(ctx); err != nil {
			return artifact.Ref{}, err
		}
	}
	return g.Store.Put(ctx, key, body, progress)
}

// TestTrainingGoesOnBesideAnUpload holds the checkpoint at step 3 back until step 5 has begun, and expects the one at step
// 6 to wait for it.
func TestTrainingGoesOnBesideAnUpload(t *testing.T) {
	want := straight(t)
	b := newBench(t)
	b.input.Every = recipe.Checkpoint{EverySteps: 3}
	reached := make(chan struct{})
	b.prepare = func(e *fakeEngine) {
		e.hook = func(step int64) error {
			if step == 5 {
				close(reached)
			}
			return nil
		}
	}
	b.gpu.Store = gate{b.store, "step-000000003/weights", func(ctx context.Context) error {
		select {
		case <-reached:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	res, err := b.train(t, b.input)
	if err != nil {
		t.Fatal(err)
	}
	if b.weights(t, res.Checkpoint) != want {
		t.Error("weights and moments differ from an undisturbed epoch's")
	}
	var manifests []string
	for info, err := range b.store.List(t.Context(), b.run.epoch(1)) {
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(info.Key, "/manifest.json") {
			manifests = append(manifests, info.Key)
		}
	}
	if len(manifests) != 4 { // at steps 3, 6, 9 and 11
		t.Errorf("checkpoints: %v, want 4", manifests)
	}
}

// TestFailedUploadEndsTheTraining: the steps after a checkpoint that cannot be written are not trained in vain.
func TestFailedUploadEndsTheTraining(t *testing.T) {
	want := straight(t)
	b := newBench(t)
	b.input.Every = recipe.Checkpoint{EverySteps: 3}
	failed := make(chan struct{})
	var last int64
	b.prepare = func(e *fakeEngine) {
		e.hook = func(step int64) error {
			last = step
			if step == 4 {
				<-failed
			}
			return nil
		}
	}
	b.gpu.Store = gate{b.store, "step-000000003/optimizer", func(context.Context) error {
		defer close(failed)
		return artifact.ErrUnavailable
	}}
	_, err := b.train(t, b.input)
	wantType(t, err, TypeStoreUnavailable, true)
	if last > 6 {
		t.Errorf("trained up to step %d after the upload had failed", last)
	}
	b.gpu.Store, b.prepare = b.store, nil
	res, err := b.train(t, b.input)
	if err != nil {
		t.Fatal(err)
	}
	if b.weights(t, res.Checkpoint) != want {
		t.Error("weights and moments differ from an undisturbed epoch's")
	}
}
