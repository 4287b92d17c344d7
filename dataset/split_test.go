package dataset

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// share is what split.py records of a side.
type share struct {
	Rows   int    `json:"rows"`
	Labels []int  `json:"labels"`
	Digest string `json:"digest"`
}

type recordedSplit struct {
	Duplicates   int     `json:"duplicates"`
	Overlap      int     `json:"overlap"`
	Deduped      int     `json:"deduped"`
	Conflicts    int     `json:"conflicts"`
	Test         share   `json:"test"`
	Train        share   `json:"train"`
	TestNumbers  []int64 `json:"test_numbers"` // of the first 20 rows as stored
	TrainNumbers []int64 `json:"train_numbers"`
}

func record20(t testing.TB, s *Split) (r recordedSplit) {
	t.Helper()
	r.Duplicates, r.Overlap, r.Deduped, r.Conflicts = s.Duplicates, s.Overlap, s.Deduped, s.Conflicts
	for side, to := range map[*Side]struct {
		share   *share
		numbers *[]int64
	}{s.Test: {&r.Test, &r.TestNumbers}, s.Train: {&r.Train, &r.TrainNumbers}} {
		_, digest := store(t, side)
		*to.share = share{side.NumRows, side.LabelCounts, digest}
		for _, row := range collect(t, side.Rows()) {
			if len(*to.numbers) < 20 {
				*to.numbers = append(*to.numbers, row.Index)
			}
		}
	}
	return r
}

// TestSplitPython compares with an independent implementation (internal/py/dataset/split.py).
func TestSplitPython(t *testing.T) {
	data, err := os.ReadFile("testdata/split.json")
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]recordedSplit
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	tutorial := SplitSpec{TestFraction: 0.2, SplitSeed: 42, ShuffleSeed: 22, Labels: hamSpam}
	other := SplitSpec{TestFraction: 0.5, SplitSeed: -1, ShuffleSeed: 7, Labels: hamSpam}
	rows := goldenRows(t)
	for name, got := range map[string]*Split{
		"golden":             split(t, slice(rows), tutorial),
		"golden_other_seeds": split(t, slice(rows), other),
	} {
		if diff := cmp.Diff(want[name], record20(t, got)); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
	sms := collect(t, Read(t.Context(), LocalFiles(smsPath(t)), Options{Labels: hamSpam}))
	grouped := tutorial
	grouped.Grouped = true
	for name, got := range map[string]*Split{
		"sms":            split(t, slice(sms), tutorial),
		"sms_stratified": split(t, slice(sms), SplitSpec{TestFraction: 0.2, SplitSeed: 42, ShuffleSeed: 22, Labels: hamSpam, Stratify: true}),
		"sms_grouped":    split(t, slice(inGroups(sms, 97)), grouped),
		"sms_normalised": split(t, slice(sms), SplitSpec{TestFraction: 0.2, SplitSeed: 42, ShuffleSeed: 22, Labels: hamSpam, Dedupe: DedupeNormalised}),
	} {
		if diff := cmp.Diff(want[name], record20(t, got)); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}

// randomRows makes rows of which many are equal or differ in their label alone.
func randomRows(r *rand.Rand, n int) []Row {
	rows := make([]Row, n)
	for i := range rows {
		rows[i] = Row{Index: int64(i), Text: fmt.Sprintf("text %d", r.IntN(n)), Label: r.IntN(2)}
	}
	return rows
}

// TestSplitProperties: exact sizes, every row once, numbers that are ranks, and no influence of the order.
func TestSplitProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		rows := randomRows(r, 2+r.IntN(300))
		spec := SplitSpec{TestFraction: float64(1+r.IntN(99)) / 100, SplitSeed: r.Int64(), ShuffleSeed: r.Int64(), Labels: hamSpam, TempDir: t.TempDir()}
		first, err := SplitRows(t.Context(), slice(rows), spec)
		if _, few := errors.AsType[*SourceError](err); few {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		checkSides(t, rows, first, spec)
		shuffled := slices.Clone(rows)
		r.Shuffle(len(rows), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		second := split(t, slice(shuffled), spec)
		for _, sides := range [][2]*Side{{first.Train, second.Train}, {first.Test, second.Test}} {
			if diff := cmp.Diff(collect(t, sides[0].Rows()), collect(t, sides[1].Rows())); diff != "" {
				t.Fatalf("another order of the source gives another split:\n%s", diff)
			}
		}
		if first.Overlap != second.Overlap || first.Duplicates != second.Duplicates {
			t.Fatalf("overlap %d and %d, duplicates %d and %d", first.Overlap, second.Overlap, first.Duplicates, second.Duplicates)
		}
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// checkSides checks that a split of rows is one.
func checkSides(t *testing.T, rows []Row, s *Split, spec SplitSpec) {
	t.Helper()
	train, test := collect(t, s.Train.Rows()), collect(t, s.Test.Rows())
	percent := int(spec.TestFraction*100 + 0.5)
	if want := (len(rows)*percent + 99) / 100; len(test) != want || s.Test.NumRows != want || len(train)+len(test) != len(rows) {
		t.Fatalf("%d test and %d train rows of %d, want %d test", len(test), len(train), len(rows), want)
	}
	numbers := make([]bool, len(rows))
	for i, row := range slices.Concat(test, train) {
		if numbers[row.Index] || (row.Index < int64(len(test))) != (i < len(test)) {
			t.Fatalf("row number %d twice or on the wrong side", row.Index)
		}
		numbers[row.Index] = true
	}
	type content struct {
		Text  string
		Label int
	}
	count := map[content]int{}
	for _, row := range rows {
		count[content{row.Text, row.Label}]++
	}
	duplicates := len(rows) - len(count)
	texts, overlap := map[string]bool{}, 0
	for _, row := range train {
		count[content{row.Text, row.Label}]--
		texts[row.Text] = true
	}
	for _, row := range test {
		count[content{row.Text, row.Label}]--
		if texts[row.Text] {
			overlap++
		}
	}
	for c, n := range count {
		if n != 0 {
			t.Fatalf("%+v: %d rows lost", c, n)
		}
	}
	if s.Duplicates != duplicates || s.Overlap != overlap {
		t.Fatalf("duplicates %d, want %d; overlap %d, want %d", s.Duplicates, duplicates, s.Overlap, overlap)
	}
}

func TestTestRows(t *testing.T) {
	for _, c := range []struct {
		n        int64
		fraction float64
		want     int64 // -1: an error
	}{
		{5574, 0.2, 1115}, {100, 0.07, 7}, {10, 0.1, 1}, {11, 0.1, 2}, {3, 1.0 / 3, 1}, {10_000_000, 0.2, 2_000_000},
		{2, 0.5, 1}, {1, 0.5, -1}, {2, 0.9, -1}, {10, 0, -1}, {10, 1, -1}, {10, -0.1, -1},
	} {
		got, _, err := heldRows(c.n, c.fraction, 0)
		if err != nil {
			got = -1
		}
		if got != c.want {
			t.Errorf("%d × %g: %d, %v; want %d", c.n, c.fraction, got, err, c.want)
		}
	}
}

// TestValidationShare: the test rows are the same with and without a validation share, which is taken from the others.
func TestValidationShare(t *testing.T) {
	rows := func(yield func(Row, error) bool) {
		for i := range 100 {
			if !yield(Row{Index: int64(i), Text: fmt.Sprint("text ", i), Label: i % 2}, nil) {
				return
			}
		}
	}
	split := func(validation float64) *Split {
		t.Helper()
		s, err := SplitRows(t.Context(), rows, SplitSpec{TestFraction: 0.2, Validation: validation, SplitSeed: 42, ShuffleSeed: 22, Labels: hamSpam, TempDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	without, with := split(0), split(0.07)
	if without.Validation.NumRows != 0 || with.Validation.NumRows != 7 || with.Train.NumRows != 73 || with.Validation.LabelCounts[0]+with.Validation.LabelCounts[1] != 7 {
		t.Errorf("%d and %d validation rows, %d training rows, want 0, 7 and 73", without.Validation.NumRows, with.Validation.NumRows, with.Train.NumRows)
	}
	if diff := cmp.Diff(collect(t, without.Test.Rows()), collect(t, with.Test.Rows())); diff != "" {
		t.Errorf("test rows without and with a validation share:\n%s", diff)
	}
	seen := map[int64]int{}
	for _, side := range []*Side{with.Train, with.Test, with.Validation} {
		for _, row := range collect(t, side.Rows()) {
			seen[row.Index]++
		}
	}
	if len(seen) != 100 {
		t.Errorf("%d rows lie in the three shares, want each of 100 once", len(seen))
	}
	for _, c := range [][2]float64{{0.5, 0.5}, {0.2, -0.1}, {0.2, 0.8}} {
		if _, _, err := heldRows(100, c[0], c[1]); err == nil {
			t.Errorf("fractions %v are taken", c)
		}
	}
	if _, _, err := heldRows(2, 0.3, 0.3); err == nil {
		t.Error("two rows are cut in three")
	}
}

// TestSpill: what goes through the disk comes back, and leaves nothing behind.
func TestSpill(t *testing.T) {
	dir := t.TempDir()
	s := spool{dir: dir}
	var want [numParts][]string
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 3000 {
		p := byte(r.IntN(5))
		rec := fmt.Sprintf("%d %0*d", i, r.IntN(300), i)
		want[p] = append(want[p], rec)
		if err := s.add(p, []byte(rec[:1]), []byte(rec[1:])); err != nil {
			t.Fatal(err)
		}
		if i%701 == 0 {
			if err := s.spill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("%v is left in the folder", left)
	}
	for p := range numParts {
		var got []string
		for rec, err := range s.records(p) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(rec))
		}
		if diff := cmp.Diff(want[p], got); diff != "" {
			t.Errorf("partition %d: %s", p, diff)
		}
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
}
