package activities

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/duratune/duratune/dataset"
	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/recipe"
)

// LoadSplitInput names the data.
type LoadSplitInput struct {
	Run  Run         `json:"run"`
	Data recipe.Data `json:"data"`
}

// LoadSplitResult describes the shares. Their shards are listed in manifests, never in the history.
type LoadSplitResult struct {
	Train             Share  `json:"train"`
	Test              Share  `json:"test"`
	Validation        Share  `json:"validation,omitzero"`          // zero: each epoch is evaluated on the test share
	Duplicates        int    `json:"duplicates"`                   // rows that repeat an earlier row
	Overlap           int    `json:"overlap"`                      // test rows whose text also stands in train
	ValidationOverlap int    `json:"validation_overlap,omitempty"` // validation rows whose text also stands in train
	Deduped           int    `json:"deduped,omitempty"`            // rows left out because another has the same text
	Conflicts         int    `json:"conflicts,omitempty"`          // those of them whose label was another
	Commit            string `json:"commit,omitempty"`             // hub commit of the data

	Labels   []string  `json:"labels,omitempty"`   // class names that were found; empty: the recipe states them
	Rejected *Rejected `json:"rejected,omitempty"` // rows left out as data.rows.on_error says; nil: none
}

// Share is one side of the split.
type Share struct {
	Name        string       `json:"name"` // "train", "test" or "validation"
	Rows        artifact.Ref `json:"rows"` // manifest ([Shards]) of Arrow files
	NumRows     int          `json:"num_rows"`
	LabelCounts []int        `json:"label_counts"`
	Digest      string       `json:"digest"`           // of the rows' content, in stored order
	Shards      int          `json:"shards,omitempty"` // Arrow files; what has several is tokenized by several workers
}

// Shards is the manifest of a share's Arrow files, in order.
type Shards struct {
	Shards []artifact.Ref     `json:"shards"`
	Stats  dataset.TokenStats `json:"stats,omitzero"`
}

// LoadSplit reads the source, splits it exactly, and stores both shares as Arrow files. The split is a function of the
// rows' content and the recipe's seeds alone.
func (c *CPU) LoadSplit(ctx context.Context, in LoadSplitInput) (res LoadSplitResult, err error) {
	defer func() { err = edge(err) }()
	if err := in.Run.guard(ctx); err != nil {
		return res, err
	}
	dir, err := os.MkdirTemp(c.Scratch, "split-")
	if err != nil {
		return res, err
	}
	defer os.RemoveAll(dir)
	source, err := c.locateRows(ctx, in.Data, dir)
	if err != nil {
		return res, err
	}
	inferred := len(in.Data.Labels) == 0
	if inferred {
		if in.Data.Labels, err = c.inferLabels(ctx, in, source); err != nil {
			return res, err
		}
	}
	rejects, err := newRejects(in.Data.Rows, dir)
	if err != nil {
		return res, err
	}
	defer rejects.close()
	rows := dataset.Read(ctx, source.files, readOptions(in.Data, rejects))
	spec := splitSpec(in.Data)
	spec.TempDir, spec.Progress = dir, func(rows int64) { beat(ctx, Heartbeat{Phase: "read rows", Step: rows}) }
	split, err := dataset.SplitRows(ctx, rows, spec)
	if err != nil {
		return res, err
	}
	defer split.Close()
	res = LoadSplitResult{Duplicates: split.Duplicates, Overlap: split.Overlap, ValidationOverlap: split.ValidationOverlap, Deduped: split.Deduped, Conflicts: split.Conflicts, Commit: source.commit}
	if inferred {
		res.Labels = in.Data.Labels
	}
	if err := checkClassRows(in.Data, split.Train.LabelCounts); err != nil {
		return res, err
	}
	if res.Rejected, err = rejects.publish(ctx, c, in.Run, split.Train.NumRows+split.Test.NumRows+split.Validation.NumRows+split.Deduped); err != nil {
		return res, err
	}
	if res.Train, err = c.putShare(ctx, in, "train", split.Train, filepath.Join(dir, "train")); err != nil {
		return res, err
	}
	if res.Test, err = c.putShare(ctx, in, "test", split.Test, filepath.Join(dir, "test")); err != nil {
		return res, err
	}
	if split.Validation.NumRows > 0 {
		if res.Validation, err = c.putShare(ctx, in, "validation", split.Validation, filepath.Join(dir, "validation")); err != nil {
			return res, err
		}
	}
	return res, c.logDatasets(ctx, in, res)
}

// splitSpec says how to split the rows of a recipe. What an old recipe does not have is the split by fraction.
func splitSpec(d recipe.Data) dataset.SplitSpec {
	return dataset.SplitSpec{TestFraction: d.TestFraction, Validation: d.Validation, SplitSeed: d.SplitSeed, ShuffleSeed: d.ShuffleSeed, Labels: d.Labels,
		Stratify: d.Split.Stratify, Grouped: d.Split.Group != "", Assigned: d.Split.Column != "" || d.Split.TestSource != "", Dedupe: dataset.Dedupe(d.Split.Dedupe)}
}

// locateRows gives the files of a recipe's source and, if there is one, of its test source.
func (c *CPU) locateRows(ctx context.Context, d recipe.Data, dir string) (located, error) {
	source, err := c.locateData(ctx, d, filepath.Join(dir, "source"))
	if err != nil || d.Split.TestSource == "" {
		return source, err
	}
	d.Source = d.Split.TestSource
	test, err := c.locateData(ctx, d, filepath.Join(dir, "test-source"))
	if err != nil {
		return source, err
	}
	for i := range source.files {
		source.files[i].Share = dataset.TrainShare
	}
	for i := range test.files {
		test.files[i].Share = dataset.TestShare
	}
	source.files = append(source.files, test.files...)
	return source, nil
}

// inferLabels finds the class names of a recipe that states none, and records them as the run's parameter that Plan could
// not know.
func (c *CPU) inferLabels(ctx context.Context, in LoadSplitInput, source located) (labels []string, err error) {
	if labels = source.classes; labels == nil {
		opt := readOptions(in.Data, rejects{})
		opt.Progress = func(rows int64) { beat(ctx, Heartbeat{Phase: "read labels", Step: rows}) }
		if labels, err = dataset.InferLabels(ctx, source.files, opt); err != nil {
			return nil, err
		}
	}
	return labels, c.Tracking.LogBatch(ctx, in.Run.MLflowRunID, mlflow.Batch{Params: map[string]string{paramLabels: id2label(labels)}})
}

// logDatasets records the shares as inputs of the MLflow run, and what the split found as its tags.
func (c *CPU) logDatasets(ctx context.Context, in LoadSplitInput, res LoadSplitResult) error {
	sources := map[string]string{"uri": in.Data.Source, "commit": res.Commit}
	if in.Data.Split.TestSource != "" {
		sources["test_uri"] = in.Data.Split.TestSource
	}
	source, err := json.Marshal(sources)
	if err != nil {
		return fmt.Errorf("data source: %w", err)
	}
	pair, columns := "", 2
	if in.Data.TextPair != "" {
		pair, columns = `{"type": "string", "name": "text_pair", "required": true}, `, 3
	}
	schema := `{"mlflow_colspec": [{"type": "string", "name": "text", "required": true}, ` + pair + `{"type": "long", "name": "label", "required": true}]}`
	describe := func(share Share, context string) mlflow.Dataset {
		return mlflow.Dataset{Name: datasetName(in.Data), Digest: share.mlflowDigest(), SourceType: strings.SplitN(in.Data.Source, ":", 2)[0],
			Source: string(source), Schema: schema, Profile: fmt.Sprintf(`{"num_rows": %d, "num_elements": %d}`, share.NumRows, columns*share.NumRows),
			Context: context, Tags: map[string]string{"split": share.Name}}
	}
	inputs := []mlflow.Dataset{describe(res.Train, "training"), describe(res.Test, "evaluation")}
	if res.Validation.NumRows > 0 {
		inputs = append(inputs, describe(res.Validation, "validation"))
	}
	if err := c.Tracking.LogInputs(ctx, in.Run.MLflowRunID, inputs); err != nil {
		return err
	}
	tags := map[string]string{
		"duratune.duplicate_rows": strconv.Itoa(res.Duplicates), "duratune.overlap_rows": strconv.Itoa(res.Overlap), "duratune.deduplicated_rows": strconv.Itoa(res.Deduped),
	}
	if res.Validation.NumRows > 0 {
		tags["duratune.validation_overlap_rows"] = strconv.Itoa(res.ValidationOverlap)
	}
	return c.Tracking.SetTags(ctx, in.Run.MLflowRunID, tags)
}

// datasetName and mlflowDigest are what MLflow knows a share by.
func datasetName(data recipe.Data) string { return path.Base(data.Source) }

func (s Share) mlflowDigest() string { return s.Digest[:min(32, len(s.Digest))] }

// putShare writes one side as Arrow files below dir, stores each as soon as it is whole, and publishes their manifest.
func (c *CPU) putShare(ctx context.Context, in LoadSplitInput, name string, side *dataset.Side, dir string) (Share, error) {
	prefix := in.Run.attempt(ctx, in.Run.Key+"/"+name)
	share := Share{Name: name, NumRows: side.NumRows, LabelCounts: side.LabelCounts}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return share, err
	}
	var shards Shards
	_, digest, err := dataset.WriteShards(ctx, side.Rows(), in.Data.Labels, dir, func(shard string, _ int) error {
		defer os.Remove(shard)
		ref, err := putFile(ctx, c.Store, prefix+"/"+filepath.Base(shard), shard, func(int64) { beat(ctx, Heartbeat{Phase: "store " + name}) })
		shards.Shards = append(shards.Shards, ref)
		return err
	})
	if err != nil {
		return share, fmt.Errorf("%s rows: %w", name, err)
	}
	share.Digest = digest
	share.Shards = len(shards.Shards)
	share.Rows, err = putManifest(ctx, c.Store, prefix, shards)
	return share, err
}
