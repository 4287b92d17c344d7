package activities

import (
	"context"
	"fmt"
	"strings"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/train"
)

// SweepInput says which checkpoints of a run stay.
type SweepInput struct {
	Run     Run            `json:"run"`
	Through int            `json:"through"` // last epoch whose attempts have all ended
	Keep    []artifact.Ref `json:"keep"`    // manifests of the checkpoints that stay
}

// SweepResult counts what was removed.
type SweepResult struct {
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"`
	Uploads int   `json:"uploads"` // unfinished multipart uploads
}

// sweepBatch is how many keys are deleted at a time.
const sweepBatch = 1000

// Sweep removes the checkpoints of finished epochs that retention does not keep, and what dead attempts left there. An
// epoch that may still have a living attempt is not touched.
func (c *CPU) Sweep(ctx context.Context, in SweepInput) (res SweepResult, err error) {
	defer func() { err = edge(err) }()
	if err := in.Run.guard(ctx); err != nil {
		return res, err
	}
	keep := map[string]bool{} // object URIs
	for _, ref := range in.Keep {
		checkpoint, err := train.Load(ctx, c.Store, ref)
		if err != nil {
			return res, err // better to keep everything than to guess
		}
		keep[ref.URI], keep[checkpoint.Weights.URI], keep[checkpoint.Optimizer.URI] = true, true, true
	}
	for epoch := 1; epoch <= in.Through; epoch++ {
		if err := c.sweepEpoch(ctx, in.Run.epoch(epoch), keep, &res); err != nil {
			return res, fmt.Errorf("sweep epoch %d: %w", epoch, err)
		}
		beat(ctx, Heartbeat{Phase: "sweep", Epoch: epoch, Percent: 100 * float64(epoch) / float64(in.Through)})
	}
	return res, nil
}

// sweepEpoch removes what is below prefix but for the kept objects. Manifests go first: an attempt that is half removed
// must not look like a checkpoint.
func (c *CPU) sweepEpoch(ctx context.Context, prefix string, keep map[string]bool, res *SweepResult) error {
	var manifests, tensors []string
	for info, err := range c.Store.List(ctx, prefix) {
		if err != nil {
			return err
		}
		if keptKey(keep, info.Key) {
			continue
		}
		res.Objects++
		res.Bytes += info.Bytes
		if strings.HasSuffix(info.Key, ".json") {
			manifests = append(manifests, info.Key)
		} else {
			tensors = append(tensors, info.Key)
		}
	}
	for _, keys := range [][]string{manifests, tensors} {
		for ; len(keys) > 0; keys = keys[min(sweepBatch, len(keys)):] {
			if err := c.Store.Delete(ctx, keys[:min(sweepBatch, len(keys))]...); err != nil {
				return err
			}
		}
	}
	n, err := c.Store.AbortUploads(ctx, prefix)
	res.Uploads += n
	return err
}

// keptKey reports whether a listed key is the end of a kept object's URI: keys are relative to the store's root.
func keptKey(keep map[string]bool, key string) bool {
	for uri := range keep {
		if strings.HasSuffix(uri, "/"+key) {
			return true
		}
	}
	return false
}
