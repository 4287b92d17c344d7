package dataset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/duratune/duratune/internal/train"
)

// made yields n rows of about 100 bytes.
func made(n int) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		r := rand.New(rand.NewPCG(1, 2))
		for i := range n {
			if !yield(Row{Index: int64(i), Text: fmt.Sprintf("%x %x %x %x %x", r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64()), Label: i & 1}, nil) {
				return
			}
		}
	}
}

func perRow(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/row")
}

func BenchmarkReadCSV(b *testing.B) {
	const n = 100_000
	var data bytes.Buffer
	data.WriteString("text,label\n")
	for row := range made(n) {
		fmt.Fprintf(&data, "\"%s\",%d\n", row.Text, row.Label)
	}
	for b.Loop() {
		for _, err := range Read(b.Context(), inMemory("f", data.Bytes()), Options{Format: FormatCSV, Text: "text", Label: "label", Labels: hamSpam}) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	perRow(b, n)
}

func BenchmarkReadJSONL(b *testing.B) {
	const n = 100_000
	var data bytes.Buffer
	for row := range made(n) {
		fmt.Fprintf(&data, "{\"text\":%q,\"label\":%d}\n", row.Text, row.Label)
	}
	for b.Loop() {
		for _, err := range Read(b.Context(), inMemory("f", data.Bytes()), Options{Format: FormatJSONL, Text: "text", Label: "label", Labels: hamSpam}) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	perRow(b, n)
}

func BenchmarkSplit(b *testing.B) {
	const n = 1_000_000
	for b.Loop() {
		s := split(b, made(n), SplitSpec{TestFraction: 0.2, Labels: hamSpam})
		for _, side := range []*Side{s.Train, s.Test} {
			if _, _, err := WriteShards(b.Context(), side.Rows(), hamSpam, b.TempDir(), nil); err != nil {
				b.Fatal(err)
			}
		}
	}
	perRow(b, n)
}

func BenchmarkTokenize(b *testing.B) {
	const n = 100_000
	for b.Loop() {
		if _, err := Tokenize(b.Context(), made(n), bytesEncoder{}, 128, io.Discard, nil); err != nil {
			b.Fatal(err)
		}
	}
	perRow(b, n)
}

// idle is an engine that takes no time, so that what is left of an epoch is the loop and its batches out of mapped files.
type idle struct {
	train.Engine
	done []train.StepStats
}

func (e *idle) Step(_ context.Context, step int64, _ float64, _ train.Batch) error {
	e.done = append(e.done, train.StepStats{Step: step, Finite: true})
	return nil
}

func (e *idle) Sync(context.Context) ([]train.StepStats, error) {
	done := e.done
	e.done = nil
	return done, nil
}

func BenchmarkEpoch(b *testing.B) {
	const n, batch = 100_000, 8
	path := filepath.Join(b.TempDir(), "tokens.arrow")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	_, err = Tokenize(b.Context(), made(n), bytesEncoder{}, 128, f, nil)
	if err := errors.Join(err, f.Close()); err != nil {
		b.Fatal(err)
	}
	tokens, err := OpenTokens(path)
	if err != nil {
		b.Fatal(err)
	}
	defer tokens.Close()
	plan := train.Plan{NumRows: n, Epochs: 1, BatchSize: batch, Seed: 1, LoggingSteps: 8}
	plan.Schedule = train.Schedule{Kind: "linear", Peak: 5e-5, Total: plan.TotalSteps()}
	hooks := train.Hooks{Now: time.Now, Progress: func(train.Progress) {}, Points: func([]train.Point) {}}
	for b.Loop() {
		if _, err := train.Epoch(b.Context(), &idle{}, plan, tokens, 0, train.State{}, hooks); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n/batch), "ns/step")
}
