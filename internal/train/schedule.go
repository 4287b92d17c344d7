package train

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Schedule gives the learning rate of each optimizer step. It mirrors transformers/optimization.py:
// get_linear_schedule_with_warmup, get_cosine_schedule_with_warmup and get_constant_schedule_with_warmup.
type Schedule struct {
	Kind   string  // "linear", "cosine" or "constant"
	Peak   float64 // learning rate after the warm-up
	Warmup int64   // steps of linear warm-up from 0
	Total  int64   // steps of the whole run
}

// At returns the learning rate of the 0-based step.
func (s Schedule) At(step int64) float64 {
	if step < s.Warmup {
		return s.Peak * (float64(step) / float64(max(1, s.Warmup))) // Python's order: the last bit depends on it
	}
	switch s.Kind {
	case "cosine":
		progress := float64(step-s.Warmup) / float64(max(1, s.Total-s.Warmup))
		return s.Peak * max(0, 0.5*(1+math.Cos(math.Pi*progress)))
	case "constant":
		return s.Peak
	default:
		return s.Peak * max(0, float64(s.Total-step)/float64(max(1, s.Total-s.Warmup)))
	}
}

// WarmupSteps mirrors TrainingArguments.get_warmup_steps: steps if it is set, else the ceiling of ratio × total.
func WarmupSteps(steps int, ratio float64, total int64) int64 {
	if steps > 0 {
		return int64(steps)
	}
	return int64(math.Ceil(ratio * float64(total)))
}

// Plan is the part of a recipe that decides which rows each step sees at which learning rate.
type Plan struct {
	NumRows      int   // rows of the training share
	Epochs       int   // of the whole run
	BatchSize    int   // rows a step, accumulation included
	Seed         int64 // keys the order of each epoch
	LoggingSteps int64 // a window of the averaged loss
	Schedule     Schedule

	// What Trainer counts floating-point operations by.
	Parameters  int64 // weights outside the embedding tables; 0: they are not counted
	DeviceBatch int   // rows that are padded together, accumulation not included; 0: BatchSize
	Width       int   // tokens of a padded row; 0: those of the longest in its device batch
}

// StepsPerEpoch counts the last, shorter batch too.
func (p Plan) StepsPerEpoch() int64 {
	return (int64(p.NumRows) + int64(p.BatchSize) - 1) / int64(p.BatchSize)
}

// TotalSteps is the number of optimizer steps of the whole run.
func (p Plan) TotalSteps() int64 { return p.StepsPerEpoch() * int64(p.Epochs) }

// rowsAt returns the bounds in an epoch's order of the rows that the 0-based step of that epoch sees.
func (p Plan) rowsAt(stepInEpoch int64) (from, to int) {
	from = int(stepInEpoch) * p.BatchSize
	return from, min(from+p.BatchSize, p.NumRows)
}

// operations are those of a step forward and backward as Trainer's floating_point_ops counts them: 6 a weight and token,
// padding included.
func (p Plan) operations(rows []Sequence) float64 {
	if p.Parameters == 0 {
		return 0
	}
	tokens := 0
	for batch := range slices.Chunk(rows, cmp.Or(p.DeviceBatch, p.BatchSize)) {
		width := p.Width
		if width == 0 {
			for _, seq := range batch {
				width = max(width, len(seq.IDs))
			}
		}
		tokens += width * len(batch)
	}
	return 6 * float64(tokens) * float64(p.Parameters)
}

// validate guards against a plan that cannot step; recipes are checked long before.
func (p Plan) validate() error {
	if p.NumRows < 1 || p.Epochs < 1 || p.BatchSize < 1 || p.LoggingSteps < 1 {
		return fmt.Errorf("train: plan with %d rows, %d epochs, batch size %d, logging steps %d", p.NumRows, p.Epochs, p.BatchSize, p.LoggingSteps)
	}
	return nil
}
