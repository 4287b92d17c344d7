package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/duratune/duratune/internal/plot"
	"github.com/duratune/duratune/internal/train"
)

var labels = []string{"ham", "spam"}

// settings are the same for both sides.
type settings struct {
	Seeds               int
	TrainRows, TestRows int
	Epochs, Batch       int
	LearningRate        float64
	LoggingSteps        int64
	MaxLength           int
	Jobs                int  // seeds raced at a time
	Bf16                bool // our bf16 against our fp32, instead of our fp32 against Trainer
}

// defaults let five seeds of both sides take minutes on two cores: a quarter of the training rows once, all test rows.
var defaults = settings{
	Seeds: 5, TrainRows: 1200, TestRows: 1115, Epochs: 1, Batch: 8, LearningRate: 1e-4, LoggingSteps: 8, MaxLength: 128, Jobs: 1,
}

// command is the verb that runs the benchmark with these settings.
func (s settings) command() string {
	return fmt.Sprintf("go tool task bench:accuracy SEEDS=%d -- -rows %d -test-rows %d -lr %g -jobs %d", s.Seeds, s.TrainRows, s.TestRows, s.LearningRate, s.Jobs)
}

// accuracy is one run of the benchmark.
type accuracy struct {
	settings    settings
	model       string // folder of the base model
	root        string // the checkout
	python      string // the peers' interpreter
	out         io.Writer
	train, test source
	pairs       []pair
}

// outcome is what one training run came to.
type outcome struct {
	Accuracy, F1, EvalLoss float64
	Loss                   []plot.Point // the logged windows
	Seconds                float64      // of training, without start and evaluation

	identity train.Identity    // of our side
	versions map[string]string // of the peer's
}

// pair is both sides with one seed.
type pair struct {
	Seed       int
	Ours, Peer outcome
}

// line is what is printed of a seed, and of the means in the end.
type line struct {
	Case        string  `json:"case"`
	Seed        int     `json:"seed,omitempty"`
	Ours        float64 `json:"ours"` // accuracy, likewise of the peer
	Peer        float64 `json:"peer"`
	Ratio       float64 `json:"ratio"`
	F1Ours      float64 `json:"f1_ours"`
	F1Peer      float64 `json:"f1_peer"`
	Points      float64 `json:"difference_points"`    // of accuracy, in hundredths
	F1Points    float64 `json:"f1_difference_points"` // likewise of F1
	SecondsOurs float64 `json:"seconds_ours"`
	SecondsPeer float64 `json:"seconds_peer"`
}

func (p pair) line() line {
	l := line{
		Case: "accuracy_minilm_sms", Seed: p.Seed, Ours: p.Ours.Accuracy, Peer: p.Peer.Accuracy, F1Ours: p.Ours.F1, F1Peer: p.Peer.F1,
		SecondsOurs: p.Ours.Seconds, SecondsPeer: p.Peer.Seconds,
	}
	return l.compare()
}

// compare fills what follows from both sides.
func (l line) compare() line {
	l.Ratio, l.Points, l.F1Points = l.Ours/l.Peer, 100*(l.Ours-l.Peer), 100*(l.F1Ours-l.F1Peer)
	return l
}

// mean is the line of the means.
func (b *accuracy) mean() line {
	m, n := line{Case: "accuracy_minilm_sms"}, float64(len(b.pairs))
	for _, p := range b.pairs {
		l := p.line()
		for _, f := range []struct {
			sum *float64
			add float64
		}{
			{&m.Ours, l.Ours}, {&m.Peer, l.Peer}, {&m.F1Ours, l.F1Ours}, {&m.F1Peer, l.F1Peer},
			{&m.SecondsOurs, l.SecondsOurs}, {&m.SecondsPeer, l.SecondsPeer},
		} {
			*f.sum += f.add / n
		}
	}
	return m.compare()
}

// deviation is the sample standard deviation.
func deviation(values []float64) float64 {
	var mean, sum float64
	for _, v := range values {
		mean += v / float64(len(values))
	}
	for _, v := range values {
		sum += (v - mean) * (v - mean)
	}
	return math.Sqrt(sum / math.Max(1, float64(len(values)-1)))
}

// race runs both sides in turn, seed by seed, as many seeds at a time as there are jobs; who comes first changes, so that a
// busier machine slows both.
func (b *accuracy) race(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "bench-accuracy-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := errors.Join(b.train.write(filepath.Join(dir, trainFile)), b.test.write(filepath.Join(dir, testFile))); err != nil {
		return err
	}
	b.pairs = make([]pair, b.settings.Seeds)
	var printing sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(max(1, b.settings.Jobs))
	for i := range b.pairs {
		group.Go(func() error {
			p, err := b.seed(ctx, dir, i)
			if err != nil {
				return fmt.Errorf("seed %d: %w", i+1, err)
			}
			b.pairs[i] = p
			printing.Lock()
			defer printing.Unlock()
			return json.NewEncoder(b.out).Encode(b.named(p.line()))
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return json.NewEncoder(b.out).Encode(b.named(b.mean()))
}

// named gives a line the case that was run.
func (b *accuracy) named(l line) line {
	if b.settings.Bf16 {
		l.Case = "accuracy_minilm_sms_bf16"
	}
	return l
}

// seed runs both sides of the i-th pair.
func (b *accuracy) seed(ctx context.Context, dir string, i int) (pair, error) {
	p := pair{Seed: i + 1}
	ours := func(o *outcome, precision string) func() error {
		return func() (err error) { *o, err = b.ours(ctx, int64(p.Seed), precision); return err }
	}
	sides := []func() error{
		ours(&p.Ours, "fp32"),
		func() (err error) { p.Peer, err = b.peer(ctx, dir, int64(p.Seed)); return err },
	}
	if b.settings.Bf16 {
		sides = []func() error{ours(&p.Ours, "bf16"), ours(&p.Peer, "fp32")}
	}
	if err := sides[i%2](); err != nil {
		return p, err
	}
	return p, sides[(i+1)%2]()
}
