// Command cpu is the worker for the workflows and for every activity that needs no device.
package main

import (
	"context"
	"fmt"
	"os"

	"go.temporal.io/sdk/worker"

	"github.com/duratune/duratune/activities"
	"github.com/duratune/duratune/dataset"
	"github.com/duratune/duratune/internal/hub"
	"github.com/duratune/duratune/workers"
	"github.com/duratune/duratune/workflows"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "cpu worker:", err)
		os.Exit(1)
	}
}

func run() error {
	base, err := workers.Connect(context.Background(), os.Getenv)
	if err != nil {
		return err
	}
	defer base.Temporal.Close()
	roots, err := dataset.ParseRoots(os.Getenv("DURATUNE_DATA_ROOTS"))
	if err != nil {
		return err
	}
	buckets, err := activities.BucketsFromEnv(os.Getenv)
	if err != nil {
		return err
	}
	hubConfig, err := hub.ConfigFromEnv(os.Getenv)
	if err != nil {
		return err
	}
	w := base.New(activities.Queue, os.Getenv, worker.Options{})
	workflows.Register(w)
	w.RegisterActivity(&activities.CPU{Store: activities.Beating(base.Store), Tracking: base.Tracking, Roots: roots, Buckets: buckets, Hub: hub.New(hubConfig),
		Cluster: base.Cluster(), CacheDir: base.CacheDir, Scratch: base.Scratch, UI: base.UI, Logger: base.Logger})
	if err := base.ScheduleReconcile(context.Background(), os.Getenv); err != nil {
		return err
	}
	return base.Run(w, nil)
}
