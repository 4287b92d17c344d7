package activities

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/duratune/duratune/dataset"
	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/tokenizer"
)

// LoadSplitInput names the data.
type LoadSplitInput struct {
	Run  Run         `json:"run"`
	Data recipe.Data `json:"data"`
}

// LoadSplitResult describes both shares. Their shards are listed in manifests, never in the history.
type LoadSplitResult struct {
	Train      Share  `json:"train"`
	Test       Share  `json:"test"`
	Duplicates int    `json:"duplicates"`       // rows that repeat an earlier row
	Overlap    int    `json:"overlap"`          // test rows whose text also stands in train
	Commit     string `json:"commit,omitempty"` // hub commit of the data
}

// Share is one side of the split.
type Share struct {
	Name        string       `json:"name"` // "train" or "test"
	Rows        artifact.Ref `json:"rows"` // manifest ([Shards]) of Arrow files
	NumRows     int          `json:"num_rows"`
	LabelCounts []int        `json:"label_counts"`
	Digest      string       `json:"digest"` // of the rows' content, in stored order
}

// Shards is the manifest of a share's Arrow files, in order.
type Shards struct {
	Shards []artifact.Ref     `json:"shards"`
	Stats  dataset.TokenStats `json:"stats,omitzero"`
}

// TokenizeInput is a share and the tokenizer.
type TokenizeInput struct {
	Run       Run          `json:"run"`
	Share     Share        `json:"share"`
	Model     artifact.Ref `json:"model"` // manifest of the base model
	MaxLength int          `json:"max_length"`
}

// TokenizeResult is the tokenized share.
type TokenizeResult struct {
	Tokens    artifact.Ref `json:"tokens"` // manifest ([Shards]) of Arrow files
	NumRows   int          `json:"num_rows"`
	NumTokens int64        `json:"num_tokens"`
	Truncated int          `json:"truncated"` // rows cut at max_length
	Cached    bool         `json:"cached"`    // an equal share was tokenized before
}

// Tokenize turns the rows of a share into token batches. Equal work (rows, tokenizer, max_length, encoding) is found by
// its key, in this run or another, and verified before it is used.
func (c *CPU) Tokenize(ctx context.Context, in TokenizeInput) (res TokenizeResult, err error) {
	defer func() { err = edge(err) }()
	if err := in.Run.guard(ctx); err != nil {
		return res, err
	}
	dir, err := materialize(ctx, c.Store, c.CacheDir, in.Model)
	if err != nil {
		return res, err
	}
	folder, err := getManifest[Folder](ctx, c.Store, in.Model)
	if err != nil {
		return res, err
	}
	key := "tokens/" + dataset.TokenKey(in.Share.Digest, folder.Files["tokenizer.json"].SHA256, in.MaxLength)
	if found, ok := c.cachedTokens(ctx, key); ok {
		return found, nil
	}
	tok, err := tokenizer.Load(filepath.Join(dir, "tokenizer.json"))
	if err != nil {
		return res, err
	}
	rows, err := getManifest[Shards](ctx, c.Store, in.Share.Rows)
	if err != nil {
		return res, err
	}
	out := Shards{}
	prefix := in.Run.attempt(ctx, in.Run.Key+"/tokenize-"+in.Share.Name)
	for i, shard := range rows.Shards {
		ref, stats, err := c.tokenizeShard(ctx, tok, shard, fmt.Sprintf("%s/%05d.arrow", prefix, i), in)
		if err != nil {
			return res, fmt.Errorf("tokenize %s shard %d: %w", in.Share.Name, i, err)
		}
		out.Shards = append(out.Shards, ref)
		out.Stats = out.Stats.Add(stats)
	}
	ref, err := c.publishTokens(ctx, key, prefix, out)
	if err != nil {
		return res, err
	}
	return tokenized(ref, out, false), nil
}
