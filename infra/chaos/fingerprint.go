package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/train"
)

// exactKeys are the metrics that no crash may change; rates and times may.
var exactKeys = []string{"loss", "grad_norm", "learning_rate", "epoch", "eval_loss", "eval_accuracy", "eval_f1", "eval_precision", "eval_recall", "train_loss"}

// fingerprint is what must be equal after any fault.
type fingerprint struct {
	weights, moments string   // SHA-256 of the last checkpoint's tensors
	points           []string // "key step value", sorted
	runs, models     int
	version          bool // the run's model is a version
	leftovers        int  // objects of the run's epochs beyond the kept checkpoints
	uploads          int  // unfinished multipart uploads
}

// connect opens stores and tracking server, past the proxy.
func (a *arena) connect(ctx context.Context) (err error) {
	config := aws.Config{Region: "us-east-1", BaseEndpoint: aws.String(a.S3URL()), Credentials: credentials.NewStaticCredentialsProvider(a.AccessKey, a.SecretKey, "")}
	for uri, store := range map[string]*artifact.Store{"s3://duratune/runs": &a.store, "s3://mlflow": &a.models} {
		if *store, err = artifact.Open(ctx, uri, artifact.Config{AWS: &config}); err != nil {
			return err
		}
	}
	a.tracking, err = mlflow.New(mlflow.Config{TrackingURI: a.MLflowURL(), Timeout: time.Minute, MaxRetries: 3})
	return err
}

// mlflowRun finds the one MLflow run of a workflow execution.
func (a *arena) mlflowRun(ctx context.Context, workflowRunID string) (mlflow.Run, error) {
	experiments, err := a.tracking.Experiments(ctx)
	if err != nil {
		return mlflow.Run{}, err
	}
	var ids []string
	for _, e := range experiments {
		ids = append(ids, e.ID)
	}
	runs, err := a.tracking.FindRuns(ctx, ids, mlflow.TagIs("duratune.workflow_run_id", workflowRunID))
	if err != nil {
		return mlflow.Run{}, err
	}
	if len(runs) != 1 {
		return mlflow.Run{}, fmt.Errorf("%d MLflow runs of the workflow, want 1", len(runs))
	}
	return runs[0], nil
}

// fingerprint reads a finished run back from MLflow and S3.
func (a *arena) fingerprint(ctx context.Context, workflowRunID string) (fingerprint, error) {
	run, err := a.mlflowRun(ctx, workflowRunID)
	if err != nil {
		return fingerprint{}, err
	}
	if run.Status != mlflow.Finished {
		return fingerprint{}, fmt.Errorf("MLflow run is %s, want FINISHED", run.Status)
	}
	f := fingerprint{runs: 1, models: len(run.Models)}
	key := run.Tags[mlflow.KeyTag]
	found, err := train.Find(ctx, a.store, key, key)
	if err != nil || len(found) == 0 {
		return f, fmt.Errorf("%d checkpoints: %w", len(found), err)
	}
	f.weights, f.moments = found[0].Weights.SHA256, found[0].Optimizer.SHA256
	for info, err := range a.store.List(ctx, key) {
		if err != nil {
			return f, err
		}
		if strings.HasPrefix(info.Key, key+"/epoch-") {
			f.leftovers++
		}
	}
	for _, c := range found {
		if c.Complete { // retention keeps such alone
			f.leftovers -= 3
		}
	}
	if f.uploads, err = a.store.AbortUploads(ctx, key); err != nil {
		return f, err
	}
	for _, k := range exactKeys {
		history, err := a.tracking.MetricHistory(ctx, run.ID, k)
		if err != nil {
			return f, err
		}
		for _, p := range history {
			f.points = append(f.points, fmt.Sprintf("%s %d %v", p.Key, p.Step, p.Value))
		}
	}
	slices.Sort(f.points)
	if len(run.Models) == 1 {
		version, err := a.tracking.GetAlias(ctx, "chaos", "champion")
		f.version = err == nil && version.ModelID == run.Models[0]
	}
	return f, nil
}

// clear removes what the runs so far have left in the stores: a hundred of them would fill the disk.
func (a *arena) clear(ctx context.Context) error {
	for _, store := range []artifact.Store{a.store, a.models} {
		var keys []string
		for info, err := range store.List(ctx, "") {
			if err != nil {
				return fmt.Errorf("clear: %w", err)
			}
			if store == a.models || strings.Contains(info.Key, "/epoch-") {
				keys = append(keys, info.Key)
			}
		}
		if err := store.Delete(ctx, keys...); err != nil {
			return fmt.Errorf("clear: %w", err)
		}
	}
	return nil
}

// compare lists how got differs.
func (f fingerprint) compare(got fingerprint) []string {
	var problems []string
	check := func(what string, equal bool, got, want any) {
		if !equal {
			problems = append(problems, fmt.Sprintf("%s: got %v, want %v", what, got, want))
		}
	}
	check("weights", got.weights == f.weights, got.weights, f.weights)
	check("moments", got.moments == f.moments, got.moments, f.moments)
	check("runs", got.runs == 1, got.runs, 1)
	check("models", got.models == 1, got.models, 1)
	check("alias on the run's model", got.version, got.version, true)
	check("leftover objects", got.leftovers == 0, got.leftovers, 0)
	check("unfinished uploads", got.uploads == 0, got.uploads, 0)
	if !slices.Equal(f.points, got.points) {
		for i := range max(len(f.points), len(got.points)) {
			if i >= len(got.points) || i >= len(f.points) || f.points[i] != got.points[i] {
				problems = append(problems, fmt.Sprintf("points: %d, want %d; first difference near %q", len(got.points), len(f.points), got.points[min(i, len(got.points)-1)]))
				break
			}
		}
	}
	return problems
}
