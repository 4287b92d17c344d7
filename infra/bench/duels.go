package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/train"
)

// duel is one comparison: what ours does, what the peer does, and which figure of both is compared.
type duel struct {
	name      string
	ours      func(b *speed, ctx context.Context, d duel) (rate, error)
	precision string   // ours
	padding   string   // ours
	batch     int      // both
	epochs    int      // both
	peer      []string // more arguments of trainer_speed.py
	unit      string
	figure    func(rate) float64
}

const seconds = "s"

func steps(r rate) float64   { return r.StepsPerSecond }
func samples(r rate) float64 { return r.SamplesPerSecond }
func evals(r rate) float64   { return r.EvalPerSecond }
func wall(r rate) float64    { return r.Seconds }

// gpuDuels are DistilBERT with the tutorial's settings, as the tutorial pads and as one would.
var gpuDuels = []duel{
	{"gpu_b8_padded", (*speed).steady, "bf16", "max_length", 8, 1, []string{"--width", "128"}, "steps/s", steps},
	{"gpu_b8_padded_compiled", (*speed).steady, "bf16", "max_length", 8, 1,
		[]string{"--width", "128", "--bf16", "--fused", "--workers", "4", "--compile", "reduce-overhead"}, "steps/s", steps},
	{"gpu_b8", (*speed).steady, "bf16", "longest", 8, 1, []string{"--bf16", "--fused", "--workers", "4"}, "steps/s", steps},
	{"gpu_b64", (*speed).steady, "bf16", "longest", 64, 3, []string{"--bf16", "--fused", "--workers", "4"}, "samples/s", samples},
	{"gpu_eval", (*speed).steady, "bf16", "longest", 64, 1, []string{"--bf16", "--fused", "--workers", "4"}, "samples/s", evals},
	{"gpu_tutorial", (*speed).tutorial, "bf16", "max_length", 8, 3, []string{"--width", "128", "--evaluate"}, seconds, wall},
	{"gpu_first_step", (*speed).process, "bf16", "max_length", 8, 1, []string{"--width", "128", "--first-step"}, seconds, wall},
}

// cpuDuels are MiniLM on the cores that the process was given.
var cpuDuels = []duel{
	{"cpu_fp32", (*speed).steady, "fp32", "longest", 8, 1, []string{"--cpu"}, "samples/s", samples},
	{"cpu_bf16", (*speed).steady, "bf16", "longest", 8, 1, []string{"--cpu"}, "samples/s", samples},
	{"cpu_bf16_best", (*speed).steady, "bf16", "longest", 8, 1, []string{"--cpu", "--bf16", "--fused"}, "samples/s", samples},
	{"cpu_fp32_padded", (*speed).steady, "fp32", "longest", 8, 1, []string{"--cpu", "--width", "128"}, "samples/s", samples},
	{"cpu_eval_fp32", (*speed).steady, "fp32", "longest", 8, 1, []string{"--cpu"}, "samples/s", evals},
	{"cpu_first_step", (*speed).process, "fp32", "longest", 8, 1, []string{"--cpu", "--first-step"}, seconds, wall},
}

// unheard are the hooks of a loop that nobody watches.
var unheard = train.Hooks{Now: time.Now, Progress: func(train.Progress) {}, Points: func([]train.Point) {}}

func (b *speed) open(ctx context.Context, d duel) (train.Engine, error) {
	eng, err := open(ctx, train.Spec{
		ModelDir: b.at.model, Labels: labels, MaxLength: b.settings.MaxLength, Padding: d.padding, BatchSize: d.batch, EvalBatch: evalBatch,
		Precision: d.precision, Seed: 1, AdamBeta1: 0.9, AdamBeta2: 0.999, AdamEpsilon: 1e-8, MaxGradNorm: 1,
	})
	if err == nil {
		b.device = eng.Identity().Device + ", " + eng.Identity().InstructionSet
	}
	return eng, err
}

func (b *speed) plan(d duel, epochs int) train.Plan {
	p := train.Plan{NumRows: len(b.train), Epochs: epochs, BatchSize: d.batch, Seed: 1, LoggingSteps: b.settings.LoggingSteps}
	p.Schedule = train.Schedule{Kind: "linear", Peak: 5e-5, Total: p.TotalSteps()}
	return p
}

// steady is engine and loop at their pace: an epoch to warm up, in which a GPU captures its graphs, then the timed ones. What it
// learns is not reported, as it has seen an epoch more than Trainer.
func (b *speed) steady(ctx context.Context, d duel) (r rate, err error) {
	eng, err := b.open(ctx, d)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, eng.Close()) }()
	plan := b.plan(d, 1+d.epochs)
	warm, err := train.Epoch(ctx, eng, plan, b.train, 0, train.State{}, unheard)
	if err != nil {
		return r, err
	}
	st, start := warm, time.Now()
	for epoch := range d.epochs {
		if st, err = train.Epoch(ctx, eng, plan, b.train, 1+epoch, st, unheard); err != nil {
			return r, err
		}
	}
	r.Seconds = time.Since(start).Seconds()
	r.StepsPerSecond = float64(st.Step-warm.Step) / r.Seconds
	r.SamplesPerSecond = float64(d.epochs*len(b.train)) / r.Seconds
	if _, err = b.score(ctx, eng); err != nil { // warms up, likewise
		return r, err
	}
	start = time.Now()
	if _, err = b.score(ctx, eng); err != nil {
		return r, err
	}
	r.EvalPerSecond = float64(len(b.test)) / time.Since(start).Seconds()
	m := eng.Usage()
	r.DeviceMiB, r.HostMiB = float64(m.PeakDevice)/(1<<20), float64(m.PeakHost)/(1<<20)
	return r, nil
}

// score evaluates the test rows and returns the accuracy.
func (b *speed) score(ctx context.Context, eng train.Engine) (float64, error) {
	var inputs []train.Sequence
	var truth []int64
	for _, r := range b.test {
		inputs, truth = append(inputs, train.Sequence{IDs: r.IDs}), append(truth, r.Label)
	}
	logits, err := eng.Logits(ctx, inputs, nil)
	if err != nil {
		return 0, err
	}
	m, err := train.Score(logits, truth, len(labels))
	return m.Accuracy, err
}

// tutorial is all epochs, each with a checkpoint in a local store and an evaluation, from before the model is opened to the
// last byte written.
func (b *speed) tutorial(ctx context.Context, d duel) (r rate, err error) {
	dir, err := os.MkdirTemp("", "bench-tutorial-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	store, err := artifact.NewDir(dir)
	if err != nil {
		return r, err
	}
	start := time.Now()
	eng, err := b.open(ctx, d)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, eng.Close()) }()
	var st train.State
	plan := b.plan(d, d.epochs)
	for epoch := range d.epochs {
		if st, err = train.Epoch(ctx, eng, plan, b.train, epoch, st, unheard); err != nil {
			return r, err
		}
		snap, err := eng.Snapshot(ctx)
		if err != nil {
			return r, err
		}
		c := train.Checkpoint{RunKey: "bench", Epoch: epoch + 1, Complete: true, State: st, Identity: eng.Identity()}
		if _, err := train.Save(ctx, store, fmt.Sprintf("epoch-%d", epoch+1), snap, &c, nil); err != nil {
			return r, err
		}
		if r.Accuracy, err = b.score(ctx, eng); err != nil {
			return r, err
		}
	}
	r.Seconds, r.Loss = time.Since(start).Seconds(), st.TotalLoss/float64(st.Step)
	return r, nil
}

// process times this program from its start to the end of its first step.
func (b *speed) process(ctx context.Context, d duel) (rate, error) {
	self, err := os.Executable()
	if err != nil {
		return rate{}, err
	}
	return measure(exec.CommandContext(ctx, self, "first-step", b.at.model, d.precision, d.padding))
}

// firstStep opens a model, does one step and prints when that was: args are its folder, the precision and the padding.
func firstStep(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 3 {
		return fmt.Errorf("got %q, want model, precision and padding", args)
	}
	d := duel{precision: args[1], padding: args[2], batch: 8}
	b := speed{settings: defaults, at: places{model: filepath.Clean(args[0])}}
	for range d.batch {
		b.train = append(b.train, row{IDs: []int32{101, 7592, 2088, 102}})
	}
	eng, err := b.open(ctx, d)
	if err != nil {
		return err
	}
	if _, err = train.Epoch(ctx, eng, b.plan(d, 1), b.train, 0, train.State{}, unheard); err == nil {
		err = json.NewEncoder(out).Encode(rate{EndedAt: unixSeconds(time.Now())})
	}
	return errors.Join(err, eng.Close())
}
