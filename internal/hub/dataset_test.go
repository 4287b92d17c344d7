package hub_test

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/duratune/duratune/internal/hub"
	"github.com/duratune/duratune/internal/hub/hubtest"
)

const card = "---\n" // begins the front matter of the test's cards

// parquetFile returns the bytes of a small Parquet file; names are put into its metadata.
func parquetFile(t *testing.T, names ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.parquet")
	if err := hubtest.WriteParquet(path, "text", hubtest.Rows{Texts: []string{"a", "b"}, Labels: []int64{0, 1}, ClassNames: names}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// base returns the last two elements of paths, which say what was chosen.
func base(paths []string) []string {
	var out []string
	for _, p := range paths {
		out = append(out, filepath.Base(filepath.Dir(p))+"/"+filepath.Base(p))
	}
	return out
}

func TestDataset(t *testing.T) {
	plain, labelled := parquetFile(t), parquetFile(t, "no", "yes")
	twoConfigs := card + `dataset_info:
- config_name: en
  features: [{name: text, dtype: string}, {name: label, dtype: {class_label: {names: {'0': bad, '1': good}}}}]
- config_name: de
  features: [{name: text, dtype: string}, {name: label, dtype: {class_label: {names: [schlecht, gut]}}}]
configs:
- config_name: en
  default: true
  data_files: [{split: train, path: "en/train-*"}, {split: test, path: ["en/test-*.parquet"]}]
- config_name: de
  data_files: {train: "de/**/*.parquet", test: de-test.parquet}
---
`
	configs := map[string]string{"README.md": twoConfigs, "en/train-00000-of-00002.parquet": plain, "en/train-00001-of-00002.parquet": plain,
		"en/test-00000-of-00001.parquet": plain, "de/a/b/1.parquet": plain, "de-test.parquet": plain}
	for _, c := range []struct {
		name      string
		files     map[string]string
		converted map[string]string // the branch with the hub's conversion
		query     string
		want      []string
		labels    []string
		pinned    string // query to use with the commit, if not the same
	}{
		{name: "card: default configuration, train, shards in order", files: configs,
			want: []string{"en/train-00000-of-00002.parquet", "en/train-00001-of-00002.parquet"}, labels: []string{"bad", "good"}},
		{name: "card: split", files: configs, query: "?split=test", want: []string{"en/test-00000-of-00001.parquet"}, labels: []string{"bad", "good"}},
		{name: "card: configuration", files: configs, query: "?config=de", want: []string{"b/1.parquet"}, labels: []string{"schlecht", "gut"}},
		{name: "card: configuration and split", files: configs, query: "?config=de&split=test", want: []string{"main/de-test.parquet"}, labels: []string{"schlecht", "gut"}},
		{name: "card: data_files is one glob", files: map[string]string{"README.md": card + "configs: [{config_name: x, data_files: 'rows/*.parquet'}]\n---\n", "rows/1.parquet": labelled, "other.parquet": plain},
			want: []string{"rows/1.parquet"}, labels: []string{"no", "yes"}},
		{name: "card: data_dir", files: map[string]string{"README.md": card + "configs: [{config_name: x, data_dir: ./rows}]\n---\n", "rows/train.parquet": labelled, "other/train.parquet": plain},
			want: []string{"rows/train.parquet"}, labels: []string{"no", "yes"}},
		{name: "no card: data/train-…", files: map[string]string{"data/train-00000-of-00001.parquet": labelled, "data/test-00000-of-00001.parquet": plain},
			want: []string{"data/train-00000-of-00001.parquet"}, labels: []string{"no", "yes"}},
		{name: "no card: folders named like splits", files: map[string]string{"training/1.parquet": plain, "dev/1.parquet": plain}, query: "?split=validation",
			want: []string{"dev/1.parquet"}},
		{name: "no card: no split named", files: map[string]string{"rows.parquet": labelled}, want: []string{"main/rows.parquet"}, labels: []string{"no", "yes"}},
		{name: "no card: the only split is not train", files: map[string]string{"test.parquet": plain}, want: []string{"main/test.parquet"}},
		{name: "converted, labels from the card", files: map[string]string{"README.md": strings.Replace(twoConfigs, "configs:", "unused:", 1), "data.csv": "x"},
			converted: map[string]string{"en/train/0000.parquet": plain, "en/train/0001.parquet": plain, "de/train/0000.parquet": plain}, query: "?config=en",
			want: []string{"train/0000.parquet", "train/0001.parquet"}, labels: []string{"bad", "good"}},
		{name: "converted, labels from the file", files: map[string]string{"data.csv": "x"},
			converted: map[string]string{"default/train/0000.parquet": labelled, "default/test/0000.parquet": plain},
			want:      []string{"train/0000.parquet"}, labels: []string{"no", "yes"}},
		{name: "converted, a split with a name of its own", files: map[string]string{"data.csv": "x"}, converted: map[string]string{"plain/unsupervised/0000.parquet": plain},
			want: []string{"unsupervised/0000.parquet"}},
		{name: "converted, the card's default configuration", files: map[string]string{"README.md": card + "configs: [{config_name: b, default: true, data_files: b.csv}, {config_name: a, data_files: a.csv}]\n---\n", "b.csv": "x"},
			converted: map[string]string{"a/train/0000.parquet": plain, "b/train/0000.parquet": labelled}, want: []string{"train/0000.parquet"}, labels: []string{"no", "yes"}, pinned: "?config=b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			put(t, f.root, "datasets/acme/rows/main", c.files)
			put(t, f.root, "datasets/acme/rows/refs%2Fconvert%2Fparquet", c.converted)
			files, labels, commit, err := f.client.Dataset(t.Context(), "hf://acme/rows"+c.query, "main", "label", nil)
			if err != nil {
				t.Fatal(err)
			}
			got := base(files)
			for i := range got {
				got[i] = strings.Replace(got[i], commit, "main", 1)
			}
			if diff := gocmp.Diff(c.want, got); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			if diff := gocmp.Diff(c.labels, labels); diff != "" {
				t.Errorf("labels (-want +got):\n%s", diff)
			}
			again, _, _, err := f.client.Dataset(t.Context(), "hf://acme/rows"+cmp.Or(c.pinned, c.query), commit, "label", nil) // what Plan pins
			if diff := gocmp.Diff(files, again); diff != "" || err != nil {
				t.Errorf("by commit: %v (-branch +commit):\n%s", err, diff)
			}
		})
	}
}

func TestDatasetRefuses(t *testing.T) {
	plain := parquetFile(t)
	for _, c := range []struct {
		name      string
		files     map[string]string
		converted map[string]string
		query     string
		kind      error
		says      string
	}{
		{"several configurations", map[string]string{"README.md": card + "configs: [{config_name: a, data_files: a.parquet}, {config_name: b, data_files: b.parquet}]\n---\n", "a.parquet": plain}, nil, "",
			hub.ErrNotFound, "several configurations (a, b); say which with ?config="},
		{"several configurations by folder", map[string]string{"data.csv": "x"}, map[string]string{"a/train/0000.parquet": plain, "b/train/0000.parquet": plain}, "",
			hub.ErrNotFound, "several configurations (a, b)"},
		{"no such configuration", map[string]string{"README.md": card + "configs: [{config_name: a, data_files: a.parquet}]\n---\n", "a.parquet": plain}, nil, "?config=c", hub.ErrNotFound, `no configuration "c"; there is a`},
		{"no such split", map[string]string{"train.parquet": plain, "test.parquet": plain}, nil, "?split=validation", hub.ErrNotFound, `no split "validation"; there is test, train`},
		{"several splits, none of them train", map[string]string{"dev.parquet": plain, "test.parquet": plain}, nil, "", hub.ErrNotFound, "several splits (test, validation); say which with ?split="},
		{"no Parquet, not converted", map[string]string{"data.csv": "x"}, nil, "", hub.ErrUnsupported, "has not converted it"},
		{"converted in part", map[string]string{"data.csv": "x"}, map[string]string{"default/partial-train/0000.parquet": plain}, "", hub.ErrUnsupported, "only a part"},
		{"Parquet among others", map[string]string{"README.md": card + "configs: [{config_name: a, data_files: 'a/*'}]\n---\n", "a/1.parquet": plain, "a/2.csv": "x"}, nil, "", hub.ErrUnsupported, "a/2.csv"},
		{"card that is not YAML", map[string]string{"README.md": card + "configs: [\n---\n", "train.parquet": plain}, nil, "", hub.ErrUnsupported, "README.md"},
		{"class indices with a hole", map[string]string{"README.md": card + "dataset_info: {features: [{name: label, dtype: {class_label: {names: {'0': a, '2': b}}}}]}\n---\n", "train.parquet": plain}, nil, "",
			hub.ErrUnsupported, "indices are not 0 to 1"},
		{"Parquet that is none", map[string]string{"train.parquet": "PAR1 nonsense PAR1"}, nil, "", hub.ErrUnsupported, "Parquet"},
		{"empty repository", map[string]string{".gitattributes": ""}, nil, "", hub.ErrUnsupported, "no Parquet"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			put(t, f.root, "datasets/acme/rows/main", c.files)
			put(t, f.root, "datasets/acme/rows/refs%2Fconvert%2Fparquet", c.converted)
			_, _, _, err := f.client.Dataset(t.Context(), "hf://datasets/acme/rows"+c.query, "main", "label", nil)
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("error %v, want %v with %q", err, c.kind, c.says)
			}
			if e := (*hub.Error)(nil); !errors.As(err, &e) || e.Repo != "acme/rows" {
				t.Errorf("error does not name the repository: %#v", e)
			}
		})
	}
}

func TestGlobMatch(t *testing.T) {
	for _, c := range []struct {
		glob, path string
		want       bool
	}{
		{"data/train-*", "data/train-00000-of-00001.parquet", true},
		{"data/train-*", "data/x/train-0.parquet", false},
		{"data/*.parquet", "data/a/b.parquet", false},
		{"**/*.parquet", "a/b/c.parquet", true},
		{"**/*.parquet", "c.parquet", true},
		{"data/**", "data/a/b", true},
		{"train-[0-9][0-9].parquet", "train-07.parquet", true},
		{"train-[!0-9].parquet", "train-7.parquet", false},
		{"a?.parquet", "ab.parquet", true},
		{"a+b(1).parquet", "a+b(1).parquet", true},
		{"[.parquet", "[.parquet", true},
		{"x[z-a]", "xz", false},
	} {
		if got := hub.GlobMatch(c.glob, c.path); got != c.want {
			t.Errorf("%s matches %s: %v", c.glob, c.path, got)
		}
	}
}
