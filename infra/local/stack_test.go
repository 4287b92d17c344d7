//go:build e2e

package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/duratune/duratune/infra/stack"
)

// program is the command line under test, with a state folder of its own and free ports.
type program struct {
	path  string
	state string
	env   []string
}

func build(t *testing.T) *program {
	t.Helper()
	p := &program{path: filepath.Join(t.TempDir(), "local"), state: t.TempDir()}
	if out, err := exec.Command("go", "build", "-o", p.path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p.env = append(os.Environ(), "XDG_STATE_HOME="+p.state, "DURATUNE_INSTANCE=test",
		"DURATUNE_PORT_TEMPORAL=0", "DURATUNE_PORT_TEMPORAL_UI=0", "DURATUNE_PORT_S3=0", "DURATUNE_PORT_MLFLOW=0", "DURATUNE_PORT_CPU_METRICS=0", "DURATUNE_PORT_GPU_METRICS=0")
	t.Cleanup(func() { _, _ = p.run("down") })
	return p
}

func (p *program) run(args ...string) (string, error) {
	cmd := exec.Command(p.path, args...)
	cmd.Env = p.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// must runs a verb that has to succeed.
func (p *program) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := p.run(args...)
	if err != nil {
		t.Fatalf("local %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (p *program) dir() string { return filepath.Join(p.state, "duratune", "test") }

// marked counts the processes that carry the instance's marker.
func (p *program) marked(t *testing.T) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range files {
		env, err := os.ReadFile(f)
		if err == nil && bytes.Contains(env, []byte("DURATUNE_STATE="+p.dir()+"\x00")) {
			n++
		}
	}
	return n
}

// TestUpAndDown: up twice is harmless, what dies comes back, and down leaves nothing, even after the supervisor was killed.
func TestUpAndDown(t *testing.T) {
	p := build(t)
	if out, err := p.run("status"); err == nil || !strings.Contains(out, "not running") {
		t.Errorf("status of nothing: %v\n%s", err, out)
	}
	p.must(t, "up", "-servers-only")
	before, err := stack.ReadStatus(p.dir())
	if err != nil {
		t.Fatal(err)
	}
	p.must(t, "up", "-servers-only")
	again, err := stack.ReadStatus(p.dir())
	if err != nil {
		t.Fatal(err)
	}
	for i, was := range before.Processes {
		if now := again.Processes[i]; now.PID != was.PID || now.State != stack.Ready {
			t.Errorf("after up again, %s is %s with process %d, want ready with %d", now.Name, now.State, now.PID, was.PID)
		}
	}
	if out := p.must(t, "status"); !strings.Contains(out, "0 pollers on finetune-gpu") {
		t.Errorf("status does not tell of missing workers:\n%s", out)
	}
	if out := p.must(t, "env"); !strings.Contains(out, "export MLFLOW_TRACKING_URI='http://127.0.0.1:") {
		t.Errorf("env printed:\n%s", out)
	}

	kill(t, before.Processes[1].PID)
	revived(t, p, before.Processes[1])

	supervisor, err := os.ReadFile(filepath.Join(p.dir(), "supervisor.lock"))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("kill", "-KILL", string(supervisor)).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p.must(t, "up", "-servers-only") // ends the orphans first: they hold databases and ports
	anew, err := stack.ReadStatus(p.dir())
	if err != nil {
		t.Fatal(err)
	}
	for i, was := range before.Processes {
		if now := anew.Processes[i]; now.State != stack.Ready || now.PID == was.PID {
			t.Errorf("after up behind a killed supervisor, %s is %s with process %d, want ready with another than %d", now.Name, now.State, now.PID, was.PID)
		}
	}
	p.must(t, "down")
	p.must(t, "down")
	if n := p.marked(t); n != 0 {
		t.Errorf("%d processes are left", n)
	}
}

func kill(t *testing.T, pid int) {
	t.Helper()
	proc, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := proc.Kill(); err != nil {
		t.Fatal(err)
	}
}

// revived waits until a process serves again, under another id.
func revived(t *testing.T, p *program, was stack.ProcessStatus) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * time.Minute); ; <-tick.C {
		st, err := stack.ReadStatus(p.dir())
		if err == nil {
			for _, now := range st.Processes {
				if now.Name == was.Name && now.State == stack.Ready && now.PID != was.PID && now.Restarts >= 1 {
					return
				}
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come back: %+v, %v", was.Name, st, err)
		}
	}
}

// TestTakenPort: the error names port, server and variable, and nothing is left running.
func TestTakenPort(t *testing.T) {
	p := build(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	p.env = append(p.env, "DURATUNE_PORT_MLFLOW="+port)
	out, err := p.run("up", "-servers-only")
	if err == nil || !strings.Contains(out, "port "+port+" for MLflow is taken") || !strings.Contains(out, "DURATUNE_PORT_MLFLOW") {
		t.Errorf("up gave %v:\n%s", err, out)
	}
	if n := p.marked(t); n != 0 {
		t.Errorf("%d processes are left", n)
	}
}
