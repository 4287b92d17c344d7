package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// File is an opened safetensors file (or the shards of one), read by memory map. It may be used from several
// goroutines. A file that is truncated by someone else while it is mapped faults when it is read: open only files that
// are written once.
type File struct {
	path     string
	maps     [][]byte
	tensors  map[string]Tensor
	metadata map[string]string
}

// Open maps the safetensors file at path and checks its header. Errors: *[Error] for what the file holds, else those
// of the file system.
func Open(path string) (*File, error) {
	data, err := mapFile(path)
	if err != nil {
		return nil, inFile(err, path)
	}
	f := &File{path: path, maps: [][]byte{data}}
	n := int64(binary.LittleEndian.Uint64(data)) // mapFile has checked it
	body := data[lengthBytes+n:]
	entries, metadata, err := parseHeader(data[lengthBytes:lengthBytes+n], int64(len(body)))
	if err != nil {
		return nil, errors.Join(inFile(err, path), f.Close())
	}
	f.metadata = metadata
	f.tensors = make(map[string]Tensor, len(entries))
	for _, e := range entries {
		f.tensors[e.name] = Tensor{Name: e.name, DType: e.dtype, Shape: e.shape, Data: body[e.begin:e.end:e.end]}
	}
	return f, nil
}

// mapFile maps a regular file whose first bytes can be those of a safetensors file.
func mapFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe in a model folder must not hang us
	if err != nil {
		return nil, err
	}
	defer f.Close() // the map outlives it
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &Error{Problem: "not a regular file", Err: ErrNotSafetensors}
	}
	head := make([]byte, 64)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := checkStart(head[:n], info.Size()); err != nil {
		return nil, err
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, &os.PathError{Op: "mmap", Path: path, Err: err}
	}
	return data, nil
}

// convertHint tells how to get from a pickle to safetensors; loading a pickle runs code, so only its owner may.
const convertHint = `a PyTorch pickle, which is never read; where you trust it, convert it with ` +
	`AutoModel.from_pretrained(dir).save_pretrained(dir, safe_serialization=True)`

// checkStart judges a file by its first bytes and its size, before anything is allocated for its header.
func checkStart(head []byte, fileSize int64) error {
	switch {
	case bytes.HasPrefix(head, []byte("PK\x03\x04")), len(head) > 1 && head[0] == 0x80 && head[1] <= 5 && !jsonAt(head):
		return &Error{Problem: convertHint, Err: ErrNotSafetensors}
	case bytes.HasPrefix(head, []byte("version https://git-lfs")):
		return &Error{Problem: "a git-lfs pointer, not the weights; fetch them with git lfs pull", Err: ErrNotSafetensors}
	case len(head) < lengthBytes:
		return &Error{Problem: fmt.Sprintf("%d bytes are too few for a safetensors file", fileSize), Err: ErrNotSafetensors}
	}
	n := binary.LittleEndian.Uint64(head)
	if n > maxHeader {
		return &Error{Problem: fmt.Sprintf("header of %d bytes, the limit is %d", n, maxHeader), Err: ErrNotSafetensors}
	}
	if int64(n) > fileSize-lengthBytes {
		return &Error{Problem: fmt.Sprintf("header of %d bytes in a file of %d: truncated, or not a safetensors file", n, fileSize)}
	}
	return nil
}

// jsonAt reports whether a JSON object may begin behind the length: a length of 0x…0280 looks like a pickle.
func jsonAt(head []byte) bool { return len(head) > lengthBytes && head[lengthBytes] == '{' }

// inFile names the file in an *Error that has none yet.
func inFile(err error, path string) error {
	if e, ok := errors.AsType[*Error](err); ok && e.File == "" {
		e.File = path
	}
	return err
}

// Path is the path the file (or the index of its shards) was opened by.
func (f *File) Path() string { return f.path }

// Names returns the names of all tensors, sorted.
func (f *File) Names() []string {
	names := make([]string, 0, len(f.tensors))
	for name := range f.tensors {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Has reports whether there is a tensor of that name.
func (f *File) Has(name string) bool {
	_, ok := f.tensors[name]
	return ok
}

// Tensor returns a tensor without copying its data. A missing one is an *[Error].
func (f *File) Tensor(name string) (Tensor, error) {
	t, ok := f.tensors[name]
	if !ok {
		return Tensor{}, &Error{File: f.path, Tensor: name, Problem: "missing"}
	}
	return t, nil
}

// Metadata returns the free-form strings of the header (of the first shard), nil if there are none.
func (f *File) Metadata() map[string]string { return f.metadata }

// Close unmaps the file. Tensors taken from it may not be used afterwards.
func (f *File) Close() error {
	var errs []error
	for _, m := range f.maps {
		errs = append(errs, unix.Munmap(m))
	}
	f.maps, f.tensors = nil, nil
	return errors.Join(errs...)
}
