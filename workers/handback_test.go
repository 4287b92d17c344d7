package workers

import (
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// TestJournalsOpenedAtOnce: processes that start together leave each other's folders alone, which they find before their
// owner has locked them.
func TestJournalsOpenedAtOnce(t *testing.T) {
	dir := t.TempDir()
	for range 20 {
		journals := make([]*journal, 16)
		var all sync.WaitGroup
		for i := range journals {
			all.Go(func() {
				j, err := openJournal(t.Context(), dir, nil, slog.New(slog.DiscardHandler))
				if err != nil {
					t.Error(err)
				}
				journals[i] = j
			})
		}
		all.Wait()
		for _, j := range journals {
			if j == nil {
				continue
			}
			if _, err := os.Stat(filepath.Join(j.dir, lockName)); err != nil {
				t.Errorf("a living process's folder: %v", err)
			}
			if err := j.lock.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestJournalRemovesWhatTheDeadLeft: files of a process that is gone are removed, those of a living one stay.
func TestJournalRemovesWhatTheDeadLeft(t *testing.T) {
	dir := t.TempDir()
	logger := slog.New(slog.DiscardHandler)
	living, err := openJournal(t.Context(), dir, nil, logger)
	if err != nil {
		t.Fatal(err)
	}
	dead, err := openJournal(t.Context(), dir, nil, logger)
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range []*journal{living, dead} {
		if err := os.WriteFile(filepath.Join(j.dir, "weights.safetensors"), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := dead.lock.Close(); err != nil { // as the kernel does when a process dies
		t.Fatal(err)
	}
	if _, err := openJournal(t.Context(), dir, nil, logger); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead.dir); !os.IsNotExist(err) {
		t.Errorf("the dead process's folder: %v, want it gone", err)
	}
	if _, err := os.Stat(filepath.Join(living.dir, "weights.safetensors")); err != nil {
		t.Errorf("the living process's file: %v", err)
	}
}
