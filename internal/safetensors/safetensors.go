// Package safetensors reads and writes the safetensors format without a tensor library.
//
// A file is eight bytes of header length, a JSON header and the tensors' bytes. [Open] and [OpenModel] check all of it
// (sizes, offsets, types) before a tensor is handed out, so that a file from a stranger can do no more than be refused;
// the bytes themselves are memory-mapped, not read. [NewReader] and [Write] make the same bytes that the Rust library
// (and thus Python's save_file) makes, without copying the tensors.
//
// Pickle files (pytorch_model.bin) are recognised and refused, never read.
package safetensors

import (
	"errors"
	"fmt"
	"slices"
)

// ErrNotSafetensors is wrapped by an [*Error] for a file that is of another kind altogether, e.g. a pickle.
var ErrNotSafetensors = errors.New("not a safetensors file")

// Tensor is one named array; Data is little-endian, row-major, and len(Data) == product(Shape) × size of DType.
// The Data of a tensor of a [File] is read-only memory that is gone after [File.Close].
type Tensor struct {
	Name  string
	DType string // "F32", "F16", "BF16", "I64", …, as in the file's header
	Shape []int64
	Data  []byte
}

// Error says what is wrong with a file, or with one of its tensors. The same bytes will be refused again.
type Error struct {
	File    string // path; empty for tensors that are not of a file
	Tensor  string // name, or "" for the file as a whole
	Problem string
	Err     error // cause, may be nil
}

// Error names file, tensor and problem.
func (e *Error) Error() string {
	msg := e.Problem
	if e.Tensor != "" {
		msg = fmt.Sprintf("tensor %s: %s", e.Tensor, msg)
	}
	if e.File != "" {
		msg = e.File + ": " + msg
	}
	return msg
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func badTensor(name, format string, args ...any) *Error {
	return &Error{Tensor: name, Problem: fmt.Sprintf(format, args...)}
}

// dtypes lists the types in the order of the Rust library's enum, which decides the order of tensors in a file
// (descending), with the bits of one element.
var dtypes = []struct {
	name string
	bits int64
}{
	{"BOOL", 8}, {"F4", 4}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8}, {"I8", 8},
	{"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8},
	{"I16", 16}, {"U16", 16}, {"F16", 16}, {"BF16", 16}, {"I32", 32}, {"U32", 32}, {"F32", 32},
	{"C64", 64}, {"F64", 64}, {"I64", 64}, {"U64", 64},
}

// rank is the position of a type in dtypes, or -1.
func rank(dtype string) int {
	for i, d := range dtypes {
		if d.name == dtype {
			return i
		}
	}
	return -1
}

// size returns the bytes that a tensor of this type and shape takes.
func size(name, dtype string, shape []int64) (int64, error) {
	i := rank(dtype)
	if i < 0 {
		return 0, badTensor(name, "unknown dtype %q", dtype)
	}
	// A zero anywhere makes the tensor empty, however large the other dimensions are.
	bits := dtypes[i].bits
	if slices.Contains(shape, 0) {
		bits = 0
	}
	for _, n := range shape {
		if n < 0 {
			return 0, badTensor(name, "negative dimension in shape %v", shape)
		}
		if n != 0 && bits > (1<<63-1)/n {
			return 0, badTensor(name, "shape %v overflows", shape)
		}
		bits *= n
	}
	if bits%8 != 0 {
		return 0, badTensor(name, "shape %v of %s does not end at a byte", shape, dtype)
	}
	return bits / 8, nil
}
