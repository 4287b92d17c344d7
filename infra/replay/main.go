// Command replay does the step again at which a run's loss was not finite, and prints its numbers beside the recorded ones.
//
//	replay -capsule <MLflow run id, or a file>
//
// The capsule is what the diverged run kept among its artifacts: the state before the step, the rows, the learning rate, the
// seed. MLFLOW_*, AWS_*, DURATUNE_S3_* and DURATUNE_STORE are read as a worker reads them. It needs a build with the tag torch;
// `go tool task replay:step` sees to it.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"

	"github.com/duratune/duratune/activities"
	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/mlflow"
)

func main() {
	name := flag.String("capsule", "", "id of the diverged MLflow run, or path of its failure/capsule.json")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *name, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "replay:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, name string, out io.Writer) error {
	config, err := mlflow.ConfigFromEnv(os.Getenv)
	if err != nil {
		return err
	}
	tracking, err := mlflow.New(config)
	if err != nil {
		return err
	}
	c, err := read(ctx, tracking, name)
	if err != nil {
		return err
	}
	s3, err := artifact.ConfigFromEnv(os.Getenv)
	if err != nil {
		return err
	}
	store, err := artifact.Open(ctx, os.Getenv("DURATUNE_STORE"), s3)
	if err != nil {
		return fmt.Errorf("DURATUNE_STORE: %w", err)
	}
	dir, err := os.MkdirTemp("", "duratune-replay-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	g := &activities.GPU{Store: store, Tracking: tracking, Open: open, CacheDir: dir, Scratch: dir, Logger: slog.New(slog.DiscardHandler)}
	again, identity, err := activities.Replay(ctx, g, c)
	if err != nil {
		return err
	}
	was := c.Failure
	fmt.Fprintf(out, "step %d of epoch %d, learning rate %g, seed %d\nrows     %v\nrecorded loss %v, gradient norm %v on %+v\nreplayed loss %v, gradient norm %v on %+v\n",
		was.Step, c.Epoch, was.LearningRate, c.Train.Seed, was.Rows, was.Loss, was.GradNorm, c.Identity, again.Loss, again.GradNorm, identity)
	return nil
}

// read finds the capsule in a file, else among the artifacts of the MLflow run of that id.
func read(ctx context.Context, tracking *mlflow.Client, name string) (c activities.Capsule, err error) {
	body, err := os.ReadFile(name)
	if err != nil {
		run, err := tracking.GetRun(ctx, name)
		if err != nil {
			return c, fmt.Errorf("capsule %q is neither a file nor an MLflow run: %w", name, err)
		}
		var b bytes.Buffer
		if _, err := tracking.DownloadArtifact(ctx, run.ArtifactURI, activities.CapsulePath, &b, nil); err != nil {
			return c, fmt.Errorf("capsule of run %s: %w", name, err)
		}
		body = b.Bytes()
	}
	if err := json.Unmarshal(body, &c); err != nil {
		return c, fmt.Errorf("capsule %s: %w", name, err)
	}
	return c, nil
}
