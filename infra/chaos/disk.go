package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duratune/duratune/activities"
)

// diskSize holds the base model, a checkpoint that is being restored and a model that is being logged, twice.
const diskSize = 1 << 30

// disk is a small file system for the workers' downloads, in memory. Mounting one takes root.
type disk struct {
	dir     string
	mounted bool
}

// mountDisk makes dir a small file system, or an ordinary folder where that is not allowed.
func mountDisk(dir string) (*disk, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", diskSize))
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return &disk{dir: dir}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("mount a disk on %s: %w", dir, err)
	}
	return &disk{dir: dir, mounted: true}, nil
}

// fill takes all the room there is.
func (d *disk) fill() error {
	f, err := os.Create(d.filler())
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, unix.ENOSPC) {
		d.free()
		return fmt.Errorf("fill the disk: %w", err)
	}
	return nil
}

// free gives the room back.
func (d *disk) free() { _ = os.Remove(d.filler()) } // it may be gone

func (d *disk) filler() string { return filepath.Join(d.dir, "filler") }

// litterTime is how long the workers may take to tidy up behind a run: a cancelled one is still being taken down.
const litterTime = 20 * time.Second

// litter lists what lies on the workers' disk that nobody needs any more: folders of dead workers, half downloads, and
// temporary files of living workers, none of which has work left.
func (t *trial) litter(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, litterTime)
	defer cancel()
	for {
		found, err := t.disk.litter()
		if err != nil {
			return []string{"the workers' disk: " + err.Error()}
		}
		if len(found) == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return []string{fmt.Sprintf("left on the workers' disk: %v", found)}
		}
		wait(ctx, 200*time.Millisecond)
	}
}

func (d *disk) litter() (found []string, err error) {
	for _, pattern := range []string{"journal/worker-*", "journal/worker-*/*", activities.Objects + "/sha256/.*"} {
		paths, err := filepath.Glob(filepath.Join(d.dir, filepath.FromSlash(pattern)))
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			name := filepath.Base(path)
			switch {
			case name == "lock" || strings.HasPrefix(name, "token-"): // the latter of the sweep and the reconciliation beside the runs
			case strings.HasPrefix(name, "worker-") && alive(path):
			default:
				found = append(found, strings.TrimPrefix(path, d.dir+"/"))
			}
		}
	}
	return found, nil
}

// alive reports whether the worker whose folder it is lives: it holds a lock.
func alive(dir string) bool {
	f, err := os.Open(filepath.Join(dir, "lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil
}

func (d *disk) close() error {
	if !d.mounted {
		return nil
	}
	return unix.Unmount(d.dir, unix.MNT_DETACH)
}
