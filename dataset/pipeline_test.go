package dataset

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const smsFile = "../../shared/data/sms_spam/SMSSpamCollection"

var hamSpam = []string{"ham", "spam"}

func smsPath(t testing.TB) string {
	t.Helper()
	if _, err := os.Stat(smsFile); errors.Is(err, fs.ErrNotExist) {
		t.Skip("shared: data/sms_spam/SMSSpamCollection not found")
	}
	return smsFile
}

// bytesEncoder gives [CLS] byte… [SEP], cut to the maximum.
type bytesEncoder struct{}

func (bytesEncoder) AppendIDs(dst []int32, text string, maxLength int) []int32 {
	dst = append(dst, 101)
	for i := 0; i < min(len(text), maxLength-2); i++ {
		dst = append(dst, int32(text[i]))
	}
	return append(dst, 102)
}

// AppendPair puts another [SEP] and the second text behind that; if both are too long, it cuts the second.
func (e bytesEncoder) AppendPair(ids []int32, types []int8, text, pair string, maxLength int) ([]int32, []int8) {
	start := len(ids)
	ids = e.AppendIDs(ids, text, maxLength)
	first := len(ids)
	ids = append(ids, e.AppendIDs(nil, pair, max(2, maxLength-(first-start)+1))[1:]...)
	ids = ids[:min(len(ids), start+maxLength)]
	for i := start; i < len(ids); i++ {
		types = append(types, int8(min(1, i/first)))
	}
	return ids, types
}

func collect(t testing.TB, rows iter.Seq2[Row, error]) []Row {
	t.Helper()
	var out []Row
	for row, err := range rows {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, row)
	}
	return out
}

// slice yields rows as Read does.
func slice(rows []Row) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		for _, row := range rows {
			if !yield(row, nil) {
				return
			}
		}
	}
}

func split(t testing.TB, rows iter.Seq2[Row, error], spec SplitSpec) *Split {
	t.Helper()
	spec.TempDir = t.TempDir()
	s, err := SplitRows(t.Context(), rows, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// store writes a side's shards and returns their paths.
func store(t testing.TB, side *Side) (paths []string, digest string) {
	t.Helper()
	_, digest, err := WriteShards(t.Context(), side.Rows(), hamSpam, t.TempDir(), func(path string, _ int) error {
		paths = append(paths, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths, digest
}

// TestSMS takes the tutorial's data through the whole package.
func TestSMS(t *testing.T) {
	rows := Read(t.Context(), LocalFiles(smsPath(t)), Options{Labels: hamSpam})
	s := split(t, rows, SplitSpec{TestFraction: 0.2, SplitSeed: 42, ShuffleSeed: 22, Labels: hamSpam})
	if s.Train.NumRows != 4459 || s.Test.NumRows != 1115 || s.Duplicates != 403 {
		t.Errorf("train %d, test %d, duplicates %d; want 4459, 1115, 403", s.Train.NumRows, s.Test.NumRows, s.Duplicates)
	}
	total := []int{s.Train.LabelCounts[0] + s.Test.LabelCounts[0], s.Train.LabelCounts[1] + s.Test.LabelCounts[1]}
	if !slices.Equal(total, []int{4827, 747}) {
		t.Errorf("label counts %v, want [4827 747]", total)
	}
	stored := collect(t, s.Train.Rows())
	paths, digest := store(t, s.Train)
	t.Logf("label counts %v / %v, overlap %d, digest %s", s.Train.LabelCounts, s.Test.LabelCounts, s.Overlap, digest)
	var back []Row
	for _, path := range paths {
		back = append(back, collect(t, ReadRows(path))...)
	}
	if diff := cmp.Diff(stored, back); diff != "" {
		t.Error(diff)
	}
	checkTokens(t, paths, stored)
}

func checkTokens(t *testing.T, shards []string, want []Row) {
	t.Helper()
	var files []string
	for _, shard := range shards {
		var out bytes.Buffer
		if _, err := Tokenize(t.Context(), ReadRows(shard), bytesEncoder{}, 64, &out, nil); err != nil {
			t.Fatal(err)
		}
		files = append(files, filepath.Join(t.TempDir(), "tokens.arrow"))
		if err := os.WriteFile(files[len(files)-1], out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tokens, err := OpenTokens(files...)
	if err != nil {
		t.Fatal(err)
	}
	defer tokens.Close()
	if tokens.NumRows() != len(want) {
		t.Fatalf("%d rows, want %d", tokens.NumRows(), len(want))
	}
	for i, row := range want {
		ids := bytesEncoder{}.AppendIDs(nil, row.Text, 64)
		if !slices.Equal(tokens.IDs(i), ids) || tokens.Label(i) != int64(row.Label) || tokens.Row(i) != row.Index {
			t.Fatalf("row %d: %v %d %d, want %v %d %d", i, tokens.IDs(i), tokens.Label(i), tokens.Row(i), ids, row.Label, row.Index)
		}
	}
}

func TestReadStopsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	path := filepath.Join(t.TempDir(), "x.tsv")
	if err := os.WriteFile(path, []byte(strings.Repeat("ham\ta\nspam\tb\n", 10)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, err := range Read(ctx, LocalFiles(path), Options{Labels: hamSpam}) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	}
}
