//go:build torch

package native

// #cgo CXXFLAGS: -std=c++17 -O3
// #cgo LDFLAGS: -ltorch_cpu -lc10 -lstdc++
// #include <malloc.h>
// #include <stdlib.h>
// #include "native.h"
import "C"

import (
	"errors"
	"unsafe"
)

// Ptr is an at::Tensor*; nil is no tensor.
type Ptr = unsafe.Pointer

// Param is a weight and the place its gradient is written.
type Param struct{ Value, Grad Ptr }

func (p Param) c() C.dt_param {
	return C.dt_param{value: C.dt_tensor(p.Value), grad: C.dt_tensor(p.Grad)}
}

// Drop is one dropout: Keys is int64, one a row; Site tells the places of a model apart. P is the probability.
type Drop struct {
	Keys Ptr
	Site int64
	P    float64
}

func (d Drop) c() C.dt_drop {
	return C.dt_drop{keys: C.dt_tensor(d.Keys), site: C.int64_t(d.Site), p: C.double(d.P)}
}

// TakeString returns a C string and frees it; nil is "".
func TakeString(p unsafe.Pointer) string {
	s := C.GoString((*C.char)(p))
	C.free(p)
	return s
}

// take turns a message of native.h into an error.
func take(msg *C.char) error {
	if msg == nil {
		return nil
	}
	return errors.New(TakeString(unsafe.Pointer(msg)))
}

// call runs f with a place for its result.
func call(f func(out *C.dt_tensor) *C.char) (Ptr, error) {
	var out C.dt_tensor
	err := take(f(&out))
	return Ptr(out), err
}

func b2i(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

// Trim gives the memory that was freed back to the system.
func Trim() { C.malloc_trim(0) }

// InitThread sets the intra-op threads of the calling OS thread and switches gradients off.
func InitThread(threads int) error { return take(C.dt_init_thread(C.int(threads))) }

// CPUCapability is the instruction set that libtorch's kernels use.
func CPUCapability() string { return TakeString(unsafe.Pointer(C.dt_cpu_capability())) }

// LoadCUDA loads libtorch's CUDA half and counts the GPUs; without a driver there are none, which is no error.
func LoadCUDA() (int, error) {
	var n C.int
	err := take(C.dt_load_cuda(&n))
	return int(n), err
}

// GradMode switches the recording of gradients and returns what it was.
func GradMode(on bool) bool { return C.dt_grad_mode(b2i(on)) != 0 }

// Device is the number of a tensor's device, -1 for the CPU.
func Device(t Ptr) int { return int(C.dt_device(C.dt_tensor(t))) }

// Detach returns the same memory outside the graph.
func Detach(x Ptr) (Ptr, error) {
	return call(func(out *C.dt_tensor) *C.char { return C.dt_detach(out, C.dt_tensor(x)) })
}

// Linear is x·wᵀ + b.
func Linear(x Ptr, w, b Param, accumulate bool) (Ptr, error) {
	return call(func(out *C.dt_tensor) *C.char {
		return C.dt_linear(out, C.dt_tensor(x), w.c(), b.c(), b2i(accumulate))
	})
}

// Embedding holds the operands of Embed.
type Embedding struct {
	IDs, Positions       Ptr // int64 [N]
	Types                Ptr // int64 [N]; nil: all are 0
	Word, Position, Type Param
	WordPad, PositionPad int64 // rows without a gradient; -1: none
}

// Embed is word[ids] + type[types] + position[positions]. anchor requires a gradient and gets none.
func Embed(anchor Ptr, e Embedding, accumulate bool) (Ptr, error) {
	return call(func(out *C.dt_tensor) *C.char {
		return C.dt_embed(out, C.dt_tensor(anchor), C.dt_tensor(e.IDs), C.dt_tensor(e.Positions), C.dt_tensor(e.Types), e.Word.c(), e.Position.c(),
			e.Type.c(), C.int64_t(e.WordPad), C.int64_t(e.PositionPad), b2i(accumulate))
	})
}

// Norm is LayerNorm(residual + dropout(h)); residual may be nil.
func Norm(h, residual Ptr, gamma, beta Param, eps float64, drop Drop, accumulate bool) (Ptr, error) {
	return call(func(out *C.dt_tensor) *C.char {
		return C.dt_norm(out, C.dt_tensor(h), C.dt_tensor(residual), gamma.c(), beta.c(), C.double(eps), drop.c(), b2i(accumulate))
	})
}

// Dropout drops elements of x.
func Dropout(x Ptr, drop Drop) (Ptr, error) {
	return call(func(out *C.dt_tensor) *C.char { return C.dt_dropout(out, C.dt_tensor(x), drop.c()) })
}

// Attention is multi-head attention within the sequences [starts[i], starts[i+1]) of qkv.
func Attention(q, qkv, starts Ptr, heads int64, drop Drop) (Ptr, error) {
	return call(func(out *C.dt_tensor) *C.char {
		return C.dt_attention(out, C.dt_tensor(q), C.dt_tensor(qkv), C.dt_tensor(starts), C.int64_t(heads), drop.c())
	})
}

// GELU is exact or by tanh.
func GELU(x Ptr, tanh bool) (Ptr, error) {
	return call(func(out *C.dt_tensor) *C.char { return C.dt_gelu(out, C.dt_tensor(x), b2i(tanh)) })
}

// Adam is one AdamW step on flat fp32 buffers of equal length.
type Adam struct {
	Master, Grad, M, V                       Ptr
	Shadow                                   Ptr // bf16, receives the new weights from element ShadowFrom on; may be nil
	ShadowFrom                               int64
	Decayed                                  int64 // elements before this one are decayed
	LR, Beta1, Beta2, Eps, WeightDecay, Clip float64
	T                                        int64 // 1 for the first step
}

// Step applies the update.
func (a Adam) Step() error {
	s := C.dt_adam_step{
		master: C.dt_tensor(a.Master), grad: C.dt_tensor(a.Grad), m: C.dt_tensor(a.M), v: C.dt_tensor(a.V),
		shadow: C.dt_tensor(a.Shadow), shadow_from: C.int64_t(a.ShadowFrom),
		decayed: C.int64_t(a.Decayed), lr: C.double(a.LR), beta1: C.double(a.Beta1), beta2: C.double(a.Beta2),
		eps: C.double(a.Eps), weight_decay: C.double(a.WeightDecay), clip: C.double(a.Clip), t: C.int64_t(a.T),
	}
	return take(C.dt_adam(&s))
}

// Collect copies bf16 gradients into the fp32 buffer at element from, or adds them there.
func Collect(grad, bf16 Ptr, from int64, accumulate bool) error {
	return take(C.dt_collect(C.dt_tensor(grad), C.dt_tensor(bf16), C.int64_t(from), b2i(accumulate)))
}

// Norm2 is the L2 norm of a flat fp32 buffer.
func Norm2(flat Ptr) (float64, error) {
	var out C.double
	err := take(C.dt_norm2(&out, C.dt_tensor(flat)))
	return float64(out), err
}
