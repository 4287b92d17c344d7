package artifact_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/artifact/artifacttest"
)

// sourceStore is what both sources are.
type sourceStore interface {
	artifact.Store
	artifact.Source
}

func TestRead(t *testing.T) {
	t.Run("mem", func(t *testing.T) { testRead(t, artifact.NewMem()) })
	t.Run("s3", func(t *testing.T) {
		cfg := artifacttest.StartGateway(t).AWS()
		s, err := artifact.Open(t.Context(), "s3://bucket", artifact.Config{AWS: &cfg})
		if err != nil {
			t.Fatal(err)
		}
		testRead(t, s.(*artifact.S3))
	})
}

func testRead(t *testing.T, s sourceStore) {
	t.Helper()
	const key, body = "folder/an object é.csv", "text,label\n"
	if _, err := s.Put(t.Context(), key, strings.NewReader(body), nil); err != nil {
		t.Fatal(err)
	}
	r, err := s.Read(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil || string(got) != body {
		t.Errorf("read %q, %v; want %q", got, err, body)
	}
	if _, err := s.Read(t.Context(), "none"); !errors.Is(err, artifact.ErrNotFound) {
		t.Errorf("a missing object: %v, want ErrNotFound", err)
	}
	if _, err := s.Read(t.Context(), "../x"); !errors.Is(err, artifact.ErrInvalidKey) {
		t.Errorf("a bad key: %v, want ErrInvalidKey", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Read(ctx, key); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
