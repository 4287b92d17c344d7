// Command gotest runs `go test -json` with its arguments and reports in the manner of plain `go test`: one line a
// package, the output of what failed, the names of what was skipped. It adds the counts to the file that DURATUNE_TOTALS
// names, from which CI makes its last line.
//
//	gotest NAME [go test's flags and packages]
//	gotest -sum FILE
//
// Where CI=true, a test that was skipped because ../shared is absent counts as failed: such tests say "shared: …".
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: gotest NAME [go test's arguments] | gotest -sum FILE")
		os.Exit(2)
	}
	if os.Args[1] == "-sum" {
		os.Exit(sum(os.Args[2:], os.Stdout))
	}
	os.Exit(run(os.Args[1], os.Args[2:]))
}

// run runs the tests and returns the exit status.
func run(name string, args []string) int {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		return 1
	}
	r := newReport(os.Stdout, os.Getenv("CI") == "true")
	readErr := r.read(out)
	err = errors.Join(readErr, cmd.Wait())
	r.finish(name)
	if err != nil && r.Failed == 0 { // the build failed, or go test itself
		r.Failed++
		fmt.Fprintf(os.Stderr, "gotest: %s: %v\n", name, err)
	}
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
	skips   []string
	refused []string
}

// Totals are the counts of tests, subtests included.
type Totals struct {
	Passed  int `json:"passed"`
	Failed  int `json:"failed"`
	Skipped int `json:"skipped"`
}

func newReport(out io.Writer, strict bool) *report {
	return &report{out: out, strict: strict, output: map[string]*strings.Builder{}}
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
	switch e.Action {
	case "pass":
		r.Passed++
	case "fail":
		r.Failed++
		fmt.Fprintf(r.out, "FAIL %s %s (%.1f s)\n%s", e.Package, e.Test, e.Elapsed, text)
	case "skip":
		if r.strict && strings.Contains(text, "shared:") {
			r.Failed++
			r.refused = append(r.refused, key)
			return
		}
		r.Skipped++
		r.skips = append(r.skips, key+": "+reason(text))
	}
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
		if r.Failed == 0 {
			r.Failed++
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
