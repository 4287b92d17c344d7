package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// table counts trials by fault, in the order of faults.
type table []row

type row struct {
	fault           string
	trials, passed  int
	slowest, summed time.Duration // of the recoveries
}

// add takes a trial in and returns its line.
func (t *table) add(trial *trial, problems []string) string {
	var r *row
	for i := range *t {
		if (*t)[i].fault == trial.fault.name {
			r = &(*t)[i]
		}
	}
	if r == nil {
		*t = append(*t, row{fault: trial.fault.name})
		r = &(*t)[len(*t)-1]
	}
	r.trials++
	r.summed += trial.recovery
	r.slowest = max(r.slowest, trial.recovery)
	verdict := "ok"
	if len(problems) > 0 {
		verdict = "FAIL: " + strings.Join(problems, "; ")
	} else {
		r.passed++
	}
	return fmt.Sprintf("%s: %s at %s; further after %.1f s, done after %.1f s: %s",
		trial.id, trial.fault.name, trial.said, trial.recovery.Seconds(), trial.took.Seconds(), verdict)
}

// String is a Markdown table.
func (t table) String() string {
	var b strings.Builder
	b.WriteString("| fault | trials | passed | mean recovery | slowest recovery |\n| --- | --- | --- | --- | --- |\n")
	for _, r := range t {
		fmt.Fprintf(&b, "| %s | %d | %d | %.1f s | %.1f s |\n", r.fault, r.trials, r.passed, r.summed.Seconds()/float64(r.trials), r.slowest.Seconds())
	}
	return b.String()
}

// save adds the counts to the file that CI's last line is made from, if there is one.
func (t table) save(path string) error {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "{\"passed\":%d,\"failed\":%d}\n", t.passed(), t.failed())
	return errors.Join(err, f.Close())
}

func (t table) passed() (n int) {
	for _, r := range t {
		n += r.passed
	}
	return n
}

func (t table) failed() (n int) {
	for _, r := range t {
		n += r.trials - r.passed
	}
	return n
}
