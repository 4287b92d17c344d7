package dataset

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

// TestRefused: every kind of bad input is named with its place.
func TestRefused(t *testing.T) {
	const head = "text,label\n"
	for name, c := range map[string]struct {
		format, data string
		want         error
	}{
		"empty file":      {"tsv", "", &SourceError{"f", "the file is empty"}},
		"no rows":         {"tsv", "\n\r\n", &SourceError{"f", "no rows"}},
		"header only":     {"csv", head, &SourceError{"f", "no rows"}},
		"no header":       {"csv", "\n\n", &SourceError{"f", "no header"}},
		"one class":       {"tsv", "spam\ta\nspam\tb\n", &SourceError{"f", `all 2 rows have the label "spam"; training needs at least two classes`}},
		"no column":       {"csv", "id,body,label\n1,2,3", &SourceError{"f", `no column "text"; the columns are "id", "body", "label"`}},
		"twice":           {"csv", "text,text,label\n1,2,3", &SourceError{"f", `two columns are called "text"`}},
		"zip":             {"auto", "PK\x03\x04xxxx", &SourceError{"f", "a zip archive (or a spreadsheet); extract it, or export CSV"}},
		"utf-16":          {"csv", "\xff\xfet\x00", &SourceError{"f", "UTF-16; name the encoding in the recipe (data.rows.encoding), or convert it to UTF-8"}},
		"format":          {"xml", "<a/>", &SourceError{"f", `unknown format "xml"; the formats are auto, tsv, csv, jsonl, parquet, arrow and folder`}},
		"not parquet":     {"parquet", "PAR1 and then nothing", &SourceError{"f", "parquet: file is smaller than indicated metadata size"}},
		"no label":        {"tsv", "ham\ta\n\tb\n", &RowError{"f", 2, 2, "label", "the row has no label", KindNoLabel}},
		"no tab":          {"tsv", "ham\ta\n\nham b\n", &RowError{"f", 2, 3, "", "no tab between label and text", KindMalformed}},
		"unknown label":   {"tsv", "ham\ta\neggs\tb\n", &RowError{"f", 2, 2, "label", `unknown label "eggs"; the labels are "ham", "spam"`, KindUnknownLabel}},
		"label 2":         {"csv", head + "a,0\nb,2\n", &RowError{"f", 2, 3, "label", `unknown label "2"; the labels are "ham", "spam"`, KindUnknownLabel}},
		"label -1":        {"jsonl", `{"text":"a","label":-1}`, &RowError{"f", 1, 1, "label", `unknown label "-1"; the labels are "ham", "spam"`, KindUnknownLabel}},
		"label 0.5":       {"jsonl", `{"text":"a","label":0.5}`, &RowError{"f", 1, 1, "label", "the label is 0.5, not a name, an integer or a boolean", KindUnknownLabel}},
		"label list":      {"jsonl", `{"text":"a","label":[1]}`, &RowError{"f", 1, 1, "label", "the label is an object or a list, not a name, an integer or a boolean", KindUnknownLabel}},
		"label null":      {"jsonl", `{"text":"a","label":null}`, &RowError{"f", 1, 1, "label", "the row has no label", KindNoLabel}},
		"label absent":    {"jsonl", `{"text":"a"}`, &RowError{"f", 1, 1, "label", "the row has no label", KindNoLabel}},
		"text absent":     {"jsonl", `{"label":1}`, &RowError{"f", 1, 1, "text", "the row has no such field", KindNoText}},
		"text null":       {"jsonl", `{"text":null,"label":1}`, &RowError{"f", 1, 1, "text", "the row has no text", KindNoText}},
		"text number":     {"jsonl", `{"text":3,"label":1}`, &RowError{"f", 1, 1, "text", "the text is not a string", KindMalformed}},
		"json list":       {"jsonl", `[{"text":"a","label":1}]`, &RowError{"f", 1, 1, "", "not a JSON object: JSON Lines has one object a line, not one list", KindMalformed}},
		"json broken":     {"jsonl", `{"text":"a","label":1`, &RowError{"f", 1, 1, "", "not a JSON object: unexpected end of JSON input at offset 21", KindMalformed}},
		"json null":       {"jsonl", "null", &RowError{"f", 1, 1, "", "not a JSON object", KindMalformed}},
		"utf-8 tsv":       {"tsv", "ham\ta\nspam\tcaf\xe9\n", &RowError{"f", 2, 2, "text", "invalid UTF-8: byte 0xe9 at offset 3", KindEncoding}},
		"utf-8 csv":       {"csv", head + "\"a\nb\",ham\n\xff,ham\n", &RowError{"f", 2, 4, "text", "invalid UTF-8: byte 0xff at offset 0", KindEncoding}},
		"utf-8 json":      {"jsonl", "{\"text\":\"\xe9\",\"label\":1}", &RowError{"f", 1, 1, "", "invalid UTF-8: byte 0xe9 at offset 9", KindEncoding}},
		"NUL":             {"tsv", "ham\ta\x00b\n", &RowError{"f", 1, 1, "text", "NUL byte at offset 1", KindNUL}},
		"NUL json":        {"jsonl", `{"text":"ab\u0000","label":1}`, &RowError{"f", 1, 1, "text", "NUL byte at offset 2", KindNUL}},
		"too few fields":  {"csv", head + "a,ham\nb\n", &RowError{"f", 2, 3, "", "1 fields, the first line has 2", KindMalformed}},
		"too many fields": {"csv", head + "a, b,ham\n", &RowError{"f", 1, 2, "", "3 fields, the first line has 2", KindMalformed}},
		"open quote":      {"csv", head + "a,ham\n\"b,ham\nc,ham\n", &RowError{"f", 2, 3, "", "a quote is opened and never closed", KindUnclosed}},
		"after quote":     {"csv", head + "\"a\"b,ham\n", &RowError{"f", 1, 2, "", "text behind a closing quote; a quote within a quoted field is doubled", KindMalformed}},
		"empty text":      {"tsv", "ham\ta\nham\t\n", &RowError{"f", 2, 2, "text", "the text is empty", KindEmptyText}},
		"white space":     {"csv", head + "a,ham\n\" \t\u00a0\n\",ham\n", &RowError{"f", 2, 3, "text", "the text is white space alone", KindEmptyText}},
		"long line":       {"tsv", "ham\ta\nham\t" + strings.Repeat("x", 100_000) + "\nham\tb\n", &RowError{"f", 2, 2, "", "longer than 65536 bytes", KindTooLong}},
		"long line, last": {"tsv", "ham\t" + strings.Repeat("x", 70_000), &RowError{"f", 1, 1, "", "longer than 65536 bytes", KindTooLong}},
		"long field":      {"csv", head + "\"" + strings.Repeat("x\n", 50_000), &RowError{"f", 1, 2, "", "longer than 65536 bytes; is a quote not closed?", KindUnclosed}},
		"truncated gzip":  {"tsv", gzipped("ham\ta\n")[:15], &SourceError{"f", "the compressed file ends too early"}},
		"gzip parquet":    {"auto", gzipped("PAR1"), &SourceError{"f", "compressed Parquet cannot be read in place; decompress it (its pages are compressed already)"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := checkRead(t, c.format, []byte(c.data))
			if diff := cmp.Diff(c.want, err); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func gzipped(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	io.WriteString(w, s)
	w.Close()
	return b.String()
}

// TestBombs: what a small file expands to is bounded.
func TestBombs(t *testing.T) {
	row := []byte("ham\t" + strings.Repeat("x", 1<<15) + "\n")
	var packed bytes.Buffer
	z, err := zstd.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	g := gzip.NewWriter(nil)
	var zipped bytes.Buffer
	g.Reset(&zipped)
	for range 1 << 8 { // 8 MiB
		if _, err := io.MultiWriter(z, g).Write(row); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(z.Close(), g.Close()); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"zstd": packed.Bytes(), "gzip": zipped.Bytes()} {
		rows, err := checkRead(t, FormatAuto, data) // MaxBytes is 4 MiB
		want := &SourceError{"f", "expands to more than 4194304 bytes"}
		if diff := cmp.Diff(error(want), err); diff != "" || len(rows) < 100 {
			t.Errorf("%s: %d rows of %d bytes, -want +got\n%s", name, len(rows), len(data), diff)
		}
	}
}

func TestLabels(t *testing.T) {
	str := func(s string) value { return value{kind: text, str: s} }
	num := func(n int64) value { return value{kind: integer, num: n} }
	for _, c := range []struct {
		names []string
		label value
		want  int // -1: refused
	}{
		{hamSpam, str("spam"), 1}, {hamSpam, str(" spam\r"), 1}, {hamSpam, str("1"), 1}, {hamSpam, num(1), 1}, {hamSpam, number(1.0), 1},
		{hamSpam, value{kind: boolean, num: 1}, 1}, {hamSpam, str("False"), 0}, {hamSpam, str("Spam"), -1}, {hamSpam, num(2), -1}, {hamSpam, number(0.1), -1},
		{[]string{"1", "0"}, num(1), 0}, {[]string{"1", "0"}, str("0"), 1}, {[]string{"1", "2", "3"}, num(3), 2}, {[]string{"1", "2", "3"}, num(0), 0},
		{[]string{"True", "False"}, value{kind: boolean}, 1}, {[]string{"true", "false"}, str("TRUE"), 0}, {[]string{" a", "a"}, str(" a"), 0},
	} {
		got, problem := newClasses(c.names).class(c.label)
		if problem != "" {
			got = -1
		}
		if got != c.want {
			t.Errorf("%v of %q: class %d (%s), want %d", c.label, c.names, got, problem, c.want)
		}
	}
}

// TestFiles: several files are one data set, and one class in one of them is no problem.
func TestFiles(t *testing.T) {
	files := append(inMemory("a.tsv", []byte("ham\t1\nham\t2\n")), inMemory("b.jsonl", []byte(`{"text":"3","label":"spam"}`))...)
	var seen []int64
	opt := Options{Text: "text", Label: "label", Labels: hamSpam, Progress: func(n int64) { seen = append(seen, n) }}
	want := []Row{{Text: "1"}, {Index: 1, Text: "2"}, {Index: 2, Text: "3", Label: 1}}
	if diff := cmp.Diff(want, collect(t, Read(t.Context(), files, opt))); diff != "" {
		t.Error(diff)
	}
	if seen[len(seen)-1] != 3 {
		t.Errorf("progress %v, want 3 at the end", seen)
	}
	missing := LocalFiles("testdata/none")
	for _, err := range Read(t.Context(), missing, opt) {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want fs.ErrNotExist", err)
		}
	}
}

// panicky stands for a format library that panics.
type panicky struct{}

func (panicky) read(*record) error { panic("index out of range") }

func TestPanicIsAnError(t *testing.T) {
	in := input{format: panicky{}, name: "f"}
	want := &SourceError{"f", "cannot be read: index out of range"}
	if diff := cmp.Diff(error(want), in.next(nil)); diff != "" {
		t.Error(diff)
	}
}

func TestErrorText(t *testing.T) {
	err := &RowError{"a.csv", 3, 5, "label", "unknown label " + quote(strings.Repeat("é", 99)) + "; the labels are " + list(make([]string, 25)), KindUnknownLabel}
	want := `a.csv: row 3 (line 5): column "label": unknown label "` + strings.Repeat("é", 32) + `…"; the labels are ` + strings.Repeat(`"", `, 19) + `"" and 5 more`
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
}
