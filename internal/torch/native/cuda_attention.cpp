//go:build torch

// Attention within segments of packed tokens, for the GPU's kernels and, in plain products, for any device.

#include <ATen/Context.h>
#include <ATen/ops/_efficient_attention_backward.h>
#include <ATen/ops/_efficient_attention_forward.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bucketize.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/matmul.h>
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

// efficient: not with dropout, since libtorch 2.11 counts the random numbers of packed sequences otherwise forward than backward
// (its launcher tells the forward pass that there are 0 keys).
bool efficient(const Tensor& q, double drop) { return q.is_cuda() && q.scalar_type() == at::kFloat && q.size(2) % 4 == 0 && drop == 0; }

// Deterministic makes ATen choose kernels without atomics while it lives.
struct Deterministic {
  bool was = at::globalContext().deterministicAlgorithms();
  explicit Deterministic(bool on) {
    if (on) at::globalContext().setDeterministicAlgorithms(true, true);
  }
  ~Deterministic() { at::globalContext().setDeterministicAlgorithms(was, true); }
};

// Padded lays packed rows out as [B L], a sequence a line. The padding between sequences is left out: nobody reads its results.
class Padded {
 public:
  // starts are those of segments in pairs, a sequence and its padding; rows is their number, longest the longest sequence.
  Padded(const Tensor& starts, int64_t rows, int64_t longest) : batch_(starts.size(0) / 2), longest_(longest) {
    Tensor from = starts.slice(0, 0, 2 * batch_, 2).contiguous(), to = starts.slice(0, 1, 2 * batch_, 2);
    Tensor row = from.unsqueeze(1) + at::arange(longest, starts.options());
    empty = row.ge(to.unsqueeze(1));
    row_ = row.clamp_max(rows - 1).view({-1});
    Tensor all = at::arange(rows, starts.options()), line = at::bucketize(all, from, true, true) - 1;
    outside_ = all.ge(to.index_select(0, line)).unsqueeze(1);
    slot_ = (line * longest + all - from.index_select(0, line)).clamp_max(batch_ * longest - 1);
  }
  Tensor in(const Tensor& x) const {  // [n H K] -> [B H L K]
    return at::embedding(x.reshape({x.size(0), -1}), row_).view({batch_, longest_, x.size(1), x.size(2)}).transpose(1, 2);
  }
  Tensor out(const Tensor& x) const {  // [B H L K] -> [n H K], zero for padding
    Tensor lines = x.transpose(1, 2).reshape({batch_ * longest_, x.size(1) * x.size(3)});
    return at::embedding(lines, slot_).masked_fill_(outside_, 0).view({-1, x.size(1), x.size(3)});
  }
  Tensor empty;  // bool [B L]

 private:
  int64_t batch_, longest_;
  Tensor row_, slot_, outside_;  // the row of a slot; the slot of a row; bool [n 1]
};

}  // namespace

Tensor Attention::forward() {
  int64_t n = q.size(0), d = q.size(1) * q.size(2);
  double scale = 1 / std::sqrt(static_cast<double>(q.size(2)));
  if (flash(q)) {
    Tensor debug;
    std::tie(out, lse, rng, rng2, debug) = at::_flash_attention_forward(q, k, v, query_starts, key_starts, max_query, max_key, drop, false, false, scale);
    return out.reshape({n, d});
  }
  if (efficient(q, drop)) {
    auto r = at::_efficient_attention_forward(q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), {}, query_starts, key_starts, max_query, max_key, 0, 0, true, scale);
    out = std::get<0>(r);
    lse = std::get<1>(r);
    rng = std::get<2>(r);
    rng2 = std::get<3>(r);
    return out.reshape({n, d});
  }
  Padded queries(query_starts, n, max_query), keys(key_starts, k.size(0), max_key);
  Tensor scores = at::matmul(queries.in(q), keys.in(k).transpose(2, 3)).to(at::kFloat) * scale;
  probs = at::softmax(scores.masked_fill_(keys.empty.view({-1, 1, 1, max_key}), -std::numeric_limits<float>::infinity()), -1).to(q.scalar_type());
  Tensor kept = probs;
  if (drop > 0) std::tie(kept, mask) = at::native_dropout(probs, drop, true);
  return queries.out(at::matmul(kept, keys.in(v))).view({n, d});
}

void Attention::backward(const Tensor& dy, Tensor* dq, Tensor* dk, Tensor* dv) const {
  double scale = 1 / std::sqrt(static_cast<double>(q.size(2)));
  if (flash(q)) {
    Deterministic guard(!one_block(max_key, q.size(2)));
    std::tie(*dq, *dk, *dv) = at::_flash_attention_backward(dy.view_as(q), q, k, v, out, lse, query_starts, key_starts, max_query, max_key, drop, false, rng, rng2, scale);
    return;
  }
  if (efficient(q, drop)) {
    auto r = at::_efficient_attention_backward(dy.view_as(q).unsqueeze(0), q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), {}, out, query_starts, key_starts,
                                               max_query, max_key, lse, drop, rng, rng2, 0, false, scale, 1);
    *dq = std::get<0>(r).squeeze(0);
    *dk = std::get<1>(r).squeeze(0);
    *dv = std::get<2>(r).squeeze(0);
    return;
  }
  Padded queries(query_starts, q.size(0), max_query), keys(key_starts, k.size(0), max_key);
  Tensor g = queries.in(dy.view_as(q)).masked_fill(queries.empty.view({-1, 1, max_query, 1}), 0), kept = probs;
  Tensor dp = at::matmul(g, keys.in(v).transpose(2, 3));
  if (drop > 0) {
    kept = at::native_dropout_backward(probs, mask, 1 / (1 - drop));
    dp = at::native_dropout_backward(dp, mask, 1 / (1 - drop));
  }
  *dv = keys.out(at::matmul(kept.transpose(2, 3), g));
  Tensor ds = (dp - (dp * probs).sum(-1, true)) * probs * scale;
  *dq = queries.out(at::matmul(ds, keys.in(k)));
  *dk = keys.out(at::matmul(ds.transpose(2, 3), queries.in(q)));
}

}  // namespace dt
