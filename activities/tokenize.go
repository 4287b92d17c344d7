package activities

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.temporal.io/sdk/activity"

	"github.com/duratune/duratune/dataset"
	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/tokenizer"
)

// TokenizeInput is a share and the tokenizer. A share of several Arrow files is tokenized in parts, which a last call joins.
type TokenizeInput struct {
	Run       Run            `json:"run"`
	Share     Share          `json:"share"`
	Model     artifact.Ref   `json:"model"` // manifest of the base model
	MaxLength int            `json:"max_length"`
	Part      *Part          `json:"part,omitempty"`  // only these files of the share; nil: all
	Parts     []artifact.Ref `json:"parts,omitempty"` // tokens of all parts in order, to be joined
}

// Part is a range of a share's Arrow files.
type Part struct {
	From int `json:"from"`
	To   int `json:"to"` // exclusive
}

// Parts cuts the share's Arrow files into at most n parts of about the same size.
func (s Share) Parts(n int) []Part {
	n = min(n, s.Shards)
	parts := make([]Part, n)
	for i := range parts {
		parts[i] = Part{i * s.Shards / n, (i + 1) * s.Shards / n}
	}
	return parts
}

// TokenizeResult is the tokenized share.
type TokenizeResult struct {
	Tokens    artifact.Ref `json:"tokens"` // manifest ([Shards]) of Arrow files
	NumRows   int          `json:"num_rows"`
	NumTokens int64        `json:"num_tokens"`
	Truncated int          `json:"truncated"` // rows cut at max_length
	Cached    bool         `json:"cached"`    // an equal share was tokenized before
}

// Tokenize turns the rows of a share, or of a part of it, into token batches. Equal work (rows, tokenizer, max_length,
// encoding) is found by its key, in this run or another, and verified before it is used.
func (c *CPU) Tokenize(ctx context.Context, in TokenizeInput) (res TokenizeResult, err error) {
	defer func() { err = edge(err) }()
	if err := in.Run.guard(ctx); err != nil {
		return res, err
	}
	folder, err := getManifest[Folder](ctx, c.Store, in.Model)
	if err != nil {
		return res, err
	}
	rows, err := getManifest[Shards](ctx, c.Store, in.Share.Rows)
	if err != nil {
		return res, err
	}
	shards, digest := rows.Shards, in.Share.Digest
	if in.Part != nil {
		if in.Part.From < 0 || in.Part.From > in.Part.To || in.Part.To > len(shards) {
			return res, fmt.Errorf("%s has %d shards, not %d to %d: %w", in.Share.Name, len(shards), in.Part.From, in.Part.To, artifact.ErrNotFound)
		}
		shards = shards[in.Part.From:in.Part.To]
		digest = digestOf(shards)
	}
	key := "tokens/" + dataset.TokenKey(digest, folder.Files[tokenizerFile].SHA256, in.MaxLength)
	if len(in.Parts) > 0 {
		return c.joinTokens(ctx, key, in)
	}
	if res, err = c.cachedTokens(ctx, key); err == nil {
		return res, nil
	}
	if !errors.Is(err, artifact.ErrNotFound) && !corrupt(err) {
		return res, err
	}
	return c.tokenizeShards(ctx, key, shards, in)
}

// digestOf identifies rows by the files that they are in.
func digestOf(shards []artifact.Ref) string {
	h := sha256.New()
	for _, shard := range shards {
		io.WriteString(h, shard.SHA256+"\n") //nolint:errcheck // a hash takes everything
	}
	return hex.EncodeToString(h.Sum(nil))
}

// tokenizeShards does the work and publishes it.
func (c *CPU) tokenizeShards(ctx context.Context, key string, shards []artifact.Ref, in TokenizeInput) (res TokenizeResult, err error) {
	dir, err := materialize(ctx, c.Store, c.CacheDir, c.Scratch, in.Model)
	if err != nil {
		return res, err
	}
	tok, err := tokenizer.Load(filepath.Join(dir, tokenizerFile))
	if err != nil {
		return res, err
	}
	var out Shards
	prefix := in.prefix(ctx, key)
	for i, shard := range shards {
		ref, stats, err := c.tokenizeShard(ctx, tok, shard, fmt.Sprintf("%s/%05d.arrow", prefix, i), func(rows int) {
			done := float64(i) + float64(rows)/dataset.ShardRows
			beat(ctx, Heartbeat{Phase: "tokenize " + in.Share.Name, Percent: 100 * done / float64(len(shards))})
		}, in.MaxLength)
		if err != nil {
			return res, fmt.Errorf("tokenize %s shard %d: %w", in.Share.Name, i, err)
		}
		out.Shards = append(out.Shards, ref)
		out.Stats = out.Stats.Add(stats)
	}
	return c.publishTokens(ctx, key, in, out)
}

// joinTokens makes one share of the tokens of its parts, which have been verified.
func (c *CPU) joinTokens(ctx context.Context, key string, in TokenizeInput) (TokenizeResult, error) {
	var out Shards
	for i, part := range in.Parts {
		tokens, err := getManifest[Shards](ctx, c.Store, part)
		if err != nil {
			return TokenizeResult{}, fmt.Errorf("tokens of %s, part %d: %w", in.Share.Name, i, err)
		}
		out.Shards = append(out.Shards, tokens.Shards...)
		out.Stats = out.Stats.Add(tokens.Stats)
	}
	if out.Stats.Rows != in.Share.NumRows {
		return TokenizeResult{}, fmt.Errorf("tokens of %s: %d rows in %d parts, want %d: %w", in.Share.Name, out.Stats.Rows, len(in.Parts), in.Share.NumRows, artifact.ErrCorrupt)
	}
	return c.publishTokens(ctx, key, in, out)
}

// The manifest of a share's tokens is written once, beside them. What is found by the key is its Ref: a run goes on with the
// manifest that it was given, whoever does the same work again meanwhile.

// cachedTokens finds an equal share that was tokenized before and verifies its shards. ErrNotFound: there is none.
func (c *CPU) cachedTokens(ctx context.Context, key string) (TokenizeResult, error) {
	body, found, err := c.Store.Get(ctx, key+tokensIndex, maxManifest)
	if err != nil {
		return TokenizeResult{}, err
	}
	var ref artifact.Ref
	if err := json.Unmarshal(body, &ref); err != nil {
		return TokenizeResult{}, fmt.Errorf("%s: %w: %w", found.URI, artifact.ErrCorrupt, err)
	}
	shards, err := getManifest[Shards](ctx, c.Store, ref)
	if err != nil {
		return TokenizeResult{}, err
	}
	for _, shard := range shards.Shards {
		if _, err := artifact.Fetch(ctx, c.Store, shard, filepath.Join(c.CacheDir, Objects)); err != nil {
			return TokenizeResult{}, err
		}
		beat(ctx, Heartbeat{Phase: "verify cached tokens"})
	}
	return tokenized(ref, shards, true), nil
}

// tokensIndex is the Ref of the tokens that a key stands for, below the key.
const tokensIndex = "/latest.json"

// publishTokens makes the shards findable by their key. Whoever comes second finds equal tokens and uses those; an entry
// that did not verify is replaced.
func (c *CPU) publishTokens(ctx context.Context, key string, in TokenizeInput, out Shards) (TokenizeResult, error) {
	ref, err := putManifest(ctx, c.Store, in.prefix(ctx, key), out)
	if err != nil {
		return TokenizeResult{}, err
	}
	body, err := json.Marshal(ref)
	if err != nil {
		return TokenizeResult{}, fmt.Errorf("manifest: %w", err)
	}
	_, err = c.Store.Put(ctx, key+tokensIndex, bytes.NewReader(body), nil)
	return tokenized(ref, out, false), err
}

// prefix is where this attempt writes.
func (in TokenizeInput) prefix(ctx context.Context, key string) string {
	return fmt.Sprintf("%s/%s-%03d", key, in.Run.Key, activity.GetInfo(ctx).Attempt)
}

// tokenizeShard turns one Arrow file of rows into one of tokens and stores it under key.
func (c *CPU) tokenizeShard(ctx context.Context, tok *tokenizer.Tokenizer, shard artifact.Ref, key string, progress func(rows int), maxLength int) (artifact.Ref, dataset.TokenStats, error) {
	var stats dataset.TokenStats
	local, err := artifact.Fetch(ctx, c.Store, shard, filepath.Join(c.CacheDir, Objects))
	if err != nil {
		return artifact.Ref{}, stats, err
	}
	f, err := os.CreateTemp(c.Scratch, "tokens-")
	if err != nil {
		return artifact.Ref{}, stats, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	stats, err = dataset.Tokenize(ctx, dataset.ReadRows(local), tok, maxLength, f, progress)
	if err != nil {
		return artifact.Ref{}, stats, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return artifact.Ref{}, stats, err
	}
	ref, err := c.Store.Put(ctx, key, f, func(int64) { beat(ctx, Heartbeat{Phase: "store tokens"}) })
	return ref, stats, err
}

func tokenized(ref artifact.Ref, s Shards, cached bool) TokenizeResult {
	return TokenizeResult{Tokens: ref, NumRows: s.Stats.Rows, NumTokens: s.Stats.Tokens, Truncated: s.Stats.Truncated, Cached: cached}
}
