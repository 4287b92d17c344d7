package activities

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/duratune/duratune/dataset"
	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/hub"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/train"
)

// Cluster is what Plan asks the Temporal server.
type Cluster interface {
	// Pollers counts the workers that poll a queue for activities.
	Pollers(ctx context.Context, queue string) (int, error)
	// ID is the cluster's own, which no other has.
	ID(ctx context.Context) (string, error)
	// Outcome reports whether an execution has ended, and then the MLflow status that corresponds to how. One that the
	// server no longer knows has ended, as killed.
	Outcome(ctx context.Context, workflowID, runID string) (status string, ended bool, err error)
	// HasSearchAttributes reports whether all of the names are registered in the namespace.
	HasSearchAttributes(ctx context.Context, names ...string) (bool, error)
}

// CPU holds the activities that need no device.
type CPU struct {
	Store    artifact.Store
	Tracking *mlflow.Client
	Roots    dataset.Roots
	Buckets  Buckets
	Hub      *hub.Client
	Cluster  Cluster
	CacheDir string // local disk for downloads
	Scratch  string // for files that die with the process; empty: the system's
	UI       string // base address of the Temporal Web UI, for links; may be empty
	Logger   *slog.Logger
}

// Tags of an MLflow run beside MLflow's own.
const (
	tagWorkflowID    = "duratune.workflow_id"
	tagWorkflowRunID = "duratune.workflow_run_id"
	tagWorkflowURL   = "duratune.workflow_url"
	tagCluster       = "duratune.cluster_id"
	tagNamespace     = "duratune.namespace"
	tagGate          = "gate"
	tagError         = "duratune.error"
)

// recipePath is where a run's frozen recipe lies among its artifacts.
const recipePath = "recipe.json"

// PlanInput is the raw recipe.
type PlanInput struct {
	Run       Run             `json:"run"`
	Recipe    json.RawMessage `json:"recipe"`
	StartTime int64           `json:"start_time"` // of the workflow, Unix milliseconds
	DryRun    bool            `json:"dry_run,omitempty"`
}

// PlanResult is the frozen recipe and the place the run is tracked at.
type PlanResult struct {
	Run              Run           `json:"run"`
	Recipe           recipe.Recipe `json:"recipe"`
	RunURL           string        `json:"run_url"`         // of the run in MLflow's UI
	Resume           artifact.Ref  `json:"resume,omitzero"` // checkpoint that the first epoch begins at; zero: the base model
	SearchAttributes bool          `json:"search_attributes"`
	GPUPollers       int           `json:"gpu_pollers"`
}

// Plan freezes the recipe (strict decoding, defaults, every problem at once), proves that store and tracking server can
// be used, and opens the MLflow run, which it finds by the run's key if an earlier attempt made it. A dry run stops
// after the first of these.
func (c *CPU) Plan(ctx context.Context, in PlanInput) (res PlanResult, err error) {
	defer func() { err = edge(err) }()
	r, err := recipe.Decode(in.Recipe)
	if err != nil {
		return res, err
	}
	if err := r.Validate(); err != nil {
		return res, err
	}
	res = PlanResult{Run: in.Run, Recipe: r}
	if in.DryRun {
		return res, nil
	}
	if err := answers(ctx, answerTime, "artifact store", artifact.ErrUnavailable, c.Store.Check); err != nil {
		return res, err
	}
	if err := answers(ctx, answerTime, "tracking server at "+c.Tracking.TrackingURI(), mlflow.ErrUnavailable, func(ctx context.Context) error {
		_, err := c.Tracking.CheckHealth(ctx)
		return err
	}); err != nil {
		return res, err
	}
	if res.GPUPollers, err = c.Cluster.Pollers(ctx, GPUQueue); err != nil {
		return res, fmt.Errorf("workers on %s: %w", GPUQueue, err)
	}
	if res.SearchAttributes, err = c.Cluster.HasSearchAttributes(ctx, "DuratuneModel", "DuratuneAccuracy"); err != nil {
		return res, fmt.Errorf("search attributes: %w", err)
	}
	if res.Resume, err = c.resumeFrom(ctx, r); err != nil {
		return res, err
	}
	return res, c.openRun(ctx, in, &res)
}

// answerTime is how long a server may take to show that it lives.
const answerTime = 20 * time.Second

// answers runs a check within limit, so that a server that hangs is named, and not the activity's own time-out.
func answers(ctx context.Context, limit time.Duration, what string, unavailable error, check func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := check(bounded)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: no answer within %s: %w", what, limit, unavailable)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// openRun finds or creates experiment and run, and records the recipe in it.
func (c *CPU) openRun(ctx context.Context, in PlanInput, res *PlanResult) error {
	r := res.Recipe
	experiment, err := c.Tracking.EnsureExperiment(ctx, r.Experiment)
	if err != nil {
		return err
	}
	cluster, err := c.Cluster.ID(ctx)
	if err != nil {
		return fmt.Errorf("cluster id: %w", err)
	}
	info := activity.GetInfo(ctx)
	tags := map[string]string{
		mlflow.TagSourceName: "duratune", mlflow.TagSourceType: "JOB",
		tagWorkflowID: info.WorkflowExecution.ID, tagWorkflowRunID: in.Run.WorkflowRunID,
		tagCluster: cluster, tagNamespace: info.Namespace, tagVersion: buildVersion(),
	}
	if from := r.ResumeFrom; from.Run != "" {
		tags[tagParent], tags[tagResumedFrom] = from.Run, fmt.Sprintf("epoch %d of run %s", from.Epoch, from.Run)
	}
	if url := c.workflowURL(ctx, in.Run); url != "" {
		tags[tagWorkflowURL] = url
	}
	run, err := c.Tracking.EnsureRun(ctx, mlflow.RunSpec{ExperimentID: experiment.ID, Name: r.Name, Key: in.Run.Key, StartTime: in.StartTime, Tags: tags})
	if err != nil {
		return err
	}
	if owner := run.Tags[tagWorkflowRunID]; owner != "" && owner != in.Run.WorkflowRunID {
		return &forkError{owner: owner, workflow: info.WorkflowExecution.ID, mlflowRun: run.ID}
	}
	res.Run.MLflowRunID, res.Run.ExperimentID = run.ID, experiment.ID
	res.RunURL = fmt.Sprintf("%s/#/experiments/%s/runs/%s", c.Tracking.TrackingURI(), experiment.ID, run.ID)
	if err := c.Tracking.LogBatch(ctx, run.ID, mlflow.Batch{Params: params(r)}); err != nil {
		return err
	}
	body, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("recipe: %w", err)
	}
	return c.upload(ctx, run.ArtifactURI, recipePath, body)
}

// params are the recipe by the names that Trainer and MLflow's autologging use.
func params(r recipe.Recipe) map[string]string {
	t := r.Train
	number := pythonFloat
	all := map[string]string{
		"num_train_epochs": strconv.Itoa(t.Epochs), "per_device_train_batch_size": strconv.Itoa(t.BatchSize),
		"per_device_eval_batch_size": strconv.Itoa(t.EvalBatchSize), "gradient_accumulation_steps": strconv.Itoa(t.GradientAccumulationSteps),
		"learning_rate": number(t.LearningRate), "lr_scheduler_type": t.Schedule, "warmup_steps": strconv.Itoa(t.WarmupSteps), "warmup_ratio": number(t.WarmupRatio),
		"weight_decay": number(t.WeightDecay), "adam_beta1": number(t.AdamBeta1), "adam_beta2": number(t.AdamBeta2), "adam_epsilon": number(t.AdamEpsilon),
		"max_grad_norm": number(t.MaxGradNorm), "label_smoothing_factor": number(t.LabelSmoothing), "logging_steps": strconv.Itoa(t.LoggingSteps),
		"precision": t.Precision, "seed": strconv.FormatInt(t.Seed, 10), "max_length": strconv.Itoa(r.Tokenizer.MaxLength), "padding": r.Tokenizer.Padding,
		"base_model": r.Model.Base, "model_revision": r.Model.Revision, "data_source": r.Data.Source, "test_fraction": number(r.Data.TestFraction),
		"split_seed": strconv.FormatInt(r.Data.SplitSeed, 10), "shuffle_seed": strconv.FormatInt(r.Data.ShuffleSeed, 10),
		paramLabels: id2label(r.Data.Labels), "validation_fraction": number(r.Data.Validation),
		"metric_for_best_model": cmp.Or(r.Selection.Metric, "None"), "load_best_model_at_end": pythonRepr(r.Selection.Metric != ""),
		"early_stopping_patience": strconv.Itoa(r.Selection.Patience),
	}
	maps.Copy(all, fixedParams)
	// What TrainingArguments would say of the rest of the recipe.
	all["save_total_limit"], all["run_name"] = strconv.Itoa(r.Checkpoint.Keep), r.Name
	all["greater_is_better"], all["resume_from_checkpoint"] = "None", "None"
	if r.Selection.Metric != "" {
		all["greater_is_better"] = pythonRepr(r.Selection.Mode == "max")
	}
	if r.Checkpoint.EverySteps > 0 { // besides every epoch's
		all["save_steps"] = strconv.Itoa(r.Checkpoint.EverySteps)
	}
	if r.ResumeFrom.Run != "" {
		all["resume_from_checkpoint"] = fmt.Sprintf("epoch %d of run %s", r.ResumeFrom.Epoch, r.ResumeFrom.Run)
	}
	if t.Precision != "auto" { // else the tag duratune.precision says what the device could
		all["bf16"], all["tf32"] = pythonRepr(t.Precision == "bf16"), pythonRepr(t.Precision == "tf32")
	}
	if len(r.Data.Labels) == 0 { // LoadSplit will find them
		delete(all, paramLabels)
	}
	return all
}

// fixedParams are TrainingArguments of which every run here is one and the same case.
var fixedParams = map[string]string{
	"optim": "adamw_torch_fused", "do_train": "True", "do_eval": "True", "max_steps": "-1", "eval_strategy": "epoch", "save_strategy": "epoch",
	"logging_strategy": "steps", "logging_first_step": "False", "logging_nan_inf_filter": "False", "train_sampling_strategy": "random", "data_seed": "None",
	"dataloader_drop_last": "False", "gradient_checkpointing": "False", "fp16": "False", "torch_compile": "False", "report_to": "['mlflow']",
}

// paramLabels is the parameter of the class names in index order.
const paramLabels = "id2label"

// id2label prints the mapping as Python prints a dict.
func id2label(labels []string) string {
	parts := make([]string, len(labels))
	for i, l := range labels {
		parts[i] = fmt.Sprintf("%d: '%s'", i, l)
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// push returns how points of a run reach MLflow.
func push(tracking *mlflow.Client, run Run) pushFunc {
	return func(ctx context.Context, points []train.Point) error {
		metrics := make([]mlflow.Metric, len(points))
		for i, p := range points {
			metrics[i] = mlflow.Metric{Key: p.Key, Value: p.Value, Step: p.Step, Timestamp: p.Timestamp}
		}
		return tracking.LogBatch(ctx, run.MLflowRunID, mlflow.Batch{Metrics: slices.Clone(metrics)})
	}
}
