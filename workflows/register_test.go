package workflows

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// registered notes how each workflow is registered.
type registered struct {
	worker.WorkflowRegistry
	behavior map[string]workflow.VersioningBehavior
}

func (r registered) RegisterWorkflowWithOptions(_ any, o workflow.RegisterOptions) {
	r.behavior[o.Name] = o.VersioningBehavior
}

// TestRegisteredVersioning: runs stay on the workers that started them; the reconciliation goes on wherever workers are.
func TestRegisteredVersioning(t *testing.T) {
	got := registered{behavior: map[string]workflow.VersioningBehavior{}}
	Register(got)
	want := map[string]workflow.VersioningBehavior{
		FineTuneType: workflow.VersioningBehaviorPinned, PromoteType: workflow.VersioningBehaviorPinned,
		ValidateType: workflow.VersioningBehaviorPinned, ReconcileType: workflow.VersioningBehaviorAutoUpgrade,
	}
	if diff := cmp.Diff(want, got.behavior); diff != "" {
		t.Errorf("versioning (-want +got):\n%s", diff)
	}
}
