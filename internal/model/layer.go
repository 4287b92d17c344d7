//go:build torch

package model

import "github.com/duratune/duratune/internal/torch"

// layer is a transformer block in the order of BERT: attention, add and norm, feed-forward, add and norm.
type layer struct {
	heads      int64
	qkv, q, kv linear // q and kv are the parts of qkv
	out        linear
	outNorm    norm
	up, down   linear
	downNorm   norm

	activation Activation
	eps        float64
	attention  float64 // dropout on the probabilities
	attended   float64 // dropout on the attention's output; DistilBERT has none
	hidden     float64 // dropout on the feed-forward block's output
}

func newLayer(v views, c Config, b block) layer {
	l := layer{
		heads: int64(c.Heads), qkv: v.stack(b.query, 3), q: v.linear(b.query), kv: v.stack(b.key, 2),
		out: v.linear(b.out), outNorm: v.norm(b.attentionNorm), up: v.linear(b.up), down: v.linear(b.down),
		downNorm: v.norm(b.outputNorm), activation: c.Activation, eps: c.NormEpsilon,
		attention: c.AttentionDropout, attended: c.HiddenDropout, hidden: c.HiddenDropout,
	}
	if c.Type == DistilBERT {
		l.attended = 0
	}
	return l
}

// forward maps x [N D] to [N D].
func (l layer) forward(s *torch.Scope, x torch.Tensor, in Inputs, site int64) torch.Tensor {
	qkv := s.Linear(x, l.qkv.w, l.qkv.b) // [N 3D]
	a := s.Attention(torch.Tensor{}, qkv, in.starts, l.heads, in.drop(l.attention, site))
	return l.rest(s, a, x, func(p float64, site int64) torch.Dropout { return in.drop(p, site) }, site)
}

// forwardFirst maps x [N D] to the outputs of the first tokens [B D].
func (l layer) forwardFirst(s *torch.Scope, x torch.Tensor, in Inputs, site int64) torch.Tensor {
	first := s.Rows(x, in.first)
	q := s.Linear(first, l.q.w, l.q.b) // [B D]
	kv := s.Linear(x, l.kv.w, l.kv.b)  // [N 2D]
	a := s.Attention(q, kv, in.starts, l.heads, in.drop(l.attention, site))
	return l.rest(s, a, first, func(p float64, site int64) torch.Dropout { return in.dropFirst(p, site) }, site)
}

// rest is what follows the attention's probabilities, row by row.
func (l layer) rest(s *torch.Scope, a, x torch.Tensor, drop func(p float64, site int64) torch.Dropout, site int64) torch.Tensor {
	x = s.Norm(s.Linear(a, l.out.w, l.out.b), x, l.outNorm.gamma, l.outNorm.beta, l.eps, drop(l.attended, site+1))
	h := l.activate(s, s.Linear(x, l.up.w, l.up.b)) // [N I]
	h = s.Linear(h, l.down.w, l.down.b)
	return s.Norm(h, x, l.downNorm.gamma, l.downNorm.beta, l.eps, drop(l.hidden, site+2))
}

func (l layer) activate(s *torch.Scope, x torch.Tensor) torch.Tensor {
	switch l.activation {
	case ReLU:
		return s.ReLU(x)
	case SiLU:
		return s.SiLU(x)
	case Tanh:
		return s.Tanh(x)
	default:
		return s.GELU(x, l.activation == GELUTanh)
	}
}
