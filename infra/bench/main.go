// Command bench compares Duratune with the software it takes the place of, both sides in turn in one run, and prints a
// line of JSON a case.
//
//	bench accuracy [-seeds 5]     what is learned: Hugging Face's Trainer and ours, same rows, settings and seeds
//
// It needs a build with the tag torch and the peers' Python in DURATUNE_PEERS; `go tool task bench:accuracy` sees to both.
package main

import (
	"context"
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
	if len(args) == 0 || args[0] != "accuracy" {
		return fmt.Errorf("got %q, want the case: accuracy", args)
	}
	root, err := setup.FindRoot(".")
	if err != nil {
		return err
	}
	cache, err := setup.CacheDir()
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet("bench accuracy", flag.ContinueOnError)
	c := defaults
	flags.IntVar(&c.Seeds, "seeds", c.Seeds, "runs of each side")
	flags.IntVar(&c.TrainRows, "rows", c.TrainRows, "training rows taken")
	flags.IntVar(&c.TestRows, "test-rows", c.TestRows, "test rows taken")
	docs := flags.String("docs", filepath.Join(root, "docs", "benchmarks"), "folder of the page and its picture")
	model := flags.String("model", filepath.Join(cache, "assets", "all-minilm-l6-v2"), "base model")
	data := flags.String("data", filepath.Join(root, "..", "shared", "data", "sms_spam", "SMSSpamCollection"), "the SMS Spam Collection")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	for name, path := range map[string]string{"base model": *model, "shared: SMS Spam Collection": *data} {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			fmt.Fprintf(out, "skipped accuracy_minilm_sms: %s not found at %s\n", name, path)
			return nil
		}
	}
	b := accuracy{settings: c, model: *model, root: root, python: os.Getenv("DURATUNE_PEERS"), out: out}
	if b.python == "" {
		return errors.New("DURATUNE_PEERS is not set: it names the peers' Python, which internal/py/peers/setup.sh prints")
	}
	if err := b.read(ctx, *data); err != nil {
		return err
	}
	if err := b.race(ctx); err != nil {
		return err
	}
	return b.publish(*docs)
}
