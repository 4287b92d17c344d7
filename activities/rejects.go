package activities

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/duratune/duratune/dataset"
	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/recipe"
)

// Values of data.rows in a recipe.
const (
	onErrorSkip       = "skip"
	onErrorQuarantine = "quarantine"
	replaceBytes      = "replace"
)

// Rejected describes the rows of a source that could not be used and were left out.
type Rejected struct {
	Rows       int64                       `json:"rows"`
	Share      float64                     `json:"share"` // of all rows of the source
	Kinds      map[dataset.ErrorKind]int64 `json:"kinds"`
	Summary    string                      `json:"summary"`              // kinds with their counts, most frequent first
	First      []string                    `json:"first"`                // examples, each with file, row, column and reason
	Quarantine *artifact.Ref               `json:"quarantine,omitempty"` // JSON Lines of all of them ([dataset.Rejected])
}

// String is one line for people.
func (r *Rejected) String() string {
	return fmt.Sprintf("%d rows (%.2g %%) left out: %s", r.Rows, 100*r.Share, r.Summary)
}

// rejects is what LoadSplit does with rows that cannot be used.
type rejects struct {
	*dataset.Rejects          // nil: the first one fails
	file             *os.File // the quarantine; nil: none
}

func newRejects(rows recipe.Rows, dir string) (rejects, error) {
	var r rejects
	if rows.OnError != onErrorSkip && rows.OnError != onErrorQuarantine {
		return r, nil
	}
	r.Rejects = &dataset.Rejects{MaxShare: rows.MaxErrors}
	if rows.OnError == onErrorSkip {
		return r, nil
	}
	var err error
	if r.file, err = os.Create(filepath.Join(dir, "quarantine.jsonl")); err != nil {
		return r, err
	}
	r.Keep = r.file
	return r, nil
}

func (r rejects) close() {
	if r.file != nil {
		_ = r.file.Close() // what it holds is stored by then
	}
}

// readOptions says how to read the files of a source. What an old recipe does not have takes the default.
func readOptions(d recipe.Data, r rejects) dataset.Options {
	return dataset.Options{Format: d.Format, CSV: dialect(d.CSV), Text: d.Text, Pair: d.TextPair, Label: d.Label, Labels: d.Labels, Group: d.Split.Group, Split: d.Split.Column,
		Encoding: d.Rows.Encoding, Replace: d.Rows.InvalidBytes == replaceBytes, MaxRow: d.Rows.MaxBytes, Rejects: r.Rejects}
}

func dialect(c recipe.CSV) dataset.Dialect {
	if c.Delimiter == "" { // an old recipe
		return dataset.Dialect{}
	}
	d := dataset.Dialect{Delimiter: c.Delimiter[0], NoQuotes: c.Quote == "", NoHeader: !c.Header}
	if c.Quote != "" {
		d.Quote = c.Quote[0]
	}
	return d
}

// publish stores the quarantine and shows counts and examples in the MLflow run.
func (r rejects) publish(ctx context.Context, c *CPU, run Run, used int) (*Rejected, error) {
	if r.Rejects == nil || r.Rows == 0 {
		return nil, nil
	}
	res := &Rejected{Rows: r.Rows, Share: float64(r.Rows) / float64(r.Rows+int64(used)), Kinds: r.Kinds, Summary: r.Summary()}
	for i := range r.First {
		res.First = append(res.First, r.First[i].Error())
	}
	if r.file != nil {
		key := run.attempt(ctx, run.Key+"/quarantine") + "/rows.jsonl"
		ref, err := putFile(ctx, c.Store, key, r.file.Name(), func(int64) { beat(ctx, Heartbeat{Phase: "store quarantine"}) })
		if err != nil {
			return nil, fmt.Errorf("quarantine: %w", err)
		}
		res.Quarantine = &ref
	}
	body, err := json.MarshalIndent(res, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("rejected rows: %w", err)
	}
	tracked, err := c.Tracking.GetRun(ctx, run.MLflowRunID)
	if err != nil {
		return nil, err
	}
	if err := c.upload(ctx, tracked.ArtifactURI, "data/rejected_rows.json", body); err != nil {
		return nil, err
	}
	return res, c.Tracking.SetTags(ctx, run.MLflowRunID, map[string]string{
		"duratune.rejected_rows": strconv.FormatInt(res.Rows, 10), "duratune.rejected": res.String(),
	})
}

// checkClassRows refuses a split that leaves a class with too few rows to train on.
func checkClassRows(d recipe.Data, counts []int) error {
	var few []string
	for i, n := range counts {
		if n < d.Rows.MinClassRows {
			few = append(few, fmt.Sprintf("%q has %d", d.Labels[i], n))
		}
		if len(few) == maxFewClasses {
			break
		}
	}
	if len(few) == 0 {
		return nil
	}
	return &dataset.SourceError{Source: d.Source, Reason: fmt.Sprintf("too few rows to train on: of at least %d a class (data.rows.min_class_rows), %s", d.Rows.MinClassRows, strings.Join(few, ", "))}
}

// maxFewClasses bounds what an error lists.
const maxFewClasses = 10
