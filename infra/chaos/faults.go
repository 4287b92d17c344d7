package main

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/duratune/duratune/infra/stack"
	"github.com/duratune/duratune/internal/mlflow"
)

// fault disturbs a run once it has reached its moment.
type fault struct {
	name    string
	when    moment
	prepare func(t *trial) error // at the moment, before the run's position is taken; may be nil
	strike  func(ctx context.Context, t *trial) error
	ends    mlflow.Status // of the MLflow run; "" is FINISHED
}

// moment is a point of a run that a fault waits for.
type moment struct {
	activity string // type of the pending activity
	anyStep  bool   // at a step drawn at random
	upload   string // instead: while a worker writes an object of this name, which of the run's objects is drawn
	uploads  int    // requests for it in a run, at least
}

func training() moment { return moment{activity: "TrainEpoch", anyStep: true} }

func at(activity string) moment { return moment{activity: activity} }

// A run writes eight checkpoints: three within each of the two epochs and one at the end of each. Its manifest makes one real.
func uploading() moment  { return moment{upload: "/optimizer.safetensors", uploads: 8} }
func committing() moment { return moment{upload: "/manifest.json", uploads: 8} }

func kill(process string) func(context.Context, *trial) error {
	return func(_ context.Context, t *trial) error { return t.Signal(process, syscall.SIGKILL) }
}

func restart(process string) func(context.Context, *trial) error {
	return func(ctx context.Context, t *trial) error { return t.Restart(ctx, process) }
}

// away stops a server for a while.
func away(process string, d time.Duration) func(context.Context, *trial) error {
	return func(ctx context.Context, t *trial) error {
		if err := t.Halt(ctx, process); err != nil {
			return err
		}
		wait(ctx, d)
		return t.Resume(ctx, process)
	}
}

// store makes the S3 store misbehave for a while.
func store(m mode, d time.Duration) func(context.Context, *trial) error {
	return func(ctx context.Context, t *trial) error {
		t.proxy.set(m)
		wait(ctx, d)
		t.proxy.set(healthy)
		return nil
	}
}

// truncate kills the worker while the store cuts downloads short, so that its successor has something to download.
func truncate(ctx context.Context, t *trial) error {
	t.proxy.set(truncated)
	defer t.proxy.set(healthy)
	if err := t.Signal(stack.GPUWorker, syscall.SIGKILL); err != nil {
		return err
	}
	wait(ctx, 10*time.Second)
	return nil
}

// zombie stops the worker past its heartbeat time-out and lets it go on beside its successor's work.
func zombie(ctx context.Context, t *trial) error {
	if err := t.Signal(stack.GPUWorker, syscall.SIGSTOP); err != nil {
		return err
	}
	wait(ctx, 75*time.Second)
	return t.Signal(stack.GPUWorker, syscall.SIGCONT)
}

// killWithoutRoom kills the GPU worker while the workers' disk is full, so that its successor has no room for the
// checkpoint. There is room again once the run says what it lacks.
func killWithoutRoom(ctx context.Context, t *trial) error {
	defer t.disk.free()
	if err := t.Signal(stack.GPUWorker, syscall.SIGKILL); err != nil {
		return err
	}
	for ctx.Err() == nil {
		d, err := t.Client().DescribeWorkflow(ctx, t.id, "")
		if err == nil {
			for _, p := range d.RawResponse.GetPendingActivities() {
				if p.GetLastFailure().GetApplicationFailureInfo().GetType() == "DiskFull" {
					return nil
				}
			}
		}
		wait(ctx, 50*time.Millisecond)
	}
	return fmt.Errorf("the run never said DiskFull: %w", ctx.Err())
}

func cancel(ctx context.Context, t *trial) error { return t.Client().CancelWorkflow(ctx, t.id, "") }

func terminate(ctx context.Context, t *trial) error {
	return t.Client().TerminateWorkflow(ctx, t.id, "", "chaos")
}

var faults = []fault{
	{name: "kill-gpu-worker", when: training(), strike: kill(stack.GPUWorker)},
	{name: "kill-gpu-worker-uploading", when: uploading(), strike: kill(stack.GPUWorker)},
	{name: "kill-gpu-worker-committing", when: committing(), strike: kill(stack.GPUWorker)},
	{name: "kill-gpu-worker-validating", when: at("Validate"), strike: kill(stack.GPUWorker)},
	{name: "kill-gpu-worker-load-testing", when: at("LoadTest"), strike: kill(stack.GPUWorker)},
	{name: "kill-cpu-worker", when: training(), strike: kill(stack.CPUWorker)},
	{name: "kill-cpu-worker-logging-model", when: at("LogModel"), strike: kill(stack.CPUWorker)},
	{name: "sigterm-gpu-worker", when: training(), strike: func(_ context.Context, t *trial) error { return t.Signal(stack.GPUWorker, syscall.SIGTERM) }},
	{name: "restart-temporal", when: training(), strike: restart(stack.Temporal)},
	{name: "restart-mlflow", when: training(), strike: restart(stack.MLflow)},
	{name: "restart-s3", when: training(), strike: restart(stack.S3)},
	{name: "mlflow-away-60s", when: training(), strike: away(stack.MLflow, time.Minute)},
	{name: "s3-answers-500", when: training(), strike: store(erring, 15*time.Second)},
	{name: "s3-slow", when: training(), strike: store(slow, 20*time.Second)},
	{name: "s3-truncates", when: training(), strike: truncate},
	{name: "disk-full", when: training(), prepare: func(t *trial) error { return t.disk.fill() }, strike: killWithoutRoom},
	{name: "zombie", when: training(), strike: zombie},
	{name: "hung-step", when: training(), strike: hang},
	{name: "cancel", when: training(), strike: cancel, ends: mlflow.Killed},
	{name: "terminate", when: training(), strike: terminate, ends: mlflow.Killed},
}

// wait is a pause that ends with ctx.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
