// Command local sets up Duratune on one machine, runs its stack there, and starts fine-tunes on it. The verbs of
// Taskfile.yml are its verbs; `local help` lists them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/duratune/duratune/infra/setup"
	"github.com/duratune/duratune/infra/stack"
)

const usage = `usage: local VERB [flags]

  setup            install what is missing: libtorch, MLflow, the servers, a base model, a data set
  up               set up, build the workers and start the stack; harmless if it runs already
  down             stop the stack
  status           show the processes, their addresses and who polls the task queues
  logs [NAME…]     show the ends of the logs (-f follows, -n lines)
  run RECIPE       up, then start the fine-tune and follow it to its end
  follow ID        follow a fine-tune that was started before
  validate RECIPE  up, then plan the recipe without side effects
  env              print the exports for clients of the stack (secrets included)
  build-env        print the exports for building with libtorch (-tags torch)
  tool NAME        build golangci-lint, workflowcheck or temporal if need be, find mlflow, and print its path

State lies below $XDG_STATE_HOME/duratune/$DURATUNE_INSTANCE (default: "default"), installations below
$XDG_CACHE_HOME/duratune. Ports: DURATUNE_PORT_TEMPORAL (7233), DURATUNE_PORT_TEMPORAL_UI (8233),
DURATUNE_PORT_S3 (7070), DURATUNE_PORT_MLFLOW (5050), DURATUNE_PORT_CPU_METRICS (9464), DURATUNE_PORT_GPU_METRICS (9465);
0 is a free one.
`

// verbs are what the program can do, by name.
var verbs = map[string]func(*app, context.Context, []string) error{
	"setup":     (*app).setupVerb,
	"up":        (*app).upVerb,
	"down":      (*app).downVerb,
	"status":    (*app).statusVerb,
	"logs":      (*app).logsVerb,
	"run":       (*app).runVerb,
	"follow":    (*app).followVerb,
	"validate":  (*app).validateVerb,
	"env":       (*app).envVerb,
	"build-env": (*app).buildEnvVerb,
	"tool":      (*app).toolVerb,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// run calls the verb and returns the exit status: 0, 1 for a failure, 2 for a mistake in the call.
func run(ctx context.Context, args []string) int {
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		fmt.Print(usage)
		return 0
	}
	if args[0] == stack.SuperviseVerb { // started by `up`, outside of the checkout
		return report(supervise(ctx, args[1:]))
	}
	verb, ok := verbs[args[0]]
	if !ok {
		fmt.Fprintf(os.Stderr, "local: no verb is named %q\n\n%s", args[0], usage)
		return 2
	}
	a, err := newApp()
	if err == nil {
		err = verb(a, ctx, args[1:])
	}
	return report(err)
}

// report prints the error and returns the exit status.
func report(err error) int {
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errQuiet):
		return 1
	default:
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
}

// errQuiet ends the program with status 1; what there is to say was said.
var errQuiet = errors.New("failed")

// app is what every verb needs: where things lie.
type app struct {
	setup setup.Options
	state string // folder of the instance
}

func newApp() (*app, error) {
	root, err := setup.FindRoot(".")
	if err != nil {
		return nil, err
	}
	cache, err := setup.CacheDir()
	if err != nil {
		return nil, err
	}
	name := os.Getenv("DURATUNE_INSTANCE")
	if name == "" {
		name = "default"
	}
	state, err := stack.StateDir(name)
	if err != nil {
		return nil, err
	}
	return &app{setup: setup.Options{Root: root, Cache: cache, Out: os.Stdout}, state: state}, nil
}
