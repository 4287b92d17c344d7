package activities

import (
	"context"
	"io"
	"slices"
	"time"

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
	Failures   []int64      `json:"failures,omitempty"`  // an entry for each earlier attempt that failed without progress: the step it began at, or the epoch
}

// beatInterval is how often a download beats.
const beatInterval = time.Second

// Beating makes every download from s that an activity reads a source of its heartbeats: one of some GB takes longer than
// a worker may be silent.
func Beating(s artifact.Store) artifact.Store { return beating{s} }

type beating struct{ artifact.Store }

// Open opens an object whose arriving bytes beat. What the attempt before had to say stays said.
func (b beating) Open(ctx context.Context, ref artifact.Ref) (io.ReadCloser, error) {
	r, err := b.Store.Open(ctx, ref)
	if err != nil || !activity.IsActivity(ctx) {
		return r, err
	}
	h := lastBeat(ctx)
	h.Phase = "download"
	return &beatingReader{ReadCloser: r, beat: func() { beat(ctx, h) }, last: time.Now()}, nil
}

type beatingReader struct {
	io.ReadCloser
	beat func()
	last time.Time
}

// Read reads, and beats once a while.
func (r *beatingReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if n > 0 && time.Since(r.last) >= beatInterval {
		r.last = time.Now()
		r.beat()
	}
	return n, err
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

// noProgressLimit is how many failures of the same work, with no checkpoint between them, end the run.
const noProgressLimit = 3

// counted has note record a failure where the next attempt finds it, and makes the last one that is allowed final. Outages,
// interruptions and cancellation are nobody's fault and do not count; a killed worker never comes here.
func counted(ctx context.Context, err error, what string, note func() (failures []int64)) error {
	if err == nil || excused(err) || ctx.Err() != nil {
		return err
	}
	if n := len(note()); n >= noProgressLimit && retryable(err) {
		return &noProgressError{what: what, attempts: n, err: err}
	}
	return err
}

// failed counts the failures of an activity that has no checkpoints.
func failed(ctx context.Context, s Session, err error) error {
	return counted(ctx, err, "of "+activity.GetInfo(ctx).ActivityType.Name, func() []int64 {
		h := lastBeat(ctx)
		h.Phase, h.Failures = "failed", append(slices.Clone(h.Failures), int64(s.Epoch))
		beat(ctx, h)
		return h.Failures
	})
}
