package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"

	"github.com/duratune/duratune/infra/setup"
)

// Task queues of the workers.
const (
	Queue    = "finetune"
	GPUQueue = "finetune-gpu"
)

// Config says what to run.
type Config struct {
	State      string      // folder of the instance, see [StateDir]
	Ports      *Ports      // nil: those of the last start, else the default ones; 0 is a free one
	Paths      setup.Paths // where the servers are installed
	Workers    string      // folder of the worker binaries cpu and gpu; empty for none
	GPUWorkers int         // how many; 0 means 1
	WorkerEnv  []string    // "KEY=value" for the workers besides the instance's own, e.g. a proxy before the store
	MLflowArgs []string    // for the MLflow server besides the instance's own, e.g. --app-name basic-auth
	MLflowEnv  []string    // "KEY=value" for it
}

// startTime bounds the wait for the servers and for the workers, each. A loaded machine takes long to import MLflow.
const startTime = 5 * time.Minute

// Stack is a running instance, supervised by this process.
type Stack struct {
	Instance
	config Config
	client client.Client
	unlock func()

	cancel    context.CancelFunc
	saveMu    sync.Mutex
	mu        sync.Mutex
	processes []*process // in the order of their start
	up        bool       // the start is over
}

// Start runs the instance and returns when all of it is ready. It fails if the instance runs already, here or elsewhere,
// or if a port is taken, and leaves nothing running when it fails.
func Start(ctx context.Context, c Config) (_ *Stack, err error) {
	in, err := prepare(c)
	if err != nil {
		return nil, err
	}
	unlock, err := lockInstance(c.State)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			unlock()
		}
	}()
	if err := sweep(ctx, c.State); err != nil { // children of a supervisor that was killed
		return nil, err
	}
	if err := in.Ports.settle(); err != nil {
		return nil, fmt.Errorf("stack: %w", err)
	}
	if err := in.save(); err != nil {
		return nil, err
	}
	tc, err := in.Dial()
	if err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx)) // ends by Stop, not with the start
	s := &Stack{Instance: in, config: c, client: tc, unlock: unlock, cancel: cancel}
	if err := s.startAll(ctx, run); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// prepare reads the instance, decides its ports and makes its folders.
func prepare(c Config) (Instance, error) {
	in, err := Load(c.State)
	if err != nil {
		return in, err
	}
	if c.Ports != nil {
		in.Ports = *c.Ports
	}
	for _, dir := range []string{"log", "s3", "s3-meta", "cache"} {
		if err := os.MkdirAll(in.path(dir), 0o700); err != nil {
			return in, fmt.Errorf("stack: %w", err)
		}
	}
	if err := os.WriteFile(in.path("temporal.toml"), nil, 0o600); err != nil {
		return in, fmt.Errorf("stack: %w", err)
	}
	return in, nil
}

// Dial returns a client of the instance's Temporal server, which need not run yet.
func (in *Instance) Dial() (client.Client, error) {
	quiet := slog.New(slog.DiscardHandler)
	c, err := client.NewLazyClient(client.Options{HostPort: in.TemporalAddress(), Logger: sdklog.NewStructuredLogger(quiet)})
	if err != nil {
		return nil, fmt.Errorf("stack: %w", err)
	}
	return c, nil
}

// startAll starts the servers, then makes the buckets, then starts the workers.
func (s *Stack) startAll(ctx, run context.Context) error {
	s.start(run, s.servers())
	if err := s.Ready(ctx); err != nil {
		return err
	}
	if err := s.makeBuckets(ctx); err != nil {
		return err
	}
	s.start(run, s.workers())
	if err := s.Ready(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	s.up = true
	s.mu.Unlock()
	s.noteChange()
	return nil
}

func (s *Stack) start(run context.Context, specs []spec) {
	for _, sp := range specs {
		sp.log = s.Log(sp.name)
		p := newProcess(sp, s.noteChange)
		s.mu.Lock()
		s.processes = append(s.processes, p)
		s.mu.Unlock()
		go p.run(run)
	}
}

// Ready waits until every process that is not halted serves, for five minutes at most. The error shows the end of the log
// of each that does not.
func (s *Stack) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTime, errors.New("not ready in time"))
	defer cancel()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		var late []string
		for _, p := range s.Status() {
			if p.State != Ready && p.State != Halted {
				late = append(late, p.Name)
			}
		}
		if len(late) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("stack: %w: %s", context.Cause(ctx), describe(&s.Instance, s.Status(), late))
		}
	}
}

// describe says of each named process what it is doing and how its log ends.
func describe(in *Instance, all []ProcessStatus, names []string) string {
	var b strings.Builder
	for _, p := range all {
		if !slices.Contains(names, p.Name) {
			continue
		}
		fmt.Fprintf(&b, "\n%s is %s after %d restarts", p.Name, p.State, p.Restarts)
		if p.LastExit != "" {
			fmt.Fprintf(&b, " (last: %s)", p.LastExit)
		}
		fmt.Fprintf(&b, "; the end of %s:\n%s", in.Log(p.Name), logTail(in.Log(p.Name), 2000))
	}
	return b.String()
}

// logTail returns the last whole lines of a file, n bytes at the most.
func logTail(path string, n int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, size-n), io.SeekStart) // an offset within the file
	}
	data, _ := io.ReadAll(f)
	text := strings.TrimSpace(string(data))
	if _, rest, ok := strings.Cut(text, "\n"); ok && int64(len(data)) == n {
		text = rest
	}
	return "    " + strings.ReplaceAll(text, "\n", "\n    ")
}

// Status describes every process, in the order of their start.
func (s *Stack) Status() []ProcessStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]ProcessStatus, len(s.processes))
	for i, p := range s.processes {
		all[i] = p.snapshot()
	}
	return all
}

// Client is a client of the Temporal server. Stop closes it.
func (s *Stack) Client() client.Client { return s.client }

// Signal sends a signal to a process. One that dies of it is started again.
func (s *Stack) Signal(name string, sig os.Signal) error {
	p, err := s.process(name)
	if err != nil {
		return err
	}
	return p.signal(sig)
}

// Kill ends a process at once (SIGKILL) and returns when it is gone; it is started again.
func (s *Stack) Kill(ctx context.Context, name string) error {
	p, err := s.process(name)
	if err != nil {
		return err
	}
	pid := p.snapshot().PID
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	return await(ctx, p, "gone", func(now ProcessStatus) bool { return now.PID != pid })
}

// Halt stops a process (SIGTERM, then SIGKILL) and keeps it stopped until Resume. It returns when the process is gone.
func (s *Stack) Halt(ctx context.Context, name string) error {
	p, err := s.process(name)
	if err != nil {
		return err
	}
	p.want(true)
	return awaitState(ctx, p, Halted)
}

// Resume starts a halted process again and returns when it serves.
func (s *Stack) Resume(ctx context.Context, name string) error {
	p, err := s.process(name)
	if err != nil {
		return err
	}
	p.want(false)
	return awaitState(ctx, p, Ready)
}

// Restart stops a process and starts it again.
func (s *Stack) Restart(ctx context.Context, name string) error {
	if err := s.Halt(ctx, name); err != nil {
		return err
	}
	return s.Resume(ctx, name)
}

func (s *Stack) process(name string) (*process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.processes {
		if p.name == name {
			return p, nil
		}
	}
	return nil, fmt.Errorf("stack: no process is named %q", name)
}

// await waits until the status of a process is as wanted.
func await(ctx context.Context, p *process, what string, ok func(ProcessStatus) bool) error {
	tick := time.NewTicker(probeEvery / 4)
	defer tick.Stop()
	for !ok(p.snapshot()) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("stack: wait for %s to be %s: %w", p.name, what, ctx.Err())
		}
	}
	return nil
}

func awaitState(ctx context.Context, p *process, want Condition) error {
	return await(ctx, p, string(want), func(now ProcessStatus) bool { return now.State == want })
}

// Stop stops the workers, then the servers, and leaves no process.
func (s *Stack) Stop() error {
	s.mu.Lock()
	all := slices.Clone(s.processes)
	s.mu.Unlock()
	for _, workers := range []bool{true, false} {
		var group []*process
		for _, p := range all {
			if isWorker(p.name) == workers {
				p.want(true)
				group = append(group, p)
			}
		}
		for _, p := range group {
			_ = awaitState(context.Background(), p, Halted) // bounded by the grace time
		}
	}
	s.cancel()
	for _, p := range all {
		<-p.done
	}
	s.client.Close()
	s.saveMu.Lock() // nobody writes the status file any more
	defer s.saveMu.Unlock()
	err := errors.Join(sweep(context.Background(), s.State), os.RemoveAll(s.statusFile()))
	s.unlock()
	return err
}

func isWorker(name string) bool { return strings.Contains(name, "worker") }

// noteChange keeps the status file, which other processes read, up to date.
func (s *Stack) noteChange() {
	s.saveMu.Lock()
	defer s.saveMu.Unlock()
	s.mu.Lock()
	st := InstanceStatus{Up: s.up}
	s.mu.Unlock()
	st.Processes = s.Status()
	if err := writeJSON(s.statusFile(), st, 0o644); err != nil {
		slog.Warn("status not written", "error", err)
	}
}

func (in *Instance) statusFile() string { return filepath.Join(in.State, "status.json") }
