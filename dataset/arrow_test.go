package dataset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/google/go-cmp/cmp"
)

// numbered makes rows with texts of many lengths.
func numbered(n int) []Row {
	rows := make([]Row, n)
	for i := range rows {
		rows[i] = Row{Index: int64(n - i), Text: strings.Repeat(fmt.Sprintf("é%d ", i), i%7), Label: i % 2}
	}
	return rows
}

// TestRowsLeak writes and reads rows with arrow's checked allocator.
func TestRowsLeak(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	var out bytes.Buffer
	w, err := newRowWriter(&out, hamSpam, false, mem)
	if err != nil {
		t.Fatal(err)
	}
	want := numbered(2*batchRows + 3)
	for _, row := range want {
		if err := w.Write(row); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	mem.AssertSize(t, 0)
	var got []Row
	err = readRows(bytes.NewReader(out.Bytes()), mem, func(row Row, _ error) bool {
		got = append(got, row)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if err := readRows(bytes.NewReader(out.Bytes()), mem, func(Row, error) bool { return false }); err != nil {
		t.Error(err)
	}
	mem.AssertSize(t, 0)
}

// TestShards: a shard ends at 65,536 rows; the digest knows nothing of shards.
func TestShards(t *testing.T) {
	rows := make([]Row, ShardRows+1)
	for i := range rows {
		rows[i] = Row{Index: int64(i), Text: "x", Label: 1}
	}
	dir := t.TempDir()
	var files []string
	n, _, err := WriteShards(t.Context(), slice(rows), hamSpam, dir, func(path string, rows int) error {
		files = append(files, fmt.Sprintf("%s %d", filepath.Base(path), rows))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"00000.arrow 65536", "00001.arrow 1"}; n != len(rows) || !slices.Equal(files, want) {
		t.Errorf("%d rows in %v, want %v", n, files, want)
	}
	var back []Row
	for i := range files {
		back = append(back, collect(t, ReadRows(filepath.Join(dir, fmt.Sprintf("%05d.arrow", i))))...)
	}
	if !slices.Equal(back, rows) {
		t.Error("other rows come back")
	}
	stop := errors.New("disk full")
	if _, _, err := WriteShards(t.Context(), slice(rows), hamSpam, dir, func(string, int) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v, want %v", err, stop)
	}
}

// TestShardBytes: the same rows give the same bytes.
func TestShardBytes(t *testing.T) {
	var files [2][]byte
	for i := range files {
		dir := t.TempDir()
		if _, _, err := WriteShards(t.Context(), slice(numbered(10_000)), hamSpam, dir, nil); err != nil {
			t.Fatal(err)
		}
		var err error
		if files[i], err = os.ReadFile(filepath.Join(dir, "00000.arrow")); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(files[0], files[1]) {
		t.Error("two runs differ")
	}
}

func tokenize(t *testing.T, rows []Row, mem memory.Allocator) ([]byte, TokenStats) {
	t.Helper()
	var out bytes.Buffer
	tk := tokenizer{enc: bytesEncoder{}, maxLength: 12, mem: mem, progress: func(int) {}}
	stats, err := tk.run(t.Context(), slice(rows), &out)
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), stats
}

// TestTokenizeOrder: any number of cores writes the same bytes, and nothing leaks.
func TestTokenizeOrder(t *testing.T) {
	rows := numbered(5*batchRows + 1)
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	want, stats := tokenize(t, rows, mem)
	mem.AssertSize(t, 0)
	for _, cores := range []int{1, 3, 8} {
		old := runtime.GOMAXPROCS(cores)
		got, _ := tokenize(t, rows, mem)
		runtime.GOMAXPROCS(old)
		if !bytes.Equal(got, want) {
			t.Errorf("%d cores write other bytes", cores)
		}
	}
	wantStats := TokenStats{Lengths: make([]int, 13)}
	for _, row := range rows {
		n := min(len(row.Text)+2, 12)
		wantStats.Rows++
		wantStats.Tokens += int64(n)
		wantStats.Lengths[n]++
		if len(row.Text) > 10 {
			wantStats.Truncated++
		}
	}
	if diff := cmp.Diff(wantStats, stats); diff != "" {
		t.Error(diff)
	}
	half, other := TokenStats{Lengths: []int{0, 1}}, TokenStats{Rows: 1, Tokens: 2, Truncated: 3, Lengths: []int{0, 1, 5}}
	if diff := cmp.Diff(TokenStats{1, 2, 3, []int{0, 2, 5}}, half.Add(other)); diff != "" {
		t.Error(diff)
	}
}

func TestTokensAcrossFiles(t *testing.T) {
	var paths []string
	rows := numbered(3*batchRows + 5)
	for i, part := range [][]Row{rows[:batchRows+1], nil, rows[batchRows+1:]} {
		data, _ := tokenize(t, part, memory.NewGoAllocator())
		paths = append(paths, filepath.Join(t.TempDir(), fmt.Sprint(i)))
		if err := os.WriteFile(paths[i], data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tokens, err := OpenTokens(paths...)
	if err != nil {
		t.Fatal(err)
	}
	if tokens.NumRows() != len(rows) {
		t.Errorf("%d rows, want %d", tokens.NumRows(), len(rows))
	}
	for i, row := range rows {
		if want := (bytesEncoder{}).AppendIDs(nil, row.Text, 12); !slices.Equal(tokens.IDs(i), want) || tokens.Row(i) != row.Index || tokens.Label(i) != int64(row.Label) {
			t.Fatalf("row %d: %v", i, tokens.IDs(i))
		}
	}
	if err := tokens.Close(); err != nil {
		t.Error(err)
	}
}

// TestBrokenTokens: files that are not what Tokenize writes are refused by name.
func TestBrokenTokens(t *testing.T) {
	good, _ := tokenize(t, numbered(10), memory.NewGoAllocator())
	var rows bytes.Buffer
	w, err := NewRowWriter(&rows, hamSpam, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"empty": {}, "short": good[:5], "truncated": good[:len(good)-20], "headless": good[64:], "rows": rows.Bytes(), "text": []byte("ham\tno arrow at all"),
	} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := OpenTokens(path)
		if e, ok := errors.AsType[*SourceError](err); !ok || e.Source != path {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// failing is an encoder that panics at a text.
type failing struct{}

func (failing) AppendIDs(dst []int32, text string, _ int) []int32 {
	if text == "" {
		panic("no text")
	}
	return append(dst, 1)
}

func (f failing) AppendPair(ids []int32, types []int8, text, _ string, _ int) ([]int32, []int8) {
	return f.AppendIDs(ids, text, 0), append(types, 0)
}

func TestTokenizeErrors(t *testing.T) {
	rows := numbered(3 * batchRows)
	source := errors.New("source")
	bad := func(yield func(Row, error) bool) { _ = yield(rows[1], nil) && yield(Row{}, source) }
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	full := errors.New("disk full")
	for name, c := range map[string]struct {
		ctx  context.Context
		rows iter.Seq2[Row, error]
		enc  Encoder
		w    writerFunc
		want string
	}{
		"source":  {t.Context(), bad, bytesEncoder{}, nil, "source"},
		"encoder": {t.Context(), slice(rows), failing{}, nil, fmt.Sprintf("tokenize row %d: no text", len(rows))},
		"context": {cancelled, slice(rows), bytesEncoder{}, nil, "context canceled"},
		"writer":  {t.Context(), slice(rows), bytesEncoder{}, func([]byte) (int, error) { return 0, full }, "disk full"},
	} {
		if c.w == nil {
			c.w = func(b []byte) (int, error) { return len(b), nil }
		}
		_, err := Tokenize(c.ctx, c.rows, c.enc, 8, c.w, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestTokenKey(t *testing.T) {
	keys := map[string]bool{}
	for _, rows := range []string{"a", "b"} {
		for _, tok := range []string{"a", "b"} {
			for _, n := range []int{1, 64} {
				keys[TokenKey(rows, tok, n)] = true
			}
		}
	}
	if len(keys) != 8 {
		t.Errorf("%d keys, want 8", len(keys))
	}
	const want = "9dc5c5afd19a7b87e7cd4077e02b448d5b24d89b1bbc6ec34be72089dbaa3983" // of version 1: equal work of an older build is found
	if got := TokenKey("a", "b", 64); got != want {
		t.Errorf("key %s, want %s", got, want)
	}
}

// TestPyArrow: Python reads what is written (internal/py/dataset/read.py).
func TestPyArrow(t *testing.T) {
	python := os.Getenv("DURATUNE_PEERS")
	if python == "" {
		t.Skip("peers: DURATUNE_PEERS is not set")
	}
	rows := numbered(batchRows + 2)
	dir := t.TempDir()
	if _, _, err := WriteShards(t.Context(), slice(rows), hamSpam, dir, nil); err != nil {
		t.Fatal(err)
	}
	data, _ := tokenize(t, rows, memory.NewGoAllocator())
	if err := os.WriteFile(filepath.Join(dir, "tokens.arrow"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), python, "../internal/py/dataset/read.py", filepath.Join(dir, "00000.arrow"), filepath.Join(dir, "tokens.arrow")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := fmt.Sprintf("rows ['ham', 'spam'] %d\ntokens %d\n", len(rows), len(rows))
	if string(out) != want {
		t.Errorf("got %s, want %s", out, want)
	}
}
