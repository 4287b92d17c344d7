// What Duratune adds to gotch: a C interface to native.cpp and optim.cpp. A function that can fail returns a message to be
// freed by the caller, or NULL. Tensors are at::Tensor*, as in gotch; an optional one may be NULL.
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef void* dt_tensor;

// dt_param is a weight and the place its gradient is written (grad NULL: not trained).
typedef struct {
  dt_tensor value, grad;
} dt_param;

// dt_drop is one dropout: keys holds an int64 a row (on the CPU), site tells the places of a model apart. p 0: none.
typedef struct {
  dt_tensor keys;
  int64_t site;
  double p;
} dt_drop;

char* dt_init_thread(int threads);
char* dt_cpu_capability(void);  // to be freed
// dt_load_cuda loads libtorch's CUDA half and counts the GPUs; without a driver there are none, which is no error.
char* dt_load_cuda(int* devices);
int dt_grad_mode(int on);       // returns what it was
int dt_device(dt_tensor);       // -1: CPU
char* dt_detach(dt_tensor* out, dt_tensor x);

// accumulate: add to the gradients instead of replacing them.
char* dt_linear(dt_tensor* out, dt_tensor x, dt_param w, dt_param b, int accumulate);
char* dt_embed(dt_tensor* out, dt_tensor anchor, dt_tensor ids, dt_tensor positions, dt_tensor types, dt_param word, dt_param position, dt_param type,
               int64_t word_pad, int64_t position_pad, int accumulate);
char* dt_norm(dt_tensor* out, dt_tensor h, dt_tensor residual, dt_param gamma, dt_param beta, double eps, dt_drop drop,
              int accumulate);
char* dt_dropout(dt_tensor* out, dt_tensor x, dt_drop drop);
// q is NULL (qkv packs three) or [B k·heads], one query a sequence (qkv packs k and v). starts is int32 [B+1] on the CPU.
char* dt_attention(dt_tensor* out, dt_tensor q, dt_tensor qkv, dt_tensor starts, int64_t heads, dt_drop drop);
char* dt_gelu(dt_tensor* out, dt_tensor x, int tanh);

// dt_adam_step is one AdamW update of flat buffers on the CPU. Elements before decayed are decayed, the others are not.
typedef struct {
  dt_tensor master, grad, m, v;
  dt_tensor shadow;  // bf16, receives the new weights from element shadow_from on; may be NULL
  int64_t shadow_from;
  int64_t decayed;
  double lr, beta1, beta2, eps, weight_decay, clip;
  int64_t t;  // 1 for the first step
} dt_adam_step;
char* dt_adam(const dt_adam_step* step);
char* dt_norm2(double* out, dt_tensor flat);
// dt_collect copies bf16 gradients into the fp32 buffer at element from, or adds them there.
char* dt_collect(dt_tensor grad, dt_tensor bf16, int64_t from, int accumulate);

#ifdef __cplusplus
}
#endif
