package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// lockFile is locked by the instance's supervisor as long as it lives, and holds its process id.
func lockFile(state string) string { return filepath.Join(state, "supervisor.lock") }

// Whoever looks for a supervisor (running) holds its lock for a moment; a supervisor holds it for good.
const (
	lockTries = 100
	lockPause = 10 * time.Millisecond
)

// lockInstance makes this process the instance's supervisor.
func lockInstance(state string) (unlock func(), err error) {
	f, err := os.OpenFile(lockFile(state), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("stack: %w", err)
	}
	for tries := 0; syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil; tries++ {
		if tries == lockTries {
			_ = f.Close()
			return nil, fmt.Errorf("stack: %s: %w", state, ErrRunning)
		}
		<-time.After(lockPause)
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, strconv.Itoa(os.Getpid()))); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("stack: %w", err)
	}
	return func() { _ = f.Close() }, nil // closing gives the lock back
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// running reports whether a supervisor of the instance lives.
func running(state string) bool {
	f, err := os.OpenFile(lockFile(state), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close() // gives the lock back, if it was free
	return syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil
}

// owned lists the living processes that carry the instance's marker, this one excepted.
func owned(state string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("stack: %w", err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && pid != os.Getpid() && isOwned(state, pid) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// isOwned reads the environment that the process was started with; those of other users cannot be read, and a process
// that has ended has none.
func isOwned(state string, pid int) bool {
	env, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	if err != nil {
		return false
	}
	in := Instance{State: state}
	return slices.ContainsFunc(bytes.Split(env, []byte{0}), func(kv []byte) bool { return string(kv) == in.mark() })
}

// signalOwn sends a signal to the process of this id if it belongs to the instance. The handle is taken before the check,
// so that the signal cannot reach another process that has been given the id since.
func signalOwn(state string, pid int, sig os.Signal) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return fmt.Errorf("stack: %w", err)
	}
	defer p.Release()
	if !isOwned(state, pid) {
		return nil
	}
	if err := p.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stack: signal process %d: %w", pid, err)
	}
	return nil
}

// sweep ends the processes of the instance that no supervisor looks after: the children of one that was killed. It returns
// when they are gone, with their ports and locks.
func sweep(ctx context.Context, state string) error {
	const grace = 5 * time.Second
	start := time.Now()
	found := map[int]string{} // births by process id
	for sig := syscall.SIGTERM; ; {
		pids, err := owned(state)
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if _, found[pid], err = lookUp(pid); err != nil {
				continue // ended just now
			}
			if err := signalOwn(state, pid, sig); err != nil {
				return err
			}
		}
		maps.DeleteFunc(found, gone)
		if len(pids) == 0 && len(found) == 0 {
			return nil
		}
		if time.Since(start) > grace {
			sig = syscall.SIGKILL
		}
		select {
		case <-time.After(probeEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// gone reports whether the process of this id and birth has ended. One that is ending has no environment any more while
// its last threads still hold files and sockets; one that nobody waits for stays a zombie for ever.
func gone(pid int, birth string) bool {
	state, now, err := lookUp(pid)
	if err != nil || now != birth {
		return true
	}
	if state != "Z" {
		return false
	}
	threads, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "task"))
	return err != nil || len(threads) <= 1
}

// lookUp reads a process's state ("R", "S", "Z", …) and when it was born, which no other process of that id was.
func lookUp(pid int) (state, birth string, err error) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return "", "", err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // behind the name, from the third field on
	if len(fields) < 20 {
		return "", "", fmt.Errorf("stack: process %d: cannot read %q", pid, stat)
	}
	return fields[0], fields[19], nil
}
