package dataset

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// goldenRows are the rows that every file in testdata/golden holds.
func goldenRows(t testing.TB) []Row {
	t.Helper()
	data, err := os.ReadFile("testdata/golden/rows.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []Row
	if err := json.Unmarshal(data, &rows); err != nil {
		t.Fatal(err)
	}
	for i := range rows {
		rows[i].Index = int64(i)
	}
	return rows
}

// TestGolden reads files that pandas, pyarrow, polars, DuckDB and Python wrote (internal/py/dataset/golden.py).
func TestGolden(t *testing.T) {
	all := goldenRows(t)
	var plain []Row // those on one line
	for _, row := range all {
		if !strings.ContainsAny(row.Text, "\r\n") {
			row.Index = int64(len(plain))
			plain = append(plain, row)
		}
	}
	files, err := filepath.Glob("testdata/golden/*")
	if err != nil || len(files) < 25 {
		t.Fatalf("%d golden files, %v", len(files), err)
	}
	for _, path := range files {
		name := filepath.Base(path)
		if name == "rows.json" || name == "SOURCE.md" || refused[name] != "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			opt, want := Options{Text: "text", Label: "label", Labels: hamSpam}, all
			if strings.HasPrefix(name, "nested") {
				opt.Text, opt.Label = "mail.body", "y"
			}
			if strings.HasPrefix(name, "plain") {
				want = plain
			}
			if special, ok := dialects[name]; ok {
				special.Labels = opt.Labels
				opt = special
			}
			if diff := cmp.Diff(want, collect(t, Read(t.Context(), LocalFiles(path), opt))); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if strings.HasPrefix(name, "plain") {
				return
			}
			opt.Pair = opt.Text // any column of texts can be the second
			var pairs []Row
			for _, row := range want {
				row.Pair = row.Text
				pairs = append(pairs, row)
			}
			if diff := cmp.Diff(pairs, collect(t, Read(t.Context(), LocalFiles(path), opt))); diff != "" {
				t.Errorf("pairs: -want +got\n%s", diff)
			}
		})
	}
}

// dialects are the options of the golden files that need some.
var dialects = map[string]Options{
	"dialect_tab_header.tsv":           {Format: FormatCSV, Text: "text", Label: "label", CSV: Dialect{Delimiter: '\t'}},
	"dialect_semicolon_utf16.csv":      {Text: "text", Label: "label", Encoding: "utf-16", CSV: Dialect{Delimiter: ';'}},
	"dialect_apostrophe_no_header.csv": {Text: "1", Label: "2", CSV: Dialect{Delimiter: '|', Quote: '\'', NoHeader: true}},
}

// refused are golden files that cannot be used, with what the error says.
var refused = map[string]string{
	"null_text.parquet":  `row 2: column "text": the row has no text`,
	"null_label.parquet": `row 3: column "label": the row has no label`,
	"list_text.parquet":  `no column "text"; the columns are "text.list.element", "label"`,
	"int_text.parquet":   `column "text" is of type INT64, not a string`,
	"null_text.arrow":    `row 2: column "text": the row has no text`,
	"int_text.arrow":     `column "text" is of type int64, not a string`,
}

func TestGoldenRefused(t *testing.T) {
	for name, want := range refused {
		path := "testdata/golden/" + name
		err := readError(t, path, Options{Text: "text", Label: "label", Labels: hamSpam})
		if got := strings.TrimPrefix(err.Error(), path+": "); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// readError is the error that reading path ends with.
func readError(t testing.TB, path string, opt Options) error {
	t.Helper()
	for _, err := range Read(t.Context(), LocalFiles(path), opt) {
		if err != nil {
			return err
		}
	}
	t.Fatalf("%s: no error", path)
	return nil
}
