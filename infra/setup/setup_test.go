package setup

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// TestCheckMachineNamesEverything: on a machine that has nothing, one error names all that is missing.
func TestCheckMachineNamesEverything(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := checkMachine(t.Context(), t.TempDir(), []item{{disk: 1 << 60}})
	if !errors.Is(err, ErrMachine) {
		t.Fatalf("got %v, want ErrMachine", err)
	}
	for _, want := range []string{"gcc", "ar (", "Python 3.10", "npm", "disk space", "apt-get install"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %q:\n%v", want, err)
		}
	}
}

func TestCheckMachineOldVersions(t *testing.T) {
	bin := t.TempDir()
	for name, output := range map[string]string{"gcc": "", "g++": "8.3.0", "ar": "", "npm": "", "python3": "3.9", "getconf": "glibc 2.27"} {
		script := fmt.Sprintf("#!/bin/sh\necho '%s'\n", output)
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin)
	err := checkMachine(t.Context(), t.TempDir(), nil)
	for _, want := range []string{"g++ 9 or newer: found 8.3.0", "found 3.9", "glibc 2.28"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
	if err != nil && strings.Contains(err.Error(), "npm (") {
		t.Errorf("the error names npm, which is there:\n%v", err)
	}
}

func TestAtLeast(t *testing.T) {
	for text, want := range map[string]bool{"9": true, "12.2.0": true, "8.5": false, "glibc 2.36": false, "9.1": true, "none": false, "10": true} {
		if got := atLeast(text, 9, 0); got != want {
			t.Errorf("atLeast(%q, 9, 0) = %t, want %t", text, got, want)
		}
	}
}

// TestInstallDir: what is there is whole, whatever happens on the way.
func TestInstallDir(t *testing.T) {
	s := &session{}
	dest := filepath.Join(t.TempDir(), "thing")
	fill := func(text string, err error) func(string) error {
		return func(tmp string) error {
			return errors.Join(os.WriteFile(filepath.Join(tmp, "file"), []byte(text), 0o644), err)
		}
	}
	if err := s.installDir(dest, fill("one", nil)); err != nil {
		t.Fatal(err)
	}
	if err := s.installDir(dest, fill("two", errors.New("no network"))); err == nil {
		t.Error("a failure was not reported")
	}
	read := func() string {
		text, err := os.ReadFile(filepath.Join(dest, "file"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if got := read(); got != "one" {
		t.Errorf("after a failed install the file holds %q, want one", got)
	}
	if err := s.installDir(dest, fill("three", nil)); err != nil {
		t.Fatal(err)
	}
	if got := read(); got != "three" {
		t.Errorf("after another install the file holds %q, want three", got)
	}
	if left, err := os.ReadDir(filepath.Dir(dest)); err != nil || len(left) != 1 {
		t.Errorf("left beside it: %v, %v", left, err)
	}
}

func TestInstallAllReportsEveryFailure(t *testing.T) {
	var compiling, most atomic.Int32
	compile := func(context.Context) error {
		most.Store(max(most.Load(), compiling.Add(1)))
		compiling.Add(-1)
		return errors.New("no compiler")
	}
	todo := []item{
		{name: "a", compile: true, install: compile},
		{name: "b", compile: true, install: compile},
		{name: "c", install: func(context.Context) error { return nil }},
	}
	var out bytes.Buffer
	s, err := newSession(Options{Cache: t.TempDir(), Out: &out})
	if err != nil {
		t.Fatal(err)
	}
	err = s.installAll(t.Context(), todo)
	if err == nil || !strings.Contains(err.Error(), "install a: no compiler") || !strings.Contains(err.Error(), "install b: no compiler") {
		t.Errorf("got %v, want both failures", err)
	}
	if most.Load() != 1 {
		t.Errorf("%d things were compiled at once, want 1", most.Load())
	}
	if !strings.Contains(out.String(), "c is in place") {
		t.Errorf("the output does not tell of c:\n%s", &out)
	}
}

func TestLockWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := Lock(t.Context(), path, func() { t.Error("the first waited") })
	if err != nil {
		t.Fatal(err)
	}
	waits := make(chan struct{})
	got := make(chan error, 1)
	go func() {
		again, err := Lock(t.Context(), path, func() { close(waits) })
		if err == nil {
			again()
		}
		got <- err
	}()
	<-waits
	unlock()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestUnzip(t *testing.T) {
	pack := func(name string) string {
		path := filepath.Join(t.TempDir(), "a.whl")
		var buf bytes.Buffer
		w := zip.NewWriter(&buf)
		f, err := w.Create(name)
		if err == nil {
			_, err = f.Write([]byte("x"))
		}
		if err := errors.Join(err, w.Close(), os.WriteFile(path, buf.Bytes(), 0o644)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	dest := t.TempDir()
	if err := unzip(t.Context(), pack("a/b.txt"), dest); err != nil || !exists(filepath.Join(dest, "a", "b.txt")) {
		t.Errorf("unzip: %v", err)
	}
	for _, name := range []string{"../outside", "/outside", "a/../../outside"} {
		if err := unzip(t.Context(), pack(name), dest); err == nil {
			t.Errorf("an archive that holds %q was unzipped", name)
		}
	}
}

func TestReadTarball(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.tgz")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	gz := gzip.NewWriter(f)
	w := tar.NewWriter(gz)
	for _, name := range []string{"LICENSE", "data/spam-1/2.txt", "data/spam-1/2.json", "data/easy-ham-1/1.txt", "lib/index.js"} {
		if err := w.WriteHeader(&tar.Header{Name: "package/" + name, Mode: 0o644, Size: int64(len(name))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), gz.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	mails, license, err := readTarball(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(sortedKeys(mails), " "); got != "data/easy-ham-1/1.txt data/spam-1/2.txt" || string(license) != "LICENSE" {
		t.Errorf("read %q and licence %q", got, license)
	}
	if mailLabel("data/easy-ham-1/1.txt") != "ham" || mailLabel("data/hard-ham-1/1.txt") != "ham" || mailLabel("data/spam-2/1.txt") != "spam" {
		t.Error("labels do not follow the folders")
	}
	if err := convertMails(path, t.TempDir()); err == nil || !strings.Contains(err.Error(), "holds 2 mails, want 6046") {
		t.Errorf("convertMails gave %v, want it to miss mails", err)
	}
}

func TestFindRoot(t *testing.T) {
	root, err := FindRoot(".")
	if err != nil {
		t.Fatal(err)
	}
	if !exists(filepath.Join(root, "infra", "setup", "setup_test.go")) {
		t.Errorf("FindRoot = %q", root)
	}
	if _, err := FindRoot(t.TempDir()); err == nil {
		t.Error("a folder outside of a checkout has a root")
	}
}

// TestItems: what is installed has a place that depends on its version, and nothing is there in an empty cache.
func TestItems(t *testing.T) {
	root, err := FindRoot(".")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir()) // no temporal on it
	s, err := newSession(Options{Root: root, Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	items, paths, err := s.items()
	if err != nil {
		t.Fatal(err)
	}
	if todo := missing(items); len(todo) != 6 {
		t.Errorf("%d things are missing in an empty cache, want 6", len(todo))
	}
	if !strings.HasSuffix(paths.Temporal, "bin/temporal-"+temporalVersion) || !strings.Contains(paths.MLflow, "mlflow-3.") {
		t.Errorf("paths are %+v", paths)
	}
}
