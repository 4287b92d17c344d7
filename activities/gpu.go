package activities

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/model"
	"github.com/duratune/duratune/internal/train"
)

// GPU holds the activities that need the engine. Its worker has one slot a device, so one activity runs at a time.
type GPU struct {
	Store    artifact.Store
	Tracking *mlflow.Client
	Open     train.OpenFunc
	CacheDir string // local disk for downloads
	Scratch  string // for files that die with the process; empty: the system's
	Paused   Paused // may be nil: a pause is a cancellation like any other
	Logger   *slog.Logger

	// resident is the engine of the last run, kept so that the next activity of that run finds weights, moments and
	// captured graphs on the device. It is used only where the checkpoint's digest says that it is the very state.
	resident *resident
}

type resident struct {
	engine     train.Engine
	spec       string // the train.Spec as JSON
	parameters int64  // see [train.Plan]
	checkpoint string // SHA-256 of the manifest of the state the engine holds; "" while it is between two
}

// engine returns an engine that holds the given checkpoint (the base model's weights where it is zero), the resident one
// if that is what it holds.
func (g *GPU) engine(ctx context.Context, s Session, checkpoint artifact.Ref, forTraining bool) (train.Engine, error) {
	dir, err := g.modelDir(ctx, s.Model)
	if err != nil {
		return nil, err
	}
	spec, err := json.Marshal(s.spec(dir))
	if err != nil {
		return nil, fmt.Errorf("engine spec: %w", err)
	}
	if r := g.resident; r != nil {
		if r.spec == string(spec) && r.checkpoint != "" && r.checkpoint == checkpoint.SHA256 {
			return r.engine, nil
		}
		g.drop()
	}
	began := time.Now()
	eng, err := g.Open(ctx, s.spec(dir))
	if err != nil {
		return nil, err
	}
	g.resident = &resident{engine: eng, spec: string(spec), parameters: parameters(dir, len(s.Labels)), checkpoint: checkpoint.SHA256}
	if !checkpoint.IsZero() {
		if err := g.restore(ctx, checkpoint, eng); err != nil {
			g.drop()
			return nil, err
		}
	}
	g.Logger.Info("engine opened", "checkpoint", checkpoint.URI, "identity", eng.Identity(), "training", forTraining, "open_ms", time.Since(began).Milliseconds())
	return eng, nil
}

// parameters counts a model's weights as [train.Plan] wants them; 0 where its config cannot be read.
func parameters(dir string, labels int) int64 {
	config, err := model.ReadConfig(dir)
	if err != nil {
		return 0
	}
	return model.NewLayout(config, labels).Parameters()
}

// restore puts a checkpoint's verified tensors into the engine.
func (g *GPU) restore(ctx context.Context, ref artifact.Ref, eng train.Engine) error {
	c, err := train.Load(ctx, g.Store, ref)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(g.Scratch, "checkpoint-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return train.Restore(ctx, g.Store, c, dir, eng, true)
}

// drop frees the resident engine.
func (g *GPU) drop() {
	if g.resident == nil {
		return
	}
	if err := g.resident.engine.Close(); err != nil {
		g.Logger.Warn("close engine", "error", err)
	}
	g.resident = nil
}
