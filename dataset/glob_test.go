package dataset

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMatchGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*.csv", "a.csv", true}, {"*.csv", "b/a.csv", false}, {"*.csv", "a.csv.gz", false}, {"part-*-of-*.parquet", "part-00001-of-00002.parquet", true},
		{"**/*.csv", "a.csv", true}, {"**/*.csv", "b/c/a.csv", true}, {"**", "b/c/a.csv", true}, {"**/x/*", "a/x/y", true}, {"**/x/*", "a/y/y", false},
		{"*/a.csv", "b/a.csv", true}, {"*/a.csv", "a.csv", false}, {"*", "", true}, {"**", "", false},
		{"a[1]*", "a[1].csv", true}, {"a?*", "ab", false}, {`a\*`, `a\b`, true},
	} {
		if got := MatchGlob(c.pattern, c.name); got != c.want {
			t.Errorf("%s of %s: %t, want %t", c.pattern, c.name, got, c.want)
		}
	}
	for in, want := range map[string][2]string{"a/b.csv": {"a/b.csv", ""}, "a/b/*.csv": {"a/b/", "*.csv"}, "*": {"", "*"}, "a/b*/c": {"a/", "b*/c"}} {
		if folder, pattern := SplitGlob(in); [2]string{folder, pattern} != want {
			t.Errorf("%s: %q and %q, want %q", in, folder, pattern, want)
		}
	}
}

// TestFolders: a folder and a pattern mean their files in the order of their names, but for hidden ones.
func TestFolders(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b/2.csv", "b/10.csv", "a.csv", "b.csv", "c.txt", "_SUCCESS", ".x.csv", "b/_tmp/3.csv"} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("text,label\nx,ham\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "b", "link.csv")); err != nil {
		t.Fatal(err)
	}
	roots, err := ParseRoots(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer roots.Close()
	for uri, want := range map[string][]string{
		"file:b.csv":                  {"file:b.csv"},
		"file:*.csv":                  {"file:a.csv", "file:b.csv"},
		"file:**/*.csv":               {"file:a.csv", "file:b.csv", "file:b/10.csv", "file:b/2.csv", "file:b/link.csv"},
		"file:b/*.csv":                {"file:b/10.csv", "file:b/2.csv", "file:b/link.csv"},
		"file:b":                      {"file:b/10.csv", "file:b/2.csv", "file:b/link.csv"},
		"file:b/":                     {"file:b/10.csv", "file:b/2.csv", "file:b/link.csv"},
		"file://" + dir + "/b/1*.csv": {"file://" + dir + "/b/10.csv"},
	} {
		files, err := roots.Files(uri)
		var names []string
		for _, f := range files {
			names = append(names, f.Name)
		}
		if diff := cmp.Diff(want, names); diff != "" || err != nil {
			t.Errorf("%s: %v, -want +got\n%s", uri, err, diff)
		}
	}
	for uri, says := range map[string]string{"file:x*": "no such file", "file:../*": "outside", "file://" + filepath.Dir(dir) + "/*": "outside", "file:b/_tmp": ""} {
		_, err := roots.Files(uri)
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want an error with %q", uri, err, says)
		}
	}
	files, err := roots.Files("file:b/link*")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := files[0].Open(); err == nil || !strings.Contains(err.Error(), "outside") {
		t.Errorf("a link out of the root: %v", err)
	}
}

// TestFolderOfTexts: each file is a text, its folder the label.
func TestFolderOfTexts(t *testing.T) {
	var files []File
	for _, f := range []struct{ name, text string }{{"s3://b/x/ham/1.txt", "first\nmail\n"}, {"s3://b/x/spam/1.txt.gz", gzipped("second mail")}, {"s3://b/x/ham/2.txt", "{not json"}} {
		files = append(files, inMemory(f.name, []byte(f.text))...)
	}
	opt := Options{Format: FormatFolder, Labels: hamSpam}
	want := []Row{{Text: "first\nmail\n"}, {Index: 1, Text: "second mail", Label: 1}, {Index: 2, Text: "{not json"}}
	if diff := cmp.Diff(want, collect(t, Read(t.Context(), files, opt))); diff != "" {
		t.Error(diff)
	}
	opt.Rejects = &Rejects{MaxShare: 0.9}
	opt.MaxRow = 20
	files = append(files, inMemory("s3://b/x/ham/empty.txt", nil)...)
	files = append(files, inMemory("s3://b/x/eggs/1.txt", []byte("x"))...)
	files = append(files, inMemory("s3://b/x/ham/long.txt", []byte(strings.Repeat("x", 21)))...)
	if diff := cmp.Diff(want, collect(t, Read(t.Context(), files, opt))); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[ErrorKind]int64{KindEmptyText: 1, KindUnknownLabel: 1, KindTooLong: 1}, opt.Rejects.Kinds); diff != "" {
		t.Error(diff)
	}
}
