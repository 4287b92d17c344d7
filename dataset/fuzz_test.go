package dataset

import (
	"bytes"
	stdcsv "encoding/csv"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow/go/v17/arrow/memory"
)

// memFile is a file in memory.
type memFile struct {
	*bytes.Reader
	name string
}

func (f memFile) Stat() (fs.FileInfo, error) { return memInfo(f), nil }
func (f memFile) Close() error               { return nil }

type memInfo memFile

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.Reader.Size() }
func (i memInfo) Mode() fs.FileMode  { return 0o444 }
func (i memInfo) ModTime() time.Time { return time.Time{} }
func (i memInfo) IsDir() bool        { return false }
func (i memInfo) Sys() any           { return nil }

func inMemory(name string, data []byte) []File {
	return []File{{Name: name, Open: func() (fs.File, error) { return memFile{bytes.NewReader(data), name}, nil }}}
}

// seed adds the golden files that match, and some text.
func seed(f *testing.F, patterns ...string) {
	for _, pattern := range patterns {
		paths, err := filepath.Glob("testdata/golden/" + pattern)
		if err != nil || len(paths) == 0 {
			f.Fatalf("no seed %s, %v", pattern, err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
}

// checkRead reads data to its end: rows are usable, errors are of the two kinds and name the file.
func checkRead(t *testing.T, format string, data []byte) (rows []Row, err error) {
	opt := Options{Format: format, Text: "text", Label: "label", Labels: hamSpam, MaxRow: 1 << 16, MaxBytes: 1 << 22}
	for row, err := range Read(t.Context(), inMemory("f", data), opt) {
		if err != nil {
			_, isRow := errors.AsType[*RowError](err)
			_, isSource := errors.AsType[*SourceError](err)
			if !isRow && !isSource || !strings.HasPrefix(err.Error(), "f: ") {
				t.Fatalf("error %T: %v", err, err)
			}
			return rows, err
		}
		if !utf8.ValidString(row.Text) || strings.ContainsRune(row.Text, 0) || row.Label < 0 || row.Label > 1 || row.Index != int64(len(rows)) {
			t.Fatalf("row %+v", row)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func FuzzTSV(f *testing.F) {
	seed(f, "plain.tsv", "plain_bom*")
	f.Add([]byte("ham\t\"a\n\r\n\nspam\t\t b \r"))
	f.Fuzz(func(t *testing.T, data []byte) { checkRead(t, FormatTSV, data) })
}

func FuzzJSONL(f *testing.F) {
	seed(f, "*.jsonl", "*.ndjson", "duckdb.json")
	f.Add([]byte(`{"text":"\ud800","label":1.0}` + "\n" + `{"text":"x","label":true,"text":"y"}`))
	f.Fuzz(func(t *testing.T, data []byte) { checkRead(t, FormatJSONL, data) })
}

// FuzzCSV also compares with encoding/csv where the two mean the same.
func FuzzCSV(f *testing.F) {
	seed(f, "*.csv")
	f.Add([]byte("label,text\nham,\"a\"\"b\n\"\nspam,c\"d\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		rows, err := checkRead(t, FormatCSV, data)
		if err != nil || bytes.ContainsRune(data, '\r') {
			return // encoding/csv drops carriage returns
		}
		r := stdcsv.NewReader(bytes.NewReader(bytes.TrimPrefix(data, bom)))
		r.LazyQuotes = true
		want, err := r.ReadAll()
		if err != nil || len(want) != len(rows)+1 {
			t.Fatalf("%d rows, encoding/csv %d and %v", len(rows), len(want)-1, err)
		}
		for i, row := range rows {
			for c, name := range want[0] {
				if name == "text" && want[i+1][c] != row.Text {
					t.Fatalf("row %d: %q, encoding/csv %q", i, row.Text, want[i+1][c])
				}
			}
		}
	})
}

func FuzzParquet(f *testing.F) {
	seed(f, "*.parquet")
	f.Fuzz(func(t *testing.T, data []byte) { checkRead(t, FormatParquet, data) })
}

func FuzzArrow(f *testing.F) {
	seed(f, "*.arrow", "*.feather", "dictionary_stream.bin")
	f.Fuzz(func(t *testing.T, data []byte) { checkRead(t, FormatArrow, data) })
}

// FuzzDialect reads CSV of other dialects and encodings.
func FuzzDialect(f *testing.F) {
	seed(f, "dialect_*", "pandas.csv")
	f.Fuzz(func(t *testing.T, data []byte) {
		opt := Options{Format: FormatCSV, Text: "1", Label: "0", Labels: hamSpam, MaxRow: 1 << 16, MaxBytes: 1 << 22, Encoding: "utf-16", Replace: true,
			CSV: Dialect{Delimiter: ';', Quote: '\'', NoHeader: true}, Rejects: &Rejects{MaxShare: 0.9}}
		for row, err := range Read(t.Context(), inMemory("f", data), opt) {
			if err == nil && (!utf8.ValidString(row.Text) || strings.TrimSpace(row.Text) == "") {
				t.Fatalf("row %+v", row)
			}
		}
	})
}

// FuzzAuto covers compression and detection.
func FuzzAuto(f *testing.F) {
	seed(f, "*.gz", "*.zst", "*.bin", "polars.csv", "plain*", "required_int8.parquet")
	f.Fuzz(func(t *testing.T, data []byte) { checkRead(t, FormatAuto, data) })
}

// FuzzShard reads Arrow files of rows.
func FuzzShard(f *testing.F) {
	var out bytes.Buffer
	w, err := NewRowWriter(&out, hamSpam, false)
	if err != nil {
		f.Fatal(err)
	}
	for i := range int64(5) {
		if err := w.Write(Row{Index: i, Text: strings.Repeat("text ", int(i)), Label: int(i % 2)}); err != nil {
			f.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(out.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = readRows(bytes.NewReader(data), memory.NewGoAllocator(), func(Row, error) bool { return true })
	})
}

// FuzzTokens maps Arrow files of tokens: what opens can be read to its end.
func FuzzTokens(f *testing.F) {
	var out bytes.Buffer
	rows := slice([]Row{{Text: "a"}, {Index: 1, Label: 1}, {Index: 2, Text: "abcdefgh"}})
	if _, err := Tokenize(f.Context(), rows, bytesEncoder{}, 6, &out, nil); err != nil {
		f.Fatal(err)
	}
	f.Add(out.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		aligned := make([]byte, len(data)) // as a map is; large allocations of the runtime are
		copy(aligned, data)
		batches, err := tokenBatches(aligned)
		if err != nil {
			return
		}
		tokens := Tokens{}
		tokens.add(batches)
		for i := range tokens.NumRows() {
			for _, id := range tokens.IDs(i) {
				_, _ = io.Discard.Write([]byte{byte(id)})
			}
			_, _ = tokens.Label(i), tokens.Row(i)
		}
	})
}
