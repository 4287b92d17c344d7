package activities

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/testsuite"

	"github.com/duratune/duratune/dataset"
	"github.com/duratune/duratune/internal/artifact"
)

// putShards stores rows as a share of n files.
func (b *sourceBench) putShards(t *testing.T, rows, n int) Share {
	t.Helper()
	share := Share{Name: "train", NumRows: rows, Shards: n, Digest: strings.Repeat("d", 64)}
	var shards Shards
	for s := range n {
		seq := func(yield func(dataset.Row, error) bool) {
			for i := s * rows / n; i < (s+1)*rows/n; i++ {
				if !yield(dataset.Row{Index: int64(i), Text: fmt.Sprintf("hello row %d of many", i), Label: i % 2}, nil) {
					return
				}
			}
		}
		_, _, err := dataset.WriteShards(t.Context(), seq, testLabels, t.TempDir(), func(path string, _ int) error {
			ref, err := putFile(t.Context(), b.cpu.Store, fmt.Sprintf("rows/%d/%05d.arrow", n, s), path, nil)
			shards.Shards = append(shards.Shards, ref)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if share.Rows, err = putManifest(t.Context(), b.cpu.Store, fmt.Sprint("rows/", n), shards); err != nil {
		t.Fatal(err)
	}
	return share
}

// tokenize runs one Tokenize.
func (b *sourceBench) tokenize(t *testing.T, in TokenizeInput) (TokenizeResult, error) {
	t.Helper()
	in.Run = b.next()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.RegisterActivity(b.cpu)
	v, err := env.ExecuteActivity(b.cpu.Tokenize, in)
	var res TokenizeResult
	if err == nil {
		err = v.Get(&res)
	}
	return res, err
}

// tokenDigests are the digests of a share's token files, in order.
func (b *sourceBench) tokenDigests(t *testing.T, ref artifact.Ref) (digests []string) {
	t.Helper()
	shards, err := getManifest[Shards](t.Context(), b.cpu.Store, ref)
	if err != nil {
		t.Fatal(err)
	}
	for _, shard := range shards.Shards {
		digests = append(digests, shard.SHA256)
	}
	return digests
}

// TestTokenizeInParts: parts joined are the same tokens as the share in one go; they are found again, a damaged part is
// made anew, and another length or tokenizer is other work.
func TestTokenizeInParts(t *testing.T) {
	b := newSourceBench(t)
	model, err := b.fetch(t, "s3://team-a/"+b.uploadBase(t), 16)
	if err != nil {
		t.Fatal(err)
	}
	in := TokenizeInput{Share: b.putShards(t, 700, 5), Model: model.Model, MaxLength: 12}
	whole, err := b.tokenize(t, in)
	if err != nil || whole.Cached || whole.NumRows != 700 {
		t.Fatalf("%+v, %v", whole, err)
	}
	parts := func(cached ...bool) (joined TokenizeResult) {
		t.Helper()
		join := in
		for i, part := range in.Share.Parts(2) {
			one := in
			one.Part = &part
			res, err := b.tokenize(t, one)
			if err != nil || res.Cached != cached[i] {
				t.Fatalf("part %+v: %+v, %v; want cached %t", part, res, err, cached[i])
			}
			join.Parts = append(join.Parts, res.Tokens)
		}
		if joined, err = b.tokenize(t, join); err != nil {
			t.Fatal(err)
		}
		return joined
	}
	first := parts(false, false)
	if diff := gocmp.Diff(b.tokenDigests(t, whole.Tokens), b.tokenDigests(t, first.Tokens)); diff != "" || first.NumTokens != whole.NumTokens || first.NumRows != 700 {
		t.Errorf("%+v, -whole +parts\n%s", first, diff)
	}
	second := parts(true, true)
	b.damage(t, second.Tokens)
	third := parts(false, true)
	if diff := gocmp.Diff(b.tokenDigests(t, first.Tokens), b.tokenDigests(t, third.Tokens)); diff != "" {
		t.Errorf("after damage: %s", diff)
	}
	again, err := b.tokenize(t, in)
	if err != nil || !again.Cached {
		t.Errorf("the share in one go: %+v, %v; want it cached", again, err)
	}
	for name, ref := range map[string]artifact.Ref{"first": first.Tokens, "second": second.Tokens, "whole": whole.Tokens} {
		if _, err := getManifest[Shards](t.Context(), b.cpu.Store, ref); err != nil {
			t.Errorf("the manifest that the %s run was given is gone: %v", name, err)
		}
	}
	in.MaxLength = 11
	if shorter, err := b.tokenize(t, in); err != nil || shorter.Cached {
		t.Errorf("another max_length: %+v, %v", shorter, err)
	}
	in.MaxLength = 12
	changed, err := b.fetch(t, "s3://team-a/"+b.uploadChanged(t), 16)
	if err != nil {
		t.Fatal(err)
	}
	in.Model = changed.Model
	if other, err := b.tokenize(t, in); err != nil || other.Cached {
		t.Errorf("another tokenizer: %+v, %v", other, err)
	}
}

// TestPartsCover: parts are contiguous, not empty, and as many as wanted or as there are files.
func TestPartsCover(t *testing.T) {
	for shards := 1; shards < 40; shards++ {
		next := 0
		parts := Share{Shards: shards}.Parts(16)
		for _, p := range parts {
			if p.From != next || p.To <= p.From {
				t.Errorf("%d shards: %v", shards, parts)
			}
			next = p.To
		}
		if next != shards || len(parts) != min(16, shards) {
			t.Errorf("%d shards: %v", shards, parts)
		}
	}
}

// TestTokenizeRefusesWrongParts: parts that are not the share, or no part of it, are an error.
func TestTokenizeRefusesWrongParts(t *testing.T) {
	b := newSourceBench(t)
	model, err := b.fetch(t, "s3://team-a/"+b.uploadBase(t), 16)
	if err != nil {
		t.Fatal(err)
	}
	in := TokenizeInput{Share: b.putShards(t, 60, 3), Model: model.Model, MaxLength: 12, Part: &Part{0, 2}}
	part, err := b.tokenize(t, in)
	if err != nil {
		t.Fatal(err)
	}
	join := in
	join.Part, join.Parts = nil, []artifact.Ref{part.Tokens}
	_, err = b.tokenize(t, join)
	wantType(t, err, TypeArtifactCorrupt, true)
	in.Part = &Part{1, 4}
	_, err = b.tokenize(t, in)
	wantType(t, err, TypeArtifactMissing, false)
}

// uploadBase puts the base model into the bucket and returns its prefix.
func (b *sourceBench) uploadBase(t *testing.T) string {
	t.Helper()
	b.putDir(t, "base", b.base)
	return "base"
}

// uploadChanged puts the base model with a tokenizer.json of other bytes into the bucket.
func (b *sourceBench) uploadChanged(t *testing.T) string {
	t.Helper()
	b.putDir(t, "changed", b.base, tokenizerFile)
	body, err := os.ReadFile(filepath.Join(b.base, tokenizerFile))
	if err != nil {
		t.Fatal(err)
	}
	b.put(t, "changed/"+tokenizerFile, string(body)+"\n")
	return "changed"
}

// damage overwrites the first token file of a share in the store, and forgets the local copy.
func (b *sourceBench) damage(t *testing.T, ref artifact.Ref) {
	t.Helper()
	shards, err := getManifest[Shards](t.Context(), b.cpu.Store, ref)
	if err != nil {
		t.Fatal(err)
	}
	_, key, _ := strings.Cut(shards.Shards[0].URI, "tokens/")
	if _, err := b.cpu.Store.Put(t.Context(), "tokens/"+key, strings.NewReader("damaged"), nil); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(b.cpu.CacheDir, Objects)); err != nil {
		t.Fatal(err)
	}
}
