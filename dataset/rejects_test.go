package dataset

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// bad holds two usable rows and one of every kind that can be skipped.
const bad = "text,label\na,ham\nb,spam\n,ham\n\" \n\",ham\nc,eggs\nd,\n\xff,ham\ne\x00f,ham\ng\n"

// TestRejects: rows that cannot be used are counted and kept, each with its place and its reason, and the others are read.
func TestRejects(t *testing.T) {
	var kept bytes.Buffer
	r := &Rejects{MaxShare: 0.9, Keep: &kept}
	opt := Options{Text: "text", Label: "label", Labels: hamSpam, Rejects: r}
	rows := collect(t, Read(t.Context(), append(inMemory("a.csv", []byte(bad)), inMemory("b.tsv", []byte("ham\tz\nno tab\n"))...), opt))
	want := []Row{{Index: 0, Text: "a", Label: 0}, {Index: 1, Text: "b", Label: 1}, {Index: 2, Text: "z", Label: 0}}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("rows: %s", diff)
	}
	counts := map[ErrorKind]int64{KindEmptyText: 2, KindUnknownLabel: 1, KindNoLabel: 1, KindEncoding: 1, KindNUL: 1, KindMalformed: 2}
	if diff := cmp.Diff(counts, r.Kinds); diff != "" || r.Rows != 8 || len(r.First) != 8 {
		t.Errorf("%d rejected, %d examples, kinds: %s", r.Rows, len(r.First), diff)
	}
	if got, want := r.Summary(), "2 empty text, 2 malformed, 1 NUL byte, 1 encoding, 1 no label, 1 unknown label"; got != want {
		t.Errorf("summary %q, want %q", got, want)
	}
	var got []Rejected
	for line := range strings.Lines(kept.String()) {
		var one Rejected
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatal(err)
		}
		got = append(got, one)
	}
	if len(got) != 8 {
		t.Fatalf("%d rows in quarantine, want 8", len(got))
	}
	for i, want := range map[int]Rejected{
		2: {"a.csv", 5, 7, "label", KindUnknownLabel, `unknown label "eggs"; the labels are "ham", "spam"`, "c", "", "eggs"},
		4: {"a.csv", 7, 9, "text", KindEncoding, "invalid UTF-8: byte 0xff at offset 0", "\uFFFD", "", "ham"},
		7: {"b.tsv", 2, 2, "", KindMalformed, "no tab between label and text", "no tab", "", ""},
	} {
		if diff := cmp.Diff(want, got[i]); diff != "" {
			t.Errorf("quarantined row %d: %s", i, diff)
		}
	}
}

// TestTooManyRejects: the share is of all rows, and the error names kinds and the first row.
func TestTooManyRejects(t *testing.T) {
	data := []byte("ham\ta\nspam\tb\nham\tc\neggs\td\n")
	for share, refused := range map[float64]bool{0.25: false, 0.2499: true, 0: true} {
		opt := Options{Format: FormatTSV, Labels: hamSpam, Rejects: &Rejects{MaxShare: share}}
		var last error
		for _, err := range Read(t.Context(), inMemory("f", data), opt) {
			last = err
		}
		if (last != nil) != refused {
			t.Errorf("share %g: %v", share, last)
		}
		if refused && !strings.Contains(last.Error(), "f: 1 of 4 rows cannot be used (1 unknown label)") {
			t.Errorf("share %g: %v", share, last)
		}
	}
	opt := Options{Format: FormatCSV, Text: "text", Label: "label", Labels: hamSpam, Rejects: &Rejects{MaxShare: 0.9}}
	var last error
	for _, last = range Read(t.Context(), inMemory("f", []byte("text,label\na,ham\nb,spam\n\"c,ham\nd,ham\n")), opt) {
	}
	if e, ok := errors.AsType[*RowError](last); !ok || e.Kind != KindUnclosed {
		t.Errorf("an open quote: %v, which must not be skipped: it swallows rows", last)
	}
	opt.Rejects = &Rejects{MaxShare: 0.9, Keep: fullDisk{}}
	for _, last = range Read(t.Context(), inMemory("f", []byte(bad)), opt) {
	}
	if !errors.Is(last, errFull) {
		t.Errorf("a quarantine that cannot be written: %v", last)
	}
}

var errFull = errors.New("disk full")

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }

// TestEncodings reads other encodings than UTF-8, by name or by byte order mark.
func TestEncodings(t *testing.T) {
	const content = "text,label\n\"é ü 日本\",ham\nplain,spam\n"
	const western = "text,label\né ü,ham\nplain,spam\n"
	encode := func(e transform.Transformer, s string) string {
		out, _, err := transform.String(e, s)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for name, c := range map[string]struct {
		encoding string
		replace  bool
		data     string
		want     string // text of the first row; "" if it is refused
		reason   string
	}{
		"latin1":       {"latin1", false, encode(charmap.ISO8859_1.NewEncoder(), western), "é ü", ""},
		"windows-1252": {"Windows-1252", false, "text,label\n\x80 5,ham\nplain,spam\n", "€ 5", ""},
		"utf-16":       {"utf-16", false, encode(unicode.UTF16(unicode.BigEndian, unicode.UseBOM).NewEncoder(), content), "é ü 日本", ""},
		"utf-16le":     {"utf-16le", false, encode(unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM).NewEncoder(), content), "é ü 日本", ""},
		"shift_jis":    {"shift_jis", false, encode(japanese.ShiftJIS.NewEncoder(), "text,label\n日本,ham\nplain,spam\n"), "日本", ""},
		"not so":       {"shift_jis", false, "text,label\n\xff\xff,ham\nplain,spam\n", "", "bytes that are not shift_jis"},
		"replaced":     {"utf-8", true, "text,label\ncaf\xe9 \xe2\x82,ham\nplain,spam\n", "caf\uFFFD \uFFFD\uFFFD", ""},
		"refused":      {"UTF-8", false, "text,label\ncaf\xe9,ham\nplain,spam\n", "", "invalid UTF-8"},
		"unknown":      {"klingon", false, content, "", `unknown encoding "klingon"`},
	} {
		t.Run(name, func(t *testing.T) {
			opt := Options{Format: FormatCSV, Text: "text", Label: "label", Labels: hamSpam, Encoding: c.encoding, Replace: c.replace}
			var texts []string
			var err error
			for row, e := range Read(t.Context(), inMemory("f", []byte(c.data)), opt) {
				texts, err = append(texts, row.Text), e
			}
			if c.want == "" {
				if err == nil || !strings.Contains(err.Error(), c.reason) {
					t.Errorf("%q, %v; want an error with %q", texts, err, c.reason)
				}
				return
			}
			if diff := cmp.Diff([]string{c.want, "plain"}, texts); diff != "" || err != nil {
				t.Errorf("%v, -want +got\n%s", err, diff)
			}
		})
	}
}
