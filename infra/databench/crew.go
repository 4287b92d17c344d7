package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// build compiles the CPU worker.
func build(ctx context.Context, root, to string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", to, "./workers/cpu")
	cmd.Dir, cmd.Env, cmd.Stderr = root, append(os.Environ(), "CGO_ENABLED=0"), os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build the CPU worker: %w", err)
	}
	return nil
}

// crew is the CPU workers of a case, which share nothing but store and servers.
type crew struct {
	binary string
	env    []string
	state  string
	prefix string // URI of the store

	mu      sync.Mutex
	workers []*exec.Cmd
	cpu     float64 // seconds of those that have ended
	peak    int64   // MiB, likewise
}

// hire starts n workers with a store and caches of their own.
func (b *bench) hire(n int, name, roots string) (*crew, error) {
	c := &crew{binary: b.worker, state: filepath.Join(b.State, name), prefix: "s3://duratune/" + name}
	c.env = append(append(os.Environ(), b.ClientEnv()...), "DURATUNE_STORE="+c.prefix,
		"DURATUNE_DATA_ROOTS="+b.paths.Assets+string(os.PathListSeparator)+roots, "TEMPORAL_CONFIG_FILE="+os.DevNull, "NO_PROXY=127.0.0.1")
	c.workers = make([]*exec.Cmd, n)
	for i := range n {
		if err := c.start(i); err != nil {
			return nil, errors.Join(err, c.dismiss())
		}
	}
	return c, nil
}

// start runs the i-th worker. Its cache outlives it, as the disk of a machine does.
func (c *crew) start(i int) error {
	dir := filepath.Join(c.state, strconv.Itoa(i))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own
	cmd := exec.Command(c.binary)
	cmd.Env = append(c.env, "DURATUNE_CACHE="+filepath.Join(dir, "cache"))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	c.workers[i] = cmd
	return nil
}

// end signals the i-th worker, waits for it and keeps what it used.
func (c *crew) end(i int, sig os.Signal) {
	cmd := c.workers[i]
	if cmd == nil {
		return
	}
	c.workers[i] = nil
	_ = cmd.Process.Signal(sig) // one that is gone is waited for all the same
	_ = cmd.Wait()              // how it ended says nothing
	c.cpu += (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		c.peak = max(c.peak, usage.Maxrss>>10)
	}
}

// kill ends the worker with this process id and starts it again; it reports whether there is one.
func (c *crew) kill(pid int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, cmd := range c.workers {
		if cmd != nil && cmd.Process.Pid == pid {
			c.end(i, syscall.SIGKILL)
			return c.start(i) == nil
		}
	}
	return false
}

// usage is the processor time of all workers so far, and the most memory that one of them has had, in MiB.
func (c *crew) usage() (cpu float64, peak int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cpu, peak = c.cpu, c.peak
	for _, cmd := range c.workers {
		if cmd == nil {
			continue
		}
		seconds, mib := usageOf(cmd.Process.Pid)
		cpu, peak = cpu+seconds, max(peak, mib)
	}
	return cpu, peak
}

// usageOf reads what a process has used from /proc.
func usageOf(pid int) (cpu float64, peak int64) {
	const ticks = 100 // USER_HZ, which is the same on all that Go runs on
	if body, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		fields := strings.Fields(string(body[strings.LastIndexByte(string(body), ')')+1:]))
		for _, at := range []int{11, 12} { // utime, stime
			if n, err := strconv.ParseFloat(fields[at], 64); err == nil {
				cpu += n / ticks
			}
		}
	}
	if body, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil {
		if _, rest, ok := strings.Cut(string(body), "VmHWM:"); ok {
			if n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64); err == nil {
				peak = n >> 10
			}
		}
	}
	return cpu, peak
}

// dismiss stops all workers and removes their caches.
func (c *crew) dismiss() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.workers {
		c.end(i, os.Interrupt)
	}
	var errs []error
	for i := range c.workers {
		errs = append(errs, os.RemoveAll(filepath.Join(c.state, strconv.Itoa(i), "cache")))
	}
	return errors.Join(errs...)
}
