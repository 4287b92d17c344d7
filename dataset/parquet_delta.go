package dataset

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// maxDeltaBlock bounds the values of a block; writers use 128.
const maxDeltaBlock = 1 << 16

// decodeDelta reads DELTA_BINARY_PACKED integers, at most limit, and returns what follows them.
func decodeDelta(b []byte, limit int) (out []int64, rest []byte, err error) {
	var head [3]uint64 // values a block, miniblocks a block, values in all
	for i := range head {
		n, k := binary.Uvarint(b)
		if k <= 0 {
			return nil, nil, errPageShort
		}
		head[i], b = n, b[k:]
	}
	block, minis, total := head[0], head[1], head[2]
	if minis == 0 || block > maxDeltaBlock || block%minis != 0 || block == 0 || total > uint64(limit) {
		return nil, nil, fmt.Errorf("a delta block of %d values in %d parts for %d values", block, minis, total)
	}
	last, b, err := zigzag(b)
	if err != nil || total == 0 {
		return nil, b, err
	}
	out = append(make([]int64, 0, total), last)
	for uint64(len(out)) < total {
		if out, b, err = deltaBlock(out, b, int(total), int(minis), int(block/minis)); err != nil {
			return nil, nil, err
		}
	}
	return out, b, nil
}

// deltaBlock appends the values of a block: its smallest delta, the bit widths of its miniblocks, and those.
func deltaBlock(out []int64, b []byte, total, minis, perMini int) ([]int64, []byte, error) {
	smallest, b, err := zigzag(b)
	if err != nil || len(b) < minis {
		return nil, nil, errPageShort
	}
	widths, b := b[:minis], b[minis:]
	last := out[len(out)-1]
	for _, width := range widths {
		if len(out) == total {
			break // the miniblocks that are not needed have no bytes
		}
		size := (perMini*int(width) + 7) / 8
		if width > 64 || len(b) < size {
			return nil, nil, errPageShort
		}
		for i := range min(perMini, total-len(out)) {
			delta, err := bitsAt(b, i*int(width), int(width))
			if err != nil {
				return nil, nil, err
			}
			last += smallest + int64(delta)
			out = append(out, last)
		}
		b = b[size:]
	}
	return out, b, nil
}

func zigzag(b []byte) (int64, []byte, error) {
	n, k := binary.Varint(b)
	if k <= 0 {
		return 0, nil, errPageShort
	}
	return n, b[k:], nil
}

// deltaInts are integers of size bytes.
type deltaInts struct {
	ints []int64
	buf  [8]byte
	size int
}

func newDeltaInts(data []byte, n, size int) (*deltaInts, error) {
	ints, _, err := decodeDelta(data, n)
	return &deltaInts{ints: ints, size: size}, err
}

func (d *deltaInts) next() ([]byte, error) {
	if len(d.ints) == 0 {
		return nil, errPageShort
	}
	binary.LittleEndian.PutUint64(d.buf[:], uint64(d.ints[0]))
	d.ints = d.ints[1:]
	return d.buf[:d.size], nil
}

// deltaBytes are strings behind their lengths.
type deltaBytes struct {
	lengths []int64
	data    []byte
}

func newDeltaBytes(data []byte, n int) (*deltaBytes, error) {
	lengths, rest, err := decodeDelta(data, n)
	return &deltaBytes{lengths, rest}, err
}

func (d *deltaBytes) next() ([]byte, error) {
	if len(d.lengths) == 0 || d.lengths[0] < 0 || d.lengths[0] > int64(len(d.data)) {
		return nil, errPageShort
	}
	n := d.lengths[0]
	b := d.data[:n:n]
	d.lengths, d.data = d.lengths[1:], d.data[n:]
	return b, nil
}

// deltaStrings are strings that share a prefix with the one before.
type deltaStrings struct {
	prefixes []int64
	suffixes *deltaBytes
	last     []byte
}

func newDeltaStrings(data []byte, n int) (*deltaStrings, error) {
	prefixes, rest, err := decodeDelta(data, n)
	if err != nil {
		return nil, err
	}
	suffixes, err := newDeltaBytes(rest, n)
	return &deltaStrings{prefixes: prefixes, suffixes: suffixes}, err
}

func (d *deltaStrings) next() ([]byte, error) {
	suffix, err := d.suffixes.next()
	if err != nil {
		return nil, err
	}
	if len(d.prefixes) == 0 || d.prefixes[0] < 0 || d.prefixes[0] > int64(len(d.last)) {
		return nil, errors.New("a string shares more than the one before has")
	}
	d.last = append(d.last[:d.prefixes[0]], suffix...)
	d.prefixes = d.prefixes[1:]
	return d.last, nil
}
