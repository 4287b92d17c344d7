package mlflow_test

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/mlflow/mlflowtest"
)

// TestCard pins a whole card; hostile values stay text.
func TestCard(t *testing.T) {
	got := string(mlflow.Card{
		Name: "sms-spam", Task: "Tells spam from other messages.", BaseModel: "distilbert/distilbert-base-uncased", BaseLicense: "apache-2.0",
		Data: []mlflow.CardData{{
			Share: "test", Source: "file:sms|x`y", Digest: "abc", Rows: 1115, Labels: []mlflow.Fact{{Name: "ham", Value: "966"}, {Name: "spam", Value: "149"}},
		}},
		Results:  []mlflow.Fact{{Name: "accuracy", Value: "0.9928"}},
		Classes:  []mlflow.ClassResult{{Label: "<b>|ham", Precision: 0.99, Recall: 1, F1: 0.995, Rows: 966}},
		Limits:   []string{"English only.\n# not a title"},
		Settings: []mlflow.Fact{{Name: "learning_rate", Value: "5e-05"}},
		Trace:    []mlflow.Fact{{Name: "run", Value: "[click](http://evil)"}},
	}.Markdown())
	want := strings.ReplaceAll(`# sms-spam

Tells spam from other messages.

## Origin

Fine-tuned from 'distilbert/distilbert-base-uncased' (licence: apache-2.0).

## Data

Licence: unknown.

| share | source | rows | labels | digest |
|---|---|---:|---|---|
| test | 'file:sms\|x"y' | 1115 | ham 966, spam 149 | 'abc' |

## Results on the test rows

| metric | value |
|---|---|
| accuracy | 0.9928 |

| class | precision | recall | F1 | rows |
|---|---:|---:|---:|---:|
| &lt;b&gt;\|ham | 0.9900 | 1.0000 | 0.9950 | 966 |

## Limits

- English only. \# not a title

## Settings

| setting | value |
|---|---|
| learning\_rate | 5e-05 |

## Trace

| what | value |
|---|---|
| run | \[click\](http://evil) |
`, "'", "`")
	if diff := cmp.Diff(strings.ReplaceAll(want, `"`, "'"), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if empty := string(mlflow.Card{Name: "x"}.Markdown()); strings.Contains(empty, "|") {
		t.Errorf("an empty card has a table:\n%s", empty)
	}
}

// TestTable writes a table twice and reads what MLflow's pages will.
func TestTable(t *testing.T) {
	s := mlflowtest.New(t, mlflowtest.Options{})
	c := connect(t, s.URL())
	r := newRun(t, c)
	table := mlflow.Table{Columns: []string{"row", "text", "score", "miss"}, Data: [][]any{
		{int64(7), "a\x00b\x1b[31m\xff\u0085" + strings.Repeat("é", 1<<20), 0.25, true},
		{int64(8), "", math.NaN(), false},
		{int64(9), "line\nbreak", float32(0.5), false},
	}}
	for range 2 {
		for _, name := range []string{"tables/mistakes.json", "tables/unsure.json"} {
			if err := c.LogTable(t.Context(), r.ID, name, table); err != nil {
				t.Fatal(err)
			}
		}
	}
	var got mlflow.Table
	if err := json.Unmarshal(s.Files()["1/"+r.ID+"/artifacts/tables/mistakes.json"], &got); err != nil {
		t.Fatal(err)
	}
	want := [][]any{
		{7.0, "a␀b␛[31m\ufffd\ufffd" + strings.Repeat("é", 1989) + "…", 0.25, true}, {8.0, "", nil, false}, {9.0, "line\nbreak", 0.5, false},
	}
	if diff := cmp.Diff(mlflow.Table{Columns: table.Columns, Data: want}, got); diff != "" {
		t.Errorf("(-want +got):\n%.2000s", diff)
	}
	tag := `[{"path": "tables/mistakes.json", "type": "table"}, {"path": "tables/unsure.json", "type": "table"}]`
	if got := s.Runs()[0].Tags["mlflow.loggedArtifacts"]; got != tag {
		t.Errorf("tag %s", got)
	}
	table.Data[1] = table.Data[1][:2]
	if err := c.LogTable(t.Context(), r.ID, "x.json", table); !errors.Is(err, mlflow.ErrRejected) {
		t.Errorf("a short row: got %v, want ErrRejected", err)
	}
	if err := c.LogTable(t.Context(), r.ID, "x.csv", table); !errors.Is(err, mlflow.ErrRejected) {
		t.Errorf("another format: got %v, want ErrRejected", err)
	}
}
