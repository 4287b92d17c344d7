//go:build torch

// The classifier by hand; see cuda_model.h.

#include "cuda_model.h"

#define AT_PER_OPERATOR_HEADERS
#include <ATen/TensorOperators.h>
#include <ATen/ops/_log_softmax.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/embedding_dense_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/native_dropout.h>
#include <ATen/ops/native_dropout_backward.h>
#include <ATen/ops/native_layer_norm.h>
#include <ATen/ops/native_layer_norm_backward.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tanh_backward.h>
#include <ATen/ops/threshold_backward.h>
#include <ATen/ops/zeros.h>

namespace dt {
namespace {

using at::Tensor;

// Views hands out the weights in the order of model.Layout.Offsets.
struct Views {
  const Tensor &weights, &gradients;
  const int64_t* offset;

  Tensor of(const Tensor& flat, int64_t at, at::IntArrayRef shape) const {
    return flat.defined() ? flat.narrow(0, at, c10::multiply_integers(shape)).view(shape) : Tensor();
  }
  Linear linear_at(int64_t w, int64_t b, int64_t out, int64_t in) const {
    return {of(weights, w, {out, in}), of(weights, b, {out}), of(gradients, w, {out, in}), of(gradients, b, {out})};
  }
  LayerNorm norm(int64_t d) {
    int64_t w = *offset++, b = *offset++;
    return {of(weights, w, {d}), of(weights, b, {d}), of(gradients, w, {d}), of(gradients, b, {d})};
  }
  Table table(int64_t rows, int64_t d, int64_t pad) {
    int64_t at = *offset++;
    if (rows == 0) return {Tensor(), Tensor(), -1};
    return {of(weights, at, {rows, d}), of(gradients, at, {rows, d}), pad};
  }
};

Tensor linear(const Linear& l, const Tensor& x) { return at::addmm(l.b, x, l.w.t()); }

// linear_backward writes the weights' gradients. dx = dy·w is the caller's, who may add it to another.
void linear_backward(const Linear& l, const Tensor& x, const Tensor& dy, const Sums& sums) {
  at::mm_out(const_cast<Tensor&>(l.gw), dy.t(), x);
  sums.columns(l.gb, dy);
}

Tensor dropout(const Tensor& x, double p, bool train, Tensor* mask) {
  if (!train || p == 0) return x;
  Tensor y;
  std::tie(y, *mask) = at::native_dropout(x, p, true);
  return y;
}

Tensor dropout_backward(const Tensor& dy, double p, const Tensor& mask) {
  return mask.defined() ? at::native_dropout_backward(dy, mask, 1 / (1 - p)) : dy;
}

void norm_backward(const LayerNorm& w, const Normed& t, const Tensor& dy, const Sums& sums, Tensor* dh, Tensor* dresidual) {
  *dresidual = sums.norm(w, t, dy);
  *dh = dropout_backward(*dresidual, t.drop, t.mask);
}

// spread puts rows in their places among n, of which the others are zero.
Tensor spread(const Tensor& rows, const Tensor& places, int64_t n, const Sums& sums) {
  Tensor all = at::zeros({n, rows.size(1)}, rows.options());
  sums.table({Tensor(), all, -1}, rows, places);
  return all;
}

}  // namespace

Tensor Sums::loss(const Tensor& logits, const Tensor& target, Tensor dlogits) const {
  Tensor log_probs = at::_log_softmax(logits, 1, false);
  dlogits.copy_(log_probs.exp() * target.sum(1, true) - target);
  return (log_probs * target).sum().neg();
}

void Sums::table(const Table& t, const Tensor& dy, const Tensor& key) const {
  t.g.copy_(at::embedding_dense_backward(dy, key, t.g.size(0), t.pad, false));
}

void Sums::columns(Tensor g, const Tensor& dy) const { at::sum_out(g, dy, {0}, false, g.scalar_type()); }

Tensor Sums::norm(const LayerNorm& w, const Normed& t, const Tensor& dy) const {
  auto [dx, dw, db] = at::native_layer_norm_backward(dy, t.sum, w.w.sizes(), t.mean, t.rstd, w.w, w.b, {true, true, true});
  w.gw.copy_(dw);
  w.gb.copy_(db);
  return dx;
}

Classifier::Classifier(const dt_card_config& c, const Tensor& weights, const Tensor& gradients) : c_(c) {
  Views v{weights, gradients, c.offsets};
  int64_t d = c.hidden;
  word_ = v.table(c.vocab, d, c.word_pad);
  position_ = v.table(c.positions, d, c.position_pad);
  type_ = v.table(c.types, d, -1);
  embed_norm_ = v.norm(d);
  for (int64_t i = 0; i < c.layers; i++) {
    Block b;
    int64_t w = v.offset[0], bias = v.offset[1];  // query, key and value are neighbours
    v.offset += 2;
    b.qkv = v.linear_at(w, bias, 3 * d, d);
    b.q = v.linear_at(w, bias, d, d);
    b.kv = v.linear_at(w + d * d, bias + d, 2 * d, d);
    auto pair = [&](int64_t out, int64_t in) {
      int64_t at = *v.offset++, offset = *v.offset++;
      return v.linear_at(at, offset, out, in);
    };
    b.out = pair(d, d);
    b.attended = v.norm(d);
    b.up = pair(c.inner, d);
    b.down = pair(d, c.inner);
    b.fed = v.norm(d);
    blocks_.push_back(b);
  }
  int64_t w = *v.offset++, bias = *v.offset++;
  dense_ = v.linear_at(w, bias, d, d);
  w = *v.offset++, bias = *v.offset++;
  classifier_ = v.linear_at(w, bias, c.labels, d);
}

// first_only: the last block computes only what the head reads. Memory-efficient attention (fp32 on a GPU) leaves gradients of
// segments without a query unwritten, so there it computes all.
bool Classifier::first_only(size_t block) const { return block + 1 == blocks_.size() && (c_.device < 0 || c_.precision == DT_BF16); }

Tensor Classifier::activate(const Tensor& x, bool backward, const Tensor& dy) const {
  switch (c_.activation) {
    case DT_RELU:
      return backward ? at::threshold_backward(dy, x, 0) : at::relu(x);
    case DT_SILU:
      return backward ? at::silu_backward(dy, x) : at::silu(x);
    case DT_TANH:
      return backward ? at::tanh_backward(dy, at::tanh(x)) : at::tanh(x);
    default: {
      const char* how = c_.activation == DT_GELU_TANH ? "tanh" : "none";
      return backward ? at::gelu_backward(dy, x, how) : at::gelu(x, how);
    }
  }
}

Normed Classifier::norm(const LayerNorm& w, const Tensor& h, const Tensor& residual, double drop) const {
  Normed t;
  t.drop = drop;
  Tensor kept = dropout(h, drop, drop > 0, &t.mask);
  t.sum = residual.defined() ? kept + residual : kept;
  std::tie(t.out, t.mean, t.rstd) = at::native_layer_norm(t.sum, {c_.hidden}, w.w, w.b, c_.norm_eps);
  return t;
}

Tensor Classifier::block(const Block& w, BlockTape& t, const Tensor& x, const Batch& b, bool last, bool train) const {
  int64_t n = x.size(0), heads = c_.heads, k = c_.hidden / heads;
  auto p = [&](double drop) { return train ? drop : 0.0; };
  t.x = t.query = x;
  Attention& a = t.attention;
  a.drop = p(c_.drop_attention);
  a.query_starts = a.key_starts = b.key_starts;
  a.max_query = a.max_key = b.max_key;
  if (last) {  // the head reads the first tokens only
    t.query = at::embedding(x, b.first);
    a.query_starts = b.query_starts;
    a.max_query = 1;
    a.q = linear(w.q, t.query).view({t.query.size(0), heads, k});
    Tensor kv = linear(w.kv, x).view({n, 2, heads, k});
    a.k = kv.select(1, 0);
    a.v = kv.select(1, 1);
  } else {
    Tensor qkv = linear(w.qkv, x).view({n, 3, heads, k});
    a.q = qkv.select(1, 0);
    a.k = qkv.select(1, 1);
    a.v = qkv.select(1, 2);
  }
  t.attended = a.forward();
  t.first = norm(w.attended, linear(w.out, t.attended), t.query, p(c_.drop_attended));
  t.up = linear(w.up, t.first.out);
  t.active = activate(t.up, false, {});
  t.second = norm(w.fed, linear(w.down, t.active), t.first.out, p(c_.drop_hidden));
  return t.second.out;
}

Tensor Classifier::block_backward(const Block& w, const BlockTape& t, Tensor dy, const Batch& b, bool last, const Sums& sums) const {
  int64_t n = t.x.size(0), d = c_.hidden;
  Tensor dh, dx, dresidual;
  norm_backward(w.fed, t.second, dy, sums, &dh, &dx);
  linear_backward(w.down, t.active, dh, sums);
  Tensor dup = activate(t.up, true, at::mm(dh, w.down.w));
  linear_backward(w.up, t.first.out, dup, sums);
  norm_backward(w.attended, t.first, dx.addmm_(dup, w.up.w), sums, &dh, &dresidual);  // dx may be dh, which is not needed any more
  linear_backward(w.out, t.attended, dh, sums);
  Tensor dq, dk, dv;
  t.attention.backward(at::mm(dh, w.out.w), &dq, &dk, &dv);
  if (!last) {
    Tensor dqkv = at::cat({dq.reshape({n, d}), dk.reshape({n, d}), dv.reshape({n, d})}, 1);
    linear_backward(w.qkv, t.x, dqkv, sums);
    return dresidual.addmm_(dqkv, w.qkv.w);
  }
  Tensor query = dq.reshape({dq.size(0), d}), dkv = at::cat({dk.reshape({n, d}), dv.reshape({n, d})}, 1);
  linear_backward(w.q, t.query, query, sums);
  linear_backward(w.kv, t.x, dkv, sums);
  return spread(dresidual.addmm_(query, w.q.w), b.first, n, sums).addmm_(dkv, w.kv.w);
}

Tape Classifier::forward(const Batch& b, bool train) const {
  Tape t;
  Tensor e = at::embedding(word_.w, b.ids) + at::embedding(position_.w, b.positions);
  if (b.types.defined())
    e = e + at::embedding(type_.w, b.types);
  else if (type_.w.defined())
    e = e + type_.w.select(0, 0);
  t.embedded = norm(embed_norm_, e, {}, 0);
  Tensor x = dropout(t.embedded.out, c_.drop_hidden, train, &t.embed_mask);
  for (size_t i = 0; i < blocks_.size(); i++) {
    t.blocks.emplace_back();
    x = block(blocks_[i], t.blocks.back(), x, b, first_only(i), train);
    if (!train) t.blocks.back() = {};  // an evaluation goes back nowhere, and large batches take room
  }
  if (!first_only(blocks_.size() - 1)) x = at::embedding(x, b.first);
  t.dense_in = c_.type == DT_ROBERTA ? dropout(x, c_.drop_head, train, &t.head_in_mask) : x;
  t.dense = linear(dense_, t.dense_in);
  t.dense_active = c_.type == DT_DISTILBERT ? at::relu(t.dense) : at::tanh(t.dense);
  t.classifier_in = dropout(t.dense_active, c_.drop_head, train, &t.dense_mask);
  t.logits = linear(classifier_, t.classifier_in).to(at::kFloat);
  return t;
}

Tensor Classifier::loss(Tape& t, const Batch& b, const Sums& sums) const {
  t.dlogits = at::empty(t.logits.sizes(), t.classifier_in.options());
  return sums.loss(t.logits, b.target, t.dlogits);
}

void Classifier::backward(const Tape& t, const Batch& b, const Sums& sums) const {
  Tensor g = t.dlogits;
  linear_backward(classifier_, t.classifier_in, g, sums);
  g = dropout_backward(at::mm(g, classifier_.w), c_.drop_head, t.dense_mask);
  g = c_.type == DT_DISTILBERT ? at::threshold_backward(g, t.dense, 0) : at::tanh_backward(g, t.dense_active);
  linear_backward(dense_, t.dense_in, g, sums);
  g = dropout_backward(at::mm(g, dense_.w), c_.drop_head, t.head_in_mask);
  if (!first_only(blocks_.size() - 1)) g = spread(g, b.first, b.ids.size(0), sums);
  for (size_t i = blocks_.size(); i-- > 0;) g = block_backward(blocks_[i], t.blocks[i], g, b, first_only(i), sums);
  g = dropout_backward(g, c_.drop_hidden, t.embed_mask);
  Tensor dh, dsum;
  norm_backward(embed_norm_, t.embedded, g, sums, &dh, &dsum);
  sums.table(word_, dsum, b.ids);
  sums.table(position_, dsum, b.positions);
  if (b.types.defined()) {  // the few types have many tokens each: a product, where a kernel would add them one by one
    Tensor is = b.types.unsqueeze(1).eq(at::arange(type_.g.size(0), b.types.options())).to(dsum.scalar_type());
    Tensor table = type_.g;
    at::mm_out(table, is.t(), dsum);
  } else if (type_.w.defined()) {
    sums.columns(type_.g.select(0, 0), dsum);
  }
}

}  // namespace dt
