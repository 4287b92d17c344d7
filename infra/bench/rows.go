package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"os"

	"github.com/duratune/duratune/dataset"
	"github.com/duratune/duratune/internal/tokenizer"
	"github.com/duratune/duratune/internal/train"
)

// row is a message as both sides are given it.
type row struct {
	IDs   []int32 `json:"input_ids"`
	Label int64   `json:"label"`
}

// source is rows in memory.
type source []row

var _ train.Rows = source(nil)

func (s source) NumRows() int      { return len(s) }
func (s source) IDs(i int) []int32 { return s[i].IDs }
func (s source) Types(int) []int8  { return nil }
func (s source) Label(i int) int64 { return s[i].Label }
func (s source) Row(i int) int64   { return int64(i) }

// readRows splits the collection as the quickstart's recipe does, and takes the first rows of both sides as tokens.
func readRows(ctx context.Context, path, tokens string, c settings) (training, test source, err error) {
	tok, err := tokenizer.Load(tokens)
	if err != nil {
		return nil, nil, err
	}
	all := dataset.Read(ctx, dataset.LocalFiles(path), dataset.Options{Format: "tsv", Labels: labels})
	split, err := dataset.SplitRows(ctx, all, dataset.SplitSpec{TestFraction: 0.2, SplitSeed: 42, ShuffleSeed: 22, Labels: labels})
	if err != nil {
		return nil, nil, err
	}
	defer split.Close()
	if training, err = take(split.Train.Rows(), tok, c.TrainRows, c.MaxLength); err != nil {
		return nil, nil, err
	}
	if test, err = take(split.Test.Rows(), tok, c.TestRows, c.MaxLength); err != nil {
		return nil, nil, err
	}
	if len(training) < c.TrainRows || len(test) < c.TestRows {
		return nil, nil, fmt.Errorf("the split has %d training and %d test rows, want %d and %d", len(training), len(test), c.TrainRows, c.TestRows)
	}
	return training, test, nil
}

// take encodes the first n rows of a side.
func take(rows iter.Seq2[dataset.Row, error], tok *tokenizer.Tokenizer, n, maxLength int) (source, error) {
	var out source
	for r, err := range rows {
		if err != nil {
			return nil, err
		}
		if len(out) == n {
			break
		}
		out = append(out, row{IDs: tok.AppendIDs(nil, r.Text, maxLength), Label: int64(r.Label)})
	}
	return out, nil
}

// write stores the rows as JSON Lines.
func (s source) write(path string) error {
	var lines bytes.Buffer
	enc := json.NewEncoder(&lines)
	for _, r := range s {
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
	return os.WriteFile(path, lines.Bytes(), 0o644)
}

// positives counts the rows of class 1.
func (s source) positives() (n int) {
	for _, r := range s {
		n += int(r.Label)
	}
	return n
}
