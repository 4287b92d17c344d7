//go:build torch

// Attention over packed sequences on the CPU: exact lengths, no padding, no stored probabilities (the backward pass makes
// them again from the row's log-sum), dropout from keys. One task is one head of one sequence.

#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "kernels.h"
#include "native.h"

extern "C" void sgemm_(const char* transa, const char* transb, const int* m, const int* n, const int* k, const float* alpha,
                       const float* a, const int* lda, const float* b, const int* ldb, const float* beta, float* c,
                       const int* ldc);

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

namespace {

// Row-major c[m n] = op(a) op(b), dense. BLAS is column-major, so the operands change places.
void gemm(bool ta, bool tb, int m, int n, int k, const float* a, const float* b, float* c) {
  const float one = 1, zero = 0;
  int lda = ta ? m : k, ldb = tb ? k : n;
  sgemm_(tb ? "T" : "N", ta ? "T" : "N", &n, &m, &k, &one, b, &ldb, a, &lda, &zero, c, &n);
}

// Block copies [rows k] out of a wider row-major array (fp32 or bf16) into dense fp32, or back.
struct Block {
  const Tensor* t;
  int64_t row, column, rows, k;

  void read(float* y) const {
    int64_t stride = t->size(1);
    for (int64_t i = 0; i < rows; i++) {
      int64_t at = (row + i) * stride + column;
      if (t->scalar_type() == at::kFloat)
        std::memcpy(y + i * k, t->const_data_ptr<float>() + at, k * sizeof(float));
      else
        dt::widen(y + i * k, static_cast<const uint16_t*>(t->const_data_ptr()) + at, k);
    }
  }
  void write(const float* x) const {
    int64_t stride = t->size(1);
    for (int64_t i = 0; i < rows; i++) {
      int64_t at = (row + i) * stride + column;
      if (t->scalar_type() == at::kFloat)
        std::memcpy(static_cast<float*>(t->data_ptr()) + at, x + i * k, k * sizeof(float));
      else
        dt::narrow(static_cast<uint16_t*>(t->data_ptr()) + at, x + i * k, k);
    }
  }
};

// Shape of one call. Queries are either all tokens (packed with k and v in qkv) or one a sequence (in q).
struct Shape {
  const int32_t* starts;
  int64_t batch, heads, k;
  bool packed;

  int64_t len(int64_t s) const { return starts[s + 1] - starts[s]; }
  int64_t rows(int64_t s) const { return packed ? len(s) : 1; }
  int64_t row(int64_t s) const { return packed ? starts[s] : s; }
  Block query(const Tensor& q, int64_t s, int64_t h) const { return {&q, row(s), h * k, rows(s), k}; }
  // part 0: k, part 1: v
  Block key(const Tensor& kv, int64_t s, int64_t h, int part) const {
    return {&kv, starts[s], (heads * (part + (packed ? 1 : 0)) + h) * k, len(s), k};
  }
};

// Work is the scratch of one thread.
struct Work {
  std::vector<float> q, k, v, o, s, dp, dq, dk, dv;
  void size(int64_t rows, int64_t len, int64_t d) {
    auto grow = [](std::vector<float>& x, int64_t n) {
      if (static_cast<int64_t>(x.size()) < n) x.resize(n);
    };
    for (auto* x : {&q, &o, &dq}) grow(*x, rows * d);
    for (auto* x : {&k, &v, &dk, &dv}) grow(*x, len * d);
    for (auto* x : {&s, &dp}) grow(*x, rows * len);
  }
};

Work& work() {
  thread_local Work w;
  return w;
}

// for_each runs one task a (head, sequence), heads outermost, so that long and short sequences spread over the threads.
template <class F>
void for_each(const Shape& sh, F f) {
  at::parallel_for(0, sh.heads * sh.batch, 1, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++) f(i / sh.batch, i % sh.batch);
  });
}

struct Keys {
  Tensor keys;
  int64_t site = 0;
  double p = 0;
  // The key of a row of probabilities: that of its query token, the place, and the head.
  dt::DropKey row(const Shape& sh, int64_t s, int64_t i, int64_t h) const {
    if (p <= 0) return {0, 0};
    return dt::drop_key(static_cast<uint64_t>(keys.const_data_ptr<int64_t>()[sh.starts[s] + i]), (site << 16) + h);
  }
};

void forward_task(const Shape& sh, const Tensor& q, const Tensor& kv, const Tensor& out, float* lse, const Keys& keys, int64_t h,
                  int64_t s) {
  int64_t rows = sh.rows(s), len = sh.len(s), k = sh.k;
  Work& w = work();
  w.size(rows, len, k);
  sh.query(q, s, h).read(w.q.data());
  sh.key(kv, s, h, 0).read(w.k.data());
  sh.key(kv, s, h, 1).read(w.v.data());
  gemm(false, true, rows, len, k, w.q.data(), w.k.data(), w.s.data());
  float scale = 1.0f / std::sqrt(static_cast<float>(k));
  dt::Drop d = dt::make_drop(keys.p);
  for (int64_t i = 0; i < rows; i++) {
    float* row = w.s.data() + i * len;
    dt::softmax_row(row, len, scale, lse + (sh.row(s) + i) * sh.heads + h);
    if (keys.p > 0) dt::drop_row(row, row, len, keys.row(sh, s, i, h), d);
  }
  gemm(false, false, rows, k, len, w.s.data(), w.v.data(), w.o.data());
  sh.query(out, s, h).write(w.o.data());
}

void backward_task(const Shape& sh, const Tensor& q, const Tensor& kv, const Tensor& out, const Tensor& dout, const float* lse,
                   const Tensor& dq, const Tensor& dkv, const Keys& keys, int64_t h, int64_t s) {
  int64_t rows = sh.rows(s), len = sh.len(s), k = sh.k;
  Work& w = work();
  w.size(rows, len, k);
  sh.query(q, s, h).read(w.q.data());
  sh.key(kv, s, h, 0).read(w.k.data());
  sh.key(kv, s, h, 1).read(w.v.data());
  sh.query(out, s, h).read(w.dq.data());  // dq serves as o until it is needed
  sh.query(dout, s, h).read(w.o.data());
  float *dO = w.o.data(), *p = w.s.data(), *dp = w.dp.data();
  gemm(false, true, rows, len, k, w.q.data(), w.k.data(), p);
  gemm(false, true, rows, len, k, dO, w.v.data(), dp);
  float scale = 1.0f / std::sqrt(static_cast<float>(k));
  dt::Drop d = dt::make_drop(keys.p);
  for (int64_t i = 0; i < rows; i++) {
    float delta = dt::dot_row(dO + i * k, w.dq.data() + i * k, k);
    dt::softmax_row_again(p + i * len, len, scale, lse[(sh.row(s) + i) * sh.heads + h]);
    dt::softmax_row_backward(p + i * len, dp + i * len, len, delta, scale, keys.row(sh, s, i, h), keys.p > 0 ? &d : nullptr);
  }
  gemm(true, false, len, k, rows, p, dO, w.dv.data());
  gemm(true, false, len, k, rows, dp, w.q.data(), w.dk.data());
  gemm(false, false, rows, k, len, dp, w.k.data(), w.dq.data());
  sh.query(dq, s, h).write(w.dq.data());
  sh.key(dkv, s, h, 0).write(w.dk.data());
  sh.key(dkv, s, h, 1).write(w.dv.data());
}

struct Attention : Function<Attention> {
  static Shape shape(const Tensor& q, const Tensor& qkv, const Tensor& starts, int64_t heads) {
    bool packed = !q.defined();
    return {starts.const_data_ptr<int32_t>(), starts.numel() - 1, heads, qkv.size(1) / (packed ? 3 : 2) / heads, packed};
  }
  static Tensor forward(AutogradContext* ctx, const std::optional<Tensor>& q, const Tensor& qkv, const Tensor& starts,
                        int64_t heads, const Keys& keys) {
    TORCH_CHECK(qkv.is_cpu(), "attention: the tensor is not on the CPU");
    Shape sh = shape(q.value_or(Tensor()), qkv, starts, heads);
    Tensor kv = qkv.contiguous(), queries = q ? q->contiguous() : kv;
    Tensor out = at::empty({queries.size(0), sh.k * heads}, kv.options());
    Tensor lse = at::empty({queries.size(0), heads}, kv.options().dtype(at::kFloat));
    float* lp = lse.data_ptr<float>();
    for_each(sh, [&](int64_t h, int64_t s) { forward_task(sh, queries, kv, out, lp, keys, h, s); });
    ctx->save_for_backward({q ? queries : Tensor(), kv, starts, out, lse, keys.keys});
    ctx->saved_data["heads"] = heads;
    ctx->saved_data["site"] = keys.site;
    ctx->saved_data["p"] = keys.p;
    return out;
  }
  static variable_list backward(AutogradContext* ctx, variable_list dy) {
    auto saved = ctx->get_saved_variables();
    const Tensor &q = saved[0], &kv = saved[1], &out = saved[3], &lse = saved[4];
    Keys keys{saved[5], ctx->saved_data["site"].toInt(), ctx->saved_data["p"].toDouble()};
    Shape sh = shape(q, kv, saved[2], ctx->saved_data["heads"].toInt());
    Tensor dout = dy[0].contiguous(), dkv = at::empty_like(kv), dq = q.defined() ? at::empty_like(q) : dkv;
    const Tensor& queries = q.defined() ? q : kv;
    const float* lp = lse.const_data_ptr<float>();
    for_each(sh, [&](int64_t h, int64_t s) { backward_task(sh, queries, kv, out, dout, lp, dq, dkv, keys, h, s); });
    return {q.defined() ? dq : Tensor(), dkv, Tensor(), Tensor(), Tensor()};
  }
};

const Tensor& ref(dt_tensor t) {
  static const Tensor none;
  return t ? *static_cast<Tensor*>(t) : none;
}

}  // namespace

extern "C" char* dt_attention(dt_tensor* out, dt_tensor q, dt_tensor qkv, dt_tensor starts, int64_t heads, dt_drop drop) {
  try {
    Keys keys{drop.p > 0 ? ref(drop.keys) : Tensor(), drop.site, drop.p};
    TORCH_CHECK(drop.p == 0 || (keys.keys.defined() && keys.keys.numel() == ref(qkv).size(0)), "attention: a key is needed for each token");
    *out = new Tensor(Attention::apply(q ? std::optional<Tensor>(ref(q)) : std::nullopt, ref(qkv), ref(starts), heads, keys));
    return nullptr;
  } catch (const std::exception& e) {
    return strdup(e.what());
  }
}
