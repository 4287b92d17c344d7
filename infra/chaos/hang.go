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
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duratune/duratune/infra/stack"
)

// hang stops the one thread of the GPU worker that computes, as a device that never answers would, and leaves the others
// running. It returns when the process is gone: ended by its own watchdog, since nothing else ends it.
func hang(ctx context.Context, t *trial) error {
	for _, p := range t.Status() {
		if p.Name == stack.GPUWorker {
			return hold(ctx, p.PID)
		}
	}
	return errors.New("no GPU worker to hang")
}

// hold stops a computing thread of a process until the process ends. A tracer is a thread, too.
func hold(ctx context.Context, pid int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range 20 {
		tid, err := busiest(pid)
		if err != nil {
			return err
		}
		held, err := stopComputing(pid, tid)
		if held {
			return awaitEnd(ctx, tid)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) { // which means that this thread has ended
			return fmt.Errorf("stop thread %d: %w", tid, err)
		}
	}
	return fmt.Errorf("process %d does not compute", pid)
}

// awaitEnd returns when a traced thread is gone, whoever reaped it.
func awaitEnd(ctx context.Context, tid int) error {
	for {
		var status unix.WaitStatus
		done, err := unix.Wait4(tid, &status, unix.WALL|unix.WNOHANG, nil)
		if err != nil && !errors.Is(err, unix.EINTR) || done == tid && (status.Exited() || status.Signaled()) {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("the process lives on: %w", ctx.Err()), unix.PtraceDetach(tid))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stopComputing stops a thread inside libtorch, as a device would. In Go's own code it would hold up the whole process, the
// watchdog included: the next garbage collection waits for it; idle in another library, it would hold up nothing. A thread
// that does not get there is let go.
func stopComputing(pid, tid int) (held bool, err error) {
	if err := unix.PtraceSeize(tid); err != nil {
		return false, err
	}
	for range 500 {
		if err := stop(tid); err != nil {
			return false, err
		}
		var regs syscall.PtraceRegs
		if err := syscall.PtraceGetRegs(tid, &regs); err != nil {
			return false, err
		}
		if name, err := mapped(pid, regs.PC()); err != nil || strings.HasPrefix(filepath.Base(name), "libtorch") {
			return err == nil, err
		}
		if err := unix.PtraceCont(tid, 0); err != nil {
			return false, err
		}
		<-time.After(time.Millisecond)
	}
	return false, errors.Join(stop(tid), unix.PtraceDetach(tid))
}

// stop stops a traced thread.
func stop(tid int) error {
	if err := unix.PtraceInterrupt(tid); err != nil {
		return err
	}
	var status unix.WaitStatus
	for {
		if _, err := unix.Wait4(tid, &status, unix.WALL, nil); errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil {
			return err
		}
		if !status.Stopped() {
			return unix.ESRCH
		}
		return nil
	}
}

// mapped is the file that an address of a process's memory comes from.
func mapped(pid int, address uint64) (file string, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err != nil {
			return "", fmt.Errorf("maps: %q: %w", line, err)
		}
		if fields := strings.Fields(line); from <= address && address < to && len(fields) > 5 {
			return fields[5], nil
		}
	}
	return "", nil
}

// busiest is the thread of a process that uses most processor time.
func busiest(pid int) (tid int, err error) {
	before, err := threads(pid)
	if err != nil {
		return 0, err
	}
	<-time.After(300 * time.Millisecond)
	after, err := threads(pid)
	if err != nil {
		return 0, err
	}
	most := -1
	for id, ticks := range after {
		if used := ticks - before[id]; used > most {
			most, tid = used, id
		}
	}
	if tid == 0 {
		return 0, fmt.Errorf("process %d has no threads", pid)
	}
	return tid, nil
}

// threads is the processor time of a process's threads, in clock ticks. The first one is left out: its stop would be told
// to the supervisor, too, who is this process and would take it for the worker's end.
func threads(pid int) (map[int]int, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return nil, err
	}
	used := map[int]int{}
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
			return nil, err
		}
		if id != pid {
			used[id] = user + system
		}
	}
	return used, nil
}
