package dataset

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

var bom = []byte("\xef\xbb\xbf")

// lineReader reads lines of bounded length.
type lineReader struct {
	r    *bufio.Reader
	max  int               // bytes
	wrap func(error) error // names the file in an error of r
	line int64             // 1-based number of the line read last
	buf  []byte
}

// next returns a line without its \n, valid until the next call. The last line needs no \n. A line that is too long is
// skipped as a *RowError.
func (l *lineReader) next() ([]byte, error) {
	chunk, err := l.r.ReadSlice('\n')
	if err == io.EOF && len(chunk) == 0 {
		return nil, io.EOF
	}
	l.line++
	if err == nil || err == io.EOF {
		if len(chunk) > l.max {
			return nil, l.tooLong()
		}
		return bytes.TrimSuffix(chunk, []byte("\n")), nil
	}
	l.buf = l.buf[:0]
	for long := false; ; chunk, err = l.r.ReadSlice('\n') {
		long = long || len(l.buf)+len(chunk) > l.max
		if !long {
			l.buf = append(l.buf, chunk...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && err != io.EOF:
			return nil, l.wrap(err)
		case long:
			return nil, l.tooLong()
		}
		return bytes.TrimSuffix(l.buf, []byte("\n")), nil
	}
}

func (l *lineReader) tooLong() error {
	return &RowError{Line: l.line, Reason: fmt.Sprintf("longer than %d bytes", l.max), Kind: KindTooLong}
}

// skipBOM drops a byte order mark at the start.
func (l *lineReader) skipBOM() error {
	if head, err := l.r.Peek(len(bom)); err == nil && bytes.Equal(head, bom) {
		_, err = l.r.Discard(len(bom))
		return err
	}
	return nil
}

// nextRow returns the next line that is not empty, without a carriage return at its end.
func (l *lineReader) nextRow() ([]byte, error) {
	for {
		line, err := l.next()
		if err != nil {
			return nil, err
		}
		if line = bytes.TrimSuffix(line, []byte("\r")); len(line) > 0 {
			return line, nil
		}
	}
}

// whole reads a file as one text, whose label is the folder that it is in.
type whole struct {
	lines *lineReader
	label string
	done  bool
}

func (w *whole) read(rec *record) error {
	*rec = record{line: 1}
	if w.done {
		return io.EOF
	}
	w.done = true
	body, err := io.ReadAll(io.LimitReader(w.lines.r, int64(w.lines.max)+1))
	if err != nil {
		return w.lines.wrap(err)
	}
	rec.label = value{kind: text, str: w.label}
	if rec.text, rec.hasText = body, true; len(body) > w.lines.max {
		return &RowError{Reason: fmt.Sprintf("longer than %d bytes", w.lines.max), Kind: KindTooLong}
	}
	return nil
}

// tsv reads label<TAB>text without a header. Quotes mean nothing, and further tabs belong to the text.
type tsv struct{ lines *lineReader }

func (t *tsv) read(rec *record) error {
	*rec = record{}
	line, err := t.lines.nextRow()
	rec.line = t.lines.line
	if err != nil {
		return err
	}
	label, rest, ok := bytes.Cut(line, []byte("\t"))
	rec.text = line
	if !ok {
		return &RowError{Reason: "no tab between label and text"}
	}
	rec.label = value{kind: text, str: string(label)}
	rec.text, rec.hasText = rest, true
	return nil
}
