package dataset

import (
	"bufio"
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding/htmlindex"
	encunicode "golang.org/x/text/encoding/unicode"
	"golang.org/x/text/runes"
	"golang.org/x/text/transform"
)

// UTF8 is the encoding that needs no decoding.
const UTF8 = "utf-8"

// decoded turns the bytes of a text file into UTF-8. Invalid bytes become U+FFFD where they are to be replaced or where the
// encoding is another one; else they stay, for the row to be refused.
func decoded(r *bufio.Reader, opt Options) (*bufio.Reader, error) {
	if opt.foreign() {
		enc, err := htmlindex.Get(opt.Encoding)
		if err != nil {
			return nil, fmt.Errorf("unknown encoding %s", quote(opt.Encoding))
		}
		return bufio.NewReaderSize(transform.NewReader(r, encunicode.BOMOverride(enc.NewDecoder())), 1<<16), nil
	}
	if opt.Replace {
		return bufio.NewReaderSize(transform.NewReader(r, runes.ReplaceIllFormed()), 1<<16), nil
	}
	return r, nil
}

// foreign reports that text files are not UTF-8.
func (o Options) foreign() bool { return o.Encoding != "" && !strings.EqualFold(o.Encoding, UTF8) }

// text checks a text and, if it may be changed, makes it usable. It returns the kind and the reason why it is not.
func (o Options) text(b []byte) (_ []byte, kind ErrorKind, reason string) {
	if len(b) > o.MaxRow { // Parquet; the text formats see to it as they read
		return nil, KindTooLong, fmt.Sprintf("longer than %d bytes", o.MaxRow)
	}
	if o.Replace && !utf8.Valid(b) {
		b = runes.ReplaceIllFormed().Bytes(b)
	}
	if reason := invalidUTF8(b); reason != "" {
		return nil, KindEncoding, reason
	}
	if o.foreign() && !o.Replace && bytes.ContainsRune(b, utf8.RuneError) {
		return nil, KindEncoding, fmt.Sprintf("bytes that are not %s", o.Encoding)
	}
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return nil, KindNUL, fmt.Sprintf("NUL byte at offset %d", i)
	}
	if len(b) == 0 {
		return nil, KindEmptyText, "the text is empty"
	}
	if !bytes.ContainsFunc(b, func(r rune) bool { return !unicode.IsSpace(r) }) {
		return nil, KindEmptyText, "the text is white space alone"
	}
	return b, "", ""
}

// invalidUTF8 says where b is not UTF-8.
func invalidUTF8(b []byte) string {
	if utf8.Valid(b) {
		return ""
	}
	for i := 0; i < len(b); {
		c, n := utf8.DecodeRune(b[i:])
		if c == utf8.RuneError && n == 1 {
			return fmt.Sprintf("invalid UTF-8: byte 0x%02x at offset %d", b[i], i)
		}
		i += n
	}
	return ""
}
