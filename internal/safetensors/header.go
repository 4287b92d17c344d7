package safetensors

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"unicode/utf8"
)

// lengthBytes is the size of the little-endian length that a file begins with.
const lengthBytes = 8

// maxHeader is the reference implementation's limit on a header, in bytes.
const maxHeader = 100_000_000

// metadataKey is the header's one key that is not a tensor.
const metadataKey = "__metadata__"

// entry is one tensor of a header; begin and end count from the first byte after the header.
type entry struct {
	name       string
	dtype      string
	shape      []int64
	begin, end int64
}

// parseHeader reads a header and checks that its tensors fill the dataLen bytes behind it exactly: no overlap, no gap,
// nothing left over. The entries come in the order of their data.
func parseHeader(header []byte, dataLen int64) ([]entry, map[string]string, error) {
	if !utf8.Valid(header) {
		return nil, nil, &Error{Problem: "header is not UTF-8"}
	}
	if len(header) == 0 || header[0] != '{' {
		return nil, nil, &Error{Problem: "header does not begin with {", Err: ErrNotSafetensors}
	}
	var entries []entry
	var metadata map[string]string
	p := newParser(header)
	err := p.object(func(key string) error {
		if key == metadataKey {
			var err error
			metadata, err = p.strings()
			return err
		}
		e, err := p.entry(key)
		entries = append(entries, e)
		return err
	})
	if err == nil {
		err = p.end()
	}
	if err != nil {
		return nil, nil, asError(err, "header")
	}
	return entries, metadata, checkOffsets(entries, dataLen)
}

func checkOffsets(entries []entry, dataLen int64) error {
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end)) })
	var at int64
	for _, e := range entries {
		want, err := size(e.name, e.dtype, e.shape)
		if err != nil {
			return err
		}
		if e.begin != at {
			return badTensor(e.name, "data_offsets [%d, %d] overlap or leave a gap: data so far end at %d", e.begin, e.end, at)
		}
		if e.end-e.begin != want { // begin >= 0, so this cannot overflow
			return badTensor(e.name, "data_offsets [%d, %d] hold %d bytes, %s %v takes %d", e.begin, e.end, e.end-e.begin, e.dtype, e.shape, want)
		}
		if e.end > dataLen {
			return badTensor(e.name, "data_offsets [%d, %d] lie beyond the file's %d bytes of data", e.begin, e.end, dataLen)
		}
		at = e.end
	}
	if at != dataLen {
		return &Error{Problem: fmt.Sprintf("%d bytes after the last tensor", dataLen-at)}
	}
	return nil
}

// parser reads JSON by token, because the file decides what is a duplicate, a null or an integer, and encoding/json's
// decoding into Go values lets all three pass.
type parser struct{ dec *json.Decoder }

func newParser(data []byte) *parser {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	return &parser{dec}
}

// object calls each once per key, which must read the key's value.
func (p *parser) object(each func(key string) error) error {
	if err := p.delim('{'); err != nil {
		return err
	}
	seen := map[string]bool{}
	for p.dec.More() {
		tok, err := p.dec.Token()
		if err != nil {
			return err
		}
		key, _ := tok.(string) // the decoder admits nothing else here
		if seen[key] {
			return fmt.Errorf("%q appears twice", key)
		}
		seen[key] = true
		if err := each(key); err != nil {
			return err
		}
	}
	return p.delim('}')
}

func (p *parser) entry(name string) (entry, error) {
	e := entry{name: name}
	var offsets []int64
	found := map[string]bool{}
	err := p.object(func(key string) (err error) {
		found[key] = true
		switch key {
		case "dtype":
			e.dtype, err = p.string()
		case "shape":
			e.shape, err = p.integers()
		case "data_offsets":
			offsets, err = p.integers()
		default: // the reference implementation lets unknown keys pass
			var skipped json.RawMessage
			err = p.dec.Decode(&skipped)
		}
		return err
	})
	if err != nil {
		return e, asError(err, "").in(name)
	}
	for _, key := range []string{"dtype", "shape", "data_offsets"} {
		if !found[key] {
			return e, badTensor(name, "no %s", key)
		}
	}
	if len(offsets) != 2 || offsets[0] < 0 || offsets[1] < offsets[0] {
		return e, badTensor(name, "data_offsets %v are not [begin, end]", offsets)
	}
	e.begin, e.end = offsets[0], offsets[1]
	return e, nil
}

func (p *parser) strings() (map[string]string, error) {
	m := map[string]string{}
	err := p.object(func(key string) (err error) {
		m[key], err = p.string()
		return err
	})
	return m, err
}

func (p *parser) string() (string, error) {
	tok, err := p.dec.Token()
	if err != nil {
		return "", err
	}
	s, ok := tok.(string)
	if !ok {
		return "", fmt.Errorf("%v is not a string", tok)
	}
	return s, nil
}

func (p *parser) integers() ([]int64, error) {
	if err := p.delim('['); err != nil {
		return nil, err
	}
	list := []int64{}
	for p.dec.More() {
		tok, err := p.dec.Token()
		if err != nil {
			return nil, err
		}
		n, ok := tok.(json.Number)
		if !ok {
			return nil, fmt.Errorf("%v is not an integer", tok)
		}
		v, err := strconv.ParseInt(n.String(), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s is not an integer of 64 bits", n)
		}
		list = append(list, v)
	}
	return list, p.delim(']')
}

func (p *parser) delim(want json.Delim) error {
	tok, err := p.dec.Token()
	if err != nil {
		return err
	}
	if tok != want {
		return fmt.Errorf("got %v, want %v", tok, want)
	}
	return nil
}

// end checks that nothing but white space follows.
func (p *parser) end() error {
	if _, err := p.dec.Token(); err != io.EOF {
		return errors.New("data after the closing brace")
	}
	return nil
}

// asError keeps an *Error and makes one of anything else.
func asError(err error, what string) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if what != "" {
		what += ": "
	}
	return &Error{Problem: what + err.Error(), Err: err}
}

// in names the tensor, unless an inner error already did.
func (e *Error) in(tensor string) *Error {
	if e.Tensor == "" {
		e.Tensor = tensor
	}
	return e
}
