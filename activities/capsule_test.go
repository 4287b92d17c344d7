package activities

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"go.temporal.io/sdk/temporal"

	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/train"
)

// capsule reads what the run keeps in MLflow.
func (b *bench) capsule(t *testing.T) Capsule {
	t.Helper()
	run, err := b.gpu.Tracking.GetRun(t.Context(), b.run.MLflowRunID)
	if err != nil {
		t.Fatal(err)
	}
	if run.Tags[tagDiverged] != "5" {
		t.Errorf("tag %s = %q, want 5", tagDiverged, run.Tags[tagDiverged])
	}
	var body bytes.Buffer
	if _, err := b.gpu.Tracking.DownloadArtifact(t.Context(), run.ArtifactURI, CapsulePath, &body, nil); err != nil {
		t.Fatal(err)
	}
	var c Capsule
	if err := json.Unmarshal(body.Bytes(), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDivergedRunKeepsACapsule(t *testing.T) {
	b := newBench(t)
	b.prepare = func(e *fakeEngine) { e.nanAt = 5 }
	_, err := b.train(t, b.input)
	wantType(t, err, TypeLossNotFinite, false)
	var app *temporal.ApplicationError
	var details train.NotFiniteError
	if !errors.As(err, &app) || app.Details(&details) != nil || details.Step != 5 || len(details.Rows) != 8 || !math.IsNaN(float64(details.Loss)) {
		t.Errorf("details %+v, want step 5, its 8 rows and a loss of NaN", details)
	}
	if !strings.Contains(err.Error(), "replay:step CAPSULE="+b.run.MLflowRunID) {
		t.Errorf("%v does not say how to do the step again", err)
	}
	c := b.capsule(t)
	before, err := train.Load(t.Context(), b.store, c.Checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	if before.State.Step != 5 || before.Complete || c.Identity.Device != "fake" || c.Train.Seed != 42 {
		t.Errorf("capsule %+v with a checkpoint at step %d, want the state before step 5, device and seed", c, before.State.Step)
	}

	for nanAt, finite := range map[int64]bool{5: false, -1: true} {
		b.prepare = func(e *fakeEngine) { e.nanAt = nanAt }
		stats, identity, err := Replay(t.Context(), b.gpu, c)
		if err != nil {
			t.Fatal(err)
		}
		if stats.Step != 5 || stats.Finite != finite || identity != c.Identity {
			t.Errorf("replayed: %+v on %+v, want step 5, finite: %v", stats, identity, finite)
		}
	}
	c.Failure.Rows = []int64{testRows}
	if _, _, err := Replay(t.Context(), b.gpu, c); err == nil {
		t.Error("a row that does not exist was replayed")
	}
}

// TestOutageDoesNotLoseTheCapsule: MLflow is away when the run diverges. The next attempt has one step to do.
func TestOutageDoesNotLoseTheCapsule(t *testing.T) {
	b := newBench(t)
	steps := 0
	b.prepare = func(e *fakeEngine) {
		e.nanAt = 5
		e.hook = func(int64) error { steps++; return nil }
	}
	alive := b.gpu.Tracking
	var err error
	if b.gpu.Tracking, err = mlflow.New(mlflow.Config{TrackingURI: "http://127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	_, err = b.train(t, b.input)
	wantType(t, err, TypeTrackingUnavailable, true)
	steps = 0
	b.gpu.Tracking = alive
	_, err = b.train(t, b.input)
	wantType(t, err, TypeLossNotFinite, false)
	if from := 11 - 5; steps > from {
		t.Errorf("the next attempt did %d steps, want at most the %d from the fifth on", steps, from)
	}
	b.capsule(t)
}
