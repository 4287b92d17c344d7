package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

const events = `
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0.1}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:3: got 1, want 2\n"}
{"Action":"fail","Package":"p","Test":"TestB","Elapsed":0.2}
{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:9: shared: sms not found\n"}
{"Action":"skip","Package":"p","Test":"TestC"}
{"Action":"output","Package":"p","Test":"TestD","Output":"    d_test.go:9: needs a GPU\n"}
{"Action":"skip","Package":"p","Test":"TestD"}
{"Action":"fail","Package":"p","Elapsed":0.4}
`

func TestReport(t *testing.T) {
	var out bytes.Buffer
	r := newReport(&out, false)
	if err := r.read(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	r.finish("unit")
	if diff := cmp.Diff(Totals{Passed: 1, Failed: 1, Skipped: 2}, r.Totals); diff != "" {
		t.Errorf("totals (-want +got):\n%s", diff)
	}
	for _, want := range []string{"FAIL p TestB", "got 1, want 2", "skipped p TestD: d_test.go:9: needs a GPU", "unit: 1 passed, 1 failed, 2 skipped"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "RUN") {
		t.Errorf("the report shows what passed:\n%s", &out)
	}
}

// TestStrict: in CI, a test that lacks ../shared fails.
func TestStrict(t *testing.T) {
	var out bytes.Buffer
	r := newReport(&out, true)
	if err := r.read(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	r.finish("unit")
	if r.Failed != 2 || r.Skipped != 1 || !strings.Contains(out.String(), "FAIL p TestC was skipped because ../shared is absent") {
		t.Errorf("got %+v:\n%s", r.Totals, &out)
	}
}

// TestPanicOutsideOfTests: a package may fail without a test that failed.
func TestPanicOutsideOfTests(t *testing.T) {
	var out bytes.Buffer
	r := newReport(&out, false)
	err := r.read(strings.NewReader(`{"Action":"output","Package":"p","Output":"panic: oh\n"}` + "\n" + `{"Action":"fail","Package":"p"}`))
	if err != nil || r.Failed != 1 || !strings.Contains(out.String(), "panic: oh") {
		t.Errorf("got %+v, %v:\n%s", r.Totals, err, &out)
	}
}

// What a hung test wrote, in the end the stacks of all goroutines, comes as its output, and the test has no end.
func TestTimeoutNamesWhatDidNotEnd(t *testing.T) {
	var out bytes.Buffer
	r := newReport(&out, false)
	err := r.read(strings.NewReader(`{"Action":"output","Package":"p","Test":"TestHung","Output":"panic: test timed out after 10m0s\n"}` + "\n" + `{"Action":"fail","Package":"p"}`))
	if err != nil || r.Failed != 1 || !strings.Contains(out.String(), "TestHung did not end\npanic: test timed out") {
		t.Errorf("got %+v, %v:\n%s", r.Totals, err, &out)
	}
}

// TestRepeat: a test that fails and then passes is flaky; one that fails twice, and those of a package that panicked, fail.
func TestRepeat(t *testing.T) {
	dir := t.TempDir()
	err := os.CopyFS(dir, fstest.MapFS{
		"go.mod": {Data: []byte("module m\n")},
		"a/a_test.go": {Data: []byte(`package a

import (
	"os"
	"testing"
)

func TestOnce(t *testing.T) {
	t.Run("sub", func(t *testing.T) {
		if _, err := os.Stat("seen"); err != nil {
			os.WriteFile("seen", nil, 0o600)
			t.Fatal("the first time")
		}
	})
}

func TestGood(t *testing.T) {}
`)},
		"b/b_test.go": {Data: []byte("package b\nimport \"testing\"\nfunc TestBad(t *testing.T) { t.Fatal(\"always\") }\n")},
		"c/c_test.go": {Data: []byte("package c\nimport \"testing\"\nfunc TestPanic(t *testing.T) { panic(\"oh\") }\nfunc TestNext(t *testing.T) {}\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	tests := []struct {
		packages []string
		want     Totals
		flaky    []test
	}{
		{[]string{"./a", "./b"}, Totals{Passed: 3, Failed: 1}, []test{{"m/a", "TestOnce"}}},
		{[]string{"./a", "./c"}, Totals{Passed: 1, Failed: 3}, nil},
	}
	for _, tt := range tests {
		if err := os.RemoveAll(filepath.Join(dir, "a", "seen")); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		r := newReport(&out, true)
		args := append([]string{"-count=1"}, tt.packages...)
		r.goTest(args)
		r.repeat(args)
		r.finish("repeat")
		if diff := cmp.Diff(tt.want, r.Totals); diff != "" || !slices.Equal(r.flaky, tt.flaky) {
			t.Errorf("%v: flaky %v, want %v; totals (-want +got):\n%s\n%s", tt.packages, r.flaky, tt.flaky, diff, &out)
		}
		if named := strings.Contains(out.String(), "FLAKY m/a TestOnce"); named != (tt.flaky != nil) || !strings.Contains(out.String(), "the first time") {
			t.Errorf("%v: the report hides what was flaky:\n%s", tt.packages, &out)
		}
	}
}

func TestSum(t *testing.T) {
	path := filepath.Join(t.TempDir(), "totals")
	for _, totals := range []Totals{{Passed: 3, Skipped: 1}, {Passed: 4}} {
		r := report{Totals: totals}
		if err := r.save(path); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		files []string
		want  string
		code  int
	}{
		{[]string{path}, "7 passed, 0 failed\n", 0},
		{[]string{path + "x"}, "0 passed, 1 failed\n", 1},
	}
	for _, tt := range tests {
		var out bytes.Buffer
		if code := sum(tt.files, &out); code != tt.code || out.String() != tt.want {
			t.Errorf("sum(%v) = %d and %q, want %d and %q", tt.files, code, &out, tt.code, tt.want)
		}
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}
