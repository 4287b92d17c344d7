package dataset

import (
	"fmt"

	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/golang/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// lz4Raw is LZ4_RAW of the Parquet format, which arrow does not know.
const lz4Raw compress.Compression = 7

// Arrow's codecs for zstd and snappy trust the compressed bytes: a page of a few bytes that announces little can expand
// to gigabytes. These decode into the size that the page header announced, which [limited] bounds, and fail beyond.
// Those for gzip and brotli already do.
func init() {
	compress.RegisterCodec(lz4Raw, exactCodec{nil, func(dst, src []byte) ([]byte, error) {
		n, err := lz4.UncompressBlock(src, dst)
		return dst[:max(n, 0)], err
	}})
	for c, decode := range map[compress.Compression]func(dst, src []byte) ([]byte, error){
		compress.Codecs.Zstd:   decodeZstd(),
		compress.Codecs.Snappy: decodeSnappy,
	} {
		if inner, err := compress.GetCodec(c); err == nil {
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
		panic(err) //nolint:forbidigo // the interface has no error; input.guard recovers it
	}
	return out
}

func decodeZstd() func(dst, src []byte) ([]byte, error) {
	// With these options NewReader cannot fail; if it did, every page would say so.
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
