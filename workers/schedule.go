package workers

import (
	"context"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/duratune/duratune/activities"
	"github.com/duratune/duratune/workflows"
)

// reconcileSchedule is the schedule's id; reconcileEvery how often it looks.
const (
	reconcileSchedule = "duratune-reconcile"
	reconcileEvery    = 5 * time.Minute
)

// ScheduleReconcile makes the schedule that closes MLflow runs of terminated workflows, unless it exists.
// DURATUNE_RECONCILE_EVERY says how often it looks, e.g. "1m" (default 5m).
func (b *Base) ScheduleReconcile(ctx context.Context, getenv func(string) string) error {
	every := reconcileEvery
	if s := getenv("DURATUNE_RECONCILE_EVERY"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil || d < time.Second {
			return fmt.Errorf("DURATUNE_RECONCILE_EVERY: got %q, want a duration of at least 1s, e.g. 5m", s)
		}
		every = d
	}
	_, err := b.Temporal.ScheduleClient().Create(ctx, client.ScheduleOptions{
		ID: reconcileSchedule, Spec: client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: every}}},
		Action:  &client.ScheduleWorkflowAction{ID: reconcileSchedule, Workflow: workflows.ReconcileType, TaskQueue: activities.Queue},
		Overlap: enumspb.SCHEDULE_OVERLAP_POLICY_SKIP, Note: "closes MLflow runs whose workflow was terminated or timed out",
	})
	if err != nil && !errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
		return fmt.Errorf("schedule %s: %w", reconcileSchedule, err)
	}
	return nil
}
