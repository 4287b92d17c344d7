package dataset

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// inGroups puts rows into groups by the number of their characters.
func inGroups(rows []Row, n int) []Row {
	rows = slices.Clone(rows)
	for i := range rows {
		rows[i].Group = fmt.Sprintf("g%d", utf8.RuneCountInString(rows[i].Text)%n)
	}
	return rows
}

// inShares gives every n-th row to test and the others to train.
func inShares(rows []Row, n int) []Row {
	rows = slices.Clone(rows)
	for i := range rows {
		rows[i].Share = TrainShare
		if i%n == 0 {
			rows[i].Share = TestShare
		}
	}
	return rows
}

// variants are rows with others that say the same in another way or under another label.
func variants(rows []Row) []Row {
	out := slices.Clone(rows)
	for _, row := range rows[:5] {
		out = append(out, Row{Text: "  " + strings.ToUpper(row.Text) + "\t", Label: row.Label})
	}
	for _, row := range rows[5:9] {
		out = append(out, Row{Text: row.Text, Label: 1 - row.Label})
	}
	return append(out, Row{Text: "\uff46\uff55\uff4c\uff4c"}, Row{Text: "FULL", Label: 1})
}

// TestSplitsPython compares the other ways to split with the same second implementation.
func TestSplitsPython(t *testing.T) {
	data, err := os.ReadFile("testdata/split.json")
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]recordedSplit
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	rows := goldenRows(t)
	for name, c := range map[string]struct {
		rows []Row
		spec SplitSpec
	}{
		"golden_stratified":   {rows, SplitSpec{TestFraction: 0.3, Stratify: true}},
		"golden_grouped":      {inGroups(rows, 7), SplitSpec{TestFraction: 0.4, Grouped: true}},
		"golden_assigned":     {inShares(rows, 3), SplitSpec{Assigned: true}},
		"variants_exact":      {variants(rows), SplitSpec{TestFraction: 0.2, Dedupe: DedupeExact}},
		"variants_normalised": {variants(rows), SplitSpec{TestFraction: 0.2, Dedupe: DedupeNormalised}},
		"assigned_exact":      {inShares(variants(rows), 3), SplitSpec{Assigned: true, Dedupe: DedupeExact}},
	} {
		c.spec.SplitSeed, c.spec.ShuffleSeed, c.spec.Labels = 42, 22, hamSpam
		if diff := cmp.Diff(want[name], record20(t, split(t, slice(c.rows), c.spec))); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}

// TestSplitKinds: each way to split keeps its promise, and none depends on the order of the rows.
func TestSplitKinds(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 15 {
		rows := randomRows(r, 20+r.IntN(300))
		for i := range rows {
			rows[i].Group = fmt.Sprint("group ", r.IntN(12))
			rows[i].Share = Share(1 + r.IntN(2))
		}
		bare := slices.Clone(rows)
		grouped := slices.Clone(rows)
		for i := range rows {
			bare[i].Group, bare[i].Share, grouped[i].Share = "", AnyShare, AnyShare
		}
		fraction := float64(15+r.IntN(60)) / 100
		for name, c := range map[string]struct {
			rows []Row
			spec SplitSpec
		}{
			"stratified":           {bare, SplitSpec{Stratify: true}},
			"stratified distinct":  {bare, SplitSpec{Stratify: true, Dedupe: DedupeExact}},
			"grouped":              {grouped, SplitSpec{Grouped: true}},
			"grouped normalised":   {grouped, SplitSpec{Grouped: true, Dedupe: DedupeNormalised}},
			"assigned":             {rows, SplitSpec{Assigned: true}},
			"assigned distinct":    {rows, SplitSpec{Assigned: true, Dedupe: DedupeExact}},
			"by fraction distinct": {bare, SplitSpec{Dedupe: DedupeExact}},
		} {
			c.spec.TestFraction, c.spec.SplitSeed, c.spec.ShuffleSeed, c.spec.Labels = fraction, r.Int64(), r.Int64(), hamSpam
			first := split(t, slice(c.rows), c.spec)
			checkKind(t, name, c.rows, c.spec, first)
			checkValidation(t, name, c.rows, c.spec, first)
			shuffled := slices.Clone(c.rows)
			r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			second := split(t, slice(shuffled), c.spec)
			if diff := cmp.Diff(record20(t, first), record20(t, second)); diff != "" {
				t.Fatalf("%s: another order of the source gives another split:\n%s", name, diff)
			}
		}
	}
}

// checkKind checks what a way to split promises. The texts of randomRows say which row is which.
func checkKind(t *testing.T, name string, rows []Row, spec SplitSpec, s *Split) {
	t.Helper()
	train, test := collect(t, s.Train.Rows()), collect(t, s.Test.Rows())
	n := len(train) + len(test)
	if n+s.Deduped != len(rows) || len(train) != s.Train.NumRows || len(test) != s.Test.NumRows || len(test) == 0 || len(train) == 0 {
		t.Fatalf("%s: %d train and %d test rows and %d left out, of %d", name, len(train), len(test), s.Deduped, len(rows))
	}
	shares := map[string][3]bool{} // where the source has each text
	groups := map[string][]string{}
	for _, row := range rows {
		at := shares[row.Text]
		at[row.Share] = true
		shares[row.Text] = at
		groups[row.Text] = append(groups[row.Text], row.Group)
	}
	texts := map[string]int{}
	for side, list := range [][]Row{train, test} {
		for _, row := range list {
			texts[row.Text]++
			if spec.Dedupe != "" && texts[row.Text] > 1 {
				t.Fatalf("%s: %q twice", name, row.Text)
			}
			if spec.Assigned && !shares[row.Text][side+1] {
				t.Fatalf("%s: %q on the wrong side", name, row.Text)
			}
			if spec.Assigned && spec.Dedupe != "" && side == 0 && shares[row.Text][TestShare] {
				t.Fatalf("%s: %q is in test too, and kept in train", name, row.Text)
			}
		}
	}
	if spec.Dedupe != "" && s.Overlap != 0 {
		t.Fatalf("%s: overlap %d after deduplication", name, s.Overlap)
	}
	target, _, err := heldRows(int64(n), spec.TestFraction, spec.Validation)
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case spec.Grouped:
		checkGroups(t, name, groups, train, test)
		if int64(len(test)) > target {
			t.Fatalf("%s: %d test rows, the target is %d", name, len(test), target)
		}
	case spec.Stratify:
		for class := range hamSpam {
			all := s.Train.LabelCounts[class] + s.Test.LabelCounts[class]
			if off := float64(s.Test.LabelCounts[class]) - float64(all)*spec.TestFraction; off <= -1 || off >= 1 {
				t.Fatalf("%s: %d of %d rows of class %d are test", name, s.Test.LabelCounts[class], all, class)
			}
		}
		fallthrough
	case !spec.Assigned:
		if int64(len(test)) != target {
			t.Fatalf("%s: %d test rows, want %d", name, len(test), target)
		}
	}
}

// checkValidation: a validation share comes out of what is to train on, and leaves the test share as it is.
func checkValidation(t *testing.T, name string, rows []Row, spec SplitSpec, without *Split) {
	t.Helper()
	spec.Validation = 0.1
	if spec.TestFraction+spec.Validation >= 0.8 {
		return
	}
	with := split(t, slice(rows), spec)
	if diff := cmp.Diff(collect(t, without.Test.Rows()), collect(t, with.Test.Rows())); diff != "" {
		t.Fatalf("%s: a validation share changes the test share:\n%s", name, diff)
	}
	n := with.Train.NumRows + with.Test.NumRows + with.Validation.NumRows
	want := int(shareOf(int64(n), 0.1))
	if n+with.Deduped != len(rows) || with.Validation.NumRows > want || !spec.Grouped && with.Validation.NumRows != want {
		t.Fatalf("%s: %d validation rows, want %d of %d", name, with.Validation.NumRows, want, n)
	}
	inTrain, overlap := map[string]bool{}, 0
	for _, row := range collect(t, with.Train.Rows()) {
		inTrain[row.Text] = true
	}
	for _, row := range collect(t, with.Validation.Rows()) {
		if inTrain[row.Text] {
			overlap++
		}
	}
	if with.ValidationOverlap != overlap {
		t.Fatalf("%s: the texts of %d validation rows are in train, want %d", name, with.ValidationOverlap, overlap)
	}
	next := int64(with.Test.NumRows)
	for _, row := range collect(t, with.Validation.Rows()) {
		if row.Index < next || row.Index >= next+int64(with.Validation.NumRows) {
			t.Fatalf("%s: validation row %d lies outside the ranks from %d", name, row.Index, next)
		}
	}
}

// TestSplitGivenValidation: validation rows that the source names are those.
func TestSplitGivenValidation(t *testing.T) {
	var rows []Row
	for i := range 12 {
		rows = append(rows, Row{Text: fmt.Sprint(i), Label: i % 2, Share: Share(1 + i%3)})
	}
	s := split(t, slice(rows), SplitSpec{Assigned: true, Validation: 0.5, Labels: hamSpam})
	if s.Train.NumRows != 4 || s.Test.NumRows != 4 || s.Validation.NumRows != 4 {
		t.Errorf("%d, %d and %d rows, want 4 each", s.Train.NumRows, s.Test.NumRows, s.Validation.NumRows)
	}
}

// checkGroups: a text all of whose rows are in one group tells where the group is.
func checkGroups(t *testing.T, name string, groups map[string][]string, train, test []Row) {
	t.Helper()
	where := map[string]int{}
	for side, list := range [][]Row{train, test} {
		for _, row := range list {
			of := slices.Compact(slices.Sorted(slices.Values(groups[row.Text])))
			if len(of) > 1 {
				continue
			}
			if before, seen := where[of[0]]; seen && before != side {
				t.Fatalf("%s: %s is on both sides", name, of[0])
			}
			where[of[0]] = side
		}
	}
}

// TestSplitRefuses what leaves a side empty or does not fit the spec.
func TestSplitRefuses(t *testing.T) {
	rows := []Row{{Text: "a", Group: "g", Share: TestShare}, {Text: "b", Label: 1, Group: "g", Share: TestShare}}
	bare := []Row{{Text: "a"}, {Text: "b", Label: 1}}
	for name, c := range map[string]struct {
		rows []Row
		spec SplitSpec
		want string
	}{
		"one group": {[]Row{{Text: "a", Group: "g"}, {Text: "b", Label: 1, Group: "g"}}, SplitSpec{Grouped: true, TestFraction: 0.5}, "no group is small enough"},
		"all test":  {rows, SplitSpec{Assigned: true}, "leaves one side without rows"},
		"no share":  {bare, SplitSpec{Assigned: true}, "do not fit"},
		"a share":   {rows, SplitSpec{TestFraction: 0.5}, "do not fit"},
		"no group":  {bare, SplitSpec{Grouped: true, TestFraction: 0.5}, "do not fit"},
		"same":      {[]Row{{Text: "a"}, {Text: "a", Label: 1}}, SplitSpec{Dedupe: DedupeExact, TestFraction: 0.5}, "too few"},
	} {
		c.spec.Labels, c.spec.TempDir = hamSpam, t.TempDir()
		if _, err := SplitRows(t.Context(), slice(c.rows), c.spec); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, c.want)
		}
	}
}
