// Command bench compares Duratune with the software it takes the place of, both sides in turn in one run, and prints a
// line of JSON a case.
//
//	bench accuracy [-seeds 5]     what is learned: Hugging Face's Trainer and ours, same rows, settings and seeds
//	bench train [-cases a,b]      how fast, on the cores that are given (taskset, GOMAXPROCS): MiniLM
//	bench gpu [-cases a,b]        how fast, on a GPU: DistilBERT
//	bench checkpoints [-every n]  what checkpoints within an epoch cost: with and without them
//
// It needs a build with the tag torch and the peers' Python in DURATUNE_PEERS; `go tool task bench:accuracy` sees to both.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/duratune/duratune/infra/setup"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	name, args := "", args
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	switch name {
	case "accuracy":
		return runAccuracy(ctx, args, out)
	case "train", "gpu":
		return runSpeed(ctx, name, args, out)
	case "checkpoints":
		return runCheckpoints(ctx, args, out)
	case "first-step": // run by the other two
		return firstStep(ctx, args, out)
	default:
		return fmt.Errorf("got %q, want one of accuracy, train, gpu, checkpoints", name)
	}
}

// places are where the inputs lie unless flags say otherwise.
type places struct{ root, model, data string }

func findPlaces() (places, error) {
	root, err := setup.FindRoot(".")
	if err != nil {
		return places{}, err
	}
	cache, err := setup.CacheDir()
	return places{root, filepath.Join(cache, "assets", "all-minilm-l6-v2"), filepath.Join(root, "..", "shared", "data", "sms_spam", "SMSSpamCollection")}, err
}

// peers is the interpreter of the software that is compared with.
func peers() (string, error) {
	python := os.Getenv("DURATUNE_PEERS")
	if python == "" {
		return "", errors.New("DURATUNE_PEERS is not set: it names the peers' Python, which internal/py/peers/setup.sh prints")
	}
	return python, nil
}

func runAccuracy(ctx context.Context, args []string, out io.Writer) error {
	at, err := findPlaces()
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet("bench accuracy", flag.ContinueOnError)
	c := defaults
	flags.IntVar(&c.Seeds, "seeds", c.Seeds, "runs of each side")
	flags.IntVar(&c.TrainRows, "rows", c.TrainRows, "training rows taken")
	flags.IntVar(&c.TestRows, "test-rows", c.TestRows, "test rows taken")
	flags.Float64Var(&c.LearningRate, "lr", c.LearningRate, "learning rate at the start")
	flags.IntVar(&c.Jobs, "jobs", c.Jobs, "seeds raced at a time, each with GOMAXPROCS threads")
	flags.BoolVar(&c.Bf16, "bf16", false, "compare our bf16 with our fp32, and write no page")
	runs := flags.String("runs", "", "file for all runs and their loss curves, as JSON")
	docs := flags.String("docs", filepath.Join(at.root, "docs", "benchmarks"), "folder of the page and its picture")
	model := flags.String("model", at.model, "base model")
	data := flags.String("data", at.data, "the SMS Spam Collection")
	if err := flags.Parse(args); err != nil {
		return err
	}
	for name, path := range map[string]string{"base model": *model, "shared: SMS Spam Collection": *data} {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			fmt.Fprintf(out, "skipped accuracy_minilm_sms: %s not found at %s\n", name, path)
			return nil
		}
	}
	python, err := peers()
	if err != nil {
		return err
	}
	b := accuracy{settings: c, model: *model, root: at.root, python: python, out: out}
	if b.train, b.test, err = readRows(ctx, *data, filepath.Join(b.model, "tokenizer.json"), c); err != nil {
		return err
	}
	if err := b.race(ctx); err != nil {
		return err
	}
	if *runs != "" {
		text, err := json.Marshal(b.pairs)
		if err := errors.Join(err, os.WriteFile(*runs, text, 0o644)); err != nil {
			return err
		}
	}
	if c.Bf16 {
		return nil
	}
	return b.publish(*docs)
}
