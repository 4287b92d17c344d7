// Command gotest runs `go test -json` with its arguments and reports in the manner of plain `go test`: one line a
// package, the output of what failed, the names of what was skipped. It adds the counts to the file that DURATUNE_TOTALS
// names, from which CI makes its last line.
//
//	gotest [-again] NAME [go test's flags and packages]
//	gotest -sum FILE
//
// Where CI=true, a test that was skipped because ../shared is absent counts as failed: such tests say "shared: …".
//
// With -again, up to three tests that failed are run once more: on real servers a failure may be the machine's. One that
// passes then is counted so, and named as flaky beside the output of its failure.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
)

func main() {
	again := flag.Bool("again", false, "run up to three tests that failed once more")
	total := flag.Bool("sum", false, "print the line that CI ends with")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: gotest [-again] NAME [go test's arguments] | gotest -sum FILE")
	}
	flag.Parse()
	switch args := flag.Args(); {
	case *total:
		os.Exit(sum(args, os.Stdout))
	case len(args) == 0:
		flag.Usage()
		os.Exit(2)
	default:
		os.Exit(run(args[0], args[1:], *again))
	}
}

// run runs the tests and returns the exit status.
func run(name string, args []string, again bool) int {
	r := newReport(os.Stdout, os.Getenv("CI") == "true")
	r.goTest(args)
	if again {
		r.repeat(args)
	}
	r.finish(name)
	if err := r.save(os.Getenv("DURATUNE_TOTALS")); err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		return 1
	}
	if r.Failed > 0 {
		return 1
	}
	return 0
}

// event is one line of test2json's output.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64 // seconds
}

// report collects the events of one run.
type report struct {
	Totals
	out    io.Writer
	strict bool // skips for want of ../shared are failures

	output  map[string]*strings.Builder // by package and test
	tests   map[test]*Totals            // of each test with its subtests
	skips   []string
	refused []string
	flaky   []test
	broken  bool // a package ended before its tests did
}

// test is one that is no subtest.
type test struct{ pkg, name string }

// Totals are the counts of tests, subtests included.
type Totals struct {
	Passed  int `json:"passed"`
	Failed  int `json:"failed"`
	Skipped int `json:"skipped"`
}

// add adds o, or with sign -1 takes it away.
func (t *Totals) add(o Totals, sign int) {
	t.Passed, t.Failed, t.Skipped = t.Passed+sign*o.Passed, t.Failed+sign*o.Failed, t.Skipped+sign*o.Skipped
}

func newReport(out io.Writer, strict bool) *report {
	return &report{out: out, strict: strict, output: map[string]*strings.Builder{}, tests: map[test]*Totals{}}
}

// goTest runs the tests and takes what they report.
func (r *report) goTest(args []string) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		err = errors.Join(r.read(out), cmd.Wait())
	}
	if err != nil && r.Failed == 0 { // the build failed, or go test itself
		r.Failed++
		r.broken = true
		fmt.Fprintln(os.Stderr, "gotest:", err)
	}
}

// failures are the names of the tests that failed, by package.
func (r *report) failures() map[string][]string {
	names := map[string][]string{}
	for t, totals := range r.tests {
		if totals.Failed > 0 {
			names[t.pkg] = append(names[t.pkg], t.name)
		}
	}
	return names
}

// repeatLimit is how many failures may be the machine's. More are the code's.
const repeatLimit = 3

// repeat runs the tests that failed once more. Where a package ended before its tests did, nothing is run again.
func (r *report) repeat(args []string) {
	failed := r.failures()
	n := 0
	for _, names := range failed {
		n += len(names)
	}
	if n > repeatLimit || r.broken {
		return
	}
	flags := slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return strings.HasPrefix(arg, "./") })
	for pkg, names := range failed {
		second := newReport(r.out, r.strict)
		second.goTest(slices.Concat(flags, []string{"-run", "^(" + strings.Join(names, "|") + ")$", pkg}))
		for _, name := range names {
			t := test{pkg, name}
			if now := second.tests[t]; now != nil && now.Failed == 0 && now.Passed > 0 && !second.broken {
				r.add(*r.tests[t], -1)
				r.add(*now, 1)
				r.flaky = append(r.flaky, t)
			}
		}
	}
}

// read takes events until the end. Lines that are no event (of a build that fails) are passed on.
func (r *report) read(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil || e.Action == "" {
			fmt.Fprintln(r.out, lines.Text())
			continue
		}
		r.take(e)
	}
	return lines.Err()
}

func (r *report) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		if r.output[key] == nil {
			r.output[key] = &strings.Builder{}
		}
		r.output[key].WriteString(e.Output)
		r.broken = r.broken || strings.HasPrefix(e.Output, "panic: ")
		return
	case "build-output":
		fmt.Fprint(r.out, e.Output)
		return
	case "pass", "fail", "skip":
	default:
		return
	}
	if e.Test == "" {
		r.endPackage(e, key)
	} else {
		r.endTest(e, key)
	}
	delete(r.output, key)
}

func (r *report) endTest(e event, key string) {
	text := ""
	if b := r.output[key]; b != nil {
		text = b.String()
	}
	var one Totals
	switch {
	case e.Action == "pass":
		one.Passed = 1
	case e.Action == "fail":
		one.Failed = 1
		fmt.Fprintf(r.out, "FAIL %s %s (%.1f s)\n%s", e.Package, e.Test, e.Elapsed, text)
	case r.strict && strings.Contains(text, "shared:"):
		one.Failed = 1
		r.refused = append(r.refused, key)
	default:
		one.Skipped = 1
		r.skips = append(r.skips, key+": "+reason(text))
	}
	name, _, _ := strings.Cut(e.Test, "/")
	t := test{e.Package, name}
	if r.tests[t] == nil {
		r.tests[t] = &Totals{}
	}
	r.tests[t].add(one, 1)
	r.add(one, 1)
}

// reason takes what a test said when it was skipped out of its output.
func reason(text string) string {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			return line
		}
	}
	return "no reason given"
}

// endPackage prints the package's line. A package may fail without a test that did: by a panic, or a time-out.
func (r *report) endPackage(e event, key string) {
	switch e.Action {
	case "pass":
		fmt.Fprintf(r.out, "ok   %s (%.1f s)\n", e.Package, e.Elapsed)
	case "fail":
		fmt.Fprintf(r.out, "FAIL %s (%.1f s)\n", e.Package, e.Elapsed)
		if b := r.output[key]; b != nil {
			fmt.Fprint(r.out, b.String())
		}
		for _, key := range slices.Sorted(maps.Keys(r.output)) { // of tests that did not end: where all goroutines were
			if name, ok := strings.CutPrefix(key, e.Package+" "); ok && name != "" {
				fmt.Fprintf(r.out, "%s did not end\n%s", name, r.output[key])
				delete(r.output, key)
			}
		}
		if len(r.failures()[e.Package]) == 0 {
			r.Failed++
			r.broken = true
		}
	}
}

// finish prints what a reader must not miss.
func (r *report) finish(name string) {
	for _, s := range r.skips {
		fmt.Fprintln(r.out, "skipped", s)
	}
	for _, s := range r.refused {
		fmt.Fprintf(r.out, "FAIL %s was skipped because ../shared is absent\n", s)
	}
	for _, t := range r.flaky {
		fmt.Fprintf(r.out, "FLAKY %s %s failed, and passed when it was run again\n", t.pkg, t.name)
	}
	fmt.Fprintf(r.out, "%s: %d passed, %d failed, %d skipped\n", name, r.Passed, r.Failed, r.Skipped)
}

// save appends the totals to a file, if one is named.
func (r *report) save(path string) error {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(json.NewEncoder(f).Encode(r.Totals), f.Close())
}

// sum prints the line that CI ends with. No tests at all count as one failure.
func sum(args []string, out io.Writer) int {
	var all Totals
	for _, path := range args {
		f, err := os.Open(path)
		if err != nil {
			continue // nothing was run
		}
		for dec := json.NewDecoder(f); ; {
			var t Totals
			if dec.Decode(&t) != nil {
				break
			}
			all.Passed, all.Failed, all.Skipped = all.Passed+t.Passed, all.Failed+t.Failed, all.Skipped+t.Skipped
		}
		_ = f.Close() // only read
	}
	if all == (Totals{}) {
		all.Failed = 1
	}
	fmt.Fprintf(out, "%d passed, %d failed\n", all.Passed, all.Failed)
	if all.Failed > 0 {
		return 1
	}
	return 0
}
