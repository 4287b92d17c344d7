package activities

import (
	"context"

	"go.temporal.io/sdk/activity"

	"github.com/duratune/duratune/internal/artifact"
)

// Heartbeat is what a running activity reports, and what its next attempt resumes from. It is beaten from completed
// steps, never from a ticker beside the work, so that a hung step times out.
type Heartbeat struct {
	Phase            string  `json:"phase"` // e.g. "train", "checkpoint", "evaluate"
	Epoch            int     `json:"epoch,omitempty"`
	Epochs           int     `json:"epochs,omitempty"`
	Step             int64   `json:"step,omitempty"` // completed steps of the run
	Steps            int64   `json:"steps,omitempty"`
	Percent          float64 `json:"percent"` // of the activity
	SamplesPerSecond float64 `json:"samples_per_second,omitempty"`
	ETASeconds       float64 `json:"eta_seconds,omitempty"`

	Checkpoint artifact.Ref `json:"checkpoint,omitzero"` // last committed manifest
	Failures   []int64      `json:"failures,omitempty"`  // steps that earlier attempts started from without progress
}

// beat records a heartbeat; the SDK throttles.
func beat(ctx context.Context, h Heartbeat) { activity.RecordHeartbeat(ctx, h) }

// lastBeat returns the details of the previous attempt's last heartbeat, or the zero Heartbeat. Undecodable details
// (of another build) are as good as none: the checkpoints in the store are the truth.
func lastBeat(ctx context.Context) Heartbeat {
	var h Heartbeat
	if activity.HasHeartbeatDetails(ctx) {
		if err := activity.GetHeartbeatDetails(ctx, &h); err != nil {
			return Heartbeat{}
		}
	}
	return h
}
