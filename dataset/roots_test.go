package dataset

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// tree makes two roots and a folder outside, and returns them with the roots opened.
func tree(t *testing.T) (a, b, out string, roots Roots) {
	t.Helper()
	top := t.TempDir()
	a, b, out = filepath.Join(top, "a"), filepath.Join(top, "b"), filepath.Join(top, "out")
	for path, content := range map[string]string{
		"a/x.tsv": "a", "a/sub/y.tsv": "ay", "b/x.tsv": "b", "b/z.tsv": "bz", "out/secret": "s",
		"a/model/config.json": "{}", "a/model/deep/w": "w", "a/blobs/1": "1", "b/bad/ok": "1",
	} {
		path = filepath.Join(top, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		"a/inside": "sub/y.tsv", "a/outside": "../out/secret", "a/absolute": out + "/secret", "a/folder": "../out",
		"a/model/weights": "../blobs/1", "b/bad/weights": "../../out/secret", "link": "a",
	} {
		if err := os.Symlink(target, filepath.Join(top, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(a, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	roots, err := ParseRoots(filepath.Join(top, "link") + ":" + b + ":")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { roots.Close() })
	return a, b, out, roots
}

func TestRootsFiles(t *testing.T) {
	a, b, out, roots := tree(t)
	for uri, want := range map[string]string{
		"file:x.tsv": "a", "file:z.tsv": "bz", "file:sub/y.tsv": "ay", "file:sub/../x.tsv": "a", "file:inside": "ay",
		"file://" + a + "/x.tsv": "a", "file://" + b + "/x.tsv": "b", "file:" + b + "/x.tsv": "b", "file://" + b + "/../a/x.tsv": "a",

		"file:../out/secret":         "! " + outside,
		"file://" + out + "/secret":  "! " + outside,
		"file:///etc/passwd":         "! " + outside,
		"file:outside":               "! " + outside,
		"file:absolute":              "! " + outside,
		"file:folder/secret":         "! " + outside,
		"file:none":                  "! " + notFound,
		"file:x.tsv/y":               "! " + notFound,
		"file:sub":                   "ay",
		"file:pipe":                  "! not a regular file",
		"file:":                      "! names no file",
		"file:a\x00b":                "! names no file",
		"file://host/x":              "! file:// takes an absolute path (file:///…) and no host",
		"s3://bucket/x":              "! not a file: URI",
		"file://" + a + "/none%20it": "! " + notFound,
	} {
		got := "! "
		files, err := roots.Files(uri)
		if err == nil {
			got = content(t, files[0])
		} else {
			got += strings.TrimPrefix(err.Error(), uri+": ")
		}
		if got != want {
			t.Errorf("%q: %q, want %q", uri, got, want)
		}
		if err != nil && strings.Contains(strings.ReplaceAll(err.Error(), uri, ""), filepath.Dir(out)) {
			t.Errorf("%q: the error tells where the roots are: %v", uri, err)
		}
	}
	if _, err := (Roots{}).Files("file:x"); err == nil || !strings.Contains(err.Error(), "no data roots") {
		t.Errorf("without roots: %v", err)
	}
}

func content(t *testing.T, f File) string {
	t.Helper()
	r, err := f.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestRootsSwap: a file that becomes a way out between the two looks is refused.
func TestRootsSwap(t *testing.T) {
	a, _, out, roots := tree(t)
	files, err := roots.Files("file:x.tsv")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(a, "x.tsv")
	for name, swap := range map[string]func() error{
		"link": func() error { return os.Symlink(filepath.Join(out, "secret"), path) },
		"pipe": func() error { return syscall.Mkfifo(path, 0o600) },
	} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := swap(); err != nil {
			t.Fatal(err)
		}
		if f, err := files[0].Open(); err == nil {
			f.Close()
			t.Errorf("%s: opened", name)
		}
	}
}

func TestRootsDir(t *testing.T) {
	a, b, out, roots := tree(t)
	for uri, want := range map[string]string{
		"file:model": a + "/model", "file://" + a + "/model/": a + "/model", "file:bad/../bad/../model": a + "/model",
		"file:bad": `! "weights": ` + outside, "file:x.tsv": "! not a folder", "file://" + out: "! " + outside, "file:folder": "! " + outside,
		"file://" + filepath.Dir(b): "! " + outside,
	} {
		got, err := roots.Dir(uri)
		if err != nil {
			got = "! " + strings.TrimPrefix(err.Error(), uri+": ")
		}
		if got != want {
			t.Errorf("%q: %q, want %q", uri, got, want)
		}
	}
}

func TestParseRoots(t *testing.T) {
	for _, list := range []string{"/nowhere/at/all", t.TempDir() + ":/etc/passwd"} {
		if _, err := ParseRoots(list); err == nil {
			t.Errorf("%s: no error", list)
		}
	}
}
