package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	failurepb "go.temporal.io/api/failure/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"github.com/duratune/duratune/activities"
	"github.com/duratune/duratune/infra/stack"
	"github.com/duratune/duratune/workflows"
)

// TestWire: what is shown here is spelled as the product spells it.
func TestWire(t *testing.T) {
	pairs := []struct{ ours, theirs any }{
		{heartbeat{}, activities.Heartbeat{}},
		{result{}, workflows.Result{}},
		{epochResult{}, workflows.Epoch{}},
		{loadTest{}, activities.LoadTestResult{}},
	}
	for _, p := range pairs {
		theirs := tags(p.theirs)
		for name := range tags(p.ours) {
			if !theirs[name] {
				t.Errorf("%T has %q, which %T has not", p.ours, name, p.theirs)
			}
		}
	}
	for got, want := range map[string]string{
		fineTuneType: workflows.FineTuneType, validateType: workflows.ValidateType, stack.Queue: activities.Queue, stack.GPUQueue: activities.GPUQueue,
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// tags are the JSON names of a struct's fields.
func tags(v any) map[string]bool {
	names := map[string]bool{}
	typ := reflect.TypeOf(v)
	for i := range typ.NumField() {
		name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		names[name] = true
	}
	return names
}

func TestActivity(t *testing.T) {
	payloads, err := converter.GetDefaultDataConverter().ToPayloads(heartbeat{
		Phase: "train", Epoch: 1, Epochs: 3, Step: 120, Steps: 303, Percent: 39.6, SamplesPerSecond: 44.1, ETASeconds: 71,
	})
	if err != nil {
		t.Fatal(err)
	}
	unavailable := &failurepb.Failure{Message: "store unavailable: PUT", FailureInfo: &failurepb.Failure_ApplicationFailureInfo{
		ApplicationFailureInfo: &failurepb.ApplicationFailureInfo{Type: "StoreUnavailable"}}}
	pending := func(p *workflowpb.PendingActivityInfo) *workflowservice.DescribeWorkflowExecutionResponse {
		p.ActivityType = &commonpb.ActivityType{Name: "TrainEpoch"}
		return &workflowservice.DescribeWorkflowExecutionResponse{PendingActivities: []*workflowpb.PendingActivityInfo{p}}
	}
	started := enumspb.PENDING_ACTIVITY_STATE_STARTED
	tests := []struct {
		name           string
		d              *workflowservice.DescribeWorkflowExecutionResponse
		step, progress string
	}{
		{"no heartbeat yet", pending(&workflowpb.PendingActivityInfo{State: started}), "TrainEpoch", ""},
		{"training", pending(&workflowpb.PendingActivityInfo{State: started, HeartbeatDetails: payloads, Attempt: 1}),
			"TrainEpoch 1/3", " 39.6 %  120/303 steps  44.1 samples/s  ETA 1m11s  train"},
		{"again", pending(&workflowpb.PendingActivityInfo{State: started, Attempt: 3, LastFailure: unavailable}),
			"TrainEpoch", "attempt 3 after StoreUnavailable: store unavailable: PUT"},
		{"a child workflow", &workflowservice.DescribeWorkflowExecutionResponse{
			PendingChildren: []*workflowpb.PendingChildExecutionInfo{{WorkflowTypeName: "Promote"}}}, "Promote", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := &follower{}
			if step, progress := f.activity(t.Context(), tt.d); step != tt.step || progress != tt.progress {
				t.Errorf("got %q, %q, want %q, %q", step, progress, tt.step, tt.progress)
			}
		})
	}
}

func TestPrintResult(t *testing.T) {
	res := result{
		MLflowRunURL: "http://127.0.0.1:5050/#/experiments/1/runs/r", ModelURI: "models:/m-1", RegisteredModel: "quickstart", Version: "3", Alias: "champion",
		Epochs:   []epochResult{{Epoch: 1, TrainLoss: 0.21, EvalLoss: 0.1, Accuracy: 0.9712, F1: 0.95, Seconds: 101.26}},
		LoadTest: loadTest{Passed: true, Requests: 100, P50: 10, P95: 20, P99: 30},
	}
	var out bytes.Buffer
	printResult(&out, res)
	for _, want := range []string{"epoch", "0.9712", "101.3", "load test  passed: 100 requests, 0 errors, p50 10.0 ms", "models:/m-1",
		"models:/quickstart/3 = models:/quickstart@champion", "http://127.0.0.1:5050/#/experiments/1/runs/r"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q:\n%s", want, &out)
		}
	}
}

func TestPrintFailure(t *testing.T) {
	problems := json.RawMessage(`[{"path":"train.epochs","problem":"got 0, want \u003e 0"}]`)
	tests := []struct {
		name string
		err  error
		want []string
	}{
		{"application error", temporal.NewNonRetryableApplicationError("recipe:\ntrain.epochs", "InvalidRecipe", nil, problems),
			[]string{"FAILED in the run: InvalidRecipe", "\n  train.epochs", `"problem": "got 0, want > 0"`}},
		{"terminated", &temporal.TerminatedError{}, []string{"TERMINATED"}},
		{"canceled", temporal.NewCanceledError(), []string{"CANCELED"}},
		{"timed out", temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_HEARTBEAT, nil), []string{"TIMED OUT", "Heartbeat"}},
		{"else", errors.New("no connection"), []string{"FAILED: no connection"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			printFailure(&out, tt.err)
			for _, want := range tt.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("the output lacks %q:\n%s", want, &out)
				}
			}
		})
	}
}

func TestScreen(t *testing.T) {
	now := time.Unix(0, 0)
	show := func(s *screen) {
		s.now = func() time.Time { return now }
		s.show("Plan", "")
		now = now.Add(2 * time.Second)
		s.show("Plan", "a long progress")
		now = now.Add(time.Second)
		s.show("LoadSplit", "short")
		now = now.Add(quietTime)
		s.show("LoadSplit", "more")
		s.end()
	}
	var log bytes.Buffer
	show(newScreen(&log, false))
	if got := strings.Count(log.String(), "\n"); got != 3 || strings.Contains(log.String(), "\r") {
		t.Errorf("a log got %d lines, want Plan, LoadSplit and LoadSplit again:\n%s", got, &log)
	}
	var terminal bytes.Buffer
	show(newScreen(&terminal, true))
	lines := strings.Split(strings.TrimSuffix(terminal.String(), "\n"), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "3s") || !strings.Contains(lines[1], "10s") {
		t.Errorf("a terminal got %q, want one line each for Plan and LoadSplit, with its time", lines)
	}
	last := lines[0][strings.LastIndex(lines[0], "\r")+1:]
	if !strings.HasSuffix(last, strings.Repeat(" ", len("a long progress"))) {
		t.Errorf("%q does not write over what was longer", last)
	}
}

func TestWorkflowID(t *testing.T) {
	at := time.Date(2026, 11, 25, 13, 5, 0, 0, time.UTC)
	file := filepath.Join(t.TempDir(), "my-recipe.json")
	for body, want := range map[string]string{
		`{"name": "sms-spam"}`: "finetune/sms-spam/20261125-130500",
		`{broken`:              "finetune/my-recipe/20261125-130500",
	} {
		if err := os.WriteFile(file, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := workflowID(fineTuneType, file, at); got != want {
			t.Errorf("workflowID = %q, want %q", got, want)
		}
	}
}

func TestShorten(t *testing.T) {
	for text, want := range map[string]string{"abc": "abc", "abcdef": "abcd…", "ab\ncd": "ab", "ééééé": "ééééé", "éééééé": "éééé…"} {
		if got := shorten(text, 5); got != want {
			t.Errorf("shorten(%q) = %q, want %q", text, got, want)
		}
	}
}

// TestVerbs: each verb is in the manual, and an unknown one is a mistake in the call.
func TestVerbs(t *testing.T) {
	for name := range verbs {
		if !strings.Contains(usage, "\n  "+name+" ") {
			t.Errorf("the usage does not tell of %q", name)
		}
	}
	if code := run(t.Context(), []string{"nonsense"}); code != 2 {
		t.Errorf("an unknown verb gives status %d, want 2", code)
	}
}

func TestTransient(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{serviceerror.NewUnavailable("connection refused"), true},
		{fmt.Errorf("describe: %w", serviceerror.NewDeadlineExceeded("late")), true},
		{serviceerror.NewNamespaceNotFound("default"), true},
		{context.DeadlineExceeded, true},
		{context.Canceled, false},
		{serviceerror.NewNotFound("no such workflow"), false},
		{temporal.NewNonRetryableApplicationError("x", "InvalidRecipe", nil), false},
	} {
		if got := transient(tt.err); got != tt.want {
			t.Errorf("transient(%v) = %t, want %t", tt.err, got, tt.want)
		}
	}
}

func TestPretty(t *testing.T) {
	if got := pretty(json.RawMessage(`{"b":1,"a":2}`)); got != "{\n  \"b\": 1,\n  \"a\": 2\n}" {
		t.Errorf("got %q", got)
	}
	if got := pretty(json.RawMessage(`{`)); got != "{" {
		t.Errorf("got %q", got)
	}
}
