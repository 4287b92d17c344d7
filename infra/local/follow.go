package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/duratune/duratune/infra/stack"
)

// heartbeat is what is shown of activities.Heartbeat, and result of workflows.Result. They are written down again here so
// that the stack can be run, and stopped, while those packages do not compile; a test compares them.
type heartbeat struct {
	Phase            string  `json:"phase"`
	Epoch            int     `json:"epoch"`
	Epochs           int     `json:"epochs"`
	Step             int64   `json:"step"`
	Steps            int64   `json:"steps"`
	Percent          float64 `json:"percent"`
	SamplesPerSecond float64 `json:"samples_per_second"`
	ETASeconds       float64 `json:"eta_seconds"`
}

type result struct {
	MLflowRunURL    string        `json:"mlflow_run_url"`
	ModelURI        string        `json:"model_uri"`
	RegisteredModel string        `json:"registered_model"`
	Version         string        `json:"version"`
	Alias           string        `json:"alias"`
	Promotion       string        `json:"promotion"`
	Epochs          []epochResult `json:"epochs"`
	LoadTest        loadTest      `json:"load_test"`
}

type epochResult struct {
	Epoch     int     `json:"epoch"`
	TrainLoss float64 `json:"train_loss"`
	EvalLoss  float64 `json:"eval_loss"`
	Accuracy  float64 `json:"eval_accuracy"`
	F1        float64 `json:"eval_f1"`
	Seconds   float64 `json:"seconds"`
}

type loadTest struct {
	Passed   bool    `json:"passed"`
	Requests int     `json:"requests"`
	Errors   int     `json:"errors"`
	P50      float64 `json:"p50_ms"`
	P95      float64 `json:"p95_ms"`
	P99      float64 `json:"p99_ms"`
}

// follower shows one workflow.
type follower struct {
	client   client.Client
	instance stack.Instance
	id       string
	out      io.Writer
	screen   *screen
}

const followEvery = 500 * time.Millisecond

// toTheEnd follows a fine-tune until it is closed and prints its table and its links, or why it failed. It succeeds only
// if the workflow completed and its load test passed.
func (f *follower) toTheEnd(ctx context.Context) error {
	if err := f.wait(ctx); err != nil {
		if ctx.Err() != nil {
			f.screen.end()
			fmt.Fprintf(f.out, "the run goes on without you; `local follow %s` shows it again\n", f.id)
			return errQuiet
		}
		return err
	}
	var res result
	err := f.result(ctx, &res)
	if err != nil {
		printFailure(f.out, err)
	} else {
		printResult(f.out, res)
	}
	fmt.Fprintf(f.out, "workflow   %s/namespaces/default/workflows/%s\n", f.instance.TemporalUI(), url.PathEscape(f.id))
	if err != nil || !res.LoadTest.Passed {
		return errQuiet
	}
	return nil
}

// result decodes what the closed workflow returned.
func (f *follower) result(ctx context.Context, into any) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		err := f.client.GetWorkflow(ctx, f.id, "").Get(ctx, into)
		if err == nil || !transient(err) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wait shows what the workflow is doing until it is closed.
func (f *follower) wait(ctx context.Context) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		d, err := f.client.DescribeWorkflow(ctx, f.id, "")
		if err != nil && ctx.Err() == nil && !transient(err) {
			return fmt.Errorf("local: follow %s: %w", f.id, err)
		}
		if err == nil {
			if d.Status != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
				f.screen.end()
				return nil
			}
			f.screen.show(f.activity(ctx, d.RawResponse))
		} else {
			f.screen.show("Temporal", "does not answer")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// activity puts into words what the workflow waits for: a step, and how far it is.
func (f *follower) activity(ctx context.Context, d *workflowservice.DescribeWorkflowExecutionResponse) (step, progress string) {
	pending := d.GetPendingActivities()
	if len(pending) == 0 {
		if children := d.GetPendingChildren(); len(children) > 0 {
			return children[0].GetWorkflowTypeName(), ""
		}
		return "workflow", f.pollers(ctx, stack.Queue, enumspb.TASK_QUEUE_TYPE_WORKFLOW)
	}
	p := pending[0]
	step = p.GetActivityType().GetName()
	if p.GetState() == enumspb.PENDING_ACTIVITY_STATE_SCHEDULED {
		queue := p.GetActivityOptions().GetTaskQueue().GetName()
		progress = f.pollers(ctx, queue, enumspb.TASK_QUEUE_TYPE_ACTIVITY)
	}
	if beat, ok := lastBeat(p); ok && progress == "" {
		step, progress = beat.words(step)
	}
	if p.GetAttempt() > 1 {
		progress = strings.TrimSpace(fmt.Sprintf("%s  attempt %d%s", progress, p.GetAttempt(), lastFailure(p)))
	}
	return step, progress
}

// pollers says so if nobody asks the queue for work, and nothing otherwise.
func (f *follower) pollers(ctx context.Context, queue string, kind enumspb.TaskQueueType) string {
	if queue == "" {
		return ""
	}
	n, err := stack.Pollers(ctx, f.client, queue, kind, time.Now().Add(-stack.PollAge))
	if err != nil || n > 0 {
		return ""
	}
	return "waits for a worker: 0 pollers on " + queue
}

// lastBeat decodes the last heartbeat of a pending activity.
func lastBeat(p *workflowpb.PendingActivityInfo) (beat heartbeat, ok bool) {
	if p.GetHeartbeatDetails() == nil {
		return beat, false
	}
	err := converter.GetDefaultDataConverter().FromPayloads(p.GetHeartbeatDetails(), &beat)
	return beat, err == nil
}

func lastFailure(p *workflowpb.PendingActivityInfo) string {
	failure := p.GetLastFailure()
	if failure == nil {
		return ""
	}
	text := failure.GetMessage()
	if kind := failure.GetApplicationFailureInfo().GetType(); kind != "" {
		text = kind + ": " + text
	}
	return " after " + shorten(text, 100)
}

// words renders a heartbeat, e.g. "TrainEpoch 1/3" and "39.6 %  120/303 steps  44.1 samples/s  ETA 1m11s  train".
func (h heartbeat) words(activity string) (step, progress string) {
	step = activity
	if h.Epochs > 0 {
		step += fmt.Sprintf(" %d/%d", h.Epoch, h.Epochs)
	}
	parts := []string{fmt.Sprintf("%5.1f %%", h.Percent)}
	if h.Steps > 0 {
		parts = append(parts, fmt.Sprintf("%d/%d steps", h.Step, h.Steps))
	}
	if h.SamplesPerSecond > 0 {
		parts = append(parts, fmt.Sprintf("%.1f samples/s", h.SamplesPerSecond))
	}
	if h.ETASeconds > 0 {
		eta := time.Duration(h.ETASeconds * float64(time.Second)).Round(time.Second)
		parts = append(parts, "ETA "+eta.String())
	}
	if h.Phase != "" {
		parts = append(parts, h.Phase)
	}
	return step, strings.Join(parts, "  ")
}

// printResult prints the table of epochs and where the model is.
func printResult(out io.Writer, r result) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "epoch\tloss\teval loss\taccuracy\tF1\tseconds\t")
	for _, e := range r.Epochs {
		fmt.Fprintf(w, "%d\t%.4f\t%.4f\t%.4f\t%.4f\t%.1f\t\n", e.Epoch, e.TrainLoss, e.EvalLoss, e.Accuracy, e.F1, e.Seconds)
	}
	_ = w.Flush() // to the terminal, like all that is printed here
	verdict := "passed"
	if !r.LoadTest.Passed {
		verdict = "NOT passed"
	}
	l := r.LoadTest
	fmt.Fprintf(out, "\nload test  %s: %d requests, %d errors, p50 %.1f ms, p95 %.1f ms, p99 %.1f ms\n", verdict, l.Requests, l.Errors, l.P50, l.P95, l.P99)
	fmt.Fprintf(out, "model      %s\n", r.ModelURI)
	if r.RegisteredModel != "" {
		fmt.Fprintf(out, "registered models:/%s/%s", r.RegisteredModel, r.Version)
		if r.Alias != "" {
			fmt.Fprintf(out, " = models:/%s@%s", r.RegisteredModel, r.Alias)
		}
		fmt.Fprintln(out)
	}
	if r.Promotion != "" {
		fmt.Fprintf(out, "promotion  %s\n", r.Promotion)
	}
	fmt.Fprintf(out, "MLflow     %s\n", r.MLflowRunURL)
}

// readable undoes the escapes that encoding/json puts in for the sake of HTML.
var readable = strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&")

// pretty indents a document and keeps the order of its keys.
func pretty(doc json.RawMessage) string {
	var out bytes.Buffer
	if err := json.Indent(&out, doc, "", "  "); err != nil {
		return string(doc)
	}
	return readable.Replace(out.String())
}
