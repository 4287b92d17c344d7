package activities

import (
	"context"
	"fmt"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/train"
)

// Run identifies a fine-tune to every activity.
type Run struct {
	Key           string `json:"key"`             // hex(sha256(namespace, workflow id, first run id))
	WorkflowRunID string `json:"workflow_run_id"` // of the execution that planned it
	MLflowRunID   string `json:"mlflow_run_id,omitempty"`
	ExperimentID  string `json:"experiment_id,omitempty"`
}

// guard refuses to work for an execution that did not plan the run: `temporal workflow reset` gives a copy of the
// history a new run id, and two executions must not write into one lineage.
func (r Run) guard(ctx context.Context) error {
	if id := activity.GetInfo(ctx).WorkflowExecution.RunID; r.WorkflowRunID != id {
		return &forkError{owner: r.WorkflowRunID, workflow: activity.GetInfo(ctx).WorkflowExecution.ID, mlflowRun: r.MLflowRunID}
	}
	return nil
}

// metrics is the prefix of the run's metric log.
func (r Run) metrics() string { return r.Key + "/metrics" }

// epoch is the prefix of all attempts at an epoch.
func (r Run) epoch(n int) string { return fmt.Sprintf("%s/epoch-%03d", r.Key, n) }

// attempt is a prefix that no other attempt of any activity of the run writes below.
func (r Run) attempt(ctx context.Context, base string) string {
	info := activity.GetInfo(ctx)
	return fmt.Sprintf("%s/attempt-%s-%03d", base, info.ActivityID, info.Attempt)
}

// Session is what the activities on a device need to know of the run.
type Session struct {
	Run       Run              `json:"run"`
	Epoch     int              `json:"epoch"` // 1-based
	Model     artifact.Ref     `json:"model"` // manifest of the base model
	Labels    []string         `json:"labels"`
	Tokenizer recipe.Tokenizer `json:"tokenizer"`
	Train     recipe.Train     `json:"train"`
	MicroStep int              `json:"micro_step"` // rows a forward pass
	MaxStep   recipe.Duration  `json:"max_step,omitempty"`
	Started   int64            `json:"started"` // of the workflow, Unix milliseconds
}

// spec is what the session's engine is opened with.
func (s Session) spec(modelDir string) train.Spec {
	t := s.Train
	return train.Spec{
		ModelDir: modelDir, Labels: s.Labels, MaxLength: s.Tokenizer.MaxLength, Padding: s.Tokenizer.Padding,
		MaxStep:   time.Duration(s.MaxStep),
		BatchSize: s.batch(), EvalBatch: t.EvalBatchSize, MicroStep: min(s.MicroStep, s.batch()),
		Precision: t.Precision, Seed: t.Seed, WeightDecay: t.WeightDecay,
		AdamBeta1: t.AdamBeta1, AdamBeta2: t.AdamBeta2, AdamEpsilon: t.AdamEpsilon,
		MaxGradNorm: t.MaxGradNorm, LabelSmoothing: t.LabelSmoothing,
	}
}

// batch is the rows of one optimizer step.
func (s Session) batch() int { return s.Train.BatchSize * max(1, s.Train.GradientAccumulationSteps) }

// plan fixes rows and learning rate of every step of the run.
func (s Session) plan(rows int) train.Plan {
	p := train.Plan{NumRows: rows, Epochs: s.Train.Epochs, BatchSize: s.batch(), Seed: s.Train.Seed, LoggingSteps: int64(s.Train.LoggingSteps),
		DeviceBatch: s.Train.BatchSize}
	if s.Tokenizer.Padding == "max_length" {
		p.Width = s.Tokenizer.MaxLength
	}
	total := p.TotalSteps()
	p.Schedule = train.Schedule{Kind: s.Train.Schedule, Peak: s.Train.LearningRate, Total: total,
		Warmup: train.WarmupSteps(s.Train.WarmupSteps, s.Train.WarmupRatio, total)}
	return p
}
