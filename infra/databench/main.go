// Command databench measures what stands between a source and the first step of training: LoadSplit and Tokenize, as the
// real workflow runs them on the real CPU worker, Temporal, MLflow and S3 gateway, on rows that it makes. It prints a line
// of JSON a case.
//
//	databench rows [-sizes 100000,1000000,10000000] [-workers 1]   rows, seconds, rows per second and core, memory, events
//	databench kill [-rows 600000] [-seed 1]                        two workers, killed at random: the same tokens
//	databench s3 [-megabytes 256] [-rounds 3]                      large objects, ours, boto3 and plain HTTP in turn
//
// Processor time is measured beside the clock, since a busy machine is unfair by the clock.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/duratune/duratune/infra/setup"
	"github.com/duratune/duratune/infra/stack"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "databench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	name := ""
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet("databench "+name, flag.ContinueOnError)
	sizes := flags.String("sizes", "100000,1000000,10000000", "numbers of rows, with commas between them")
	workers := flags.Int("workers", 1, "CPU workers")
	rows := flags.Int("rows", 600_000, "rows of the run with kills")
	seed := flags.Uint64("seed", 1, "decides which worker is killed when")
	megabytes := flags.Int("megabytes", 256, "size of an object")
	rounds := flags.Int("rounds", 3, "times that each client writes and reads")
	state := flags.String("state", "", "folder for data, servers and logs (default a temporary one, which is removed)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	b, done, err := open(ctx, *state)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	encode := json.NewEncoder(out)
	switch name {
	case "rows":
		for size := range strings.SplitSeq(*sizes, ",") {
			n, err := strconv.Atoi(size)
			if err != nil {
				return fmt.Errorf("size %q: %w", size, err)
			}
			line, err := b.measure(ctx, n, *workers, nil)
			if err != nil {
				return err
			}
			if err := encode.Encode(line); err != nil {
				return err
			}
		}
		return nil
	case "kill":
		return b.kill(ctx, *rows, rand.New(rand.NewPCG(*seed, 0)), encode)
	case "s3":
		return b.s3(ctx, *megabytes, *rounds, encode)
	}
	return fmt.Errorf("got %q, want rows, kill or s3", name)
}

// bench is the stack, without workers.
type bench struct {
	*stack.Stack
	paths  setup.Paths
	worker string // binary
	cases  int
}

func open(ctx context.Context, state string) (*bench, func() error, error) {
	root, err := setup.FindRoot(".")
	if err != nil {
		return nil, nil, err
	}
	paths, err := setup.Run(ctx, setup.Options{Root: root, Out: os.Stderr})
	if err != nil {
		return nil, nil, err
	}
	remove := state == ""
	if remove {
		if state, err = os.MkdirTemp("", "duratune-databench-"); err != nil {
			return nil, nil, err
		}
	}
	b := &bench{paths: paths, worker: filepath.Join(state, "cpu-worker")}
	if err := build(ctx, root, b.worker); err != nil {
		return nil, nil, err
	}
	if b.Stack, err = stack.Start(ctx, stack.Config{State: state, Ports: &stack.Ports{}, Paths: paths}); err != nil {
		return nil, nil, err
	}
	return b, func() error {
		err := b.Stop()
		if remove && err == nil {
			err = os.RemoveAll(state)
		}
		return err
	}, nil
}
