//go:build torch

package torch

import (
	"fmt"
	"unsafe"

	lib "github.com/sugarme/gotch/libtch"

	"github.com/duratune/duratune/internal/torch/native"
)

// CPU is the device number of the host; GPUs count from 0.
const CPU = -1

// Empty makes a tensor whose elements are undefined.
func (s *Scope) Empty(dtype DType, device int, shape ...int64) Tensor {
	return s.do("empty", func(out *lib.Ctensor) {
		lib.AtgEmpty(out, shape, len(shape), int32(dtype), int32(device))
	})
}

// Zeros makes a tensor of zeros.
func (s *Scope) Zeros(dtype DType, device int, shape ...int64) Tensor {
	return s.do("zeros", func(out *lib.Ctensor) {
		lib.AtgZeros(out, shape, len(shape), int32(dtype), int32(device))
	})
}

// Element is a Go type that Of copies into a tensor.
type Element interface{ ~int32 | ~int64 | ~float32 }

// Of copies a slice into a new tensor on the host. The product of shape is len(data).
func Of[E Element](s *Scope, data []E, shape ...int64) Tensor {
	if s.err != nil {
		return Tensor{}
	}
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	if n != int64(len(data)) {
		s.fail(fmt.Errorf("torch: of: %d elements for shape %v", len(data), shape))
		return Tensor{}
	}
	if n == 0 {
		return s.Empty(dtypeOf[E](), CPU, shape...)
	}
	return s.do("of", func(out *lib.Ctensor) {
		*out = lib.AtTensorOfData(unsafe.Pointer(&data[0]), shape, uint(len(shape)), uint(unsafe.Sizeof(data[0])), int(dtypeOf[E]()))
	})
}

func dtypeOf[E Element]() DType {
	var e E
	switch any(e).(type) {
	case int32:
		return Int32
	case float32:
		return Float32
	default:
		return Int64
	}
}

// Narrow is the view of length elements of dim from start on.
func (s *Scope) Narrow(x Tensor, dim, start, length int64) Tensor {
	return s.do("narrow", func(out *lib.Ctensor) { lib.AtgNarrow(out, x.c, dim, start, length) }, x)
}

// View is x in another shape, without a copy.
func (s *Scope) View(x Tensor, shape ...int64) Tensor {
	return s.do("view", func(out *lib.Ctensor) { lib.AtgView(out, x.c, shape, len(shape)) }, x)
}

// Rows picks rows of x by an int64 index: x[index].
func (s *Scope) Rows(x, index Tensor) Tensor {
	return s.do("index_select", func(out *lib.Ctensor) { lib.AtgIndexSelect(out, x.c, 0, index.c) }, x, index)
}

// To converts to another element type.
func (s *Scope) To(x Tensor, dtype DType) Tensor {
	return s.do("to", func(out *lib.Ctensor) { lib.AtgToDtype(out, x.c, int32(dtype), 0, 0) }, x)
}

// Add is x + y.
func (s *Scope) Add(x, y Tensor) Tensor {
	return s.do("add", func(out *lib.Ctensor) { lib.AtgAdd(out, x.c, y.c) }, x, y)
}

// Mul is x·k.
func (s *Scope) Mul(x Tensor, k float64) Tensor {
	return s.do("mul", func(out *lib.Ctensor) {
		c := lib.AtsFloat(k)
		defer lib.AtsFree(c)
		lib.AtgMulScalar(out, x.c, c)
	}, x)
}

// ReLU is max(x, 0).
func (s *Scope) ReLU(x Tensor) Tensor {
	return s.do("relu", func(out *lib.Ctensor) { lib.AtgRelu(out, x.c) }, x)
}

// SiLU is x·sigmoid(x).
func (s *Scope) SiLU(x Tensor) Tensor {
	return s.do("silu", func(out *lib.Ctensor) { lib.AtgSilu(out, x.c) }, x)
}

// Tanh is the hyperbolic tangent.
func (s *Scope) Tanh(x Tensor) Tensor {
	return s.do("tanh", func(out *lib.Ctensor) { lib.AtgTanh(out, x.c) }, x)
}

// CrossEntropySum is the summed cross-entropy of logits [B C] against class indices [B], as torch's cross_entropy with
// reduction "sum".
func (s *Scope) CrossEntropySum(logits, labels Tensor, smoothing float64) Tensor {
	const reductionSum, ignoreIndex = 2, -100
	return s.do("cross_entropy", func(out *lib.Ctensor) {
		lib.AtgCrossEntropyLoss(out, logits.c, labels.c, nil, reductionSum, ignoreIndex, smoothing)
	}, logits, labels)
}

// Anchor makes a tensor that requires a gradient: what starts the graph, since parameters are no leaves of it.
func (s *Scope) Anchor(device int) Tensor {
	zero := s.Zeros(Float32, device, 1)
	return s.do("requires_grad", func(out *lib.Ctensor) { lib.AtgSetRequiresGrad(out, zero.c, 1) }, zero)
}

// Backward runs the backward pass from a scalar.
func (s *Scope) Backward(loss Tensor) {
	if s.err != nil {
		return
	}
	lib.AtBackward(loss.c, 0, 0)
	s.fail(lastError("backward"))
}

// Copy copies src into dst, which may be of another element type or device.
func (s *Scope) Copy(dst, src Tensor) {
	if s.err != nil {
		return
	}
	lib.AtCopy_(dst.c, src.c)
	s.fail(lastError("copy"))
}

// Shape returns the sizes of x.
func (s *Scope) Shape(x Tensor) []int64 {
	if s.err != nil || x.IsNone() {
		return nil
	}
	shape := make([]int64, lib.AtDim(x.c))
	if len(shape) > 0 {
		lib.AtShape(x.c, unsafe.Pointer(&shape[0]))
	}
	s.fail(lastError("shape"))
	return shape
}

// Floats is the memory of a contiguous fp32 tensor on the host. It is valid as long as the tensor is.
func (s *Scope) Floats(x Tensor) []float32 {
	n := int64(1)
	for _, d := range s.Shape(x) {
		n *= d
	}
	if s.err != nil || x.IsNone() || n == 0 {
		return nil
	}
	if DType(lib.AtScalarType(x.c)) != Float32 || native.Device(native.Ptr(x.c)) != CPU || !lib.AtIsContiguous(x.c) {
		s.fail(fmt.Errorf("torch: floats: not a contiguous fp32 tensor on the host"))
		return nil
	}
	return unsafe.Slice((*float32)(lib.AtDataPtr(x.c)), n)
}

// Scalar reads a tensor of one element on the host.
func (s *Scope) Scalar(x Tensor) float64 {
	if s.err != nil || x.IsNone() {
		return 0
	}
	v := lib.AtDoubleValueAtIndexes(x.c, nil, 0)
	s.fail(lastError("scalar"))
	return v
}
