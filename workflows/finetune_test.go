package workflows

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"github.com/duratune/duratune/activities"
	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/train"
)

// world is a test environment whose activities succeed unless a test says otherwise.
type world struct {
	*testsuite.TestWorkflowEnvironment
	recipe  recipe.Recipe
	reports []activities.ReportInput
	closed  []activities.CloseRunInput
}

func ref(name string) artifact.Ref {
	return artifact.Ref{URI: "s3://b/" + name, SHA256: name, Bytes: 1}
}

// newWorld registers the workflows; a test adds its own mocks, then calls happy for the rest.
func newWorld(t *testing.T) *world {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	w := &world{TestWorkflowEnvironment: suite.NewTestWorkflowEnvironment()}
	// The defaults, a second and three, are nothing on a loaded machine.
	w.SetWorkerOptions(worker.Options{DeadlockDetectionTimeout: time.Minute})
	w.SetTestTimeout(time.Minute)
	Register(w)
	w.RegisterActivity(&activities.CPU{})
	w.RegisterActivity(&activities.GPU{})
	w.recipe = recipe.Recipe{Name: "sms", Train: recipe.Train{Epochs: 2, BatchSize: 8, GradientAccumulationSteps: 1},
		Data: recipe.Data{Labels: []string{"ham", "spam"}}, Tracking: recipe.Tracking{ModelName: "fine_tuned", RegisteredModel: "sms", Alias: "champion"},
		Limits: recipe.Limits{MaxWallTime: recipe.Duration(time.Hour)}}
	return w
}

func (w *world) planned() activities.PlanResult {
	return activities.PlanResult{Run: activities.Run{Key: "key", WorkflowRunID: "run", MLflowRunID: "mlrun", ExperimentID: "7"}, Recipe: w.recipe, GPUPollers: 1, RunURL: "http://mlflow/run"}
}

// happy mocks every activity that was not mocked before it.
func (w *world) happy() {
	w.OnActivity(cpuActivity.Plan, mock.Anything, mock.Anything).Return(w.planned(), nil).Maybe()
	w.OnActivity(cpuActivity.FetchModel, mock.Anything, mock.Anything).Return(activities.FetchModelResult{Model: ref("model")}, nil).Maybe()
	w.OnActivity(cpuActivity.LoadSplit, mock.Anything, mock.Anything).Return(activities.LoadSplitResult{}, nil).Maybe()
	w.OnActivity(cpuActivity.Tokenize, mock.Anything, mock.Anything).Return(activities.TokenizeResult{Tokens: ref("tokens")}, nil).Maybe()
	w.OnActivity(gpuActivity.TrainEpoch, mock.Anything, mock.Anything).Return(activities.TrainEpochResult{Checkpoint: ref("checkpoint"), TrainLoss: 0.1, Seconds: 5}, nil).Maybe()
	w.OnActivity(gpuActivity.Validate, mock.Anything, mock.Anything).Return(activities.ValidateResult{Metrics: train.Metrics{Accuracy: 0.99, F1: 0.9}}, nil).Maybe()
	w.OnActivity(gpuActivity.InferSignature, mock.Anything, mock.Anything).Return(activities.InferSignatureResult{}, nil).Maybe()
	w.OnActivity(cpuActivity.LogModel, mock.Anything, mock.Anything).Return(activities.LogModelResult{ModelID: "m-1", ModelURI: "models:/m-1"}, nil).Maybe()
	w.OnActivity(gpuActivity.LoadTest, mock.Anything, mock.Anything).Return(activities.LoadTestResult{Passed: true}, nil).Maybe()
	w.OnActivity(cpuActivity.Report, mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.ReportInput) (activities.ReportResult, error) {
		w.reports = append(w.reports, in)
		return activities.ReportResult{}, nil
	}).Maybe()
	w.OnActivity(cpuActivity.Promote, mock.Anything, mock.Anything).Return(activities.PromoteResult{Version: "3", Alias: "champion"}, nil).Maybe()
	w.OnActivity(cpuActivity.NoteSteering, mock.Anything, mock.Anything).Return(nil).Maybe()
	w.OnActivity(cpuActivity.Sweep, mock.Anything, mock.Anything).Return(activities.SweepResult{}, nil).Maybe()
	w.OnActivity(cpuActivity.CloseRun, mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.CloseRunInput) error {
		w.closed = append(w.closed, in)
		return nil
	}).Maybe()
}

func (w *world) run() { w.ExecuteWorkflow(FineTune, json.RawMessage(`{"name":"sms"}`)) }

// ended asserts how the MLflow run was closed.
func (w *world) ended(t *testing.T, status, gate string) {
	t.Helper()
	require.Len(t, w.closed, 1, "CloseRun calls")
	if got := w.closed[0]; got.Status != status || got.Gate != gate {
		t.Errorf("closed as %q with gate %q, want %q and %q", got.Status, got.Gate, status, gate)
	}
}

func TestFineTuneRunsTheChain(t *testing.T) {
	w := newWorld(t)
	var epochs []activities.TrainEpochInput
	w.OnActivity(gpuActivity.TrainEpoch, mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.TrainEpochInput) (activities.TrainEpochResult, error) {
		epochs = append(epochs, in)
		return activities.TrainEpochResult{Checkpoint: ref("checkpoint" + string(rune('0'+in.Epoch))), TrainLoss: 0.1}, nil
	})
	w.happy()
	w.run()
	require.NoError(t, w.GetWorkflowError())
	require.Len(t, epochs, 2)
	if !epochs[0].Checkpoint.IsZero() || epochs[1].Checkpoint != ref("checkpoint1") {
		t.Errorf("epochs begin at %v and %v, want the base model and the first epoch's checkpoint", epochs[0].Checkpoint, epochs[1].Checkpoint)
	}
	var res Result
	require.NoError(t, w.GetWorkflowResult(&res))
	want := Result{MLflowRunID: "mlrun", MLflowRunURL: "http://mlflow/run", ExperimentID: "7", ModelURI: "models:/m-1", ModelID: "m-1",
		RegisteredModel: "sms", Version: "3", Alias: "champion", LoadTest: activities.LoadTestResult{Passed: true},
		Epochs: []Epoch{{Epoch: 1, TrainLoss: 0.1, Accuracy: 0.99, F1: 0.9}, {Epoch: 2, TrainLoss: 0.1, Accuracy: 0.99, F1: 0.9}}}
	if diff := cmp.Diff(want, res); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	w.ended(t, activities.RunFinished, "passed")
}

// TestForkTrainsTheEpochsThatAreLeft: a run that goes on from another one's second epoch begins with its third.
func TestForkTrainsTheEpochsThatAreLeft(t *testing.T) {
	w := newWorld(t)
	w.recipe.Train.Epochs, w.recipe.ResumeFrom = 4, recipe.ResumeFrom{Run: "parent", Epoch: 2}
	planned := w.planned()
	planned.Resume = ref("end of the parent's epoch 2")
	w.OnActivity(cpuActivity.Plan, mock.Anything, mock.Anything).Return(planned, nil)
	var epochs []activities.TrainEpochInput
	w.OnActivity(gpuActivity.TrainEpoch, mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.TrainEpochInput) (activities.TrainEpochResult, error) {
		epochs = append(epochs, in)
		return activities.TrainEpochResult{Checkpoint: ref("own")}, nil
	})
	w.happy()
	w.run()
	require.NoError(t, w.GetWorkflowError())
	require.Len(t, epochs, 2)
	if epochs[0].Epoch != 3 || epochs[0].Checkpoint != planned.Resume || epochs[1].Epoch != 4 || epochs[1].Checkpoint != ref("own") {
		t.Errorf("trained epoch %d from %v and epoch %d from %v, want 3 from the parent's checkpoint and 4 from its own",
			epochs[0].Epoch, epochs[0].Checkpoint, epochs[1].Epoch, epochs[1].Checkpoint)
	}
}

func TestFineTuneEndsTheRunAsTheWorkflowEnds(t *testing.T) {
	fatal := func(kind string) error { return temporal.NewNonRetryableApplicationError("because", kind, nil) }
	tests := []struct {
		name   string
		mock   func(w *world)
		kind   string
		status string // "" where no MLflow run was opened
		gate   string
	}{
		{"invalid recipe", func(w *world) {
			w.OnActivity(cpuActivity.Plan, mock.Anything, mock.Anything).Return(activities.PlanResult{}, fatal(activities.TypeInvalidRecipe))
		}, activities.TypeInvalidRecipe, "", ""},
		{"tracking refuses", func(w *world) {
			w.OnActivity(cpuActivity.Plan, mock.Anything, mock.Anything).Return(activities.PlanResult{}, fatal(activities.TypeTrackingRejected))
		}, activities.TypeTrackingRejected, activities.RunFailed, ""},
		{"bad data", func(w *world) {
			w.OnActivity(cpuActivity.LoadSplit, mock.Anything, mock.Anything).Return(activities.LoadSplitResult{}, fatal(activities.TypeDatasetInvalid))
		}, activities.TypeDatasetInvalid, activities.RunFailed, ""},
		{"bad model", func(w *world) {
			w.OnActivity(cpuActivity.FetchModel, mock.Anything, mock.Anything).Return(activities.FetchModelResult{}, fatal(activities.TypeModelIncompatible))
		}, activities.TypeModelIncompatible, activities.RunFailed, ""},
		{"diverged", func(w *world) {
			w.OnActivity(gpuActivity.TrainEpoch, mock.Anything, mock.Anything).Return(activities.TrainEpochResult{}, fatal(activities.TypeLossNotFinite))
		}, activities.TypeLossNotFinite, activities.RunFailed, ""},
		{"example missed", func(w *world) {
			w.OnActivity(gpuActivity.Validate, mock.Anything, mock.Anything).Return(activities.ValidateResult{Missed: []string{"examples[0] is spam, want ham"}}, nil)
		}, activities.TypeExamplesFailed, activities.RunFailed, ""},
		{"load test missed", func(w *world) {
			w.OnActivity(gpuActivity.LoadTest, mock.Anything, mock.Anything).Return(activities.LoadTestResult{Reasons: []string{"p99"}}, nil).Once()
		}, activities.TypeLoadTestFailed, activities.RunFinished, "failed"},
		{"reset", func(w *world) {
			w.OnActivity(cpuActivity.LoadSplit, mock.Anything, mock.Anything).Return(activities.LoadSplitResult{}, fatal(activities.TypeForkByReset))
		}, activities.TypeForkByReset, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			tt.mock(w)
			w.happy()
			w.run()
			var app *temporal.ApplicationError
			if err := w.GetWorkflowError(); !errors.As(err, &app) || app.Type() != tt.kind {
				t.Fatalf("error = %v, want type %s", err, tt.kind)
			}
			if tt.status == "" {
				require.Empty(t, w.closed)
				return
			}
			w.ended(t, tt.status, tt.gate)
		})
	}
}

func TestReportFollowsTheLoadTest(t *testing.T) {
	tests := []struct {
		name    string
		mock    func(w *world)
		kind    string // of the workflow's error; "": none
		reports int
		tested  bool
	}{
		{"passed", func(*world) {}, "", 1, true},
		{"refused", func(w *world) {
			w.OnActivity(gpuActivity.LoadTest, mock.Anything, mock.Anything).Return(activities.LoadTestResult{Reasons: []string{"p99"}}, nil)
			w.OnActivity(cpuActivity.Promote, mock.Anything, mock.Anything).Return(activities.PromoteResult{}, errors.New("promoted")).Never()
		}, activities.TypeLoadTestFailed, 1, true},
		{"example missed", func(w *world) {
			w.OnActivity(gpuActivity.Validate, mock.Anything, mock.Anything).Return(activities.ValidateResult{Missed: []string{"examples[0]"}}, nil)
		}, activities.TypeExamplesFailed, 1, false},
		{"report refused", func(w *world) {
			w.OnActivity(cpuActivity.Report, mock.Anything, mock.Anything).Return(activities.ReportResult{}, temporal.NewNonRetryableApplicationError("no", activities.TypeTrackingRejected, nil))
		}, "", 0, true},
		{"reset", func(w *world) {
			w.OnActivity(cpuActivity.Report, mock.Anything, mock.Anything).Return(activities.ReportResult{}, temporal.NewNonRetryableApplicationError("no", activities.TypeForkByReset, nil))
		}, activities.TypeForkByReset, 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.recipe.Train.Epochs = 60
			if tt.kind == activities.TypeExamplesFailed {
				w.recipe.Train.Epochs = 1 // the mock misses after every epoch
			}
			tt.mock(w)
			w.happy()
			w.run()
			if err := w.GetWorkflowError(); (err == nil) != (tt.kind == "") || tt.kind != "" && !hasType(err, tt.kind) {
				t.Fatalf("error = %v, want type %q", err, tt.kind)
			}
			require.Len(t, w.reports, tt.reports)
			for _, in := range w.reports {
				if (in.LoadTest != nil) != tt.tested || len(in.Epochs) != min(w.recipe.Train.Epochs, activities.ReportEpochs) || in.Checkpoint != ref("checkpoint") {
					t.Errorf("reported %+v", in)
				}
				if last := in.Epochs[len(in.Epochs)-1].Epoch; last != w.recipe.Train.Epochs {
					t.Errorf("the last reported epoch is %d, want %d", last, w.recipe.Train.Epochs)
				}
			}
		})
	}
}

func TestOutOfMemoryHalvesTheMicroBatch(t *testing.T) {
	w := newWorld(t)
	var micro []int
	w.OnActivity(gpuActivity.TrainEpoch, mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.TrainEpochInput) (activities.TrainEpochResult, error) {
		micro = append(micro, in.MicroStep)
		if in.MicroStep > 2 {
			return activities.TrainEpochResult{}, temporal.NewNonRetryableApplicationError("no memory", activities.TypeDeviceOutOfMemory, nil)
		}
		return activities.TrainEpochResult{Checkpoint: ref("c")}, nil
	})
	w.happy()
	w.run()
	require.NoError(t, w.GetWorkflowError())
	if diff := cmp.Diff([]int{8, 4, 2, 2}, micro); diff != "" {
		t.Errorf("micro-batches (-want +got):\n%s", diff)
	}
}

func TestFailedEpochIsRetried(t *testing.T) {
	w := newWorld(t)
	attempts := 0
	w.OnActivity(gpuActivity.TrainEpoch, mock.Anything, mock.Anything).Return(func(context.Context, activities.TrainEpochInput) (activities.TrainEpochResult, error) {
		if attempts++; attempts < 4 {
			return activities.TrainEpochResult{}, temporal.NewApplicationError("away", activities.TypeStoreUnavailable)
		}
		return activities.TrainEpochResult{Checkpoint: ref("c")}, nil
	})
	w.happy()
	w.run()
	require.NoError(t, w.GetWorkflowError())
	if attempts != 5 {
		t.Errorf("%d attempts, want 3 failures and one success for each epoch", attempts)
	}
}

// The test environment gives up after StartToCloseTimeout already; how the error reads is the same.
func TestOutageAtTheStartIsGivenUp(t *testing.T) {
	w := newWorld(t)
	w.OnActivity(cpuActivity.Plan, mock.Anything, mock.Anything).Return(activities.PlanResult{}, temporal.NewApplicationError("mlflow at http://host: connection refused", activities.TypeTrackingUnavailable))
	w.happy()
	w.run()
	err := w.GetWorkflowError()
	if !hasType(err, activities.TypeTrackingUnavailable) || !strings.Contains(message(err), "given up after 10m0s: mlflow at http://host") {
		t.Errorf("error = %v, want %s after 10m0s, naming the server", err, activities.TypeTrackingUnavailable)
	}
	require.Empty(t, w.closed, "nothing can be closed while the server is away")
}

func TestCancelKillsTheRun(t *testing.T) {
	w := newWorld(t)
	w.OnActivity(gpuActivity.TrainEpoch, mock.Anything, mock.Anything).Return(activities.TrainEpochResult{}, nil).After(time.Minute)
	w.happy()
	w.RegisterDelayedCallback(w.CancelWorkflow, 10*time.Second)
	w.run()
	if err := w.GetWorkflowError(); !temporal.IsCanceledError(err) {
		t.Errorf("error = %v, want cancellation", err)
	}
	w.ended(t, activities.RunKilled, "")
}

func TestWallTimeBoundsTheRun(t *testing.T) {
	w := newWorld(t)
	w.OnActivity(gpuActivity.TrainEpoch, mock.Anything, mock.Anything).Return(activities.TrainEpochResult{}, nil).After(2 * time.Hour)
	w.happy()
	w.run()
	if err := w.GetWorkflowError(); !hasType(err, activities.TypeTimeLimit) {
		t.Errorf("error = %v, want type %s", err, activities.TypeTimeLimit)
	}
	w.ended(t, activities.RunFailed, "")
}

func TestStatusAnswersBeforePlan(t *testing.T) {
	w := newWorld(t)
	w.OnActivity(cpuActivity.Plan, mock.Anything, mock.Anything).Return(w.planned(), nil).After(time.Minute)
	w.happy()
	w.RegisterDelayedCallback(func() {
		v, err := w.QueryWorkflow(StatusQuery)
		require.NoError(t, err)
		var s Status
		require.NoError(t, v.Get(&s))
		if s.Phase != "plan" {
			t.Errorf("phase = %q, want plan", s.Phase)
		}
	}, time.Second)
	w.run()
	require.NoError(t, w.GetWorkflowError())
}

// TestTheAliasGoesToTheBetter: a candidate that does not beat the champion is registered, keeps no alias, and says why.
func TestTheAliasGoesToTheBetter(t *testing.T) {
	tests := []struct {
		name     string
		promoted []activities.PromoteResult // by attempt
		contests int
		alias    string
	}{
		{"won", []activities.PromoteResult{{Version: "3", Alias: "champion", Verdict: "promoted"}}, 1, "champion"},
		{"lost", []activities.PromoteResult{{Version: "3", Verdict: "refused"}}, 1, ""},
		{"denied", []activities.PromoteResult{{Version: "3", Verdict: "not promoted"}}, 1, ""},
		{"overtaken once", []activities.PromoteResult{{Version: "3", Overtaken: "4"}, {Version: "3", Alias: "champion", Verdict: "promoted"}}, 2, "champion"},
		{"overtaken for ever", []activities.PromoteResult{{Version: "3", Overtaken: "4"}, {Version: "3", Overtaken: "5"}, {Version: "3", Overtaken: "6", Verdict: "refused"}}, 3, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.recipe.Tracking.PromoteIf, w.recipe.Tracking.Margin, w.recipe.Tracking.MaxP = "better", 0.01, 0.05
			contests := 0
			w.OnActivity(gpuActivity.CompareChampion, mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.CompareChampionInput) (activities.Comparison, error) {
				contests++
				if in.Margin != 0.01 || in.MaxP != 0.05 || in.ModelID != "m-1" || in.Alias != "champion" {
					t.Errorf("compared with %+v", in)
				}
				return activities.Comparison{Champion: string(rune('0' + contests)), Better: true}, nil
			})
			try := 0
			w.OnActivity(cpuActivity.Promote, mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.PromoteInput) (activities.PromoteResult, error) {
				try++
				if in.Comparison == nil || in.Comparison.Champion != string(rune('0'+try)) || in.LastTry != (try == 3) {
					t.Errorf("try %d promotes with %+v", try, in)
				}
				return tt.promoted[try-1], nil
			})
			w.happy()
			w.run()
			require.NoError(t, w.GetWorkflowError())
			var res Result
			require.NoError(t, w.GetWorkflowResult(&res))
			if last := tt.promoted[len(tt.promoted)-1]; contests != tt.contests || res.Version != "3" || res.Alias != tt.alias || res.Promotion != last.Verdict {
				t.Errorf("%d contests, result %+v", contests, res)
			}
			w.ended(t, activities.RunFinished, "passed")
		})
	}
}
