package workers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/sys/unix"

	"github.com/duratune/duratune/activities"
)

// journal keeps the task tokens of the activities that this process runs on local disk. A process that starts finds what
// a killed predecessor was running and hands it back at once, where Temporal alone would wait for the heartbeat to time
// out. Each process writes below a folder of its own and holds a lock on it, which dies with the process: the tokens of one that
// still lives, however slowly, are never touched. Temporary files of a process lie in its folder, too: a killed one leaves
// them, and its successor removes them.
type journal struct {
	interceptor.WorkerInterceptorBase
	dir  string   // of this process
	lock *os.File // open as long as the process lives
}

const lockName = "lock"

// openJournal hands back what dead processes left below dir, and begins a journal of this process.
func openJournal(ctx context.Context, dir string, c client.Client, logger *slog.Logger) (*journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*", lockName))
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	for _, path := range left {
		if err := handBack(ctx, path, c, logger); err != nil {
			logger.Warn("work of a dead worker is left to its heartbeat time-out", "journal", path, "error", err)
		}
	}
	for {
		own, err := os.MkdirTemp(dir, "worker-")
		if err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		path := filepath.Join(own, lockName)
		lock, err := tryLock(path)
		if err == nil && holds(lock, path) {
			return &journal{dir: own, lock: lock}, nil
		}
		if err == nil {
			err = lock.Close()
		}
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("journal: %w", err)
		}
		// A process that starts, too, found the folder before it was locked and took it for a dead one's.
	}
}

// holds reports whether the file is still the one at path.
func holds(f *os.File, path string) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	found, err := os.Stat(path)
	return err == nil && os.SameFile(opened, found)
}

// tryLock opens a file and takes its lock; unix.EWOULDBLOCK means that a living process holds it.
func tryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// handBack fails the activities of one dead process with a retryable error and removes its journal.
func handBack(ctx context.Context, lockPath string, c client.Client, logger *slog.Logger) error {
	lock, err := tryLock(lockPath)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	dir := filepath.Dir(lockPath)
	tokens, err := filepath.Glob(filepath.Join(dir, "token-*"))
	if err != nil {
		return err
	}
	lost := temporal.NewApplicationErrorWithOptions("the worker process died", activities.TypeWorkerLost,
		temporal.ApplicationErrorOptions{Category: temporal.ApplicationErrorCategoryBenign})
	for _, path := range tokens {
		token, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		err = c.CompleteActivity(ctx, token, nil, lost)
		var gone *serviceerror.NotFound             // timed out, or its workflow has ended
		var malformed *serviceerror.InvalidArgument // cut short by the death
		if err != nil && !errors.As(err, &gone) && !errors.As(err, &malformed) {
			return err
		}
		logger.Info("handed back an activity of a dead worker", "still_running", err == nil)
	}
	return os.RemoveAll(dir)
}

// InterceptActivity notes each activity for as long as it runs.
func (j *journal) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &noting{ActivityInboundInterceptorBase: interceptor.ActivityInboundInterceptorBase{Next: next}, dir: j.dir}
}

type noting struct {
	interceptor.ActivityInboundInterceptorBase
	dir string
}

// ExecuteActivity runs one activity. A journal that cannot be written costs speed of recovery, nothing else.
func (n *noting) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	f, err := os.CreateTemp(n.dir, "token-")
	if err == nil {
		defer os.Remove(f.Name())
		_, err = f.Write(activity.GetInfo(ctx).TaskToken)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		activity.GetLogger(ctx).Warn("journal not written", "error", err)
	}
	return n.Next.ExecuteActivity(ctx, in)
}
