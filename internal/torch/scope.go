//go:build torch

package torch

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"unsafe"

	lib "github.com/sugarme/gotch/libtch"

	"github.com/duratune/duratune/internal/torch/native"
	"github.com/duratune/duratune/internal/train"
)

// DType is an element type, by libtorch's number for it.
type DType int32

// The element types in use.
const (
	Int32   DType = 3
	Int64   DType = 4
	Float32 DType = 6
	BFloat  DType = 15
)

// Size is the bytes of one element.
func (d DType) Size() int64 {
	switch d {
	case BFloat:
		return 2
	case Int64:
		return 8
	default:
		return 4
	}
}

// Tensor is a handle on a libtorch tensor, owned by a Scope. The zero value is no tensor.
type Tensor struct{ c lib.Ctensor }

// IsNone reports whether t is no tensor.
func (t Tensor) IsNone() bool { return t.c == nil }

// Param is a weight and the place its gradient goes, both of one shape. Grad is none where nothing is trained.
type Param struct{ Value, Grad Tensor }

// live counts the tensors that scopes own, for leak tests.
var live atomic.Int64

// Live is the number of tensors that are owned by open scopes.
func Live() int64 { return live.Load() }

// Scope owns tensors and holds the first error of the operations done through it. It is used from one thread.
type Scope struct {
	// Accumulate adds parameter gradients to those of earlier micro-batches instead of replacing them.
	Accumulate bool

	owned []lib.Ctensor
	err   error
}

// NewScope returns an empty scope. Close it.
func NewScope() *Scope { return &Scope{} }

// Close frees every tensor made through the scope.
func (s *Scope) Close() {
	for _, c := range s.owned {
		lib.AtFree(c)
	}
	live.Add(-int64(len(s.owned)))
	s.owned = nil
}

// Err returns the first error.
func (s *Scope) Err() error { return s.err }

// Inner runs fn in a scope of its own and keeps only the tensor it returns: what a layer needs in between is freed at its
// end (autograd keeps what the backward pass needs).
func (s *Scope) Inner(fn func(in *Scope) Tensor) Tensor {
	if s.err != nil {
		return Tensor{}
	}
	in := &Scope{Accumulate: s.Accumulate}
	defer in.Close()
	out := fn(in)
	if s.err = in.err; s.err != nil || out.IsNone() {
		return Tensor{}
	}
	return s.own("inner", lib.AtShallowClone(out.c))
}

// own registers a new C tensor, or records the error that kept it from being made.
func (s *Scope) own(op string, c lib.Ctensor) Tensor {
	if err := lastError(op); err != nil {
		s.fail(err)
		return Tensor{}
	}
	if c == nil {
		s.fail(fmt.Errorf("torch: %s: no result", op))
		return Tensor{}
	}
	s.owned = append(s.owned, c)
	live.Add(1)
	return Tensor{c}
}

// do is the shape of every operation with one result: skipped after an error and where an operand is missing.
func (s *Scope) do(op string, f func(out *lib.Ctensor), operands ...Tensor) Tensor {
	if s.err != nil {
		return Tensor{}
	}
	for i, t := range operands {
		if t.IsNone() {
			s.fail(fmt.Errorf("torch: %s: operand %d is no tensor", op, i))
			return Tensor{}
		}
	}
	var out lib.Ctensor
	f(&out)
	return s.own(op, out)
}

// Fail records an error of something that was done for the scope; nil is none.
func (s *Scope) Fail(err error) { s.fail(err) }

func (s *Scope) fail(err error) {
	if s.err == nil && err != nil {
		s.err = err
	}
}

// lastError takes the message that gotch stored on this thread, if any.
func lastError(op string) error {
	p := lib.GetAndResetLastErr()
	if p == nil {
		return nil
	}
	return classify(op, native.TakeString(unsafe.Pointer(p)))
}

// classify turns a libtorch message into an error. Only the first line is kept: the rest is a C++ stack.
func classify(op, msg string) error {
	line, _, _ := strings.Cut(msg, "\n")
	line = strings.TrimSpace(line)
	lower := strings.ToLower(line)
	switch {
	case strings.Contains(lower, "out of memory"), strings.Contains(lower, "can't allocate memory"),
		strings.Contains(lower, "not enough memory"):
		return fmt.Errorf("torch: %s: %s: %w", op, line, train.ErrOutOfMemory)
	case strings.Contains(line, "CUDA error"), strings.Contains(line, "CUDNN_STATUS"), strings.Contains(line, "CUBLAS_STATUS"),
		strings.Contains(line, "CUDA driver"), strings.Contains(line, "NVRTC"):
		return fmt.Errorf("torch: %s: %s: %w", op, line, train.ErrDevice)
	case strings.Contains(line, "CUDA plugin"):
		return fmt.Errorf("torch: %s: %s: %w", op, line, train.ErrNoLibtorch)
	}
	return fmt.Errorf("torch: %s: %w", op, errors.New(line))
}
