// Row kernels for the CPU: plain loops that the compiler vectorizes for each instruction set it is told of.
// All arrays are fp32 and dense. No kernel depends on how many threads there are.
#pragma once
#include <cstdint>

namespace dt {

// DropKey keys the dropout of one row of elements. See keep() in kernels.cpp.
struct DropKey {
  uint32_t a, b;
};

// Drop says with which probability an element is dropped, and what the kept ones are multiplied with.
struct Drop {
  uint32_t threshold;  // an element is kept if its hash is at or above this
  float scale;         // 1 / (1 - p)
};

Drop make_drop(double p);
// drop_key mixes the key of a token with the place in the model where the dropout stands.
DropKey drop_key(uint64_t token, uint64_t site);

// y = x * mask
void drop_row(float* y, const float* x, int64_t n, DropKey key, Drop drop);

// z = residual + h * mask (h alone where residual is null), y = (z - mean) * rstd * gamma + beta; xhat keeps the
// normalized z for the backward pass. Returns rstd.
float norm_row(float* y, float* xhat, const float* h, const float* residual, const float* gamma, const float* beta,
               int64_t n, float eps, DropKey key, const Drop* drop);
// dz from dy, and dh = dz * mask where dh is not null.
void norm_row_backward(float* dz, float* dh, const float* dy, const float* xhat, const float* gamma, float rstd, int64_t n,
                       DropKey key, const Drop* drop);
// dgamma += dy * xhat and dbeta += dy over rows, for the columns [from, to) of rows of width n.
void norm_columns_backward(float* dgamma, float* dbeta, const float* dy, const float* xhat, int64_t rows, int64_t n,
                           int64_t from, int64_t to);

// y += x
void add_row(float* y, const float* x, int64_t n);

// Rows of attention scores. softmax_row: s = softmax(scale * s), lse its log-sum.
void softmax_row(float* s, int64_t len, float scale, float* lse);
void softmax_row_again(float* s, int64_t len, float scale, float lse);  // s = exp(scale * s - lse)
// dp = p * (mask * dp - delta) * scale; p becomes p * mask.
void softmax_row_backward(float* p, float* dp, int64_t len, float delta, float scale, DropKey key, const Drop* drop);
float dot_row(const float* a, const float* b, int64_t n);

void widen(float* y, const uint16_t* bf16, int64_t n);
void widen_add(float* y, const uint16_t* bf16, int64_t n);
void narrow(uint16_t* bf16, const float* x, int64_t n);

// Sum of squares in double, so that the norm of tens of millions of gradients is exact to fp32.
double sum_squares(const float* x, int64_t n);

// One AdamW step on n elements, as torch's fused AdamW computes it. grad is multiplied with clip.
// shadow, where it is not null, receives the new weights in bf16.
struct Adam {
  float lr, beta1, beta2, eps, decay;  // decay is 1 - lr * weight_decay
  float bias1, bias2_sqrt, clip;
};
void adam_block(float* w, const float* grad, float* m, float* v, uint16_t* shadow, int64_t n, const Adam& c);

}  // namespace dt
