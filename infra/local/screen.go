package main

import (
	"fmt"
	"io"
	"time"
	"unicode/utf8"
)

// quietTime is how long a log that is no terminal stays silent while only numbers change.
const quietTime = 10 * time.Second

// screen shows one line for the present step, which is written over on a terminal. When the next step begins, the line
// stays, with the time that the step took.
type screen struct {
	out      io.Writer
	terminal bool
	now      func() time.Time

	step  string
	began time.Time // of the step
	wrote time.Time // the last line
	width int       // of what is on the line now
}

func newScreen(out io.Writer, terminal bool) *screen {
	return &screen{out: out, terminal: terminal, now: time.Now}
}

// show updates the line.
func (s *screen) show(step, progress string) {
	now := s.now()
	if step != s.step {
		s.end()
		s.step, s.began, s.wrote = step, now, time.Time{}
	}
	if !s.terminal && now.Sub(s.wrote) < quietTime {
		return
	}
	s.wrote = now
	s.write(fmt.Sprintf("%-28s %6s  %s", step, s.elapsed(), progress))
}

// end finishes the line of the present step.
func (s *screen) end() {
	if s.step == "" {
		return
	}
	if s.terminal {
		s.write(fmt.Sprintf("%-28s %6s", s.step, s.elapsed()))
		fmt.Fprintln(s.out)
	}
	s.step, s.width = "", 0
}

func (s *screen) elapsed() string { return s.now().Sub(s.began).Round(time.Second).String() }

func (s *screen) write(line string) {
	if !s.terminal {
		fmt.Fprintln(s.out, line)
		return
	}
	line = shorten(line, 118) // a line that wraps cannot be written over
	width := utf8.RuneCountInString(line)
	fmt.Fprintf(s.out, "\r%s%*s", line, max(0, s.width-width), "")
	s.width = width
}
