package workflows

import (
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// TestRecordedHistoriesReplay replays histories that landed code wrote, by `go tool task replay:record ID=… NAME=…`. A
// failure means that a run in flight could not go on under this code: keep the old path behind workflow.GetVersion, or, where
// nothing of that kind can be running any more, remove the history. Never record one with the code under test to make
// this pass.
func TestRecordedHistoriesReplay(t *testing.T) {
	paths, err := filepath.Glob("testdata/replay/*.json.gz")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no histories found: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".json.gz"), func(t *testing.T) {
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			unzipped, err := gzip.NewReader(f)
			if err != nil {
				t.Fatal(err)
			}
			history, err := client.HistoryFromJSON(unzipped, client.HistoryJSONOptions{})
			if err != nil {
				t.Fatal(err)
			}
			// A second without the processor is no deadlock.
			replayer, err := worker.NewWorkflowReplayerWithOptions(worker.WorkflowReplayerOptions{DisableDeadlockDetection: true})
			if err != nil {
				t.Fatal(err)
			}
			registerReplay(replayer)
			if err := replayer.ReplayWorkflowHistory(nil, history); err != nil {
				t.Error(err)
			}
			if len(history.GetEvents()) < 3 || history.GetEvents()[0].GetEventType() != enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED {
				t.Errorf("%d events: not a whole history", len(history.GetEvents()))
			}
		})
	}
}

func registerReplay(r worker.WorkflowReplayer) {
	for name, fn := range map[string]any{FineTuneType: FineTune, PromoteType: Promote, ValidateType: Validate, ReconcileType: Reconcile} {
		r.RegisterWorkflowWithOptions(fn, workflow.RegisterOptions{Name: name})
	}
}
