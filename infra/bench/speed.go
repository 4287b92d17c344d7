package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// rate is what one run of one side came to. The peer's script prints the same names.
type rate struct {
	StepsPerSecond   float64 `json:"steps_s,omitempty"`
	SamplesPerSecond float64 `json:"samples_s,omitempty"`
	EvalPerSecond    float64 `json:"eval_samples_s,omitempty"`
	Seconds          float64 `json:"train_seconds"`      // of what the case runs
	EndedAt          float64 `json:"ended_at,omitempty"` // Unix seconds, where the case begins with the process
	DeviceMiB        float64 `json:"peak_device_mib,omitempty"`
	HostMiB          float64 `json:"peak_host_mib,omitempty"`
	Loss             float64 `json:"loss,omitempty"`
	Accuracy         float64 `json:"accuracy,omitempty"`
}

// speed is one run of the benchmark.
type speed struct {
	settings    settings
	at          places
	tokens      string // tokenizer.json
	python      string
	rounds      int
	device      string
	out         io.Writer
	train, test source
}

// speedLine is what is printed of a case: both sides' medians over the rounds, and all that their last runs measured.
type speedLine struct {
	Case     string   `json:"case"`
	Ours     float64  `json:"ours"`
	Peer     float64  `json:"peer"`
	Ratio    float64  `json:"ratio"` // times faster
	Unit     string   `json:"unit"`
	Device   string   `json:"device"`
	PeerArgs []string `json:"peer_args"`
	Rounds   int      `json:"rounds"`
	OursLast rate     `json:"ours_last"`
	PeerLast rate     `json:"peer_last"`
}

func runSpeed(ctx context.Context, name string, args []string, out io.Writer) error {
	at, err := findPlaces()
	if err != nil {
		return err
	}
	b := speed{settings: defaults, at: at, out: out}
	duels := cpuDuels
	b.settings.TrainRows = 800
	if name == "gpu" {
		duels, b.settings.TrainRows = gpuDuels, 4459
	}
	flags := flag.NewFlagSet("bench "+name, flag.ContinueOnError)
	only := flags.String("cases", "", "names of cases, separated by commas; default: all")
	flags.IntVar(&b.rounds, "rounds", 3, "runs of each side, in turn")
	flags.IntVar(&b.settings.TrainRows, "rows", b.settings.TrainRows, "training rows taken")
	flags.StringVar(&b.at.model, "model", at.model, "model folder; one that is not there is made: DistilBERT with random weights")
	flags.StringVar(&b.at.data, "data", at.data, "the SMS Spam Collection")
	flags.StringVar(&b.tokens, "tokenizer", filepath.Join(at.model, "tokenizer.json"), "the tokenizer")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if _, err := os.Stat(b.at.data); errors.Is(err, os.ErrNotExist) {
		fmt.Fprintf(out, "skipped bench %s: shared: SMS Spam Collection not found at %s\n", name, b.at.data)
		return nil
	}
	if b.python, err = peers(); err != nil {
		return err
	}
	if b.train, b.test, err = readRows(ctx, b.at.data, b.tokens, b.settings); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(b.at.model, "config.json")); errors.Is(err, os.ErrNotExist) {
		if _, err := output(b.script(ctx, "--new-distilbert", b.at.model)); err != nil {
			return err
		}
	}
	if *only != "" {
		duels = slices.DeleteFunc(slices.Clone(duels), func(d duel) bool { return !slices.Contains(strings.Split(*only, ","), d.name) })
	}
	return b.fight(ctx, duels)
}

// fight runs the duels, both sides in turn; who comes first changes with the round.
func (b *speed) fight(ctx context.Context, duels []duel) error {
	dir, err := os.MkdirTemp("", "bench-speed-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := errors.Join(b.train.write(filepath.Join(dir, "train.jsonl")), b.test.write(filepath.Join(dir, "test.jsonl"))); err != nil {
		return err
	}
	for _, d := range duels {
		l := speedLine{Case: d.name, Unit: d.unit, PeerArgs: d.peer, Rounds: b.rounds}
		var ours, peer []float64
		sides := []func() error{
			func() (err error) {
				l.OursLast, err = d.ours(b, ctx, d)
				ours = append(ours, d.figure(l.OursLast))
				return err
			},
			func() (err error) {
				l.PeerLast, err = b.peer(ctx, d, dir)
				peer = append(peer, d.figure(l.PeerLast))
				return err
			},
		}
		for i := range b.rounds {
			for j := range sides {
				if err := sides[(i+j)%2](); err != nil {
					return fmt.Errorf("%s: %w", d.name, err)
				}
			}
		}
		l.Ours, l.Peer, l.Device = median(ours), median(peer), b.device
		if l.Ratio = l.Ours / l.Peer; d.unit == seconds {
			l.Ratio = 1 / l.Ratio
		}
		if err := json.NewEncoder(b.out).Encode(l); err != nil {
			return err
		}
	}
	return nil
}

func median(values []float64) float64 {
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// peer runs Trainer.
func (b *speed) peer(ctx context.Context, d duel, dir string) (rate, error) {
	return measure(b.script(ctx, append([]string{
		"--model", b.at.model, "--rows", filepath.Join(dir, "train.jsonl"), "--eval-rows", filepath.Join(dir, "test.jsonl"),
		"--batch", strconv.Itoa(d.batch), "--epochs", strconv.Itoa(d.epochs),
	}, d.peer...)...))
}

func (b *speed) script(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, b.python, append([]string{filepath.Join(b.at.root, "internal", "py", "trainer_speed.py")}, args...)...)
}

// measure runs a program that prints what it measured. How a process ends is not timed.
func measure(cmd *exec.Cmd) (r rate, err error) {
	start := time.Now()
	out, err := output(cmd)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return r, fmt.Errorf("%s printed %q: %w", strings.Join(cmd.Args, " "), out, err)
	}
	if r.EndedAt > 0 {
		r.Seconds = r.EndedAt - unixSeconds(start)
	}
	return r, nil
}

func unixSeconds(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }

func output(cmd *exec.Cmd) ([]byte, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, stderr.Bytes())
	}
	return out, nil
}
