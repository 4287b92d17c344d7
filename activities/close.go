package activities

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/duratune/duratune/internal/metriclog"
	"github.com/duratune/duratune/internal/mlflow"
)

// CloseRunInput says how a run ended.
type CloseRunInput struct {
	Run    Run    `json:"run"`
	Status string `json:"status"` // RunFinished, RunFailed or RunKilled
	Gate   string `json:"gate,omitempty"`
	Error  string `json:"error,omitempty"`

	Steering []string  `json:"steering,omitempty"` // what people asked of the run
	Stopped  *EarlyEnd `json:"stopped,omitempty"`  // nil: training went to its end, or never began
}

// CloseRun sends what MLflow missed and gives the run its final status. It also finds a run whose Plan was lost after it
// had opened it.
func (c *CPU) CloseRun(ctx context.Context, in CloseRunInput) (err error) {
	defer func() { err = edge(err) }()
	if err := in.Run.guard(ctx); err != nil {
		return err
	}
	return c.closeRun(ctx, in)
}

// closeRun is CloseRun for whoever may close the run.
func (c *CPU) closeRun(ctx context.Context, in CloseRunInput) (err error) {
	if in.Run.MLflowRunID == "" {
		if in.Run.MLflowRunID, err = c.findRun(ctx, in.Run.Key); err != nil || in.Run.MLflowRunID == "" {
			return err
		}
	}
	if in.Stopped != nil {
		if err := c.endOfTraining(ctx, in.Run, *in.Stopped, time.Now().UnixMilli()); err != nil {
			return err
		}
	}
	points, err := metriclog.All(ctx, c.Store, in.Run.metrics())
	if err != nil {
		return err
	}
	events, err := metriclog.Events(ctx, c.Store, in.Run.metrics())
	if err != nil {
		return err
	}
	if err := push(c.Tracking, in.Run)(ctx, append(points, events...)); err != nil {
		return fmt.Errorf("send the metric log: %w", err)
	}
	tags := map[string]string{}
	if in.Gate != "" {
		tags[tagGate] = in.Gate
	}
	if in.Error != "" {
		tags[tagError] = in.Error
	}
	if len(in.Steering) > 0 {
		tags[tagSteering] = strings.Join(in.Steering, "\n")
	}
	if len(tags) > 0 {
		if err := c.Tracking.SetTags(ctx, in.Run.MLflowRunID, tags); err != nil {
			return err
		}
	}
	return c.Tracking.SetTerminated(ctx, in.Run.MLflowRunID, mlflow.Status(in.Status), time.Now().UnixMilli())
}

// findRun looks for the run with the key in all experiments; "" means that there is none.
func (c *CPU) findRun(ctx context.Context, key string) (string, error) {
	ids, err := c.experimentIDs(ctx)
	if err != nil {
		return "", err
	}
	runs, err := c.Tracking.FindRuns(ctx, ids, mlflow.TagIs(mlflow.KeyTag, key))
	if err != nil || len(runs) == 0 {
		return "", err
	}
	return runs[0].ID, nil
}

// experimentIDs lists the experiments that runs can be in.
func (c *CPU) experimentIDs(ctx context.Context) ([]string, error) {
	experiments, err := c.Tracking.Experiments(ctx)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(experiments))
	for i, e := range experiments {
		ids[i] = e.ID
	}
	return ids, nil
}
