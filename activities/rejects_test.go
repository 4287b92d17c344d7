package activities

import (
	"encoding/json"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/duratune/duratune/dataset"
	"github.com/duratune/duratune/internal/recipe"
)

// TestQuarantine: rows that cannot be used end the run, are left out or are kept, as the recipe says; the result and
// MLflow show how many and which.
func TestQuarantine(t *testing.T) {
	b := newSourceBench(t)
	b.put(t, "rows.csv", csvA+"five,eggs\n,ham\n")
	data := recipe.Data{Source: "s3://team-a/rows.csv"}
	_, err := b.load(t, data)
	wantType(t, err, TypeDatasetInvalid, false)
	if err != nil && !strings.Contains(err.Error(), `s3://team-a/rows.csv: row 5 (line 6): column "label": unknown label "eggs"`) {
		t.Errorf("fail: %v", err)
	}
	data.Rows = recipe.Rows{OnError: "skip", MaxErrors: 0.3}
	_, err = b.load(t, data)
	wantType(t, err, TypeDatasetInvalid, false)
	if err != nil && !strings.Contains(err.Error(), "2 of 6 rows cannot be used (1 empty text, 1 unknown label)") {
		t.Errorf("too many: %v", err)
	}
	data.Rows.MaxErrors = 0.5
	for _, policy := range []string{"skip", "quarantine"} {
		data.Rows.OnError = policy
		res, err := b.load(t, data)
		if err != nil || res.Rejected == nil || res.Train.NumRows+res.Test.NumRows != 4 {
			t.Fatalf("%s: %+v, %v", policy, res, err)
		}
		want := Rejected{Rows: 2, Share: 1.0 / 3, Kinds: map[dataset.ErrorKind]int64{dataset.KindUnknownLabel: 1, dataset.KindEmptyText: 1}, Summary: "1 empty text, 1 unknown label", Quarantine: res.Rejected.Quarantine,
			First: []string{`s3://team-a/rows.csv: row 5 (line 6): column "label": unknown label "eggs"; the labels are "ham", "spam"`, `s3://team-a/rows.csv: row 6 (line 7): column "text": the text is empty`}}
		if diff := gocmp.Diff(want, *res.Rejected); diff != "" {
			t.Errorf("%s: -want +got\n%s", policy, diff)
		}
		if got := res.Rejected.String(); got != "2 rows (33 %) left out: 1 empty text, 1 unknown label" {
			t.Errorf("%s: %q", policy, got)
		}
		if (res.Rejected.Quarantine != nil) != (policy == "quarantine") {
			t.Fatalf("%s: quarantine %v", policy, res.Rejected.Quarantine)
		}
		if res.Rejected.Quarantine == nil {
			continue
		}
		var first dataset.Rejected
		r, err := b.cpu.Store.Open(t.Context(), *res.Rejected.Quarantine)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.NewDecoder(r).Decode(&first); err != nil || first.Text != "five" || first.Label != "eggs" || first.Row != 5 {
			t.Errorf("quarantined %+v, %v", first, err)
		}
	}
	run, err := b.cpu.Tracking.GetRun(t.Context(), b.run.MLflowRunID)
	if err != nil || run.Tags["duratune.rejected_rows"] != "2" || !strings.Contains(run.Tags["duratune.rejected"], "1 unknown label") {
		t.Errorf("tags %v, %v", run.Tags, err)
	}
	shown := b.mlflow.Files()[b.run.ExperimentID+"/"+b.run.MLflowRunID+"/artifacts/data/rejected_rows.json"]
	if !strings.Contains(string(shown), "eggs") {
		t.Errorf("MLflow shows %q", shown)
	}
}

// TestTooFewRowsOfAClass: a class that training would never see is refused by its name.
func TestTooFewRowsOfAClass(t *testing.T) {
	b := newSourceBench(t)
	b.put(t, "rows.csv", csvA)
	data := recipe.Data{Source: "s3://team-a/rows.csv", Labels: []string{"ham", "spam", "eggs"}, Rows: recipe.Rows{MinClassRows: 1}}
	_, err := b.load(t, data)
	wantType(t, err, TypeDatasetInvalid, false)
	if err != nil && !strings.Contains(err.Error(), `"eggs" has 0`) {
		t.Error(err)
	}
}

// TestEncodingOfARecipe: a recipe names the encoding of its files.
func TestEncodingOfARecipe(t *testing.T) {
	b := newSourceBench(t)
	b.put(t, "rows.csv", csvA+"caf\xe9,ham\n")
	data := recipe.Data{Source: "s3://team-a/rows.csv"}
	_, err := b.load(t, data)
	wantType(t, err, TypeDatasetInvalid, false)
	for _, rows := range []recipe.Rows{{Encoding: "latin1"}, {Encoding: "utf-8", InvalidBytes: "replace"}} {
		data.Rows = rows
		if res, err := b.load(t, data); err != nil || res.Train.NumRows+res.Test.NumRows != 5 {
			t.Errorf("%+v: %+v, %v", rows, res, err)
		}
	}
}
