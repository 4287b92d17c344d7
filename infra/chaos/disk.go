package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
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

// fill takes all the room there is and returns how to give it back.
func (d *disk) fill() (free func(), err error) {
	path := filepath.Join(d.dir, "filler")
	free = func() { _ = os.Remove(path) } // it may be gone
	f, err := os.Create(path)
	if err != nil {
		return free, err
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, unix.ENOSPC) {
		return free, fmt.Errorf("fill the disk: %w", err)
	}
	return free, nil
}

func (d *disk) close() error {
	if !d.mounted {
		return nil
	}
	return unix.Unmount(d.dir, unix.MNT_DETACH)
}
