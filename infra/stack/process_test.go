package stack

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// shell makes a process that runs a script, supervised until the test ends. It serves as soon as it has written the file
// "ready" in its folder; the shell does so itself, since a child that did would be a process of the instance, too.
func shell(t *testing.T, state, script string, grace time.Duration) *process {
	t.Helper()
	in := Instance{State: state}
	ready := in.path("ready")
	p := newProcess(spec{
		name: "shell", argv: []string{"/bin/sh", "-c", script}, dir: state, env: in.childEnv(), log: in.Log("shell"), grace: grace,
		probe: func(context.Context, time.Time) error { _, err := os.Stat(ready); return err },
	}, func() {})
	ctx, cancel := context.WithCancel(context.Background())
	go p.run(ctx)
	t.Cleanup(func() { cancel(); <-p.done })
	return p
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not seen in time: %s", what)
		}
	}
}

func state(p *process, want Condition) func() bool {
	return func() bool { return p.snapshot().State == want }
}

// alive reports whether a process runs (a zombie does not).
func alive(pid int) bool {
	state, _, err := lookUp(pid)
	return err == nil && state != "Z"
}

func TestProcessStartsAgainWhenItDies(t *testing.T) {
	p := shell(t, t.TempDir(), ": > ready; exec sleep 600", time.Second)
	eventually(t, "ready", state(p, Ready))
	first := p.snapshot().PID
	if err := (&Stack{processes: []*process{p}}).Kill(t.Context(), "shell"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another process", func() bool { s := p.snapshot(); return s.State == Ready && s.PID != first })
	if s := p.snapshot(); s.Restarts != 1 || s.LastExit != "signal: killed" {
		t.Errorf("got %d restarts and last exit %q, want 1 and signal: killed", s.Restarts, s.LastExit)
	}
}

func TestProcessThatCannotStart(t *testing.T) {
	dir := t.TempDir()
	p := newProcess(spec{name: "none", argv: []string{filepath.Join(dir, "none")}, dir: dir, log: filepath.Join(dir, "log", "none.log")}, func() {})
	ctx, cancel := context.WithCancel(t.Context())
	go p.run(ctx)
	eventually(t, "two tries", func() bool { return p.snapshot().Restarts >= 2 })
	if s := p.snapshot(); !strings.Contains(s.LastExit, "no such file") {
		t.Errorf("last exit is %q, want it to name the missing file", s.LastExit)
	}
	cancel()
	<-p.done
}

func TestHaltAndResume(t *testing.T) {
	s := &Stack{processes: []*process{shell(t, t.TempDir(), ": > ready; exec sleep 600", time.Second)}}
	p := s.processes[0]
	eventually(t, "ready", state(p, Ready))
	pid := p.snapshot().PID
	if err := s.Halt(t.Context(), "shell"); err != nil {
		t.Fatal(err)
	}
	if alive(pid) {
		t.Errorf("process %d is alive after Halt", pid)
	}
	if err := s.Signal("shell", syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("Signal on a halted process gave %v, want ErrProcessDone", err)
	}
	if err := s.Resume(t.Context(), "shell"); err != nil {
		t.Fatal(err)
	}
	if now := p.snapshot(); now.PID == pid || now.Restarts != 0 {
		t.Errorf("got process %d after %d restarts, want another process and none", now.PID, now.Restarts)
	}
	if err := s.Halt(t.Context(), "nobody"); err == nil {
		t.Error("Halt of an unknown process succeeded")
	}
}

// TestStubbornProcess ends a process that ignores SIGTERM, is stopped, and has a child of its own.
func TestStubbornProcess(t *testing.T) {
	dir := t.TempDir()
	p := shell(t, dir, "trap '' TERM; sleep 600 & echo $! > child; : > ready; while :; do wait; done", 300*time.Millisecond)
	eventually(t, "ready", state(p, Ready))
	text, err := os.ReadFile(filepath.Join(dir, "child"))
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	pid := p.snapshot().PID
	if err := p.signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	p.want(true)
	eventually(t, "halted", state(p, Halted))
	eventually(t, "no process left", func() bool { return !alive(pid) && !alive(child) })
}

// TestSweep ends what a killed supervisor left behind, and nothing else.
func TestSweep(t *testing.T) {
	ours, theirs := t.TempDir(), t.TempDir()
	p := shell(t, ours, ": > ready; exec sleep 600", time.Second)
	q := shell(t, theirs, ": > ready; exec sleep 600", time.Second)
	eventually(t, "both ready", func() bool { return state(p, Ready)() && state(q, Ready)() })
	pid, other := p.snapshot().PID, q.snapshot().PID
	if found, err := owned(ours); err != nil || len(found) != 1 || found[0] != pid {
		t.Errorf("owned = %v, %v, want process %d alone", found, err, pid)
	}
	if err := signalOwn(ours, other, syscall.SIGKILL); err != nil { // as if the id had been given away
		t.Fatal(err)
	}
	if !alive(other) {
		t.Error("signalOwn reached a process of another instance")
	}
	p.want(true) // so that it is not started again; sweep may find it first
	if err := sweep(t.Context(), ours); err != nil {
		t.Fatal(err)
	}
	if alive(pid) || !alive(other) {
		t.Errorf("after sweep ours is alive: %t, the other: %t, want false and true", alive(pid), alive(other))
	}
}
