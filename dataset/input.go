package dataset

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/klauspost/compress/zstd"
)

// Names of the formats, as recipes write them.
const (
	FormatAuto    = "auto"
	FormatTSV     = "tsv"
	FormatCSV     = "csv"
	FormatJSONL   = "jsonl"
	FormatParquet = "parquet"
	FormatArrow   = "arrow"
	FormatFolder  = "folder"
)

const (
	sniffBytes = 4096
	maxWindow  = 128 << 20 // of zstd, as its command line tool has it
	freeBytes  = 64 << 20  // that any compressed file may expand to
	maxRatio   = 256       // and how many times its size beyond; text rarely passes 20
)

// input is an open file with the format that reads it.
type input struct {
	format
	name    string
	closers []func() error
}

// openInput opens a file, takes off its compression and finds its format.
func openInput(f File, opt Options) (*input, error) {
	file, err := f.Open()
	if err != nil {
		return nil, err
	}
	in := &input{name: f.Name, closers: []func() error{file.Close}}
	if err := in.guard(func() error { return in.start(file, opt) }); err != nil {
		in.close()
		return nil, err
	}
	return in, nil
}

// next reads a record. A panic of a format library is an error that names the file.
func (in *input) next(rec *record) error {
	return in.guard(func() error { return in.read(rec) })
}

func (in *input) guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &SourceError{in.name, fmt.Sprintf("cannot be read: %v", p)}
		}
	}()
	return f()
}

func (in *input) close() {
	for i := len(in.closers) - 1; i >= 0; i-- {
		_ = in.closers[i]() // only read from
	}
}

// start sets in.format.
func (in *input) start(file fs.File, opt Options) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return &SourceError{in.name, "not a regular file"}
	}
	if info.Size() == 0 && opt.Format != FormatFolder { // there it is a text without characters
		return &SourceError{in.name, "the file is empty"}
	}
	r, err := in.plain(file, info.Size(), opt)
	if err != nil {
		return err
	}
	name, err := in.sniff(r, opt)
	if err != nil {
		return err
	}
	switch name {
	case FormatParquet:
		if len(in.closers) > 1 {
			return &SourceError{in.name, "compressed Parquet cannot be read in place; decompress it (its pages are compressed already)"}
		}
		in.format, err = newParquet(in.name, file, opt, expansion(info.Size(), opt))
		return err
	case FormatArrow:
		return in.startArrow(file, r, opt, expansion(info.Size(), opt))
	}
	text, err := decoded(r, opt)
	if err != nil {
		return &SourceError{in.name, err.Error()}
	}
	if name, err = in.sniff(text, opt); err != nil {
		return err
	}
	return in.startText(name, text, opt)
}

// sniff finds the format that is to be read, by its first bytes if it is not named.
func (in *input) sniff(r *bufio.Reader, opt Options) (string, error) {
	head, err := r.Peek(sniffBytes)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
		return "", in.readError(err)
	}
	if opt.Format != "" && opt.Format != FormatAuto {
		return opt.Format, nil
	}
	return detect(in.name, head, newClasses(opt.Labels)), nil
}

// startArrow sets in.format to one that reads a file or, told by its first bytes, a stream.
func (in *input) startArrow(f fs.File, r *bufio.Reader, opt Options, limit int64) (err error) {
	next := streamed(r)
	if head, _ := r.Peek(len(arrowMagic)); string(head) == arrowMagic { // sniff has looked at its error
		at, ok := f.(ipc.ReadAtSeeker)
		if len(in.closers) > 1 || !ok {
			return &SourceError{in.name, "a compressed Arrow file cannot be read in place; decompress it, or write it as a stream"}
		}
		if next, err = filed(at); err != nil {
			return &SourceError{in.name, err.Error()}
		}
	}
	in.format, err = newArrowIPC(in.name, next, opt, limit)
	return err
}

// startText sets in.format to one that reads text.
func (in *input) startText(name string, text *bufio.Reader, opt Options) (err error) {
	head, _ := text.Peek(sniffBytes) // sniff has looked at its error
	if reason := unsupported(head); reason != "" {
		return &SourceError{in.name, reason}
	}
	lines := &lineReader{r: text, max: opt.MaxRow, wrap: in.readError}
	switch name {
	case FormatTSV:
		if opt.Pair != "" || opt.Group != "" || opt.Split != "" {
			return &SourceError{in.name, "label<TAB>text has no further columns: no second text, and nothing to group or split by"}
		}
		in.format = &tsv{lines: lines}
		return lines.skipBOM()
	case FormatJSONL:
		in.format = newJSONL(lines, opt)
		return lines.skipBOM()
	case FormatCSV:
		in.format, err = newCSV(in.name, lines, opt)
		return err
	case FormatFolder:
		if opt.Pair != "" {
			return &SourceError{in.name, "a folder of texts has no column of second texts"}
		}
		in.format = &whole{lines: lines, label: path.Base(path.Dir(in.name))}
		return lines.skipBOM()
	default:
		return &SourceError{in.name, "unknown format " + quote(name) + "; the formats are auto, tsv, csv, jsonl, parquet, arrow and folder"}
	}
}

// plain takes off gzip or zstd, told by content. What comes out is bounded, since a small file can expand without end.
func (in *input) plain(file io.Reader, size int64, opt Options) (*bufio.Reader, error) {
	raw := bufio.NewReaderSize(file, 1<<16)
	magic, err := raw.Peek(4)
	if err != nil && err != io.EOF {
		return nil, in.readError(err)
	}
	var plain io.Reader
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(raw)
		if err != nil {
			return nil, in.readError(err)
		}
		plain = z
		in.closers = append(in.closers, z.Close)
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(raw, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, in.readError(err)
		}
		plain = z
		in.closers = append(in.closers, func() error { z.Close(); return nil })
	default:
		return raw, nil
	}
	limit := expansion(size, opt)
	return bufio.NewReaderSize(&bounded{plain, limit, limit}, 1<<16), nil
}

// expansion is what a compressed file of size bytes may expand to.
func expansion(size int64, opt Options) int64 { return min(opt.MaxBytes, freeBytes+maxRatio*size) }

// readError names the file in what a decompressor says.
func (in *input) readError(err error) error {
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return &SourceError{in.name, "the compressed file ends too early"}
	}
	return &SourceError{in.name, err.Error()}
}

// bounded fails once more than left bytes were read.
type bounded struct {
	r           io.Reader
	left, limit int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, fmt.Errorf("expands to more than %d bytes", b.limit)
	}
	return n, err
}

// unsupported tells common files that are no data set by their first bytes.
func unsupported(head []byte) string {
	for magic, reason := range map[string]string{
		"PK\x03\x04":                         "a zip archive (or a spreadsheet); extract it, or export CSV",
		"BZh":                                "bzip2; gzip and zstd can be read",
		"\xfd7zXZ\x00":                       "xz; gzip and zstd can be read",
		"%PDF":                               "a PDF",
		"\xff\xfe":                           "UTF-16; name the encoding in the recipe (data.rows.encoding), or convert it to UTF-8",
		"\xfe\xff":                           "UTF-16; name the encoding in the recipe (data.rows.encoding), or convert it to UTF-8",
		"version https://git-lfs.github.com": "a git-lfs pointer, not the data; fetch it with git lfs pull",
	} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return reason
		}
	}
	if len(head) > 262 && string(head[257:262]) == "ustar" {
		return "a tar archive; extract it"
	}
	return ""
}

// detect finds the format by the magic of a binary one, by the file's name, then by its first bytes: the brace of a JSON object, and
// a known label before a tab.
func detect(name string, head []byte, known classes) string {
	if bytes.HasPrefix(head, []byte("PAR1")) {
		return FormatParquet
	}
	if bytes.HasPrefix(head, []byte(arrowMagic)) || bytes.HasPrefix(head, []byte("\xff\xff\xff\xff")) {
		return FormatArrow
	}
	name = strings.ToLower(name)
	for _, ending := range []string{".gz", ".zst", ".zstd"} {
		name = strings.TrimSuffix(name, ending)
	}
	switch path.Ext(name) {
	case ".csv":
		return FormatCSV
	case ".jsonl", ".ndjson", ".json":
		return FormatJSONL
	case ".tsv":
		return FormatTSV
	case ".parquet":
		return FormatParquet
	case ".arrow", ".feather", ".ipc":
		return FormatArrow
	}
	head = bytes.TrimPrefix(head, bom)
	if trimmed := bytes.TrimLeft(head, " \t\r\n"); len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '[') {
		return FormatJSONL
	}
	line, _, _ := bytes.Cut(bytes.TrimLeft(head, "\r\n"), []byte("\n"))
	if label, _, ok := bytes.Cut(line, []byte("\t")); ok {
		if _, problem := known.named(string(label)); problem == "" {
			return FormatTSV
		}
	}
	return FormatCSV
}
