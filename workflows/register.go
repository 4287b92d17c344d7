package workflows

import (
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// Register lists every workflow under its wire name. They are pinned to the worker deployment version that started
// them, where worker versioning is switched on: runs last hours, and the code is numerics. The reconciliation is not: one
// whose workers were taken away would stay open, and the schedule starts no other beside it.
func Register(w worker.WorkflowRegistry) {
	pinned := func(name string) workflow.RegisterOptions {
		return workflow.RegisterOptions{Name: name, VersioningBehavior: workflow.VersioningBehaviorPinned}
	}
	w.RegisterWorkflowWithOptions(FineTune, pinned(FineTuneType))
	w.RegisterWorkflowWithOptions(Promote, pinned(PromoteType))
	w.RegisterWorkflowWithOptions(Validate, pinned(ValidateType))
	w.RegisterWorkflowWithOptions(Reconcile, workflow.RegisterOptions{Name: ReconcileType, VersioningBehavior: workflow.VersioningBehaviorAutoUpgrade})
}
