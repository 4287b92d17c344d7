//go:build torch

// Attention within segments of packed tokens, for the GPU's kernels and, in plain products, for any device.

#include <ATen/Context.h>
#include <ATen/ops/_efficient_attention_backward.h>
#include <ATen/ops/_efficient_attention_forward.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bucketize.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/native_dropout.h>
#include <ATen/ops/native_dropout_backward.h>
#include <ATen/ops/softmax.h>

#include <cmath>
#include <limits>

#define AT_PER_OPERATOR_HEADERS
#include <ATen/TensorOperators.h>

#include "cuda_model.h"

namespace dt {
namespace {

using at::Tensor;

// one_block: the segment's keys fit into one block of flash attention's backward pass, which then adds up in one order anyway.
bool one_block(int64_t max_key, int64_t head) { return max_key <= (head <= 128 ? 128 : 64); }

bool flash(const Tensor& q) { return q.is_cuda() && q.scalar_type() == at::kBFloat16 && q.size(2) % 8 == 0 && q.size(2) <= 256; }
bool efficient(const Tensor& q) { return q.is_cuda() && !flash(q); }

// Deterministic makes ATen choose kernels without atomics while it lives.
struct Deterministic {
  bool was = at::globalContext().deterministicAlgorithms();
  explicit Deterministic(bool on) {
    if (on) at::globalContext().setDeterministicAlgorithms(true, true);
  }
  ~Deterministic() { at::globalContext().setDeterministicAlgorithms(was, true); }
};

// different is true where query and key are of different segments: [Q N].
Tensor different(const Attention& a) {
  auto segment = [](const Tensor& starts, int64_t n) {
    Tensor i = at::arange(n, starts.options());
    return at::bucketize(i, starts.slice(0, 1), false, true);
  };
  return segment(a.query_starts, a.q.size(0)).unsqueeze(1).ne(segment(a.key_starts, a.k.size(0)).unsqueeze(0));
}

Tensor heads_first(const Tensor& x) { return x.transpose(0, 1); }  // [H n K]

}  // namespace

Tensor Attention::forward() {
  int64_t n = q.size(0), d = q.size(1) * q.size(2);
  double scale = 1 / std::sqrt(static_cast<double>(q.size(2)));
  if (flash(q)) {
    Tensor debug;
    std::tie(out, lse, rng, rng2, debug) = at::_flash_attention_forward(q, k, v, query_starts, key_starts, max_query, max_key, drop, false, false, scale);
    return out.reshape({n, d});
  }
  if (efficient(q)) {
    auto r = at::_efficient_attention_forward(q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), {}, query_starts, key_starts, max_query, max_key, drop, 0, true, scale);
    out = std::get<0>(r);
    lse = std::get<1>(r);
    rng = std::get<2>(r);
    rng2 = std::get<3>(r);
    return out.reshape({n, d});
  }
  Tensor scores = at::bmm(heads_first(q), heads_first(k).transpose(1, 2)).to(at::kFloat) * scale;
  probs = at::softmax(scores.masked_fill(different(*this), -std::numeric_limits<float>::infinity()), -1).to(q.scalar_type());
  Tensor kept = probs;
  if (drop > 0) std::tie(kept, mask) = at::native_dropout(probs, drop, true);
  out = heads_first(at::bmm(kept, heads_first(v))).contiguous();  // [Q H K]
  return out.view({n, d});
}

void Attention::backward(const Tensor& dy, Tensor* dq, Tensor* dk, Tensor* dv) const {
  double scale = 1 / std::sqrt(static_cast<double>(q.size(2)));
  if (flash(q)) {
    Deterministic guard(!one_block(max_key, q.size(2)));
    std::tie(*dq, *dk, *dv) = at::_flash_attention_backward(dy.view_as(q), q, k, v, out, lse, query_starts, key_starts, max_query, max_key, drop, false, rng, rng2, scale);
    return;
  }
  if (efficient(q)) {
    auto r = at::_efficient_attention_backward(dy.view_as(q).unsqueeze(0), q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), {}, out, query_starts, key_starts,
                                               max_query, max_key, lse, drop, rng, rng2, 0, false, scale, 1);
    *dq = std::get<0>(r).squeeze(0);
    *dk = std::get<1>(r).squeeze(0);
    *dv = std::get<2>(r).squeeze(0);
    return;
  }
  Tensor g = heads_first(dy.view_as(q)), kept = probs;
  Tensor dp = at::bmm(g, heads_first(v).transpose(1, 2));
  if (drop > 0) {
    kept = at::native_dropout_backward(probs, mask, 1 / (1 - drop));
    dp = at::native_dropout_backward(dp, mask, 1 / (1 - drop));
  }
  *dv = heads_first(at::bmm(kept.transpose(1, 2), g));
  Tensor ds = (dp - (dp * probs).sum(-1, true)) * probs * scale;
  *dq = heads_first(at::bmm(ds, heads_first(k)));
  *dk = heads_first(at::bmm(ds.transpose(1, 2), heads_first(q)));
}

}  // namespace dt
