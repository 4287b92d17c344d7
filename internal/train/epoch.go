package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// ErrInterrupted is returned by [Epoch] after it was asked to stop and Hooks.Checkpoint has taken the step it stopped at.
var ErrInterrupted = errors.New("interrupted after a checkpoint")

// NotFiniteError says that a step's loss or gradient norm was NaN or infinite. The weights are those before that step.
type NotFiniteError struct {
	Step         int64   `json:"step"` // 0-based
	Loss         Real    `json:"loss"`
	GradNorm     Real    `json:"grad_norm"`
	LearningRate float64 `json:"learning_rate"`
	Rows         []int64 `json:"rows"` // row numbers of the batch, in order
}

// Error names the step and its numbers; the rows are in the struct.
func (e *NotFiniteError) Error() string {
	return fmt.Sprintf("step %d: loss %v, gradient norm %v at learning rate %g", e.Step, e.Loss, e.GradNorm, e.LearningRate)
}

// Rows is the tokenized training share, e.g. *dataset.Tokens.
type Rows interface {
	NumRows() int
	IDs(i int) []int32  // token ids of the i-th stored row; valid while the source is open
	Types(i int) []int8 // token types of the same; nil: all are 0
	Label(i int) int64  // class index
	Row(i int) int64    // row number in the data set
}

// Input is the i-th stored row as the model sees it.
func Input(rows Rows, i int) Sequence { return Sequence{IDs: rows.IDs(i), Types: rows.Types(i)} }

// State is where a run stands between two steps, beyond weights and moments. It is part of every checkpoint.
type State struct {
	Step       int64   `json:"step"`                 // optimizer steps done
	WindowLoss float64 `json:"window_loss"`          // sum of the losses since the last logging step
	WindowSize int64   `json:"window_size"`          // their number
	TotalLoss  float64 `json:"total_loss"`           // sum of the losses of all steps
	TotalFLOs  float64 `json:"total_flos,omitempty"` // floating-point operations of all steps, as Trainer counts them
	// Time spent in steps, of the run and of the epoch; informative, not part of exactness.
	Seconds      float64 `json:"seconds"`
	EpochSeconds float64 `json:"epoch_seconds"`
}

// Point is one value of a metric at a global step.
type Point struct {
	Key       string  `json:"key"`
	Value     float64 `json:"value"`
	Step      int64   `json:"step"`
	Timestamp int64   `json:"timestamp"` // Unix milliseconds
}

// Progress describes the completed steps of an epoch.
type Progress struct {
	Step             int64   // completed steps of the run
	Percent          float64 // of this epoch
	SamplesPerSecond float64 // of the last seconds
	ETA              time.Duration
}

// Hooks connect an epoch to the world. All are called from the training goroutine, between steps.
type Hooks struct {
	Points      func(points []Point)                      // at each logging step
	Progress    func(Progress)                            // after completed steps, at least every half second
	Checkpoint  func(ctx context.Context, st State) error // every so many steps, and when interrupted; copies the engine's state
	Interrupted <-chan struct{}                           // closed: checkpoint and return ErrInterrupted
	Paused      <-chan struct{}                           // the same, for another reason
	Every       int64                                     // steps between checkpoints within the epoch; 0: none
	Interval    time.Duration                             // time between them; 0: no matter
	Now         func() time.Time                          // clock of the points' time stamps
}

// syncInterval bounds how long the host runs ahead of the device without knowing what became of the steps.
const syncInterval = 500 * time.Millisecond

// Epoch runs the steps of one epoch (0-based) that st has not done yet, and returns the state after the last.
// On any error the state returned is that of the last completed step.
func Epoch(ctx context.Context, eng Engine, plan Plan, rows Rows, epoch int, st State, hooks Hooks) (State, error) {
	if err := plan.validate(); err != nil {
		return st, err
	}
	first := int64(epoch) * plan.StepsPerEpoch()
	if st.Step < first || st.Step > first+plan.StepsPerEpoch() {
		return st, fmt.Errorf("train: epoch %d spans steps %d to %d, but the state is at step %d", epoch+1, first, first+plan.StepsPerEpoch(), st.Step)
	}
	r := epochRun{eng: eng, plan: plan, rows: rows, hooks: hooks, st: st, first: first,
		order: Order(plan.Seed, epoch, plan.NumRows), synced: time.Now(), saved: time.Now()}
	if st.Step == first {
		r.st.EpochSeconds = 0
	}
	for r.issued = st.Step; r.issued < first+plan.StepsPerEpoch(); {
		if err := r.step(ctx); err != nil {
			return r.st, err
		}
	}
	return r.st, nil
}

// epochRun is one call of Epoch.
type epochRun struct {
	eng    Engine
	plan   Plan
	rows   Rows
	hooks  Hooks
	order  []int32
	first  int64 // global step at which the epoch begins
	issued int64 // steps handed to the engine; st.Step of them are known to be complete
	st     State
	flos   []float64 // of the steps in flight
	rate   float64   // steps a second, averaged over the last ones
	synced time.Time
	saved  time.Time // when the last checkpoint began
}

// step issues one step and, where the time has come, waits for the device, logs and checkpoints.
func (r *epochRun) step(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if r.interrupted() {
		return r.interrupt(ctx)
	}
	batch := r.batch(r.issued)
	if err := r.eng.Step(ctx, r.issued, r.plan.Schedule.At(r.issued), batch); err != nil {
		return fmt.Errorf("step %d: %w", r.issued, err)
	}
	r.flos = append(r.flos, r.plan.operations(batch.Inputs))
	r.issued++
	logging := r.issued%r.plan.LoggingSteps == 0
	last := r.issued == r.first+r.plan.StepsPerEpoch()
	saving := !last && r.due()
	if !logging && !last && !saving && time.Since(r.synced) < syncInterval {
		return nil
	}
	stats, err := r.sync(ctx)
	if err != nil {
		return err
	}
	if logging {
		r.log(stats[len(stats)-1])
	}
	if saving {
		r.saved = time.Now()
		return r.hooks.Checkpoint(ctx, r.st)
	}
	return nil
}

// due reports whether there is to be a checkpoint after the last step issued.
func (r *epochRun) due() bool {
	return r.hooks.Every > 0 && (r.issued-r.first)%r.hooks.Every == 0 || r.hooks.Interval > 0 && time.Since(r.saved) >= r.hooks.Interval
}

// batch collects the rows of a global step.
func (r *epochRun) batch(step int64) Batch {
	from, to := r.plan.rowsAt(step - r.first)
	b := Batch{Inputs: make([]Sequence, 0, to-from), Labels: make([]int64, 0, to-from), Rows: make([]int64, 0, to-from)}
	for _, i := range r.order[from:to] {
		b.Inputs = append(b.Inputs, Input(r.rows, int(i)))
		b.Labels = append(b.Labels, r.rows.Label(int(i)))
		b.Rows = append(b.Rows, r.rows.Row(int(i)))
	}
	return b
}

// sync waits for the device and takes the completed steps into the state.
func (r *epochRun) sync(ctx context.Context) ([]StepStats, error) {
	stats, err := r.eng.Sync(ctx)
	if err != nil {
		return nil, fmt.Errorf("after step %d: %w", r.issued, err)
	}
	if want := r.issued - r.st.Step; int64(len(stats)) != want {
		return nil, fmt.Errorf("train: engine reports %d steps, %d were issued", len(stats), want)
	}
	now := time.Now()
	r.measure(now.Sub(r.synced).Seconds(), len(stats))
	r.st.Seconds += now.Sub(r.synced).Seconds()
	r.st.EpochSeconds += now.Sub(r.synced).Seconds()
	r.synced = now
	flos := r.flos
	r.flos = r.flos[:0]
	for i, s := range stats {
		if !s.Finite {
			return nil, &NotFiniteError{Step: s.Step, Loss: Real(s.Loss), GradNorm: Real(s.GradNorm), LearningRate: r.plan.Schedule.At(s.Step), Rows: r.batch(s.Step).Rows}
		}
		r.st.Step++
		r.st.WindowLoss += float64(s.Loss)
		r.st.WindowSize++
		r.st.TotalLoss += float64(s.Loss)
		r.st.TotalFLOs += flos[i]
	}
	r.progress()
	return stats, nil
}

// rateMemory is over how many seconds the rate of steps is averaged.
const rateMemory = 10

// measure takes steps that took the given seconds into the moving average of the rate.
func (r *epochRun) measure(seconds float64, steps int) {
	if seconds <= 0 {
		return
	}
	weight := 1 - math.Exp(-seconds/rateMemory)
	if r.rate == 0 {
		weight = 1
	}
	r.rate += weight * (float64(steps)/seconds - r.rate)
}

// log emits a window as Trainer's _maybe_log_save_evaluate does: the mean loss since the last logging step, which may
// lie in an earlier epoch, and norm and learning rate of the last step (the rate before the scheduler's update).
func (r *epochRun) log(last StepStats) {
	now := r.hooks.Now().UnixMilli()
	epoch := float64(r.st.Step) / float64(r.plan.StepsPerEpoch())
	point := func(key string, value float64) Point {
		return Point{Key: key, Value: value, Step: r.st.Step, Timestamp: now}
	}
	r.hooks.Points([]Point{
		point("loss", r.st.WindowLoss/float64(r.st.WindowSize)),
		point("grad_norm", float64(last.GradNorm)),
		point("learning_rate", r.plan.Schedule.At(last.Step)),
		point("epoch", epoch),
	})
	r.st.WindowLoss, r.st.WindowSize = 0, 0
}

// progress reports what is complete; it is a heartbeat's only source, so that a hung step is silent.
func (r *epochRun) progress() {
	done, all := r.st.Step-r.first, r.plan.StepsPerEpoch()
	p := Progress{Step: r.st.Step, Percent: 100 * float64(done) / float64(all), SamplesPerSecond: r.rate * float64(r.plan.BatchSize)}
	if r.rate > 0 {
		p.ETA = time.Duration(float64(all-done) / r.rate * float64(time.Second))
	}
	r.hooks.Progress(p)
}

func (r *epochRun) interrupted() bool {
	select {
	case <-r.hooks.Interrupted:
		return true
	case <-r.hooks.Paused:
		return true
	default:
		return false
	}
}

// interrupt completes what is in flight, checkpoints it, and hands the epoch back.
func (r *epochRun) interrupt(ctx context.Context) error {
	if r.issued > r.st.Step {
		if _, err := r.sync(ctx); err != nil {
			return err
		}
	}
	if err := r.hooks.Checkpoint(ctx, r.st); err != nil {
		return err
	}
	return ErrInterrupted
}
