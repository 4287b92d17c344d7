package safetensors

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
	"sort"
	"strconv"
	"unicode/utf8"
)

// Reader streams a safetensors file that is made of tensors in memory. Besides io.ReadSeeker it is an io.ReaderAt, and
// Size is the length of the file in bytes. The tensors' data must not change while it is read.
type Reader struct{ *io.SectionReader }

// NewReader lays out a file as the Rust library does: by type, widest first, then by name. metadata may be nil; of
// several entries the keys are sorted. Tensors are neither copied nor reordered in place.
func NewReader(metadata map[string]string, tensors []Tensor) (*Reader, error) {
	sorted := slices.Clone(tensors)
	slices.SortFunc(sorted, func(a, b Tensor) int {
		return cmp.Or(cmp.Compare(rank(b.DType), rank(a.DType)), cmp.Compare(a.Name, b.Name))
	})
	header, err := buildHeader(metadata, sorted)
	if err != nil {
		return nil, err
	}
	s := &segments{}
	s.add(header)
	for _, t := range sorted {
		s.add(t.Data)
	}
	return &Reader{io.NewSectionReader(s, 0, s.size())}, nil
}

// Write writes a safetensors file; see [NewReader].
func Write(w io.Writer, metadata map[string]string, tensors []Tensor) error {
	r, err := NewReader(metadata, tensors)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return err
}

// buildHeader returns length and header of a file that holds the tensors in this order.
func buildHeader(metadata map[string]string, tensors []Tensor) ([]byte, error) {
	b := append(make([]byte, lengthBytes), '{')
	if metadata != nil {
		b = append(appendString(b, metadataKey), ':', '{')
		for i, key := range slices.Sorted(maps.Keys(metadata)) {
			if !utf8.ValidString(key) || !utf8.ValidString(metadata[key]) {
				return nil, &Error{Problem: fmt.Sprintf("metadata %q is not UTF-8", key)}
			}
			b = appendComma(b, i)
			b = append(appendString(b, key), ':')
			b = appendString(b, metadata[key])
		}
		b = append(b, '}')
	}
	var at int64
	seen := make(map[string]bool, len(tensors))
	for _, t := range tensors {
		if err := checkTensor(t, seen); err != nil {
			return nil, err
		}
		b = appendComma(b, len(b)-lengthBytes-1)
		b = append(appendString(b, t.Name), `:{"dtype":`...)
		b = append(appendString(b, t.DType), `,"shape":[`...)
		for i, n := range t.Shape {
			b = strconv.AppendInt(appendComma(b, i), n, 10)
		}
		b = fmt.Appendf(b, `],"data_offsets":[%d,%d]}`, at, at+int64(len(t.Data)))
		at += int64(len(t.Data))
	}
	b = append(b, '}')
	for len(b)%lengthBytes != 0 { // so that the data behind it are aligned
		b = append(b, ' ')
	}
	if len(b)-lengthBytes > maxHeader {
		return nil, &Error{Problem: fmt.Sprintf("header of %d bytes, the limit is %d", len(b)-lengthBytes, maxHeader)}
	}
	binary.LittleEndian.PutUint64(b, uint64(len(b)-lengthBytes))
	return b, nil
}

func checkTensor(t Tensor, seen map[string]bool) error {
	if t.Name == metadataKey || !utf8.ValidString(t.Name) {
		return badTensor(t.Name, "not a name for a tensor")
	}
	if seen[t.Name] {
		return badTensor(t.Name, "appears twice")
	}
	seen[t.Name] = true
	want, err := size(t.Name, t.DType, t.Shape)
	if err != nil {
		return err
	}
	if int64(len(t.Data)) != want {
		return badTensor(t.Name, "%d bytes of data, %s %v takes %d", len(t.Data), t.DType, t.Shape, want)
	}
	return nil
}

func appendComma(b []byte, before int) []byte {
	if before > 0 {
		b = append(b, ',')
	}
	return b
}

// appendString quotes s as serde_json does. encoding/json would escape U+2028 and U+2029 as well.
func appendString(b []byte, s string) []byte {
	const short = "\b\t\n\x00\f\r" // escaped by a letter, from 0x08 on
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= 0x20:
			b = append(b, c)
		case c >= '\b' && c <= '\r' && short[c-'\b'] != 0:
			b = append(b, '\\', "btn?fr"[c-'\b'])
		default:
			b = fmt.Appendf(b, `\u%04x`, c)
		}
	}
	return append(b, '"')
}

// segments reads several slices as one.
type segments struct {
	parts [][]byte
	ends  []int64 // offset behind each part
}

func (s *segments) add(part []byte) {
	s.parts = append(s.parts, part)
	s.ends = append(s.ends, s.size()+int64(len(part)))
}

func (s *segments) size() int64 {
	if len(s.ends) == 0 {
		return 0
	}
	return s.ends[len(s.ends)-1]
}

// ReadAt implements io.ReaderAt.
func (s *segments) ReadAt(p []byte, off int64) (int, error) {
	i := sort.Search(len(s.ends), func(i int) bool { return s.ends[i] > off })
	n := 0
	for ; n < len(p) && i < len(s.parts); i++ {
		begin := s.ends[i] - int64(len(s.parts[i]))
		n += copy(p[n:], s.parts[i][off+int64(n)-begin:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
