package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/duratune/duratune/activities"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/workflows"
)

// trialTime bounds one trial: a zombie's heartbeat time-out and its retry are the slowest of them.
const trialTime = 10 * time.Minute

// sampleEvery takes one mail of so many: about 600 rows, 60 steps in two epochs.
const sampleEvery = 10

// trial is one disturbed run.
type trial struct {
	*arena
	id    string
	fault fault
	rng   *rand.Rand
	said  string // what was seen
	took  time.Duration
}

// writeInput makes the data of the runs and returns their recipe.
func writeInput(root, assets, dir string) ([]byte, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	mails, err := os.ReadFile(filepath.Join(assets, "spam-assassin", "mails.jsonl"))
	if err != nil {
		return nil, err
	}
	var sample []byte
	for n, at := 0, 0; at < len(mails); n++ {
		end := at
		for end < len(mails) && mails[end] != '\n' {
			end++
		}
		if n%sampleEvery == 0 {
			sample = append(append(sample, mails[at:end]...), '\n')
		}
		at = end + 1
	}
	if err := os.WriteFile(filepath.Join(dir, "sample.jsonl"), sample, 0o644); err != nil {
		return nil, err
	}
	body, err := os.ReadFile(filepath.Join(root, "workflows", "recipes", "quickstart.json"))
	if err != nil {
		return nil, err
	}
	var r map[string]any
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, err
	}
	part := func(name string) map[string]any { return r[name].(map[string]any) }
	part("data")["source"] = "file:sample.jsonl"
	part("tokenizer")["max_length"] = 32
	part("train")["epochs"], part("train")["logging_steps"] = 2, 4
	part("tracking")["registered_model"] = "chaos"
	load := part("load_test") // latency is not what is tried here
	load["duration"], load["rate_per_second"], load["max_p99"] = "2s", 10, "60s"
	r["checkpoint"] = map[string]any{"every_steps": 6}
	delete(r, "examples") // a tenth of the data does not make them sure
	return json.Marshal(r)
}

// start begins the fine-tune of this trial.
func (a *arena) start(ctx context.Context, id string) (client.WorkflowRun, error) {
	return a.Client().ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: id, TaskQueue: activities.Queue}, workflows.FineTuneType, json.RawMessage(a.recipe))
}

// undisturbed runs the fine-tune in peace and takes its fingerprint.
func (a *arena) undisturbed(ctx context.Context) (fingerprint, error) {
	const id = "chaos/undisturbed"
	run, err := a.start(ctx, id)
	if err != nil {
		return fingerprint{}, err
	}
	if err := run.Get(ctx, nil); err != nil {
		return fingerprint{}, err
	}
	return a.fingerprint(ctx, run.GetRunID())
}

// run disturbs one fine-tune and returns what is wrong afterwards.
func (t *trial) run(ctx context.Context) (problems []string) {
	ctx, cancel := context.WithTimeout(ctx, trialTime)
	defer cancel()
	began := time.Now()
	defer func() { t.took = time.Since(began) }()
	run, err := t.start(ctx, t.id)
	if err != nil {
		return []string{"start: " + err.Error()}
	}
	if err := t.reach(ctx); err != nil {
		return []string{err.Error()}
	}
	if err := t.fault.strike(ctx, t); err != nil {
		problems = append(problems, "fault: "+err.Error())
	}
	err = t.outcome(ctx, run)
	if t.fault.ends == "" && err != nil {
		return append(problems, "workflow: "+err.Error())
	}
	if t.fault.ends != "" {
		return append(problems, t.killed(ctx, run.GetRunID())...)
	}
	got, err := t.fingerprint(ctx, run.GetRunID())
	if err != nil {
		return append(problems, err.Error())
	}
	return append(problems, t.want.compare(got)...)
}

// outcome waits for the end of the workflow, through restarts of the server.
func (t *trial) outcome(ctx context.Context, run client.WorkflowRun) error {
	for {
		d, err := t.Client().DescribeWorkflow(ctx, t.id, run.GetRunID())
		if err == nil && d.Status != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
			return run.Get(ctx, nil)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("not ended in %s: %w", trialTime, ctx.Err())
		}
		wait(ctx, 200*time.Millisecond)
	}
}

// reach waits for the fault's moment.
func (t *trial) reach(ctx context.Context) error {
	step := int64(1 + t.rng.IntN(45)) // of 62; heartbeats lag behind by up to two seconds
	t.said = "at " + t.fault.when.activity
	if t.fault.when.anyStep {
		t.said = fmt.Sprintf("at step %d", step)
	}
	for ctx.Err() == nil {
		d, err := t.Client().DescribeWorkflow(ctx, t.id, "")
		if err != nil {
			return fmt.Errorf("describe: %w", err)
		}
		if s := d.Status; s != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
			return fmt.Errorf("the workflow is %s before its moment", s)
		}
		for _, p := range d.RawResponse.GetPendingActivities() {
			if p.GetState() != enumspb.PENDING_ACTIVITY_STATE_STARTED || p.GetActivityType().GetName() != t.fault.when.activity {
				continue
			}
			var h activities.Heartbeat
			if !t.fault.when.anyStep {
				wait(ctx, time.Duration(t.rng.IntN(400))*time.Millisecond)
				return nil
			}
			if converter.GetDefaultDataConverter().FromPayloads(p.GetHeartbeatDetails(), &h) == nil && h.Step >= step {
				return nil
			}
		}
		wait(ctx, 20*time.Millisecond)
	}
	return fmt.Errorf("moment not reached: %w", ctx.Err())
}

// killed expects the MLflow run to end as KILLED, by CloseRun or by the reconciliation.
func (t *trial) killed(ctx context.Context, runID string) []string {
	for {
		run, err := t.mlflowRun(ctx, runID)
		if err == nil && run.Status == mlflow.Killed {
			return nil
		}
		if ctx.Err() != nil {
			return []string{fmt.Sprintf("MLflow run is %s, want KILLED: %v", run.Status, err)}
		}
		wait(ctx, 200*time.Millisecond)
	}
}
