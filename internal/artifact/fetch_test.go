package artifact_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/artifact/artifacttest"
)

func stored(t *testing.T, s artifact.Store, key, body string) artifact.Ref {
	t.Helper()
	ref, err := s.Put(t.Context(), key, strings.NewReader(body), nil)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func TestFetchUsesItsCopy(t *testing.T) {
	s := artifacttest.NewFaulty(artifact.NewMem())
	ref, dir := stored(t, s, "k", "hello"), t.TempDir()
	for range 2 {
		path, err := artifact.Fetch(t.Context(), s, ref, dir)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := os.ReadFile(path); err != nil || string(body) != "hello" || filepath.Base(path) != ref.SHA256 {
			t.Errorf("%s: %q, %v", path, body, err)
		}
	}
	if n := s.Calls(artifacttest.Open); n != 1 {
		t.Errorf("%d downloads, want 1", n)
	}
}

func TestFetchReplacesADamagedCopy(t *testing.T) {
	s := artifact.NewMem()
	ref, dir := stored(t, s, "k", "hello"), t.TempDir()
	for _, damaged := range []string{"", "hell", "jello", "hello!"} {
		path, err := artifact.Fetch(t.Context(), s, ref, dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := artifact.Fetch(t.Context(), s, ref, dir); err != nil {
			t.Fatal(err)
		}
		if body, err := os.ReadFile(path); err != nil || string(body) != "hello" {
			t.Errorf("after %q: %q, %v", damaged, body, err)
		}
	}
}

func TestFetchConcurrently(t *testing.T) {
	s := artifact.NewMem()
	ref, dir := stored(t, s, "k", strings.Repeat("hello", 100_000)), t.TempDir()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			path, err := artifact.Fetch(t.Context(), s, ref, dir)
			if err != nil {
				t.Error(err)
				return
			}
			if info, err := os.Stat(path); err != nil || info.Size() != ref.Bytes {
				t.Errorf("%v, %v", info, err)
			}
		})
	}
	wg.Wait()
	left, err := os.ReadDir(filepath.Join(dir, "sha256"))
	if err != nil || len(left) != 1 {
		t.Errorf("%v, %v: want one file", left, err)
	}
}

func TestDownloadLeavesNothingOnFailure(t *testing.T) {
	for name, fault := range map[string]artifacttest.Fault{
		"unavailable": {Op: artifacttest.Open, Err: artifact.ErrUnavailable},
		"cut":         {Op: artifacttest.Open, Cut: 1},
		"flipped":     {Op: artifacttest.Open, Flip: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := artifacttest.NewFaulty(artifact.NewMem(), fault)
			ref, dir := stored(t, s, "k", "hello"), t.TempDir()
			err := artifact.Download(t.Context(), s, ref, filepath.Join(dir, "sub", "file"))
			if !errors.Is(err, artifact.ErrUnavailable) && !errors.Is(err, artifact.ErrCorrupt) {
				t.Error(err)
			}
			if left, err := os.ReadDir(filepath.Join(dir, "sub")); err != nil || len(left) != 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

// TestTidyLeavesTheLivingAlone: the file of a download under way stays, that of a dead process goes.
func TestTidyLeavesTheLivingAlone(t *testing.T) {
	s := artifacttest.NewFaulty(artifact.NewMem())
	ref, dir := stored(t, s, "k", "hello"), t.TempDir()
	dead := filepath.Join(dir, "sha256", ".download-of-the-dead")
	if err := errors.Join(os.MkdirAll(filepath.Dir(dead), 0o755), os.WriteFile(dead, []byte("hel"), 0o600)); err != nil {
		t.Fatal(err)
	}
	path, err := artifact.Fetch(t.Context(), tidying{s, dir, t}, ref, dir)
	if err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Dir(dead))
	if err != nil || len(left) != 1 || left[0].Name() != filepath.Base(path) {
		t.Errorf("left: %v, %v, want the fetched file alone", left, err)
	}
}

// tidying is a store that has a folder tidied while it is read.
type tidying struct {
	artifact.Store
	dir string
	t   *testing.T
}

func (s tidying) Open(ctx context.Context, ref artifact.Ref) (io.ReadCloser, error) {
	r, err := s.Store.Open(ctx, ref)
	return struct {
		io.Reader
		io.Closer
	}{io.TeeReader(r, s), r}, err
}

// Write is called with what was read.
func (s tidying) Write(p []byte) (int, error) {
	if err := artifact.Tidy(s.dir); err != nil {
		s.t.Error(err)
	}
	return len(p), nil
}

func TestFetchRefusesABadDigest(t *testing.T) {
	s, dir := artifact.NewMem(), t.TempDir()
	ref := stored(t, s, "k", "hello")
	ref.SHA256 = "../../../etc/passwd"
	if _, err := artifact.Fetch(t.Context(), s, ref, dir); !errors.Is(err, artifact.ErrInvalidKey) {
		t.Errorf("got %v, want ErrInvalidKey", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "sha256")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder was made: %v", err)
	}
}

func TestJSON(t *testing.T) {
	type doc struct{ A int }
	s := artifact.NewMem()
	ref, err := artifact.PutJSON(t.Context(), s, "doc.json", doc{7})
	if err != nil {
		t.Fatal(err)
	}
	var got doc
	if err := artifact.GetJSON(t.Context(), s, ref, 100, &got); err != nil || got != (doc{7}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if again, err := artifact.PutJSON(t.Context(), s, "doc.json", doc{7}); err != nil || again != ref {
		t.Errorf("again: %+v, %v", again, err)
	}
	if _, err := artifact.PutJSON(t.Context(), s, "doc.json", doc{8}); !errors.Is(err, artifact.ErrExists) {
		t.Errorf("other content: %v, want ErrExists", err)
	}
	if err := artifact.GetJSON(t.Context(), s, ref, 3, &got); !errors.Is(err, artifact.ErrCorrupt) {
		t.Errorf("over the limit: %v, want ErrCorrupt", err)
	}
	if err := artifact.GetJSON(t.Context(), s, stored(t, s, "bad", "{"), 100, &got); !errors.Is(err, artifact.ErrCorrupt) {
		t.Errorf("not JSON: %v, want ErrCorrupt", err)
	}
	if _, err := artifact.PutJSON(t.Context(), s, "bad", make(chan int)); err == nil {
		t.Error("a channel became JSON")
	}
}
