package artifact_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/duratune/duratune/internal/artifact"
)

func newDir(t *testing.T) (*artifact.Dir, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := artifact.NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

// A symbolic link that someone put into the folder leads nowhere.
func TestDirStaysInside(t *testing.T) {
	s, dir := newDir(t)
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Get(t.Context(), "link/secret", 10); !errors.Is(err, artifact.ErrDenied) {
		t.Errorf("get: %v, want ErrDenied", err)
	}
	if _, err := s.Put(t.Context(), "link/new", strings.NewReader("x"), nil); err == nil {
		t.Error("put through the link")
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
		t.Errorf("outside: %v, %v", left, err)
	}
}

// What a killed process leaves behind is no object, and AbortUploads finds it by its key.
func TestDirAbortUploads(t *testing.T) {
	s, dir := newDir(t)
	for _, name := range []string{"run/1/a/TEMP", "run/1/b/TEMP", "run/10/c/TEMP"} {
		path := filepath.Join(dir, ".uploads", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for info, err := range s.List(t.Context(), "") {
		t.Errorf("listed %+v, %v", info, err)
	}
	var got []int
	for _, prefix := range []string{"run/1", "run/1", "", ""} {
		n, err := s.AbortUploads(t.Context(), prefix)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, n)
	}
	if !slices.Equal(got, []int{2, 0, 1, 0}) {
		t.Errorf("aborted %v", got)
	}
}

func TestNewDirRefusesARelativePath(t *testing.T) {
	if _, err := artifact.NewDir("store"); !errors.Is(err, artifact.ErrInvalidKey) {
		t.Errorf("got %v, want ErrInvalidKey", err)
	}
}
