package train

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/safetensors"
)

// checkpointVersion changes when an older build could not continue from a newer checkpoint.
const checkpointVersion = 1

// maxManifest bounds a manifest before it is read.
const maxManifest = 1 << 20

const manifestName = "manifest.json"

// Checkpoint is the manifest of everything a run needs to go on from one step. It is written last, after the tensors it
// names, and only if nothing stands under its key: it makes the checkpoint real.
type Checkpoint struct {
	Version   int          `json:"version"`
	RunKey    string       `json:"run_key"`
	Tokens    string       `json:"tokens"` // SHA-256 of the manifest of the rows it was trained on
	Epoch     int          `json:"epoch"`  // 1-based; the epoch that the step belongs to or ends
	Complete  bool         `json:"complete"`
	State     State        `json:"state"`
	Identity  Identity     `json:"identity"`
	Lineage   int          `json:"lineage"`   // counts resumptions under another identity
	Weights   artifact.Ref `json:"weights"`   // safetensors by Hugging Face's names, fp32
	Optimizer artifact.Ref `json:"optimizer"` // safetensors: exp_avg.<name>, exp_avg_sq.<name>, fp32
}

// Save uploads a snapshot below prefix and then its manifest, c with the Refs of its tensors, and returns the manifest's Ref.
// It releases the snapshot.
// progress is told the bytes done of either tensor file, in turns.
func Save(ctx context.Context, store artifact.Store, prefix string, snap Snapshot, c *Checkpoint, progress artifact.Progress) (artifact.Ref, error) {
	defer snap.Release()
	c.Version = checkpointVersion
	weights, err := snap.Weights()
	if err != nil {
		return artifact.Ref{}, fmt.Errorf("checkpoint at step %d: %w", c.State.Step, err)
	}
	moments, err := snap.Optimizer()
	if err != nil {
		return artifact.Ref{}, fmt.Errorf("checkpoint at step %d: %w", c.State.Step, err)
	}
	// format "pt" lets transformers of any version read the weights as they are.
	g, gctx := errgroup.WithContext(ctx)
	progress = together(progress)
	put := func(ref *artifact.Ref, name string, tensors []safetensors.Tensor) {
		g.Go(func() error {
			body, err := safetensors.NewReader(map[string]string{"format": "pt"}, tensors)
			if err != nil {
				return err
			}
			*ref, err = store.Put(gctx, prefix+"/"+name, body, progress)
			return err
		})
	}
	put(&c.Weights, "weights.safetensors", weights)
	put(&c.Optimizer, "optimizer.safetensors", moments)
	if err := g.Wait(); err != nil {
		return artifact.Ref{}, fmt.Errorf("checkpoint at step %d: %w", c.State.Step, err)
	}
	body, err := json.Marshal(c)
	if err != nil {
		return artifact.Ref{}, fmt.Errorf("checkpoint at step %d: %w", c.State.Step, err)
	}
	ref, err := store.PutIfAbsent(ctx, prefix+"/"+manifestName, body)
	if err != nil {
		return artifact.Ref{}, fmt.Errorf("checkpoint at step %d: %w", c.State.Step, err)
	}
	return ref, nil
}

// together lets two transfers report to one Progress, which is called from one goroutine at a time.
func together(progress artifact.Progress) artifact.Progress {
	if progress == nil {
		return nil
	}
	var mu sync.Mutex
	return func(done int64) {
		mu.Lock()
		defer mu.Unlock()
		progress(done)
	}
}

// Load reads the manifest that ref names.
func Load(ctx context.Context, store artifact.Store, ref artifact.Ref) (Checkpoint, error) {
	var c Checkpoint
	r, err := store.Open(ctx, ref)
	if err != nil {
		return c, fmt.Errorf("checkpoint %s: %w", ref.URI, err)
	}
	defer r.Close()
	body, err := io.ReadAll(io.LimitReader(r, maxManifest+1))
	if err != nil {
		return c, fmt.Errorf("checkpoint %s: %w", ref.URI, err)
	}
	if err := c.decode(body); err != nil {
		return c, fmt.Errorf("checkpoint %s: %w", ref.URI, err)
	}
	return c, nil
}

// Found is a checkpoint with the Ref of its manifest.
type Found struct {
	Checkpoint
	Ref artifact.Ref
}

// Find lists the checkpoints whose manifests were committed below prefix (all attempts of an epoch), latest step
// first. Their tensors are verified only when they are read: the caller walks on from one that is corrupt.
func Find(ctx context.Context, store artifact.Store, prefix, runKey string) ([]Found, error) {
	var found []Found
	for info, err := range store.List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list checkpoints: %w", err)
		}
		if !strings.HasSuffix(info.Key, "/"+manifestName) {
			continue
		}
		body, ref, err := store.Get(ctx, info.Key, maxManifest)
		if errors.Is(err, artifact.ErrNotFound) || errors.Is(err, artifact.ErrCorrupt) {
			continue // swept, or not a manifest that this build wrote
		}
		if err != nil {
			return nil, fmt.Errorf("list checkpoints: %w", err)
		}
		f := Found{Ref: ref}
		if f.decode(body) == nil && f.RunKey == runKey {
			found = append(found, f)
		}
	}
	slices.SortStableFunc(found, func(a, b Found) int {
		return cmp.Or(cmp.Compare(b.State.Step, a.State.Step), -cmp.Compare(b2i(a.Complete), b2i(b.Complete)))
	})
	return found, nil
}

// Restore downloads the tensors of a checkpoint into dir, verified, and puts them into the engine.
func Restore(ctx context.Context, store artifact.Store, c Checkpoint, dir string, eng Engine, withOptimizer bool) error {
	weights, err := fetch(ctx, store, c.Weights, filepath.Join(dir, "weights.safetensors"))
	if err != nil {
		return err
	}
	defer weights.Close()
	if !withOptimizer {
		return eng.Restore(ctx, weights, nil)
	}
	moments, err := fetch(ctx, store, c.Optimizer, filepath.Join(dir, "optimizer.safetensors"))
	if err != nil {
		return err
	}
	defer moments.Close()
	return eng.Restore(ctx, weights, moments)
}

// fetch copies an object to path, verified by its digest as it is read, and opens it.
func fetch(ctx context.Context, store artifact.Store, ref artifact.Ref, path string) (*safetensors.File, error) {
	r, err := store.Open(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", ref.URI, err)
	}
	defer r.Close()
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(f, r); err != nil {
		return nil, errors.Join(fmt.Errorf("checkpoint %s: %w", ref.URI, err), f.Close())
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	return safetensors.Open(path)
}

func (c *Checkpoint) decode(body []byte) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	if err := dec.Decode(c); err != nil {
		return err
	}
	if c.Version != checkpointVersion {
		return fmt.Errorf("written as version %d, this build reads version %d", c.Version, checkpointVersion)
	}
	return nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
