package activities

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/duratune/duratune/internal/recipe"
)

// TestSplitsOfARecipe: each key of data.split holds out the rows that it says.
func TestSplitsOfARecipe(t *testing.T) {
	b := newSourceBench(t)
	var rows strings.Builder
	rows.WriteString("text,label,author,part\n")
	for i := range 40 {
		fmt.Fprintf(&rows, "row %d,%s,author %d,%s\n", i, testLabels[i/30], i%8, []string{"train", "test", "train"}[i%3])
	}
	b.put(t, "rows.csv", rows.String()+"row 0,ham,author 0,train\n ROW 1 ,spam,author 1,test\nrow 2,ham,author 2,test\n")
	b.put(t, "bad.csv", rows.String()+"row x,ham,,other\n")
	b.put(t, "held/out.csv", csvA)
	for name, c := range map[string]struct {
		source string
		split  recipe.Split
		want   string // train and test rows of each class, deduped, conflicts, overlap; or an error
	}{
		"default":     {"rows.csv", recipe.Split{}, ""},
		"stratify":    {"rows.csv", recipe.Split{Stratify: true}, "train [24 8] test [8 3] deduped 0 0 overlap"},
		"column":      {"rows.csv", recipe.Split{Column: "part"}, "train [21 7] test [11 4] deduped 0 0 overlap 1"},
		"column once": {"rows.csv", recipe.Split{Column: "part", Dedupe: "normalised"}, "train [19 7] test [11 3] deduped 3 1 overlap 0"},
		"source":      {"rows.csv", recipe.Split{TestSource: "s3://team-a/held/"}, "train [32 11] test [2 2] deduped 0 0 overlap 0"},
		"group":       {"rows.csv", recipe.Split{Group: "author"}, "overlap 0"},
		"no part":     {"bad.csv", recipe.Split{Column: "part"}, `row 41 (line 42): column "part": "other" names no share`},
		"no group":    {"bad.csv", recipe.Split{Group: "author"}, `row 41 (line 42): column "author": the row has no group`},
		"no column":   {"rows.csv", recipe.Split{Group: "writer"}, `no column "writer"`},
		"no source":   {"rows.csv", recipe.Split{TestSource: "s3://other/x.csv"}, "DURATUNE_SOURCE_BUCKETS"},
		"no rows":     {"rows.csv", recipe.Split{TestSource: "s3://team-a/none.csv"}, "no such object"},
	} {
		t.Run(name, func(t *testing.T) {
			res, err := b.load(t, recipe.Data{Source: "s3://team-a/" + c.source, Split: c.split})
			got := fmt.Sprintf("train %v test %v deduped %d %d overlap %d", res.Train.LabelCounts, res.Test.LabelCounts, res.Deduped, res.Conflicts, res.Overlap)
			if err != nil {
				wantType(t, err, TypeDatasetInvalid, false)
				got = err.Error()
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// TestFormatsOfARecipe: a recipe names folders of texts and dialects of CSV.
func TestFormatsOfARecipe(t *testing.T) {
	b := newSourceBench(t)
	for i := range 4 {
		b.put(t, fmt.Sprintf("mails/%s/%d.txt", testLabels[i%2], i), fmt.Sprintf("mail\n%d", i))
	}
	b.put(t, "rows.csv", "ham;'one;''1'''\nspam;two\nham;three\nspam;four\n")
	for name, d := range map[string]recipe.Data{
		"folder":  {Source: "s3://team-a/mails/", Format: "folder"},
		"dialect": {Source: "s3://team-a/rows.csv", Text: "1", Label: "0", CSV: recipe.CSV{Delimiter: ";", Quote: "'"}},
	} {
		if res, err := b.load(t, d); err != nil || res.Train.LabelCounts[0]+res.Test.LabelCounts[0] != 2 || res.Train.NumRows+res.Test.NumRows != 4 {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
	}
}

// TestLabelsLeftOut: a recipe without labels gets those that the data set states, or those that are found, and the run
// records them.
func TestLabelsLeftOut(t *testing.T) {
	b := newSourceBench(t)
	b.put(t, "rows.csv", csvA+"five,eggs\nsix,eggs\n")
	res, err := b.load(t, recipe.Data{Source: "s3://team-a/rows.csv", Labels: []string{}})
	if want := []string{"eggs", "ham", "spam"}; err != nil || !slices.Equal(res.Labels, want) || len(res.Train.LabelCounts) != 3 {
		t.Errorf("%+v, %v; want the labels %q", res, err, want)
	}
	run, err := b.cpu.Tracking.GetRun(t.Context(), b.run.MLflowRunID)
	if err != nil || run.Params["id2label"] != "{0: 'eggs', 1: 'ham', 2: 'spam'}" {
		t.Errorf("params %v, %v", run.Params, err)
	}
	if res, err := b.load(t, recipe.Data{Source: "s3://team-a/rows.csv", Labels: []string{"spam", "eggs", "ham"}}); err != nil || res.Labels != nil {
		t.Errorf("stated labels: %+v, %v", res.Labels, err)
	}
}
