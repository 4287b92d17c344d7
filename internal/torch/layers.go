//go:build torch

package torch

import (
	"fmt"

	lib "github.com/sugarme/gotch/libtch"

	"github.com/duratune/duratune/internal/torch/native"
)

// Legend: N tokens of all sequences of a batch, B sequences, D hidden, H heads, K = D/H.

// Dropout says how elements of a tensor are dropped: with probability P, as a function of the row's key and of the place in
// the model (Site) alone. Keys is int64, one a row. P 0 drops nothing.
type Dropout struct {
	Keys Tensor
	Site int64
	P    float64
}

func (d Dropout) native() native.Drop { return native.Drop{Keys: ptr(d.Keys), Site: d.Site, P: d.P} }

func ptr(t Tensor) native.Ptr { return native.Ptr(t.c) }

func (p Param) native() native.Param { return native.Param{Value: ptr(p.Value), Grad: ptr(p.Grad)} }

// op is do for the operations of package native.
func (s *Scope) op(name string, f func() (native.Ptr, error), operands ...Tensor) Tensor {
	return s.do(name, func(out *lib.Ctensor) {
		p, err := f()
		if err != nil {
			s.fail(classify(name, err.Error()))
		}
		*out = lib.Ctensor(p)
	}, operands...)
}

// Linear is x·wᵀ + b for x [N in], w [out in], b [out]. It computes in w's element type.
func (s *Scope) Linear(x Tensor, w, b Param) Tensor {
	return s.op("linear", func() (native.Ptr, error) {
		return native.Linear(ptr(x), w.native(), b.native(), s.Accumulate)
	}, x, w.Value, b.Value)
}

// Embedding is the operands of Embed. Rows WordPad and PositionPad get no gradient (-1: all do). Type may be none.
type Embedding struct {
	IDs, Positions       Tensor // int64 [N]
	Types                Tensor // int64 [N], rows of Type; none: all are 0
	Word, Position, Type Param
	WordPad, PositionPad int64
}

// Embed is word[ids] + type[types] + position[positions], fp32 [N D]. anchor is what makes it part of a graph. The gradient of
// Word is added to rows that must be zero before the first micro-batch of a step; all others are replaced.
func (s *Scope) Embed(anchor Tensor, e Embedding) Tensor {
	return s.op("embed", func() (native.Ptr, error) {
		return native.Embed(ptr(anchor), native.Embedding{
			IDs: ptr(e.IDs), Positions: ptr(e.Positions), Types: ptr(e.Types), Word: e.Word.native(), Position: e.Position.native(),
			Type: e.Type.native(), WordPad: e.WordPad, PositionPad: e.PositionPad,
		}, s.Accumulate)
	}, anchor, e.IDs, e.Positions, e.Word.Value, e.Position.Value)
}

// Norm is LayerNorm(residual + dropout(h)), fp32 [N D]; residual may be none.
func (s *Scope) Norm(h, residual Tensor, gamma, beta Param, eps float64, drop Dropout) Tensor {
	return s.op("norm", func() (native.Ptr, error) {
		return native.Norm(ptr(h), ptr(residual), gamma.native(), beta.native(), eps, drop.native(), s.Accumulate)
	}, h, gamma.Value, beta.Value)
}

// Drop is dropout(x).
func (s *Scope) Drop(x Tensor, drop Dropout) Tensor {
	if drop.P == 0 {
		return x
	}
	return s.op("dropout", func() (native.Ptr, error) { return native.Dropout(ptr(x), drop.native()) }, x, drop.Keys)
}

// Attention is softmax(q·kᵀ/√K)·v within each sequence. Sequence i is the rows starts[i] to starts[i+1] (starts is int32
// [B+1]). Without q, qkv [N 3D] packs queries, keys and values; with q [B D] there is one query a sequence and qkv is
// [N 2D]. The result has a row for each query. drop.Keys holds a key a token of qkv.
func (s *Scope) Attention(q, qkv, starts Tensor, heads int64, drop Dropout) Tensor {
	return s.op("attention", func() (native.Ptr, error) {
		return native.Attention(ptr(q), ptr(qkv), ptr(starts), heads, drop.native())
	}, qkv, starts)
}

// GELU is the Gaussian error linear unit, exact or in its tanh approximation.
func (s *Scope) GELU(x Tensor, tanh bool) Tensor {
	return s.op("gelu", func() (native.Ptr, error) { return native.GELU(ptr(x), tanh) }, x)
}

// Adam is the state of AdamW over flat fp32 buffers of one length, and its settings.
type Adam struct {
	Master, Grad, M, V       Tensor
	Shadow                   Tensor // bf16 copy of the weights from element ShadowFrom on, kept up to date; may be none
	ShadowFrom               int64
	Decayed                  int64 // elements before this one are decayed
	Beta1, Beta2, Eps, Decay float64
}

// Step makes update t (1 for the first) at learning rate lr, with the gradients multiplied by clip.
func (a Adam) Step(t int64, lr, clip float64) error {
	err := native.Adam{
		Master: ptr(a.Master), Grad: ptr(a.Grad), M: ptr(a.M), V: ptr(a.V), Shadow: ptr(a.Shadow), ShadowFrom: a.ShadowFrom,
		Decayed: a.Decayed, LR: lr, Beta1: a.Beta1, Beta2: a.Beta2, Eps: a.Eps, WeightDecay: a.Decay, Clip: clip, T: t,
	}.Step()
	if err != nil {
		return classify("adam", err.Error())
	}
	return nil
}

// Collect copies bf16 gradients into the fp32 buffer grad at element from, or, in a scope that accumulates, adds them there.
func (s *Scope) Collect(grad, bf16 Tensor, from int64) {
	if s.err != nil {
		return
	}
	if err := native.Collect(ptr(grad), ptr(bf16), from, s.Accumulate); err != nil {
		s.fail(classify("collect", err.Error()))
	}
}

// L2 is the Euclidean norm of a flat fp32 tensor on the host, summed in double and in an order that does not depend on the
// number of threads.
func L2(flat Tensor) (float64, error) {
	norm, err := native.Norm2(ptr(flat))
	if err != nil {
		return 0, fmt.Errorf("torch: norm: %w", err)
	}
	return norm, nil
}

// WithGrad runs fn with gradients recorded or not, and puts the mode back. New threads do not record.
func WithGrad(on bool, fn func()) {
	was := native.GradMode(on)
	defer native.GradMode(was)
	fn()
}
