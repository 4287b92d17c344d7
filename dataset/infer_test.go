package dataset

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestInferLabels: class names come from the labels alone, in an order that rows and files have no part in, and every row
// then has its class.
func TestInferLabels(t *testing.T) {
	many := "text,label\n"
	for i := range 1001 {
		many += fmt.Sprintf("x,%d\n", i)
	}
	for name, c := range map[string]struct {
		files []string
		want  []string
		err   string
	}{
		"names":    {[]string{"text,label\na,spam\nb, ham \nc,\nd,spam\n", "text,label\ne,Egg\n"}, []string{"Egg", "ham", "spam"}, ""},
		"integers": {[]string{"text,label\na,10\nb,9\nc,-1\n"}, []string{"-1", "9", "10"}, ""},
		"not all":  {[]string{"text,label\na,10\nb,9\nc,x\n"}, []string{"10", "9", "x"}, ""},
		"zeros":    {[]string{"text,label\na,01\nb,1\n"}, []string{"01", "1"}, ""},
		"booleans": {[]string{"text,label\na,True\nb,False\n"}, []string{"False", "True"}, ""},
		"one":      {[]string{"text,label\na,x\nb,x\n"}, nil, `1 different labels in column "label"`},
		"none":     {[]string{"text,label\na,\n"}, nil, "0 different labels"},
		"too many": {[]string{many}, nil, "more than 1000 different labels"},
		"a text":   {[]string{"text,label\na,\"x\ny\"\n"}, nil, "is it the column of the label?"},
		"long":     {[]string{"text,label\na," + strings.Repeat("x", 251) + "\n"}, nil, "no name of a class"},
		"column":   {[]string{"text,class\na,x\n"}, nil, `no column "label"`},
	} {
		t.Run(name, func(t *testing.T) {
			var files []File
			for i, data := range c.files {
				files = append(files, inMemory(fmt.Sprint(i, ".csv"), []byte(data))...)
			}
			opt := Options{Text: "text", Label: "label"}
			got, err := InferLabels(t.Context(), files, opt)
			if diff := cmp.Diff(c.want, got); diff != "" || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Fatalf("%v, want an error with %q; -want +got\n%s", err, c.err, diff)
			}
			if err != nil {
				return
			}
			opt.Labels, opt.Rejects = got, &Rejects{MaxShare: 0.5}
			seen := map[int]bool{}
			for _, row := range collect(t, Read(t.Context(), files, opt)) {
				seen[row.Label] = true
			}
			if len(seen) != len(got) {
				t.Errorf("%d of %d classes have rows", len(seen), len(got))
			}
		})
	}
}

// TestInferLabelsOfGoldens: whatever type a label has in a file, its classes are found.
func TestInferLabelsOfGoldens(t *testing.T) {
	for path, want := range map[string]string{
		"pandas.parquet": "ham spam", "bool_label_brotli_v2.parquet": "false true", "pandas_bool_label.csv": "False True", "required_int8.parquet": "0 1",
		"polars_float_label_lz4.parquet": "0 1", "polars_categorical_zstd.arrow": "ham spam", "polars_string_view_bool.arrow": "false true", "plain.tsv": "ham spam",
	} {
		got, err := InferLabels(t.Context(), LocalFiles("testdata/golden/"+path), Options{Text: "text", Label: "label"})
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %q, %v; want %s", path, got, err, want)
		}
	}
}
