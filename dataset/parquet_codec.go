package dataset

import (
	"fmt"

	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/golang/snappy"
	"github.com/klauspost/compress/zstd"
)

// Arrow's codecs trust the compressed bytes: a page of a few bytes that announces little can expand to gigabytes. These
// two decode into the size that the page header announced, which [limited] bounds, and fail beyond; the others already do.
func init() {
	for c, decode := range map[compress.Compression]func(dst, src []byte) ([]byte, error){
		compress.Codecs.Zstd:   decodeZstd(),
		compress.Codecs.Snappy: decodeSnappy,
	} {
		inner, err := compress.GetCodec(c)
		if err == nil {
			compress.RegisterCodec(c, exactCodec{inner, decode})
		}
	}
}

// exactCodec replaces a codec's Decode.
type exactCodec struct {
	compress.Codec
	decode func(dst, src []byte) ([]byte, error)
}

// Decode panics on bad input, as its interface has no error; the reader's guard recovers it.
func (c exactCodec) Decode(dst, src []byte) []byte {
	if dst == nil {
		return c.Codec.Decode(dst, src)
	}
	out, err := c.decode(dst, src)
	if err != nil {
		panic(err)
	}
	return out
}

func decodeZstd() func(dst, src []byte) ([]byte, error) {
	// The decoder's goroutines start with its first use; without options that are out of range it cannot fail.
	d, err := zstd.NewReader(nil, zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxMemory(maxPage))
	return func(dst, src []byte) ([]byte, error) {
		if err != nil {
			return nil, err
		}
		return d.DecodeAll(src, dst[:0:len(dst)])
	}
}

func decodeSnappy(dst, src []byte) ([]byte, error) {
	if n, err := snappy.DecodedLen(src); err != nil || n > len(dst) {
		return nil, fmt.Errorf("a snappy page of %d bytes, its header announced %d", n, len(dst))
	}
	return snappy.Decode(dst, src)
}
