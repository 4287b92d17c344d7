package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/duratune/duratune/infra/stack"
)

// hang stops the one thread of the GPU worker that computes, as a device that never answers would, and leaves the others
// running. It returns when the process is gone: ended by its own watchdog, since nothing else ends it.
func hang(_ context.Context, t *trial) error {
	for _, p := range t.Status() {
		if p.Name == stack.GPUWorker {
			return hold(p.PID)
		}
	}
	return errors.New("no GPU worker to hang")
}

// hold stops the busiest thread of a process until the process ends. A tracer is a thread, too.
func hold(pid int) error {
	tid, err := busiest(pid)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.PtraceSeize(tid); err != nil {
		return fmt.Errorf("trace thread %d: %w", tid, err)
	}
	if err := unix.PtraceInterrupt(tid); err != nil {
		return fmt.Errorf("stop thread %d: %w", tid, err)
	}
	for {
		var status unix.WaitStatus
		if _, err := unix.Wait4(tid, &status, unix.WALL, nil); errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil || status.Exited() || status.Signaled() {
			return nil // gone, whoever reaped it
		}
	}
}

// busiest is the thread of a process that has used most processor time.
func busiest(pid int) (tid int, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return 0, err
	}
	most := -1
	for _, path := range files {
		body, err := os.ReadFile(path)
		if err != nil {
			continue // a thread that has ended
		}
		fields := bytes.Fields(body[bytes.LastIndexByte(body, ')')+1:])
		user, err1 := strconv.Atoi(string(fields[11]))
		system, err2 := strconv.Atoi(string(fields[12]))
		id, err3 := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err := errors.Join(err1, err2, err3); err != nil {
			return 0, err
		}
		if user+system > most {
			most, tid = user+system, id
		}
	}
	if tid == 0 {
		return 0, fmt.Errorf("process %d has no threads", pid)
	}
	return tid, nil
}
