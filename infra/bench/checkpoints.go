package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/train"
)

// costLine is what is printed: epochs with checkpoints within them and epochs without, in turn; medians over the rounds.
type costLine struct {
	Case        string  `json:"case"`
	Ours        float64 `json:"ours"`  // seconds an epoch with checkpoints
	Peer        float64 `json:"peer"`  // seconds an epoch without
	Ratio       float64 `json:"ratio"` // times as long
	Unit        string  `json:"unit"`
	OursCPU     float64 `json:"ours_cpu"` // processor seconds
	PeerCPU     float64 `json:"peer_cpu"`
	RatioCPU    float64 `json:"ratio_cpu"`
	Stalled     float64 `json:"stalled"` // seconds a checkpoint that training waited for the copy
	Waited      float64 `json:"waited"`  // seconds an epoch that it waited for the checkpoint before
	Steps       int64   `json:"steps"`   // an epoch
	Checkpoints int     `json:"checkpoints"`
	MiB         float64 `json:"mib"` // a checkpoint
	Rounds      int     `json:"rounds"`
	Device      string  `json:"device"`
}

// checkpointing trains with checkpoints as the activity does: copied between two steps, hashed and stored beside training.
type checkpointing struct {
	eng    train.Engine
	store  artifact.Store
	plan   train.Plan
	rows   source
	every  int64
	state  train.State
	taken  int
	bytes  int64
	stall  time.Duration // copies
	wait   time.Duration // for the checkpoint before
	saving chan error    // of the checkpoint under way; nil: none
}

func runCheckpoints(ctx context.Context, args []string, out io.Writer) (err error) {
	at, err := findPlaces()
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet("bench checkpoints", flag.ContinueOnError)
	every := flags.Int64("every", 20, "steps between two checkpoints")
	steps := flags.Int("steps", 40, "steps an epoch")
	batch := flags.Int("batch", 8, "rows a step")
	width := flags.Int("width", 128, "tokens a row")
	rounds := flags.Int("rounds", 3, "epochs of each side, in turn")
	uri := flags.String("store", "", "store of the checkpoints, e.g. s3://bucket/prefix; default: a temporary folder")
	model := flags.String("model", at.model, "base model")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *every < 1 || *every > int64(*steps) {
		return fmt.Errorf("-every %d: want 1 to -steps, %d", *every, *steps)
	}
	if *uri == "" {
		dir, err := os.MkdirTemp("", "bench-checkpoints-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		*uri = "file://" + dir
	}
	c := checkpointing{every: *every, rows: madeRows(*steps**batch, *width), plan: train.Plan{NumRows: *steps * *batch, Epochs: 1 + 2**rounds, BatchSize: *batch, Seed: 1, LoggingSteps: 8}}
	c.plan.Schedule = train.Schedule{Kind: "linear", Peak: 5e-5, Total: c.plan.TotalSteps()}
	if c.store, err = artifact.Open(ctx, *uri, artifact.Config{}); err != nil {
		return err
	}
	if c.eng, err = open(ctx, train.Spec{ModelDir: *model, Labels: labels, MaxLength: *width, Padding: "longest", BatchSize: *batch, EvalBatch: evalBatch, MicroStep: *batch,
		Precision: "auto", Seed: 1, AdamBeta1: 0.9, AdamBeta2: 0.999, AdamEpsilon: 1e-8, MaxGradNorm: 1}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.eng.Close()) }()
	line, err := c.compare(ctx, *rounds)
	if err != nil {
		return err
	}
	line.Case = fmt.Sprintf("checkpoint_every_%d_of_%dx%d", *every, *batch, *width)
	return json.NewEncoder(out).Encode(line)
}

// madeRows are n rows of random words.
func madeRows(n, width int) source {
	rows := make(source, n)
	for i := range rows {
		rows[i] = row{IDs: make([]int32, width), Label: int64(i % 2)}
		for j := range rows[i].IDs {
			rows[i].IDs[j] = int32(1000 + (i*31+j*7)%20000)
		}
	}
	return rows
}

// compare warms up for an epoch and takes turns.
func (c *checkpointing) compare(ctx context.Context, rounds int) (costLine, error) {
	if _, _, err := c.epoch(ctx, 0, 0); err != nil {
		return costLine{}, err
	}
	var wall, cpu [2][]float64
	for i := range 2 * rounds {
		side := i % 2 // 1: with checkpoints
		took, used, err := c.epoch(ctx, 1+i, int64(side)*c.every)
		if err != nil {
			return costLine{}, err
		}
		wall[side], cpu[side] = append(wall[side], took), append(cpu[side], used)
	}
	l := costLine{Ours: median(wall[1]), Peer: median(wall[0]), Unit: seconds, OursCPU: median(cpu[1]), PeerCPU: median(cpu[0]), Stalled: c.stall.Seconds() / float64(c.taken), Waited: c.wait.Seconds() / float64(rounds),
		Steps: c.plan.StepsPerEpoch(), Checkpoints: c.taken / rounds, MiB: float64(c.bytes) / (1 << 20), Rounds: rounds, Device: c.eng.Identity().Device + ", " + c.eng.Identity().InstructionSet}
	l.Ratio, l.RatioCPU = l.Ours/l.Peer, l.OursCPU/l.PeerCPU
	return l, nil
}

// epoch trains one, with a checkpoint every so many steps (0: none), the last of which is waited for.
func (c *checkpointing) epoch(ctx context.Context, n int, every int64) (wall, cpu float64, err error) {
	hooks := unheard
	hooks.Every, hooks.Checkpoint = every, c.save
	began, used := time.Now(), processorTime()
	c.state, err = train.Epoch(ctx, c.eng, c.plan, c.rows, n, c.state, hooks)
	err = errors.Join(err, c.saved())
	return time.Since(began).Seconds(), (processorTime() - used).Seconds(), err
}

// save begins a checkpoint, once the one before is stored.
func (c *checkpointing) save(ctx context.Context, st train.State) error {
	began := time.Now()
	if err := c.saved(); err != nil {
		return err
	}
	free := time.Now()
	snap, err := c.eng.Snapshot(ctx)
	c.wait, c.stall = c.wait+free.Sub(began), c.stall+time.Since(free)
	if err != nil {
		return err
	}
	c.taken++
	prefix, done := fmt.Sprintf("checkpoint-%d", c.taken), make(chan error, 1)
	c.saving = done
	go func() {
		manifest := train.Checkpoint{RunKey: "bench", State: st}
		_, err := train.Save(ctx, c.store, prefix, snap, &manifest, nil)
		c.bytes = manifest.Weights.Bytes + manifest.Optimizer.Bytes
		done <- errors.Join(err, c.store.Delete(ctx, prefix+"/manifest.json", prefix+"/weights.safetensors", prefix+"/optimizer.safetensors"))
	}()
	return nil
}

// saved waits for the checkpoint under way.
func (c *checkpointing) saved() error {
	if c.saving == nil {
		return nil
	}
	err := <-c.saving
	c.saving = nil
	return err
}

// processorTime is what this process has used.
func processorTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
