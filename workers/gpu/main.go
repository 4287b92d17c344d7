//go:build torch

// Command gpu is the worker for training, evaluation and the load test. On a machine without a GPU it trains on the CPU.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"go.temporal.io/sdk/worker"

	"github.com/duratune/duratune/activities"
	"github.com/duratune/duratune/internal/engine"
	"github.com/duratune/duratune/workers"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "gpu worker:", err)
		os.Exit(1)
	}
}

func run() error {
	base, err := workers.Connect(context.Background(), os.Getenv)
	if err != nil {
		return err
	}
	defer base.Temporal.Close()
	dog := workers.NewWatchdog(func(op string, silent time.Duration) {
		base.Logger.Error("the device hangs: this process ends and leaves its work to the next; if a step may take so long here, raise limits.max_step_time in the recipe", "operation", op, "silent", silent.String())
		os.Exit(3) // the thread that hangs cannot be stopped otherwise
	})
	// One slot: the queue hands a device one activity at a time.
	w := base.New(activities.GPUQueue, os.Getenv, worker.Options{MaxConcurrentActivityExecutionSize: 1, DisableWorkflowWorker: true})
	w.RegisterActivity(&activities.GPU{Store: activities.Beating(base.Store), Tracking: base.Tracking, Open: dog.Watch(engine.Open), CacheDir: base.CacheDir, Scratch: base.Scratch,
		Paused: base.Paused, Logger: base.Logger})
	return base.Run(w, dog.Lost())
}
