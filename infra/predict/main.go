// Command predict classifies texts with a model in MLflow, by the engine of the GPU worker.
//
//	predict -model models:/name@alias -text "a text" [-pair "its second text"]
//	predict -model models:/name@alias -file in.jsonl -out out.jsonl
//
// The model is one that mlflow.transformers logged, in Python or here; texts are cut where it was trained to cut them. A line of the input is a JSON object with a string
// "text" and, of a pair, "text_pair"; the line of the output is that object with "prediction" added: label, score and the scores of all labels. The
// output appears under its name once it is whole; "-" is standard output. MLFLOW_* and AWS_* are read as MLflow's Python
// client reads them.
//
// It needs a build with the tag torch; `go tool task predict` sees to it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/duratune/duratune/internal/classifier"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/train"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	slog.SetDefault(slog.New(slog.DiscardHandler)) // the engine's remarks are for the workers' logs
	if err := run(ctx, os.Args[1:], os.Getenv, open, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "predict:", err)
		os.Exit(1)
	}
}

// arguments are the command line.
type arguments struct{ model, text, pair, file, out, precision string }

func parse(args []string) (a arguments, err error) {
	f := flag.NewFlagSet("predict", flag.ContinueOnError)
	f.StringVar(&a.model, "model", "", "models:/<name>@<alias>, models:/<name>/<version>, models:/m-<id> or runs:/<id>/<name>")
	f.StringVar(&a.text, "text", "", "a text to classify")
	f.StringVar(&a.pair, "pair", "", "the second text of a pair, for models of pairs")
	f.StringVar(&a.file, "file", "", "JSON lines to classify, each with a string \"text\" and, of a pair, \"text_pair\"")
	f.StringVar(&a.out, "out", "-", "file for the lines with their predictions")
	f.StringVar(&a.precision, "precision", "auto", "auto, fp32, tf32 or bf16")
	if err := f.Parse(args); err != nil {
		return a, err
	}
	switch {
	case f.NArg() > 0:
		return a, fmt.Errorf("got %q, want flags only", f.Arg(0))
	case a.model == "":
		return a, errors.New("no model: name one, e.g. MODEL=models:/quickstart-spam@champion")
	case (a.text == "") == (a.file == ""), a.text == "" && a.pair != "":
		return a, errors.New("nothing to classify, or too much: give either TEXT or FILE, and PAIR only with TEXT")
	}
	return a, nil
}

func run(ctx context.Context, args []string, getenv func(string) string, open train.OpenFunc, stdout io.Writer) error {
	a, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	config, err := mlflow.ConfigFromEnv(getenv)
	if err != nil {
		return err
	}
	tracking, err := mlflow.New(config)
	if err != nil {
		return err
	}
	c, err := load(ctx, tracking, a, open)
	if err != nil {
		return fmt.Errorf("%s: %w", a.model, err)
	}
	defer c.Close()
	if a.text != "" {
		return predictText(ctx, c, recipe.Text{Text: a.text, Pair: a.pair}, stdout)
	}
	in, err := os.Open(a.file)
	if err != nil {
		return err
	}
	defer in.Close()
	if a.out == "-" {
		return predictLines(ctx, c, a.file, in, stdout)
	}
	return whole(a.out, func(out io.Writer) error { return predictLines(ctx, c, a.file, in, out) })
}

// load downloads the model and opens it. The files are not needed afterwards. Texts are cut where the tokenizer says, as they
// are in Python, not where training cut them.
func load(ctx context.Context, tracking *mlflow.Client, a arguments, open train.OpenFunc) (*classifier.Classifier, error) {
	ref, err := tracking.ResolveModelURI(ctx, a.model)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "duratune-predict-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if _, err := tracking.DownloadDir(ctx, ref.ArtifactURI, dir, nil); err != nil {
		return nil, err
	}
	spec := train.Spec{Precision: a.precision, BatchSize: batchRows, EvalBatch: batchRows, MicroStep: batchRows}
	return classifier.Open(ctx, dir, open, spec)
}

// whole writes a file that is there once write has succeeded, and not before.
func whole(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".predict-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := errors.Join(write(f), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
