//go:build torch

package model

import (
	"github.com/duratune/duratune/internal/torch"
)

// Legend of shapes: N tokens of all sequences of a batch, B sequences, D hidden, I inner, H heads, C labels.

// linear is a matrix [out in] with its bias [out].
type linear struct{ w, b torch.Param }

// norm is a layer norm's gamma and beta [D].
type norm struct{ gamma, beta torch.Param }

// Model is the forward pass of a classifier. Its parameters are views of flat buffers that the caller owns.
type Model struct {
	Config Config

	word, position, tokenType torch.Param
	embedNorm                 norm
	layers                    []layer
	dense, classifier         linear
}

// Buffers are the flat buffers of a layout that a model's parameters are views of. Gradients may be none, and so may the
// shadows. Where there are shadows, the matrices of the layers are views of these and the layers compute in bf16; what the
// residual stream passes through (embeddings, layer norms, head) stays fp32.
type Buffers struct {
	Value, Grad             torch.Tensor // fp32 [Size]
	ShadowValue, ShadowGrad torch.Tensor // bf16 [Head - Matrices]
}

// New makes a model whose views belong to s. Check s.Err afterwards.
func New(s *torch.Scope, c Config, l *Layout, buf Buffers) *Model {
	v := views{s, l, buf}
	n := namesOf(c)
	m := &Model{
		Config: c, word: v.table(n.word), position: v.table(n.position),
		embedNorm: v.norm(n.embedNorm), dense: v.linear(n.dense), classifier: v.linear(n.classifier),
	}
	if c.TokenType > 0 {
		m.tokenType = v.table(n.tokenType)
	}
	for i := range c.Layers {
		m.layers = append(m.layers, newLayer(v, c, n.block(i)))
	}
	return m
}

// views makes parameters out of flat buffers.
type views struct {
	s   *torch.Scope
	l   *Layout
	buf Buffers
}

// param is the view at a weight's place in the given shape, which may reach over its neighbours.
func (v views) param(w Weight, shape ...int64) torch.Param {
	size := int64(1)
	for _, d := range shape {
		size *= d
	}
	value, grad, at := v.buf.Value, v.buf.Grad, w.Offset
	if !v.buf.ShadowValue.IsNone() && at >= v.l.Matrices && at < v.l.Head {
		value, grad, at = v.buf.ShadowValue, v.buf.ShadowGrad, at-v.l.Matrices
	}
	view := func(flat torch.Tensor) torch.Tensor {
		if flat.IsNone() {
			return flat
		}
		return v.s.View(v.s.Narrow(flat, 0, at, size), shape...)
	}
	return torch.Param{Value: view(value), Grad: view(grad)}
}

func (v views) table(name string) torch.Param {
	w := v.l.At(name)
	return v.param(w, w.Shape...)
}

func (v views) norm(module string) norm { return norm{v.table(weight(module)), v.table(bias(module))} }

func (v views) linear(module string) linear {
	return linear{v.table(weight(module)), v.table(bias(module))}
}

// stack is several linears whose weights are neighbours, as one: rows [from, from+count) of the stack of modules that
// begins with module, counted in matrices.
func (v views) stack(module string, count int64) linear {
	w, b := v.l.At(weight(module)), v.l.At(bias(module))
	return linear{v.param(w, count*w.Shape[0], w.Shape[1]), v.param(b, count*b.Shape[0])}
}

// Forward returns the logits [B C], fp32. anchor makes the pass part of a graph; see torch.Scope.Anchor.
func (m *Model) Forward(s *torch.Scope, anchor torch.Tensor, in Inputs) torch.Tensor {
	x := m.embed(s, anchor, in)
	last := len(m.layers) - 1
	for i, l := range m.layers[:last] {
		x = s.Inner(func(s *torch.Scope) torch.Tensor { return l.forward(s, x, in, siteOf(i)) })
	}
	x = s.Inner(func(s *torch.Scope) torch.Tensor { return m.layers[last].forwardFirst(s, x, in, siteOf(last)) })
	return m.head(s, x, in)
}

// Places of dropout in a model: 0 is behind the embeddings, three belong to each layer, the last two to the head.
func siteOf(layer int) int64 { return 1 + 3*int64(layer) }

// embed is the sum of the tables' rows [N D], normalized.
func (m *Model) embed(s *torch.Scope, anchor torch.Tensor, in Inputs) torch.Tensor {
	e := torch.Embedding{
		IDs: in.ids, Positions: in.positions, Types: in.types, Word: m.word, Position: m.position, Type: m.tokenType,
		WordPad: int64(m.Config.PadID), PositionPad: -1,
	}
	if m.Config.Type == RoBERTa {
		e.PositionPad = e.WordPad
	}
	x := s.Norm(s.Embed(anchor, e), torch.Tensor{}, m.embedNorm.gamma, m.embedNorm.beta, m.Config.NormEpsilon, torch.Dropout{})
	return s.Drop(x, in.drop(m.Config.HiddenDropout, 0))
}

// head maps the first tokens x [B D] to logits [B C]. DistilBERT: dense, ReLU, dropout, classifier; BERT: dense and tanh (the
// pooler), dropout, classifier; RoBERTa: dropout, dense, tanh, dropout, classifier.
func (m *Model) head(s *torch.Scope, x torch.Tensor, in Inputs) torch.Tensor {
	p, site := m.Config.HeadDropout, siteOf(len(m.layers))
	if m.Config.Type == RoBERTa {
		x = s.Drop(x, in.dropFirst(p, site))
	}
	x = s.Linear(x, m.dense.w, m.dense.b)
	if m.Config.Type == DistilBERT {
		x = s.ReLU(x)
	} else {
		x = s.Tanh(x)
	}
	x = s.Drop(x, in.dropFirst(p, site+1))
	return s.To(s.Linear(x, m.classifier.w, m.classifier.b), torch.Float32)
}
