package dataset

import (
	"bytes"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"testing"
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
