package stack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Condition is what a supervised process is doing.
type Condition string

// Conditions of a process.
const (
	Starting Condition = "starting" // runs, but its probe has not succeeded yet
	Ready    Condition = "ready"
	Waiting  Condition = "waiting" // died, and will be started again
	Halted   Condition = "halted"  // stopped on purpose
)

// spec says how a process is run.
type spec struct {
	name  string
	argv  []string
	env   []string
	dir   string
	log   string
	grace time.Duration                                      // between SIGTERM and SIGKILL
	probe func(ctx context.Context, started time.Time) error // nil as soon as the process serves
}

const (
	minBackoff = 200 * time.Millisecond
	maxBackoff = 15 * time.Second
	calmTime   = 30 * time.Second // a process that lived this long starts again at once
	probeEvery = 100 * time.Millisecond
	maxLog     = 16 << 20 // bytes; a log that is longer at a start is set aside
)

// process keeps one child running. Its goroutine is the only one that starts and reaps the child.
type process struct {
	spec
	changed func() // called without the lock after every change

	mu     sync.Mutex
	status ProcessStatus
	child  *os.Process // nil while none runs
	halt   bool        // wanted state
	wake   chan struct{}
	done   chan struct{} // closed when the goroutine ends
}

// ProcessStatus describes a process of the stack at one moment.
type ProcessStatus struct {
	Name     string    `json:"name"`
	State    Condition `json:"state"`
	PID      int       `json:"pid,omitempty"`
	Since    time.Time `json:"since"`               // of the state
	Restarts int       `json:"restarts"`            // after it died by itself
	LastExit string    `json:"last_exit,omitempty"` // how it died last, e.g. "signal: killed"
}

func newProcess(s spec, changed func()) *process {
	return &process{spec: s, changed: changed, wake: make(chan struct{}, 1), done: make(chan struct{}),
		status: ProcessStatus{Name: s.name, State: Starting, Since: time.Now()}}
}

// run starts the child again and again, until ctx ends or close is called; the child is then stopped.
func (p *process) run(ctx context.Context) {
	defer close(p.done)
	backoff := minBackoff
	for ctx.Err() == nil {
		if p.halted() {
			p.set(func(s *ProcessStatus) { s.State, s.PID = Halted, 0 })
			p.sleep(ctx, time.Hour)
			continue
		}
		began := time.Now()
		exit := p.once(ctx)
		if ctx.Err() != nil {
			break
		}
		if p.halted() {
			continue
		}
		if time.Since(began) > calmTime {
			backoff = minBackoff
		}
		p.set(func(s *ProcessStatus) { s.State, s.PID, s.LastExit = Waiting, 0, exit; s.Restarts++ })
		slog.Warn("process died", "process", p.name, "exit", exit, "restart_in", backoff.String())
		p.sleep(ctx, backoff)
		backoff = min(backoff*2, maxBackoff)
	}
	p.set(func(s *ProcessStatus) { s.State, s.PID = Halted, 0 })
}

// once runs the child until it is gone and returns how it ended. When ctx ends, or a halt is wanted, it is told to stop.
func (p *process) once(ctx context.Context) string {
	cmd, logFile, err := p.command()
	if err != nil {
		return err.Error()
	}
	defer logFile.Close()
	started := time.Now()
	if err := cmd.Start(); err != nil {
		return err.Error()
	}
	p.mu.Lock()
	p.child = cmd.Process
	p.mu.Unlock()
	p.set(func(s *ProcessStatus) { s.State, s.PID = Starting, cmd.Process.Pid })

	gone := make(chan error, 1)
	go func() { gone <- cmd.Wait() }()
	probeCtx, stopProbe := context.WithCancel(ctx)
	defer stopProbe()
	go p.watch(probeCtx, cmd.Process.Pid, started)

	for {
		select {
		case err = <-gone:
		case <-ctx.Done():
			err = p.end(cmd, gone)
		case <-p.wake:
			if !p.halted() {
				continue
			}
			err = p.end(cmd, gone)
		}
		break
	}
	stopProbe()
	p.mu.Lock()
	p.child = nil
	p.mu.Unlock()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left in its group, if anything
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// command prepares the child: in a group of its own, so that a Ctrl-C for us is not one for it and its own children can
// be ended with it.
func (p *process) command() (*exec.Cmd, *os.File, error) {
	if err := os.MkdirAll(filepath.Dir(p.log), 0o755); err != nil {
		return nil, nil, err
	}
	if info, err := os.Stat(p.log); err == nil && info.Size() > maxLog {
		if err := os.Rename(p.log, p.log+".1"); err != nil {
			return nil, nil, err
		}
	}
	logFile, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = p.dir, p.env, logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, logFile, nil
}

// end asks the child to stop and kills its group when the grace time is over. A stopped (SIGSTOP) child is continued.
func (p *process) end(cmd *exec.Cmd, gone <-chan error) error {
	_ = cmd.Process.Signal(syscall.SIGTERM) // fails only if it is gone already
	_ = cmd.Process.Signal(syscall.SIGCONT)
	grace := time.NewTimer(p.grace)
	defer grace.Stop()
	select {
	case err := <-gone:
		return err
	case <-grace.C:
		slog.Warn("process ignores SIGTERM: killed", "process", p.name, "grace", p.grace.String())
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		return <-gone
	}
}

// watch probes until the process serves.
func (p *process) watch(ctx context.Context, pid int, started time.Time) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		probeCtx, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := p.probe(probeCtx, started)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			p.set(func(s *ProcessStatus) {
				if s.PID == pid { // it may have died since
					s.State = Ready
				}
			})
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// sleep waits for d, for ctx, or for somebody who wants another state.
func (p *process) sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-p.wake:
	}
}

func (p *process) halted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.halt
}

// want halts or resumes the process; it does not wait.
func (p *process) want(halt bool) {
	p.mu.Lock()
	p.halt = halt
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default: // a wake-up is pending already
	}
}

// signal sends a signal to the child.
func (p *process) signal(sig os.Signal) error {
	p.mu.Lock()
	child := p.child
	p.mu.Unlock()
	if child == nil {
		return fmt.Errorf("stack: signal %s: %w", p.name, os.ErrProcessDone)
	}
	if err := child.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stack: signal %s: %w", p.name, err)
	}
	return nil
}

// set changes the status and tells.
func (p *process) set(change func(*ProcessStatus)) {
	p.mu.Lock()
	before := p.status.State
	change(&p.status)
	if p.status.State != before {
		p.status.Since = time.Now()
	}
	p.mu.Unlock()
	p.changed()
}

func (p *process) snapshot() ProcessStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}
