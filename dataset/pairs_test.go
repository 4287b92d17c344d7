package dataset

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// readPairs reads one file of pairs with columns a, b and label.
func readPairs(t *testing.T, name, content string, rejects *Rejects) ([]Row, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	opt := Options{Text: "a", Pair: "b", Label: "label", Labels: hamSpam, MaxRow: 40, Rejects: rejects}
	if strings.Contains(name, "/") {
		opt.Format = FormatFolder
	}
	var rows []Row
	for row, err := range Read(t.Context(), LocalFiles(path), opt) {
		if err != nil {
			return rows, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func TestReadPairs(t *testing.T) {
	want := []Row{{Text: "x", Pair: "y, z", Label: 0}, {Index: 1, Text: "y", Pair: "x", Label: 1}}
	for name, content := range map[string]string{
		"rows.csv":   "label,a,b\nham,x,\"y, z\"\nspam,y,x\n",
		"rows.jsonl": `{"a": "x", "b": "y, z", "label": "ham"}` + "\n" + `{"b": "x", "a": "y", "label": 1}`,
	} {
		rows, err := readPairs(t, name, content, nil)
		if diff := cmp.Diff(want, rows); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
}

// TestReadPairsRefuses: what is wrong with a second text is told as of a first, by its column.
func TestReadPairsRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ file, content, want string }{
		"no column":     {"r.csv", "label,a\nham,x\n", `no column "b"; the columns are "label", "a"`},
		"empty":         {"r.csv", "label,a,b\nham,x,\n", `row 1 (line 2): column "b": the text is empty`},
		"white space":   {"r.csv", "label,a,b\nham,x, \n", `column "b": the text is white space alone`},
		"NUL":           {"r.csv", "label,a,b\nham,x,y\x00\n", `column "b": NUL byte at offset 1`},
		"not UTF-8":     {"r.csv", "label,a,b\nham,x,y\xff\n", `column "b": invalid UTF-8: byte 0xff at offset 1`},
		"too long":      {"r.csv", "label,a,b\nham,x,\"" + strings.Repeat("y\n", 25) + "\"\n", "longer than 40 bytes"},
		"missing":       {"r.jsonl", `{"a": "x", "label": "ham"}`, `column "b": the row has no text`},
		"null":          {"r.jsonl", `{"a": "x", "b": null, "label": "ham"}`, `column "b": the row has no text`},
		"a number":      {"r.jsonl", `{"a": "x", "b": 7, "label": "ham"}`, `column "b": the text is not a string`},
		"a list":        {"r.jsonl", `{"a": "x", "b": ["y"], "label": "ham"}`, `column "b": the text is not a string`},
		"label and tab": {"r.tsv", "ham\tx\n", "label<TAB>text has no further columns: no second text"},
		"folder":        {"ham/1.txt", "x", "a folder of texts has no column of second texts"},
	} {
		if _, err := readPairs(t, tc.file, tc.content, nil); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %s", name, err, tc.want)
		}
	}
	var kept bytes.Buffer
	rejects := &Rejects{MaxShare: 0.5, Keep: &kept}
	rows, err := readPairs(t, "r.jsonl", `{"a": "x", "b": "y", "label": 0}`+"\n"+`{"a": "x", "b": " ", "label": 0}`+"\n"+`{"a": "x", "b": "z", "label": 1}`, rejects)
	if err != nil || len(rows) != 2 || rejects.Kinds[KindEmptyText] != 1 || !strings.Contains(kept.String(), `"column":"b","kind":"empty text","reason":"the text is white space alone","text":"x","text_pair":" "`) {
		t.Errorf("%d rows, %v, kept %s", len(rows), err, kept.String())
	}
	for file, want := range map[string]string{"large_string_int32_gzip.parquet": `column "label" is of type INT32, not a string`, "zstd_large_string_uint8.arrow": `column "label" is of type uint8, not a string`} {
		files := LocalFiles(filepath.Join("testdata", "golden", file))
		for _, err := range Read(t.Context(), files, Options{Text: "text", Pair: "label", Label: "label", Labels: hamSpam}) {
			if err == nil || !strings.HasSuffix(err.Error(), want) {
				t.Errorf("%s: got %v, want %s", file, err, want)
			}
		}
	}
}

// pairs makes n rows whose first text repeats, and whose second does not but for case.
func pairs(n int) []Row {
	rows := make([]Row, n)
	for i := range rows {
		rows[i] = Row{Index: int64(i), Text: fmt.Sprint("a", i%3), Pair: fmt.Sprintf("b %d", i/2), Label: i % 2}
		if i%2 == 1 {
			rows[i].Text, rows[i].Pair = rows[i-1].Text, strings.ToUpper(rows[i].Pair)
		}
	}
	return rows
}

// TestPairsThroughTheChain splits, stores and tokenizes pairs: both texts come out as they went in, with a type for each token.
func TestPairsThroughTheChain(t *testing.T) {
	rows := pairs(60)
	split, err := SplitRows(t.Context(), slice(rows), SplitSpec{TestFraction: 0.25, SplitSeed: 1, ShuffleSeed: 2, Labels: hamSpam})
	if err != nil {
		t.Fatal(err)
	}
	defer split.Close()
	if split.Duplicates != 0 || split.Overlap != 0 {
		t.Errorf("%d duplicates, %d of the test's texts in train; pairs are equal only where both texts are", split.Duplicates, split.Overlap)
	}
	dir := t.TempDir()
	n, digest, err := WriteShards(t.Context(), split.Train.Rows(), hamSpam, dir, nil)
	if err != nil || n != 45 || digest != pairsDigest {
		t.Fatalf("%d rows, digest %s, %v", n, digest, err)
	}
	stored := collect(t, ReadRows(filepath.Join(dir, "00000.arrow")))
	if diff := cmp.Diff(collect(t, split.Train.Rows()), stored); diff != "" {
		t.Error(diff)
	}
	want := map[[2]string]bool{}
	for _, row := range rows {
		want[[2]string{row.Text, row.Pair}] = true
	}
	for _, row := range stored {
		if !want[[2]string{row.Text, row.Pair}] {
			t.Errorf("%q with %q is no row of the source", row.Text, row.Pair)
		}
	}
	checkPairTokens(t, stored)
}

// pairsDigest is of the training rows: what it stands for must not change.
const pairsDigest = "5eef3ad79f3f52060033b8daf40ad6cb6bd3f11a80d86a21d9d94d1e9df6f0f1"

func checkPairTokens(t *testing.T, rows []Row) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens.arrow")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const maxLength = 8
	stats, err := Tokenize(t.Context(), slice(rows), bytesEncoder{}, maxLength, f, nil)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := OpenTokens(path)
	if err != nil {
		t.Fatal(err)
	}
	defer tokens.Close()
	truncated := 0
	for i, row := range rows {
		ids, types := bytesEncoder{}.AppendPair(nil, nil, row.Text, row.Pair, maxLength)
		if !slices.Equal(tokens.IDs(i), ids) || !slices.Equal(tokens.Types(i), types) || tokens.Row(i) != row.Index || tokens.Label(i) != int64(row.Label) {
			t.Errorf("row %d: ids %v, types %v", i, tokens.IDs(i), tokens.Types(i))
		}
		if len(row.Text)+len(row.Pair)+3 > maxLength {
			truncated++
		}
	}
	if tokens.NumRows() != len(rows) || stats.Rows != len(rows) || stats.Truncated != truncated || truncated == 0 {
		t.Errorf("%d rows, stats %+v, want %d truncated", tokens.NumRows(), stats, truncated)
	}
}

func TestDedupePairs(t *testing.T) {
	rows := append(pairs(60), pairs(2)...)
	for dedupe, want := range map[Dedupe]int{DedupeNone: 0, DedupeExact: 2, DedupeNormalised: 32} {
		split, err := SplitRows(t.Context(), slice(rows), SplitSpec{TestFraction: 0.25, Labels: hamSpam, Dedupe: dedupe})
		if err != nil {
			t.Fatal(err)
		}
		if split.Deduped != want || split.Duplicates != 2 {
			t.Errorf("%s: %d rows left out, %d duplicates, want %d and 2", dedupe, split.Deduped, split.Duplicates, want)
		}
		if err := split.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestPairsAreTheirOwn: no pair has the key of another, or of a single text, that is cut at another place.
func TestPairsAreTheirOwn(t *testing.T) {
	rows := []Row{{Text: "ab"}, {Text: "a", Pair: "b"}, {Text: "ab", Pair: "c"}, {Text: "a", Pair: "bc"}, {Text: "a", Pair: "b", Group: "c"}, {Text: "abc"}}
	keys, texts, digests := map[hashKey]bool{}, map[hashKey]bool{}, map[string]bool{}
	for _, row := range rows {
		keys[contentKey("ham", row)] = true
		texts[newBody(nil, row).textKey(verbatim)] = true
		_, digest, err := WriteShards(t.Context(), slice([]Row{row}), hamSpam, t.TempDir(), nil)
		if err != nil {
			t.Fatal(err)
		}
		digests[digest] = true
	}
	if len(keys) != 6 || len(texts) != 5 || len(digests) != 5 {
		t.Errorf("%d keys, %d texts, %d digests, want 6, 5 and 5", len(keys), len(texts), len(digests))
	}
}
