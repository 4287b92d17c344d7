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
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/duratune/duratune/activities"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/workflows"
)

// trialTime bounds one trial: a zombie's heartbeat time-out and its retry are the slowest of them.
const trialTime = 10 * time.Minute

// sampleEvery takes one mail of so many: 125 rows, two epochs of 25 steps.
const sampleEvery = 48

// stepsDrawn bounds the step that a fault waits for. Heartbeats lag by up to two seconds, but the one at the start of the
// second epoch comes at once: every step up to it is seen.
const stepsDrawn = 25

// trial is one disturbed run.
type trial struct {
	*arena
	id    string
	fault fault
	rng   *rand.Rand
	said  string // when the fault struck

	took     time.Duration
	recovery time.Duration // from the strike until the run stood further than then, or was KILLED
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
	part("train")["epochs"], part("train")["batch_size"], part("train")["logging_steps"] = 2, 4, 4
	part("tracking")["registered_model"] = "chaos"
	load := part("load_test") // latency is not what is tried here
	load["duration"], load["rate_per_second"], load["max_p99"] = "2s", 10, "60s"
	r["checkpoint"] = map[string]any{"every_steps": 7}
	delete(r, "examples") // so few rows do not make them sure
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
	struck, err := t.ready(ctx)
	if err != nil {
		return []string{err.Error()}
	}
	further := make(chan time.Duration, 1)
	go func() { further <- t.further(ctx, struck) }()
	if err := t.fault.strike(ctx, t); err != nil {
		problems = append(problems, "fault: "+err.Error())
	}
	err = t.outcome(ctx, run)
	t.recovery = <-further
	if t.fault.ends == "" && err != nil {
		return append(problems, "workflow: "+err.Error())
	}
	if t.fault.ends != "" {
		problems = append(problems, t.killed(ctx, run.GetRunID())...)
		t.recovery = time.Since(struck.at)
		return append(problems, t.litter(ctx)...)
	}
	problems = append(problems, t.litter(ctx)...)
	got, err := t.fingerprint(ctx, run.GetRunID())
	if err != nil {
		return append(problems, err.Error())
	}
	return append(problems, t.want.compare(got)...)
}

// ready waits for the fault's moment and prepares it. It returns where the run stands then.
func (t *trial) ready(ctx context.Context) (position, error) {
	p, err := t.reach(ctx)
	if err == nil && t.fault.prepare != nil {
		if err = t.fault.prepare(t); err == nil {
			p, err = t.position(ctx)
		}
	}
	if t.said == "" {
		t.said = fmt.Sprintf("%s %s, step %d", p.activity.GetActivityType().GetName(), p.beat.Phase, p.beat.Step)
	}
	return p, err
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

// position is where a run stands.
type position struct {
	at       time.Time
	activity *workflowpb.PendingActivityInfo // nil between two activities, and after the end
	beat     activities.Heartbeat
	ended    enumspb.WorkflowExecutionStatus // RUNNING until it has
}

// position asks Temporal.
func (t *trial) position(ctx context.Context) (position, error) {
	d, err := t.Client().DescribeWorkflow(ctx, t.id, "")
	if err != nil {
		return position{}, fmt.Errorf("describe: %w", err)
	}
	p := position{at: time.Now(), ended: d.Status}
	for _, a := range d.RawResponse.GetPendingActivities() {
		if a.GetActivityType().GetName() == "Sweep" { // beside the run
			continue
		}
		p.activity = a
		_ = converter.GetDefaultDataConverter().FromPayloads(a.GetHeartbeatDetails(), &p.beat) // none yet is as good as a zero one
	}
	return p, nil
}

// reach waits for the fault's moment.
func (t *trial) reach(ctx context.Context) (position, error) {
	when, step := t.fault.when, int64(t.rng.IntN(stepsDrawn+1))
	later := time.Duration(t.rng.IntN(300)) * time.Millisecond
	if when.anyStep {
		later *= 4 // as long as some steps take
	}
	var upload <-chan struct{}
	if when.upload != "" {
		n := 1 + t.rng.IntN(when.uploads)
		upload = t.proxy.await(when.upload, n)
		t.said, later = fmt.Sprintf("write %d of %s", n, when.upload[1:]), later/10
	}
	for ctx.Err() == nil {
		p, err := t.position(ctx)
		if err != nil {
			return p, err
		}
		if p.ended != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
			return p, fmt.Errorf("the workflow is %s before its moment", p.ended)
		}
		reached := p.activity.GetState() == enumspb.PENDING_ACTIVITY_STATE_STARTED && p.activity.GetActivityType().GetName() == when.activity &&
			(!when.anyStep || p.activity.GetHeartbeatDetails() != nil && p.beat.Step >= step)
		select {
		case <-upload:
			reached = true
		case <-time.After(20 * time.Millisecond):
		}
		if !reached {
			continue
		}
		wait(ctx, later)
		return t.position(ctx)
	}
	return position{}, fmt.Errorf("moment not reached: %w", ctx.Err())
}

// further waits until the run stands further than at p, and returns how long after p that was.
func (t *trial) further(ctx context.Context, p position) time.Duration {
	for ctx.Err() == nil {
		now, err := t.position(ctx)
		if err == nil && (now.ended != p.ended || now.activity != nil && (now.activity.GetActivityId() != p.activity.GetActivityId() || now.beat.Step > p.beat.Step)) {
			break
		}
		wait(ctx, 50*time.Millisecond)
	}
	return time.Since(p.at)
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
