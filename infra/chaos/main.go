// Command chaos proves that no crash changes a bit. It starts the real stack on free ports, runs a small real fine-tune
// undisturbed, and then runs it again and again while it kills workers, restarts and stops servers, breaks the store,
// and cancels and terminates runs. After each trial it compares what MLflow and S3 hold with the undisturbed run:
// weights, moments, every metric, and the numbers of runs, models, versions and leftovers.
//
//	go tool task chaos N=20 SEED=1            one line a trial, a table by fault, then "N passed, N failed"
//	go tool task chaos N=1 SEED=1 FIRST=7     trial 7 of that seed alone
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/duratune/duratune/infra/setup"
	"github.com/duratune/duratune/infra/stack"
	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/mlflow"
)

func main() {
	n := flag.Int("n", 20, "trials")
	first := flag.Int("first", 1, "number of the first trial")
	seed := flag.Uint64("seed", 1, "decides faults and moments")
	only := flag.String("only", "", "these faults alone, separated by commas, e.g. kill-gpu-worker,zombie")
	state := flag.String("state", "", "folder for state and logs (default a temporary one, removed if all pass)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	faults, err := choose(*only)
	failed := 0
	if err == nil {
		failed, err = run(ctx, options{n: *n, first: *first, seed: *seed, faults: faults, state: *state})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(2)
	}
	if failed > 0 {
		os.Exit(1)
	}
}

type options struct {
	n, first int
	seed     uint64
	faults   []fault
	state    string
}

// arena is the stack with what a trial needs of it.
type arena struct {
	*stack.Stack
	store    artifact.Store // of the runs
	models   artifact.Store // of MLflow
	tracking *mlflow.Client
	disk     *disk
	proxy    *proxy
	recipe   []byte
	want     fingerprint
}

func run(ctx context.Context, o options) (failed int, err error) {
	a, done, err := open(ctx, &o)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, done(failed == 0 && err == nil)) }()
	began := time.Now()
	if a.want, err = a.undisturbed(ctx); err != nil {
		return 0, fmt.Errorf("undisturbed run: %w", err)
	}
	fmt.Printf("undisturbed run: %.1f s, weights %s…, %d points\n", time.Since(began).Seconds(), a.want.weights[:12], len(a.want.points))
	var all table
	for i := o.first; i < o.first+o.n && ctx.Err() == nil; i++ {
		t := newTrial(a, o, i)
		if t.skipped() {
			continue
		}
		problems := t.run(ctx)
		if ctx.Err() != nil {
			break // by whoever runs this: no verdict
		}
		fmt.Println(all.add(t, problems))
		if err := a.clear(ctx); err != nil {
			return all.failed(), err
		}
	}
	fmt.Print(all)
	if all.failed() > 0 {
		fmt.Printf("logs are in %s; a trial alone: go tool task chaos N=1 SEED=%d FIRST=<trial>\n", filepath.Join(o.state, "log"), o.seed)
	}
	fmt.Printf("%d passed, %d failed\n", all.passed(), all.failed())
	return all.failed(), all.save(os.Getenv("DURATUNE_TOTALS"))
}

// open sets up, starts the stack with a proxy before the store, and returns what undoes it.
func open(ctx context.Context, o *options) (*arena, func(clean bool) error, error) {
	root, err := setup.FindRoot(".")
	if err != nil {
		return nil, nil, err
	}
	paths, err := setup.Run(ctx, setup.Options{Root: root, Out: os.Stderr})
	if err != nil {
		return nil, nil, err
	}
	temporary := o.state == ""
	if temporary {
		if o.state, err = os.MkdirTemp("", "duratune-chaos-"); err != nil {
			return nil, nil, err
		}
	}
	if err := setup.BuildWorkers(ctx, paths, filepath.Join(o.state, "bin"), os.Stderr); err != nil {
		return nil, nil, err
	}
	recipe, err := writeInput(root, paths.Assets, filepath.Join(o.state, "data"))
	if err != nil {
		return nil, nil, err
	}
	d, err := mountDisk(filepath.Join(o.state, "cache"))
	if err != nil {
		return nil, nil, err
	}
	p, err := startProxy(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, d.close())
	}
	env := []string{"AWS_ENDPOINT_URL_S3=" + p.url, "DURATUNE_RECONCILE_EVERY=5s",
		"DURATUNE_DATA_ROOTS=" + paths.Assets + string(os.PathListSeparator) + filepath.Join(o.state, "data")}
	s, err := stack.Start(ctx, stack.Config{State: o.state, Ports: &stack.Ports{}, Paths: paths, Workers: filepath.Join(o.state, "bin"), WorkerEnv: env})
	if err != nil {
		return nil, nil, errors.Join(err, p.close(), d.close())
	}
	p.forward(s.S3URL())
	done := func(clean bool) error {
		err := errors.Join(s.Stop(), p.close(), d.close())
		if clean && temporary {
			err = errors.Join(err, os.RemoveAll(o.state))
		}
		return err
	}
	a := &arena{Stack: s, proxy: p, disk: d, recipe: recipe}
	if err := a.connect(ctx); err != nil {
		return nil, nil, errors.Join(err, done(false))
	}
	return a, done, nil
}

// choose picks faults by name; no name is all of them.
func choose(names string) ([]fault, error) {
	if names == "" {
		return faults, nil
	}
	var chosen []fault
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(faults, func(f fault) bool { return f.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no fault is named %q", name)
		}
		chosen = append(chosen, faults[i])
	}
	return chosen, nil
}

// newTrial draws the fault and its moment from (seed, trial). Each row of len(o.faults) trials has every fault once.
func newTrial(a *arena, o options, i int) *trial {
	row, column := (i-1)/len(o.faults), (i-1)%len(o.faults) // trials count from 1
	f := o.faults[rand.New(rand.NewPCG(o.seed, uint64(row))).Perm(len(o.faults))[column]]
	return &trial{arena: a, id: fmt.Sprintf("chaos/%d/%d", o.seed, i), fault: f, rng: rand.New(rand.NewPCG(o.seed+1, uint64(i)))}
}

// skipped reports, and says, that this machine cannot have the fault.
func (t *trial) skipped() bool {
	rootOnly := t.fault.name == "disk-full" || t.fault.name == "hung-step" // mounting a disk and tracing a thread
	if !rootOnly || t.disk.mounted {
		return false
	}
	fmt.Printf("%s: skipped %s, which takes root\n", t.id, t.fault.name)
	return true
}
