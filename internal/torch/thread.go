//go:build torch

package torch

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
)

// ErrClosed is returned by Do after Close.
var ErrClosed = errors.New("torch: thread is closed")

// Thread is an OS thread on which tensor code runs. Make one a device.
type Thread struct {
	calls chan call
	quit  chan struct{}
}

type call struct {
	fn   func() error
	done chan error
}

// NewThread starts a thread that computes with the given number of cores (intra-op threads).
func NewThread(cores int) (*Thread, error) {
	t := &Thread{calls: make(chan call), quit: make(chan struct{})}
	ready := make(chan error)
	go t.serve(cores, ready)
	if err := <-ready; err != nil {
		return nil, err
	}
	return t, nil
}

// serve never unlocks the OS thread, so that Go ends it with the goroutine, and libtorch's per-thread state with it.
func (t *Thread) serve(cores int, ready chan<- error) {
	runtime.LockOSThread()
	err := initThread(cores)
	ready <- err
	if err != nil {
		return
	}
	for {
		select {
		case c := <-t.calls:
			c.done <- protect(c.fn)
		case <-t.quit:
			return
		}
	}
}

// Do runs fn on the thread and returns its error. A panic in fn becomes an error. If ctx ends before fn has started, fn
// does not run; once started it is waited for, because its tensors may not be abandoned.
func (t *Thread) Do(ctx context.Context, fn func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := call{fn: fn, done: make(chan error, 1)}
	select {
	case t.calls <- c:
		return <-c.done
	case <-ctx.Done():
		return ctx.Err()
	case <-t.quit:
		return ErrClosed
	}
}

// Close ends the thread after the call in progress. It may be called once.
func (t *Thread) Close() { close(t.quit) }

func protect(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("torch: panic: %v\n%s", p, debug.Stack())
		}
	}()
	return fn()
}
