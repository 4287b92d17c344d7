package activities

import (
	"bytes"
	"context"
	"io"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/testsuite"

	"github.com/duratune/duratune/internal/artifact"
)

// trickling is a store whose downloads take longer than a worker may be silent, a byte at a time.
type trickling struct{ artifact.Store }

func (s trickling) Open(ctx context.Context, ref artifact.Ref) (io.ReadCloser, error) {
	r, err := s.Store.Open(ctx, ref)
	return struct {
		io.Reader
		io.Closer
	}{iotest.OneByteReader(r), r}, err
}

// TestDownloadsBeat: a download is heard of while it runs, and keeps what the attempt before had to say.
func TestDownloadsBeat(t *testing.T) {
	mem := artifact.NewMem()
	ref, err := mem.Put(t.Context(), "k", bytes.NewReader([]byte("hello")), nil)
	if err != nil {
		t.Fatal(err)
	}
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	before := Heartbeat{Phase: "train", Epoch: 2, Step: 7, Failures: []int64{7}}
	env.SetHeartbeatDetails(before)
	var beats []Heartbeat
	env.SetOnActivityHeartbeatListener(func(_ *activity.Info, details converter.EncodedValues) {
		var h Heartbeat
		if err := details.Get(&h); err != nil {
			t.Error(err)
		}
		beats = append(beats, h)
	})
	download := func(ctx context.Context) error {
		r, err := Beating(trickling{mem}).Open(ctx, ref)
		if err != nil {
			return err
		}
		defer r.Close()
		if r, ok := r.(*beatingReader); ok {
			r.last = r.last.Add(-beatInterval) // as if the first byte had taken so long
		}
		_, err = io.Copy(io.Discard, r)
		return err
	}
	env.RegisterActivity(download)
	if _, err := env.ExecuteActivity(download); err != nil {
		t.Fatal(err)
	}
	before.Phase = "download"
	if diff := cmp.Diff([]Heartbeat{before}, beats); diff != "" {
		t.Errorf("heartbeats (-want +got):\n%s", diff)
	}
	if r, err := Beating(mem).Open(t.Context(), ref); err != nil { // outside of an activity
		t.Error(err)
	} else if err := r.Close(); err != nil {
		t.Error(err)
	}
}
