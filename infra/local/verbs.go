package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	enumspb "go.temporal.io/api/enums/v1"

	"github.com/duratune/duratune/infra/libtorch"
	"github.com/duratune/duratune/infra/setup"
	"github.com/duratune/duratune/infra/stack"
)

// flags parses the flags of a verb and returns what is left.
func flags(verb string, args []string, define func(*flag.FlagSet)) ([]string, error) {
	fs := flag.NewFlagSet("local "+verb, flag.ContinueOnError)
	if define != nil {
		define(fs)
	}
	err := fs.Parse(args)
	return fs.Args(), err
}

func (a *app) setupVerb(ctx context.Context, args []string) error {
	if _, err := flags("setup", args, nil); err != nil {
		return err
	}
	_, err := setup.Run(ctx, a.setup)
	if err == nil {
		fmt.Println("setup: everything is in place below", a.setup.Cache)
	}
	return err
}

func (a *app) upVerb(ctx context.Context, args []string) error {
	servers := false
	_, err := flags("up", args, func(fs *flag.FlagSet) {
		fs.BoolVar(&servers, "servers-only", false, "start no workers")
	})
	if err != nil {
		return err
	}
	if _, err := a.up(ctx, !servers); err != nil {
		return err
	}
	return a.printStatus(ctx)
}

// up sets up, builds the workers and starts what does not run.
func (a *app) up(ctx context.Context, workers bool) (setup.Paths, error) {
	start := time.Now()
	paths, err := setup.Run(ctx, a.setup)
	if err != nil {
		return paths, err
	}
	in, err := stack.Load(a.state)
	if err != nil {
		return paths, err
	}
	c := stack.Config{State: a.state, Paths: paths, Ports: &in.Ports}
	if err := c.Ports.Override(os.Getenv); err != nil {
		return paths, err
	}
	if workers {
		c.Workers = filepath.Join(a.state, "bin")
		if err := setup.BuildWorkers(ctx, paths, c.Workers, os.Stdout); err != nil {
			return paths, err
		}
	}
	if err := stack.Up(ctx, c); err != nil {
		return paths, err
	}
	fmt.Printf("the stack is up (%s)\n", time.Since(start).Round(100*time.Millisecond))
	return paths, nil
}

func (a *app) downVerb(ctx context.Context, args []string) error {
	if _, err := flags("down", args, nil); err != nil {
		return err
	}
	if err := stack.Down(ctx, a.state); err != nil {
		return err
	}
	fmt.Println("the stack is down; its data stays in", a.state)
	return nil
}

func (a *app) statusVerb(ctx context.Context, args []string) error {
	if _, err := flags("status", args, nil); err != nil {
		return err
	}
	return a.printStatus(ctx)
}

// printStatus fails if the stack does not run or a process is not ready.
func (a *app) printStatus(ctx context.Context) error {
	st, err := stack.ReadStatus(a.state)
	if err != nil {
		return err
	}
	in, err := stack.Load(a.state)
	if err != nil {
		return err
	}
	where := map[string]string{
		stack.Temporal: in.TemporalAddress() + ", Web UI " + in.TemporalUI(), stack.S3: in.S3URL(), stack.MLflow: in.MLflowURL(),
		stack.CPUWorker: "metrics " + in.CPUMetricsURL(), stack.GPUWorker: "metrics " + in.GPUMetricsURL(),
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PROCESS\tSTATE\tPID\tFOR\tRESTARTS\tWHERE")
	ready := true
	for _, p := range st.Processes {
		ready = ready && p.State == stack.Ready
		at := where[p.Name]
		if at == "" {
			at = in.Log(p.Name)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%d\t%s\n", p.Name, p.State, p.PID, time.Since(p.Since).Round(time.Second), p.Restarts, at)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := printPollers(ctx, &in); err != nil {
		return err
	}
	if !ready {
		return errQuiet
	}
	return nil
}

// printPollers says for each task queue how many workers ask it for work.
func printPollers(ctx context.Context, in *stack.Instance) error {
	c, err := in.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	queues := []struct {
		name string
		kind enumspb.TaskQueueType
	}{{stack.Queue, enumspb.TASK_QUEUE_TYPE_WORKFLOW}, {stack.GPUQueue, enumspb.TASK_QUEUE_TYPE_ACTIVITY}}
	for _, q := range queues {
		n, err := stack.Pollers(ctx, c, q.name, q.kind, time.Now().Add(-stack.PollAge))
		if err != nil {
			return err
		}
		fmt.Printf("%d pollers on %s\n", n, q.name)
	}
	return nil
}

func (a *app) logsVerb(ctx context.Context, args []string) error {
	follow, lines := false, 20
	names, err := flags("logs", args, func(fs *flag.FlagSet) {
		fs.BoolVar(&follow, "f", false, "follow")
		fs.IntVar(&lines, "n", lines, "lines of each")
	})
	if err != nil {
		return err
	}
	in := stack.Instance{State: a.state}
	var files []string
	for _, name := range names {
		files = append(files, in.Log(name))
	}
	if len(files) == 0 {
		if files, err = filepath.Glob(in.Log("*")); err != nil {
			return err
		}
	}
	if len(files) == 0 {
		return fmt.Errorf("local: no logs in %s", a.state)
	}
	tail := exec.CommandContext(ctx, "tail", "-n", fmt.Sprint(lines))
	if follow {
		tail.Args = append(tail.Args, "-F")
	}
	tail.Args = append(tail.Args, files...)
	tail.Stdout, tail.Stderr = os.Stdout, os.Stderr
	if err := tail.Run(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("local: show logs: %w", err)
	}
	return nil
}

func (a *app) envVerb(_ context.Context, args []string) error {
	if _, err := flags("env", args, nil); err != nil {
		return err
	}
	in, err := stack.Load(a.state)
	if err != nil {
		return err
	}
	if in.SecretKey == "" {
		return errors.New("local: the stack was never started: `local up` first")
	}
	printExports(in.ClientEnv())
	return nil
}

func (a *app) buildEnvVerb(_ context.Context, args []string) error {
	if _, err := flags("build-env", args, nil); err != nil {
		return err
	}
	printExports(libtorch.Env(filepath.Join(a.setup.Cache, "libtorch-"+libtorch.Version)))
	return nil
}

// printExports prints what a shell can eval.
func printExports(env []string) {
	for _, kv := range env {
		key, value, _ := strings.Cut(kv, "=")
		fmt.Printf("export %s='%s'\n", key, strings.ReplaceAll(value, "'", `'\''`))
	}
}

func (a *app) toolVerb(ctx context.Context, args []string) error {
	names, err := flags("tool", args, nil)
	if err != nil {
		return err
	}
	if len(names) != 1 {
		return errors.New("local tool: want one name")
	}
	o := a.setup
	o.Out = os.Stderr // the path is all there is on stdout
	path, err := setup.Tool(ctx, o, names[0])
	if err != nil {
		return err
	}
	fmt.Println(path)
	return nil
}

func supervise(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("local supervise: want one file; `local up` starts it")
	}
	return stack.Supervise(ctx, args[0])
}
