package activities

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/duratune/duratune/dataset"
	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/tokenizer"
	"github.com/duratune/duratune/internal/train"
)

// TestPairsOfARecipe: data.text_pair brings both texts from the source to what the engine is given, and the tokens of a pair are not taken for those of its first text alone.
func TestPairsOfARecipe(t *testing.T) {
	b := newSourceBench(t)
	var rows strings.Builder
	rows.WriteString("label,text,other\n")
	for i := range 40 {
		fmt.Fprintf(&rows, "%s,free entry %d to all human beings,equal in dignity %d\n", testLabels[i%2], i%7, i)
	}
	b.put(t, "pairs.csv", rows.String())
	split, err := b.load(t, recipe.Data{Source: "s3://team-a/pairs.csv", TextPair: "other"})
	if err != nil || split.Train.NumRows != 30 || split.Test.NumRows != 10 || split.Overlap != 0 {
		t.Fatalf("%+v, %v", split, err)
	}
	base, err := b.fetch(t, "s3://team-a/"+b.uploadBase(t), 16)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := b.tokenize(t, TokenizeInput{Share: split.Train, Model: base.Model, MaxLength: 12})
	if err != nil || tokens.NumRows != 30 || tokens.Truncated == 0 {
		t.Fatalf("%+v, %v", tokens, err)
	}
	checkPairTokens(t, b, split.Train, tokens.Tokens)

	single, err := b.load(t, recipe.Data{Source: "s3://team-a/pairs.csv"})
	if err != nil || single.Duplicates == 0 || single.Train.Digest == split.Train.Digest {
		t.Fatalf("the first texts alone: %+v, %v", single, err)
	}
	if again, err := b.tokenize(t, TokenizeInput{Share: single.Train, Model: base.Model, MaxLength: 12}); err != nil || again.Cached {
		t.Errorf("%+v, %v: the tokens of the pairs were taken for those of the first texts", again, err)
	}
	_, err = b.load(t, recipe.Data{Source: "s3://team-a/pairs.csv", TextPair: "none"})
	wantType(t, err, TypeDatasetInvalid, false)
}

// checkPairTokens compares the tokens of a share with those of its rows.
func checkPairTokens(t *testing.T, b *sourceBench, share Share, ref artifact.Ref) {
	t.Helper()
	g := &GPU{Store: b.cpu.Store, CacheDir: b.cpu.CacheDir}
	shards, err := getManifest[Shards](t.Context(), g.Store, share.Rows)
	if err != nil {
		t.Fatal(err)
	}
	path, err := artifact.Fetch(t.Context(), g.Store, shards.Shards[0], filepath.Join(g.CacheDir, "objects"))
	if err != nil {
		t.Fatal(err)
	}
	var texts []recipe.Text
	for row, err := range dataset.ReadRows(path) {
		if err != nil || row.Pair == "" {
			t.Fatalf("%+v, %v", row, err)
		}
		texts = append(texts, recipe.Text{Text: row.Text, Pair: row.Pair})
	}
	tokens, err := g.tokens(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	defer tokens.Close()
	tok, err := tokenizer.Load(filepath.Join(b.base, tokenizerFile))
	if err != nil {
		t.Fatal(err)
	}
	inputs, _ := batchOf(tokens)
	want := encode(tok, texts, 12)
	same := func(a, b train.Sequence) bool { return slices.Equal(a.IDs, b.IDs) && slices.Equal(a.Types, b.Types) }
	if !slices.EqualFunc(inputs, want, same) {
		t.Errorf("tokens are %v\nwant %v", inputs, want)
	}
	for i, in := range inputs {
		e := tok.EncodePair(texts[i].Text, texts[i].Pair, 12)
		if in.Types[0] != 0 || in.Types[len(in.Types)-1] != 1 || len(in.IDs) != len(e.Ids) {
			t.Errorf("%+v: %+v", texts[i], in)
		}
	}
}

// TestPairTypesOfAModel: a BERT with a single token type cannot take the pairs of its tokenizer; that is said before it is fetched.
func TestPairTypesOfAModel(t *testing.T) {
	dir := t.TempDir()
	copyFile(t, filepath.Join("..", "internal", "tokenizer", "testdata", "wordpiece.json"), filepath.Join(dir, tokenizerFile))
	writeFile(t, filepath.Join(dir, configFile), `{"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8,
		"vocab_size": 1000, "max_position_embeddings": 16, "type_vocab_size": 1, "hidden_act": "gelu", "pad_token_id": 0}`)
	in := FetchModelInput{Model: recipe.Model{Base: "file:m"}, Labels: testLabels, MaxLength: 16, Pairs: true}
	if _, _, err := checkModel(in, dir); err == nil || !strings.Contains(err.Error(), "gives pairs of texts 2 token types, but the model has 1 (type_vocab_size)") {
		t.Errorf("pairs: got %v", err)
	}
	in.Pairs = false
	if _, _, err := checkModel(in, dir); err == nil || strings.Contains(err.Error(), "type_vocab_size") {
		t.Errorf("single texts: got %v, want what the missing weights give", err)
	}
}

var _ dataset.Encoder = (*tokenizer.Tokenizer)(nil)
