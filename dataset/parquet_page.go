package dataset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	pq "github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/file"
)

// The encodings of the Parquet format (parquet-format/Encodings.md) for columns that are not nested in lists. Nothing
// here allocates more than a small multiple of the page.

var errPageShort = errors.New("a page ends too early")

// nextPage goes to the next data page, past dictionaries.
func (c *column) nextPage() error {
	for c.pages.Next() {
		page := c.pages.Page()
		n := int(page.NumValues())
		if n < 0 || n > maxPageValues {
			return fmt.Errorf("a page of %d values, the limit is %d", n, maxPageValues)
		}
		var err error
		switch p := page.(type) {
		case *file.DictionaryPage:
			if err := c.dict.set(p.Data(), n, c); err != nil {
				return err
			}
			continue
		case *file.DataPageV1:
			err = c.pageV1(p)
		case *file.DataPageV2:
			err = c.pageV2(p)
		default:
			continue
		}
		c.left = n
		return err
	}
	if err := c.pages.Err(); err != nil {
		return err
	}
	return errors.New("fewer values than the row group has rows")
}

// pageV1 has levels behind their length.
func (c *column) pageV1(p *file.DataPageV1) error {
	data := p.Data()
	c.levels = nil
	if c.maxLevel > 0 {
		if p.DefinitionLevelEncoding() != pq.Encodings.RLE {
			return errors.New("levels that are not RLE are not supported")
		}
		levels, rest, err := sized(data)
		if err != nil {
			return err
		}
		c.levels, data = newHybrid(levels, bits.Len64(c.maxLevel)), rest
	}
	return c.decode(pq.Encoding(p.Encoding()), data, int(p.NumValues()))
}

// pageV2 has the lengths of its levels in the header.
func (c *column) pageV2(p *file.DataPageV2) error {
	data := p.Data()
	r, d := int(p.RepetitionLevelByteLen()), int(p.DefinitionLevelByteLen())
	if r < 0 || d < 0 || r+d > len(data) {
		return errPageShort
	}
	c.levels = nil
	if c.maxLevel > 0 {
		c.levels = newHybrid(data[r:r+d], bits.Len64(c.maxLevel))
	}
	return c.decode(pq.Encoding(p.Encoding()), data[r+d:], int(p.NumValues()))
}

// sized cuts off what a 4-byte length stands before.
func sized(b []byte) (head, rest []byte, err error) {
	if len(b) < 4 || uint64(binary.LittleEndian.Uint32(b)) > uint64(len(b)-4) {
		return nil, nil, errPageShort
	}
	n := 4 + int(binary.LittleEndian.Uint32(b))
	return b[4:n:n], b[n:], nil
}

// values yields the values of a page that are not null.
type values interface {
	next() ([]byte, error)
}

// decode sets c.values.
func (c *column) decode(encoding pq.Encoding, data []byte, n int) (err error) {
	size, _ := c.size()
	isBytes, isInt := c.kind == pq.Types.ByteArray, c.kind == pq.Types.Int32 || c.kind == pq.Types.Int64
	switch {
	case len(data) == 0: // of nulls alone
		c.values = &plainBytes{}
	case encoding == pq.Encodings.Plain && isBytes:
		c.values = &plainBytes{data}
	case encoding == pq.Encodings.Plain && size > 0:
		c.values = &plainFixed{data, size}
	case encoding == pq.Encodings.Plain:
		c.values = &bitValues{hybrid{data: data, width: 1, packed: 8 * len(data)}}
	case encoding == pq.Encodings.RLE && c.kind == pq.Types.Boolean:
		if data, _, err = sized(data); err == nil {
			c.values = &bitValues{*newHybrid(data, 1)}
		}
	case encoding == pq.Encodings.RLEDict || encoding == pq.Encodings.PlainDict:
		c.values, err = c.dict.indexed(data)
	case encoding == pq.Encodings.DeltaBinaryPacked && isInt:
		c.values, err = newDeltaInts(data, n, size)
	case encoding == pq.Encodings.DeltaLengthByteArray && isBytes:
		c.values, err = newDeltaBytes(data, n)
	case encoding == pq.Encodings.DeltaByteArray && isBytes:
		c.values, err = newDeltaStrings(data, n)
	default:
		err = fmt.Errorf("encoding %s of %s is not supported", encoding, c.kind)
	}
	return err
}

type plainBytes struct{ data []byte }

func (p *plainBytes) next() (b []byte, err error) {
	b, p.data, err = sized(p.data)
	return b, err
}

type plainFixed struct {
	data []byte
	size int
}

func (p *plainFixed) next() ([]byte, error) {
	if len(p.data) < p.size {
		return nil, errPageShort
	}
	b := p.data[:p.size]
	p.data = p.data[p.size:]
	return b, nil
}

// bitValues are booleans, one byte each.
type bitValues struct{ hybrid }

func (v *bitValues) next() ([]byte, error) {
	b, err := v.hybrid.next()
	return []byte{byte(b)}, err
}

// dictionary is the plain values that a row group's pages refer to by index.
type dictionary struct {
	data    []byte
	size    int
	offsets []uint32 // of strings; their lengths stand before them
}

func (d *dictionary) set(data []byte, n int, c *column) error {
	*d = dictionary{data: data}
	if d.size, _ = c.size(); d.size > 0 {
		if len(data) < n*d.size {
			return errPageShort
		}
		return nil
	}
	for rest := data; len(d.offsets) < n; {
		d.offsets = append(d.offsets, uint32(len(data)-len(rest)))
		var err error
		if _, rest, err = sized(rest); err != nil {
			return err
		}
	}
	return nil
}

func (d *dictionary) value(i uint64) ([]byte, error) {
	switch {
	case d.size > 0 && i < uint64(len(d.data)/d.size):
		return d.data[int(i)*d.size:][:d.size], nil
	case d.size == 0 && i < uint64(len(d.offsets)):
		b, _, err := sized(d.data[d.offsets[i]:])
		return b, err
	}
	return nil, fmt.Errorf("no value %d in the dictionary", i)
}

// indexed are values given by their indices.
type indexed struct {
	indices *hybrid
	dict    *dictionary
}

func (d *dictionary) indexed(data []byte) (values, error) {
	if data[0] > 32 {
		return nil, fmt.Errorf("dictionary indices of %d bits", data[0])
	}
	return &indexed{newHybrid(data[1:], int(data[0])), d}, nil
}

func (v *indexed) next() ([]byte, error) {
	i, err := v.indices.next()
	if err != nil {
		return nil, err
	}
	return v.dict.value(i)
}

// hybrid reads runs of one value and of bit-packed values in turn.
type hybrid struct {
	data   []byte
	width  int
	run    uint64 // values left of a run of one value
	value  uint64
	packed int // values left of a bit-packed run, which begins at bit of data
	bit    int
}

func newHybrid(data []byte, width int) *hybrid { return &hybrid{data: data, width: width} }

func (h *hybrid) next() (uint64, error) {
	for h.run == 0 && h.packed == 0 {
		if err := h.header(); err != nil {
			return 0, err
		}
	}
	if h.run > 0 {
		h.run--
		return h.value, nil
	}
	h.packed--
	v, err := bitsAt(h.data, h.bit, h.width)
	if h.bit += h.width; h.packed == 0 {
		h.data, h.bit = h.data[min((h.bit+7)/8, len(h.data)):], 0
	}
	return v, err
}

func (h *hybrid) header() error {
	n, k := binary.Uvarint(h.data)
	if k <= 0 {
		return errPageShort
	}
	h.data = h.data[k:]
	if n&1 == 1 {
		if n>>1 > uint64(maxPageValues) {
			return errPageShort
		}
		h.packed = int(n>>1) * 8
		return nil
	}
	size := (h.width + 7) / 8
	if len(h.data) < size {
		return errPageShort
	}
	var word [8]byte
	copy(word[:], h.data[:size])
	h.data, h.run, h.value = h.data[size:], n>>1, binary.LittleEndian.Uint64(word[:])
	return nil
}

// bitsAt reads width bits, at most 64, from a bit offset, least significant first.
func bitsAt(b []byte, at, width int) (v uint64, err error) {
	if at+width > 8*len(b) {
		return 0, errPageShort
	}
	for done := 0; done < width; {
		bit := (at + done) % 8
		n := min(8-bit, width-done)
		v |= uint64(b[(at+done)/8]>>bit&(1<<n-1)) << done
		done += n
	}
	return v, nil
}
