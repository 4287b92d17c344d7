package dataset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
)

const (
	numParts   = 256      // partitions of a spool, by the first byte of a key
	spoolLimit = 32 << 20 // bytes a spool keeps in memory before it spills
)

// spool partitions records by key, in memory while they are few and in one unlinked temporary file beyond. Written
// first, read afterwards. Keys are hashes, so partitions are about equal, and a sort of one after the other is a sort
// of all in a 256th of the memory.
type spool struct {
	dir      string
	file     *os.File // nil until the first spill
	size     int64    // of file
	parts    [numParts]part
	buffered int
}

type part struct {
	buf     []byte
	extents []extent
	records int
}

type extent struct{ off, n int64 }

// add appends a record, given in pieces, to partition p.
func (s *spool) add(p byte, pieces ...[]byte) error {
	n := 0
	for _, piece := range pieces {
		n += len(piece)
	}
	t := &s.parts[p]
	before := len(t.buf)
	t.buf = binary.AppendUvarint(t.buf, uint64(n))
	for _, piece := range pieces {
		t.buf = append(t.buf, piece...)
	}
	t.records++
	if s.buffered += len(t.buf) - before; s.buffered > spoolLimit {
		return s.spill()
	}
	return nil
}

func (s *spool) spill() error {
	if s.file == nil {
		f, err := os.CreateTemp(s.dir, "duratune-spool-*")
		if err != nil {
			return err
		}
		s.file = f
		if err := os.Remove(f.Name()); err != nil { // the space is freed even if the process is killed
			return err
		}
	}
	for i := range s.parts {
		t := &s.parts[i]
		if len(t.buf) == 0 {
			continue
		}
		if _, err := s.file.Write(t.buf); err != nil {
			return fmt.Errorf("spill to %s: %w", s.file.Name(), err)
		}
		n := int64(len(t.buf))
		t.extents = append(t.extents, extent{s.size, n})
		s.size += n
		t.buf = t.buf[:0]
	}
	s.buffered = 0
	return nil
}

// records yields the records of a partition as they were added; each is valid while the result is kept.
func (s *spool) records(p int) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		t := &s.parts[p]
		var rest []byte // a record never spans two extents, since a spill writes whole ones
		for _, e := range t.extents {
			chunk := make([]byte, e.n)
			if _, err := s.file.ReadAt(chunk, e.off); err != nil && err != io.EOF {
				yield(nil, fmt.Errorf("read back %s: %w", s.file.Name(), err))
				return
			}
			if !yieldRecords(chunk, yield) {
				return
			}
		}
		rest = t.buf
		yieldRecords(rest, yield)
	}
}

func yieldRecords(b []byte, yield func([]byte, error) bool) bool {
	for len(b) > 0 {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > uint64(len(b)-k) {
			yield(nil, errors.New("spool: a record ends too late"))
			return false
		}
		if !yield(b[k:k+int(n)], nil) {
			return false
		}
		b = b[k+int(n):]
	}
	return true
}

// close frees memory and disk.
func (s *spool) close() error {
	s.parts = [numParts]part{}
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file = nil
	return f.Close()
}
