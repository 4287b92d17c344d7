// The classifier's forward and backward pass on packed tokens, by hand: no autograd, gradients written where they belong.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "cuda.h"

namespace dt {

// Legend: N tokens, B sequences, S = 2B segments, D hidden, H heads, K = D/H, I inner, C labels. T is the weights' type.
struct Linear {
  at::Tensor w, b, gw, gb;  // w [out in], b [out]
};

struct LayerNorm {
  at::Tensor w, b, gw, gb;  // [D]
};

struct Table {
  at::Tensor w, g;  // [rows D]
  int64_t pad;      // a row without a gradient; -1: none
};

struct Block {
  Linear qkv, q, kv, out, up, down;
  LayerNorm attended, fed;
};

// Batch is the views of a batch on the device; see cuda.h.
struct Batch {
  at::Tensor head, target, first, query_starts, key_starts, ids, positions;
  at::Tensor types;  // undefined: all are 0
  int64_t max_key;
};

// Attention keeps what its backward pass needs. Which kernel serves: flash (bf16 on a GPU), memory-efficient (fp32 there, without
// dropout) or matrix products on padded sequences.
struct Attention {
  at::Tensor q, k, v, out, lse, rng, rng2, probs, mask;  // q [Q H K]; k and v [N H K]
  at::Tensor query_starts, key_starts;
  int64_t max_query, max_key;
  double drop;
  at::Tensor forward();                                        // [Q D]
  void backward(const at::Tensor& dy, at::Tensor* dq, at::Tensor* dk, at::Tensor* dv) const;
};

// Normed is LayerNorm(residual + dropout(h)).
struct Normed {
  at::Tensor mask, sum, mean, rstd, out;
  double drop;
};

struct BlockTape {
  at::Tensor x, query;  // input [N D]; the rows that are computed [Q D]
  Attention attention;
  at::Tensor attended, up, active;
  Normed first, second;
};

struct Tape {
  Normed embedded;
  at::Tensor embed_mask;
  std::vector<BlockTape> blocks;
  at::Tensor head_in_mask, dense, dense_active, dense_mask, dense_in, classifier_in, logits;  // logits fp32 [B C]
  at::Tensor dlogits;  // T [B C], once the loss is known
};

// Sums is what adds up over rows or tokens, here with libtorch's operations: the loss and, written where they belong, gradients.
struct Sums {
  virtual ~Sums() = default;
  virtual at::Tensor loss(const at::Tensor& logits, const at::Tensor& target, at::Tensor dlogits) const;  // fp32 [B C]; dlogits T
  virtual void table(const Table& t, const at::Tensor& dy, const at::Tensor& key) const;  // g[key[i]] += dy[i], into rows that are zero
  virtual void columns(at::Tensor g, const at::Tensor& dy) const;                         // g [D], dy [N D]
  virtual at::Tensor norm(const LayerNorm& w, const Normed& t, const at::Tensor& dy) const;  // returns the input's gradient
};

class Classifier {
 public:
  Classifier(const dt_card_config& config, const at::Tensor& weights, const at::Tensor& gradients);
  // forward returns the tape, with logits; train switches dropout on.
  Tape forward(const Batch& batch, bool train) const;
  at::Tensor loss(Tape& tape, const Batch& batch, const Sums& sums) const;  // fp32, a scalar
  void backward(const Tape& tape, const Batch& batch, const Sums& sums) const;

 private:
  bool first_only(size_t block) const;
  at::Tensor activate(const at::Tensor& x, bool backward, const at::Tensor& dy) const;
  at::Tensor block(const Block& w, BlockTape& t, const at::Tensor& x, const Batch& b, bool last, bool train) const;
  at::Tensor block_backward(const Block& w, const BlockTape& t, at::Tensor dy, const Batch& b, bool last, const Sums& sums) const;
  Normed norm(const LayerNorm& w, const at::Tensor& h, const at::Tensor& residual, double drop) const;

  dt_card_config c_;
  Table word_, position_, type_;
  LayerNorm embed_norm_;
  std::vector<Block> blocks_;
  Linear dense_, classifier_;
};

}  // namespace dt
