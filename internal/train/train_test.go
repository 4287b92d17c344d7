package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/duratune/duratune/internal/safetensors"
)

// fakeEngine trains one number: each step adds lr × the sum of its rows, so that any other order, batch or rate shows.
type fakeEngine struct {
	weight float64
	stats  []StepStats
	failAt int64 // step whose loss is NaN; -1: none
}

func newFake() *fakeEngine { return &fakeEngine{failAt: -1} }

func (f *fakeEngine) Step(_ context.Context, step int64, lr float64, b Batch) error {
	finite := step != f.failAt
	if finite {
		for i, row := range b.Rows {
			f.weight = f.weight*0.999 + lr*float64(row+1)*float64(i+1)
		}
	}
	f.stats = append(f.stats, StepStats{Step: step, Loss: float32(f.weight), GradNorm: float32(len(b.Rows)), Finite: finite})
	return nil
}

func (f *fakeEngine) Sync(context.Context) ([]StepStats, error) {
	s := f.stats
	f.stats = nil
	return s, nil
}

func (f *fakeEngine) Logits(context.Context, []Sequence, func(int)) ([][]float32, error) {
	return nil, nil
}
func (f *fakeEngine) Snapshot(context.Context) (Snapshot, error) { return nil, nil }
func (f *fakeEngine) Restore(context.Context, *safetensors.File, *safetensors.File) error {
	return nil
}
func (f *fakeEngine) Identity() Identity { return Identity{Device: "fake"} }
func (f *fakeEngine) Usage() Usage       { return Usage{} }
func (f *fakeEngine) Close() error       { return nil }

// fakeRows is n rows of one token.
type fakeRows int

func (n fakeRows) NumRows() int      { return int(n) }
func (n fakeRows) IDs(i int) []int32 { return []int32{int32(i)} }
func (n fakeRows) Label(i int) int64 { return int64(i % 2) }
func (n fakeRows) Types(int) []int8  { return nil }
func (n fakeRows) Row(i int) int64   { return int64(i) }

func testPlan(rows, epochs int) Plan {
	p := Plan{NumRows: rows, Epochs: epochs, BatchSize: 8, Seed: 42, LoggingSteps: 8}
	p.Schedule = Schedule{Kind: "linear", Peak: 5e-5, Total: p.TotalSteps()}
	return p
}

// recorder collects what an epoch emits.
type recorder struct {
	points []Point
	saved  []State
}

func (r *recorder) hooks(every int64) Hooks {
	return Hooks{
		Points: func(p []Point) { r.points = append(r.points, p...) }, Progress: func(Progress) {},
		Checkpoint: func(_ context.Context, st State) error { r.saved = append(r.saved, st); return nil },
		Every:      every, Now: func() time.Time { return time.UnixMilli(1) },
	}
}

func TestScheduleMatchesTransformers(t *testing.T) {
	// Values printed by transformers 5.17.0: get_*_schedule_with_warmup with the arguments of each case.
	tests := []struct {
		schedule Schedule
		step     int64
		want     float64
	}{
		{Schedule{Kind: "linear", Peak: 5e-5, Total: 1674}, 0, 5e-5},
		{Schedule{Kind: "linear", Peak: 5e-5, Total: 1674}, 7, 4.979091995221028e-05}, // what Trainer 5 logs at step 8
		{Schedule{Kind: "linear", Peak: 5e-5, Total: 1674}, 1673, 2.986857825567503e-08},
		{Schedule{Kind: "linear", Peak: 5e-5, Total: 100, Warmup: 10}, 0, 0},
		{Schedule{Kind: "linear", Peak: 5e-5, Total: 100, Warmup: 10}, 5, 2.5e-05},
		{Schedule{Kind: "linear", Peak: 5e-5, Total: 100, Warmup: 10}, 55, 2.5e-05},
		{Schedule{Kind: "cosine", Peak: 5e-5, Total: 100, Warmup: 10}, 55, 2.5e-05},
		{Schedule{Kind: "cosine", Peak: 5e-5, Total: 100}, 25, 4.267766952966369e-05},
		{Schedule{Kind: "constant", Peak: 5e-5, Total: 100, Warmup: 10}, 99, 5e-05},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s/warmup %d/step %d", tt.schedule.Kind, tt.schedule.Warmup, tt.step), func(t *testing.T) {
			if got := tt.schedule.At(tt.step); math.Abs(got-tt.want) > 1e-17 {
				t.Errorf("At(%d) = %g, want %g", tt.step, got, tt.want)
			}
		})
	}
}

// TestOperationsAreTrainers: padding counts, to a fixed width or to the longest row of what one device gets at once.
func TestOperationsAreTrainers(t *testing.T) {
	rows := []Sequence{{IDs: make([]int32, 3)}, {IDs: make([]int32, 5)}, {IDs: make([]int32, 2)}, {IDs: make([]int32, 7)}, {IDs: make([]int32, 1)}}
	for want, p := range map[float64]Plan{
		6 * 10 * (5 * 16):        {Parameters: 10, BatchSize: 8, Width: 16},
		6 * 10 * (5 * 7):         {Parameters: 10, BatchSize: 8},
		6 * 10 * (2*5 + 2*7 + 1): {Parameters: 10, BatchSize: 8, DeviceBatch: 2}, // accumulated
		0:                        {BatchSize: 8, Width: 16},
	} {
		if got := p.operations(rows); got != want {
			t.Errorf("%+v: %g operations, want %g", p, got, want)
		}
	}
	p := testPlan(20, 2)
	p.Parameters, p.Width = 3, 4
	var st State
	for epoch := range p.Epochs {
		var err error
		if st, err = Epoch(t.Context(), newFake(), p, fakeRows(20), epoch, st, (&recorder{}).hooks(0)); err != nil {
			t.Fatal(err)
		}
	}
	if want := 6.0 * 3 * 4 * 20 * 2; st.TotalFLOs != want {
		t.Errorf("two epochs: %g operations, want %g", st.TotalFLOs, want)
	}
}

func TestOrderIsAFunctionOfSeedAndEpoch(t *testing.T) {
	a := Order(42, 0, 1000)
	if diff := cmp.Diff(a, Order(42, 0, 1000)); diff != "" {
		t.Errorf("the same seed and epoch gave another order:\n%s", diff)
	}
	for name, other := range map[string][]int32{"epoch": Order(42, 1, 1000), "seed": Order(43, 0, 1000)} {
		if slices.Equal(a, other) {
			t.Errorf("another %s gave the same order", name)
		}
	}
	sorted := slices.Sorted(slices.Values(a))
	for i, v := range sorted {
		if int(v) != i {
			t.Fatalf("not a permutation: %d at place %d", v, i)
		}
	}
	// The stream may never change: checkpoints of older builds are resumed in the middle of an epoch.
	if diff := cmp.Diff([]int32{5, 2, 9, 7, 6, 3, 8, 0, 4, 1}, Order(7, 3, 10)); diff != "" {
		t.Errorf("Order(7, 3, 10) changed (-want +got):\n%s", diff)
	}
}

func TestTutorialHas1674Steps(t *testing.T) {
	p := testPlan(4459, 3)
	if got := p.TotalSteps(); got != 1674 {
		t.Errorf("TotalSteps() = %d, want 1674", got)
	}
	if from, to := p.rowsAt(557); to-from != 3 {
		t.Errorf("the last batch of an epoch has %d rows, want 3", to-from)
	}
}

// runAll trains all epochs in one piece.
func runAll(t *testing.T, eng Engine, p Plan, rec *recorder, every int64) State {
	t.Helper()
	var st State
	var err error
	for e := range p.Epochs {
		if st, err = Epoch(t.Context(), eng, p, fakeRows(p.NumRows), e, st, rec.hooks(every)); err != nil {
			t.Fatal(err)
		}
	}
	return st
}

func TestWindowsSpanEpochs(t *testing.T) {
	p := testPlan(83, 2) // 11 steps an epoch: the second window ends at step 16, in the second epoch
	var rec recorder
	runAll(t, newFake(), p, &rec, 0)
	var steps []int64
	for _, pt := range rec.points {
		if pt.Key == "loss" {
			steps = append(steps, pt.Step)
		}
	}
	if diff := cmp.Diff([]int64{8, 16}, steps); diff != "" {
		t.Errorf("logged steps (-want +got):\n%s", diff)
	}
	for _, pt := range rec.points {
		if pt.Key == "epoch" && pt.Step == 16 && pt.Value != 16.0/11 {
			t.Errorf("epoch at step 16 = %v, want %v", pt.Value, 16.0/11)
		}
	}
}

func TestResumeFromAnyCheckpointRepeatsTheRun(t *testing.T) {
	p := testPlan(83, 2)
	var whole recorder
	straight := newFake()
	end := runAll(t, straight, p, &whole, 3)

	for _, st := range whole.saved {
		t.Run(fmt.Sprintf("step %d", st.Step), func(t *testing.T) {
			// The weight as of the checkpoint, found by running up to it.
			eng := newFake()
			var before recorder
			prefix := st
			replayTo(t, eng, p, st.Step, &before)
			var after recorder
			got := prefix
			var err error
			for e := int(st.Step / p.StepsPerEpoch()); e < p.Epochs; e++ {
				if got, err = Epoch(t.Context(), eng, p, fakeRows(83), e, got, after.hooks(0)); err != nil {
					t.Fatal(err)
				}
			}
			if eng.weight != straight.weight {
				t.Errorf("weight = %v, want %v", eng.weight, straight.weight)
			}
			got.Seconds, got.EpochSeconds, end.Seconds, end.EpochSeconds = 0, 0, 0, 0
			if diff := cmp.Diff(end, got); diff != "" {
				t.Errorf("state (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(since(whole.points, st.Step), after.points, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("points after the checkpoint (-want +got):\n%s", diff)
			}
		})
	}
}

func since(points []Point, step int64) []Point {
	return slices.DeleteFunc(slices.Clone(points), func(p Point) bool { return p.Step <= step })
}

// replayTo runs the first steps of the plan.
func replayTo(t *testing.T, eng Engine, p Plan, step int64, rec *recorder) {
	t.Helper()
	errStop := errors.New("stop")
	hooks := rec.hooks(1)
	hooks.Checkpoint = func(_ context.Context, st State) error {
		if st.Step == step {
			return errStop
		}
		return nil
	}
	var st State
	var err error
	for e := 0; err == nil; e++ {
		st, err = Epoch(t.Context(), eng, p, fakeRows(p.NumRows), e, st, hooks)
	}
	if !errors.Is(err, errStop) {
		t.Fatal(err)
	}
}

func TestCheckpointsByTime(t *testing.T) {
	p := testPlan(83, 1)
	for interval, want := range map[time.Duration]int{0: 0, 1: 10, time.Hour: 0} { // the last step's is the caller's
		var rec recorder
		hooks := rec.hooks(0)
		hooks.Interval = interval
		if _, err := Epoch(t.Context(), newFake(), p, fakeRows(83), 0, State{}, hooks); err != nil {
			t.Fatal(err)
		}
		if len(rec.saved) != want {
			t.Errorf("every %s: %d checkpoints, want %d", interval, len(rec.saved), want)
		}
	}
}

func TestInterruptCheckpointsAndReturns(t *testing.T) {
	p := testPlan(83, 1)
	stop := make(chan struct{})
	var rec recorder
	hooks := rec.hooks(0)
	hooks.Interrupted = stop
	hooks.Progress = func(pr Progress) {
		if pr.Step >= 8 {
			select {
			case <-stop:
			default:
				close(stop)
			}
		}
	}
	st, err := Epoch(t.Context(), newFake(), p, fakeRows(83), 0, State{}, hooks)
	if !errors.Is(err, ErrInterrupted) {
		t.Fatalf("error = %v, want ErrInterrupted", err)
	}
	if len(rec.saved) != 1 || rec.saved[0].Step != st.Step || st.Step != 8 {
		t.Errorf("checkpoints %+v at state %+v, want one at step 8", rec.saved, st)
	}
}

func TestNotFiniteNamesStepAndRows(t *testing.T) {
	p := testPlan(83, 1)
	eng := newFake()
	eng.failAt = 5
	var rec recorder
	st, err := Epoch(t.Context(), eng, p, fakeRows(83), 0, State{}, rec.hooks(0))
	var diverged *NotFiniteError
	if !errors.As(err, &diverged) {
		t.Fatalf("error = %v, want *NotFiniteError", err)
	}
	order := Order(42, 0, 83)
	var want []int64
	for _, i := range order[40:48] {
		want = append(want, int64(i))
	}
	if diff := cmp.Diff(want, diverged.Rows); diff != "" || diverged.Step != 5 || st.Step != 5 {
		t.Errorf("step %d, state %d, rows (-want +got):\n%s", diverged.Step, st.Step, diff)
	}
}

func TestEpochRefusesAStateOfAnotherEpoch(t *testing.T) {
	var rec recorder
	_, err := Epoch(t.Context(), newFake(), testPlan(83, 2), fakeRows(83), 1, State{Step: 3}, rec.hooks(0))
	if err == nil {
		t.Error("epoch 2 began from a state in epoch 1")
	}
}

// What the loop costs a step besides the engine: order, batch, logging. It is why batches are not built ahead by another
// goroutine: the device is busy for a thousand times as long, and the engine returns before it is done.
func BenchmarkEpoch(b *testing.B) {
	plan := testPlan(4459, 1)
	rec := recorder{}
	for b.Loop() {
		if _, err := Epoch(b.Context(), newFake(), plan, fakeRows(plan.NumRows), 0, State{}, rec.hooks(0)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(int64(b.N)*plan.StepsPerEpoch()), "ns/step")
}
