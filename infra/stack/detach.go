package stack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/duratune/duratune/infra/setup"
)

// SuperviseVerb is the first argument of the program that [Up] starts in the background; the second is a file.
const SuperviseVerb = "supervise"

// Errors of the state that an instance is in.
var (
	// ErrRunning says that the instance runs already.
	ErrRunning = errors.New("the instance is running already")
	// ErrDown says that the instance does not run.
	ErrDown = errors.New("the instance is not running")
)

// Up runs the instance in a process of its own, which is this program with SuperviseVerb, and returns when all is
// ready. If it runs already, it is left alone.
func Up(ctx context.Context, c Config) error {
	in, err := prepare(c)
	if err != nil {
		return err
	}
	unlock, err := setup.Lock(ctx, in.path("up.lock"), func() {})
	if err != nil {
		return err
	}
	defer unlock()
	if running(c.State) {
		err := waitUp(ctx, c.State, nil)
		if err == nil {
			err = renewWorkers(ctx, c)
		}
		if !errors.Is(err, ErrDown) { // else it was just ending
			return err
		}
	}
	if err := sweep(ctx, c.State); err != nil {
		return err
	}
	if err := os.RemoveAll(in.statusFile()); err != nil { // what a killed supervisor wrote last is not the new one's word
		return fmt.Errorf("stack: %w", err)
	}
	if err := in.Ports.settle(); err != nil { // here, because the error is for whoever called
		return fmt.Errorf("stack: %w", err)
	}
	c.Ports = &in.Ports
	if err := errors.Join(in.save(), writeJSON(in.path("config.json"), c, 0o600)); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("stack: %w", err)
	}
	logFile, err := os.OpenFile(in.Log("supervisor"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("stack: %w", err)
	}
	defer logFile.Close()
	cmd := exec.Command(self, SuperviseVerb, in.path("config.json"))
	cmd.Dir, cmd.Stdout, cmd.Stderr = in.State, logFile, logFile
	cmd.Env = append(os.Environ(), in.mark())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it outlives the terminal
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("stack: start the supervisor: %w", err)
	}
	gone := make(chan struct{})
	go func() { _ = cmd.Wait(); close(gone) }()
	if err := waitUp(ctx, c.State, gone); err != nil {
		return fmt.Errorf("%w\n%s", err, logTail(in.Log("supervisor"), 6000))
	}
	return nil
}

// waitUp waits until the supervisor says that all is ready, or is gone: gone is closed then, or, where that is nil, the error
// is ErrDown.
func waitUp(ctx context.Context, state string, gone <-chan struct{}) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	deadline := time.NewTimer(2*startTime + 10*time.Second)
	defer deadline.Stop()
	for {
		st, err := ReadStatus(state)
		if err == nil && st.Up {
			return nil
		}
		if gone == nil && errors.Is(err, ErrDown) {
			return err
		}
		select {
		case <-tick.C:
		case <-gone:
			return fmt.Errorf("stack: the supervisor gave up")
		case <-deadline.C:
			return fmt.Errorf("stack: not ready in time: see %s", filepath.Join(state, "log"))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// renewWorkers restarts the workers whose binary was built anew while they ran. What they were doing goes on from its
// last checkpoint.
func renewWorkers(ctx context.Context, c Config) error {
	state := c.State
	st, err := ReadStatus(state)
	if err != nil {
		return err
	}
	if c.Workers != "" && !slices.ContainsFunc(st.Processes, func(p ProcessStatus) bool { return isWorker(p.Name) }) {
		return fmt.Errorf("stack: %w without workers: stop it first", ErrRunning)
	}
	stale := map[string]int{}
	for _, p := range st.Processes {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID))
		if isWorker(p.Name) && err == nil && strings.HasSuffix(exe, " (deleted)") {
			stale[p.Name] = p.PID
			if err := signalOwn(state, p.PID, syscall.SIGTERM); err != nil {
				return err
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, workerGrace+startTime)
	defer cancel()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		if st, err = ReadStatus(state); err != nil {
			return err
		}
		for _, p := range st.Processes {
			if p.State == Ready && p.PID != stale[p.Name] {
				delete(stale, p.Name)
			}
		}
		if len(stale) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			in := Instance{State: state}
			return fmt.Errorf("stack: restart workers: %w%s", ctx.Err(), describe(&in, st.Processes, slices.Collect(maps.Keys(stale))))
		}
	}
}

// Supervise is what the background process does: it runs the instance that the file describes until SIGTERM or SIGINT.
func Supervise(ctx context.Context, configFile string) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	data, err := os.ReadFile(configFile)
	if err != nil {
		return fmt.Errorf("stack: %w", err)
	}
	var c Config
	if err := json.Unmarshal(data, &c); err != nil {
		return fmt.Errorf("stack: read %s: %w", configFile, err)
	}
	s, err := Start(ctx, c)
	if err != nil {
		return err
	}
	<-ctx.Done()
	return s.Stop()
}

// Down stops the instance and returns when no process of it is left. It does not mind if the instance does not run.
func Down(ctx context.Context, state string) error {
	if running(state) {
		data, err := os.ReadFile(lockFile(state))
		if err != nil {
			return fmt.Errorf("stack: %w", err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
		if err != nil {
			return fmt.Errorf("stack: %s holds no process id: %w", lockFile(state), err)
		}
		if err := signalOwn(state, pid, syscall.SIGTERM); err != nil {
			return err
		}
		if err := waitDown(ctx, state); err != nil {
			return err
		}
	}
	return sweep(ctx, state)
}

// waitDown waits until the supervisor has given its lock back.
func waitDown(ctx context.Context, state string) error {
	ctx, cancel := context.WithTimeout(ctx, workerGrace+2*serverGrace)
	defer cancel()
	tick := time.NewTicker(probeEvery / 2)
	defer tick.Stop()
	for running(state) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("stack: the supervisor does not stop: %w", ctx.Err())
		}
	}
	return nil
}

// InstanceStatus is what [ReadStatus] found.
type InstanceStatus struct {
	Up        bool            `json:"up"`        // every process was ready once; their own states say what is now
	Processes []ProcessStatus `json:"processes"` // in the order of their start
}

// ReadStatus reads what the supervisor of a running instance last wrote. The error is ErrDown if none runs.
func ReadStatus(state string) (InstanceStatus, error) {
	if !running(state) {
		return InstanceStatus{}, fmt.Errorf("stack: %s: %w", state, ErrDown)
	}
	in := Instance{State: state}
	data, err := os.ReadFile(in.statusFile())
	if err != nil {
		return InstanceStatus{}, fmt.Errorf("stack: %w", err)
	}
	var st InstanceStatus
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&st); err != nil {
		return InstanceStatus{}, fmt.Errorf("stack: read %s: %w", in.statusFile(), err)
	}
	return st, nil
}
