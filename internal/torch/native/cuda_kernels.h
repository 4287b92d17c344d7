// The kernels of a training step that libtorch lacks, or has slower, in CUDA C++, compiled at start by NVRTC for the card that is
// there. G is the gradients' element type: bf16 (kept as unsigned short) or float, chosen by -DG_BF16=1 or 0. Every kernel gives
// the same bits for the same input: no atomics, and sums in a fixed order.
#pragma once

enum Kernel { kNormPartial, kNormFinish, kAdam, kLoss, kTableGrad, kColumnSum, kNormGrad, kKernels };
static const char* const kKernelNames[] = {"norm_partial", "norm_finish", "adam", "loss", "table_grad", "column_sum", "norm_grad", nullptr};

static const char* const kKernelSource = R"cuda(
typedef unsigned short u16;
typedef long long i64;
#if G_BF16
typedef u16 G;
#else
typedef float G;
#endif

__device__ float up(u16 x) { return __uint_as_float(static_cast<unsigned>(x) << 16); }
__device__ float up(float x) { return x; }
__device__ u16 narrow(float x) {
  u16 r;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(x));
  return r;
}
__device__ void put(u16* p, float x) { *p = narrow(x); }
__device__ void put(float* p, float x) { *p = x; }

struct alignas(4 * sizeof(G)) G4 { G v[4]; };
struct alignas(8) H4 { u16 v[4]; };
struct alignas(16) F4 { float v[4]; };

// The sum over a block of 256 threads, in thread 0, in an order that is always the same.
template <typename T>
__device__ T block_sum(T x) {
  __shared__ T part[8];
  for (int o = 16; o > 0; o >>= 1) x += __shfl_down_sync(~0u, x, o);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
  __syncthreads();
  if (threadIdx.x == 0)
    for (int i = 1; i < 8; i++) x += part[i];
  return x;
}

// partial[block] = sum of squares of the block's share of g. n is a multiple of 4.
extern "C" __global__ void __launch_bounds__(256) norm_partial(const G4* g, float* partial, i64 n) {
  float sum = 0;
  i64 stride = static_cast<i64>(gridDim.x) * 256;
#pragma unroll 4
  for (i64 i = static_cast<i64>(blockIdx.x) * 256 + threadIdx.x; i < n / 4; i += stride) {
    G4 x = g[i];
    for (int k = 0; k < 4; k++) sum += up(x.v[k]) * up(x.v[k]);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// One block: the norm; whether the step counts; the clip factor. head is the batch's header: [1] step number as float,
// [4] row of stats. bad holds the first step that was not finite, or -1. scalars receives (clip, 1 if the step counts).
extern "C" __global__ void __launch_bounds__(256) norm_finish(const float* partial, int parts, const float* head, const float* loss,
                                                             int* bad, float* stats, float* scalars, float max_norm) {
  double sum = 0;
  for (int i = threadIdx.x; i < parts; i += 256) sum += partial[i];
  sum = block_sum(sum);
  if (threadIdx.x != 0) return;
  float norm = static_cast<float>(sqrt(sum));
  bool finite = isfinite(norm) && isfinite(*loss), live = *bad < 0;
  float* row = stats + 2 * __float_as_int(head[4]);
  row[0] = live ? *loss : __int_as_float(0x7fffffff);
  row[1] = live ? norm : __int_as_float(0x7fffffff);
  if (live && !finite) *bad = static_cast<int>(head[1]);
  scalars[0] = max_norm > 0 ? fminf(1.0f, max_norm / (norm + 1e-6f)) : 1.0f;
  scalars[1] = live && finite;
}

// AdamW on flat buffers: head holds [0] lr, [2] 1 - beta1^t, [3] sqrt(1 - beta2^t). Elements before decayed decay. Gradients
// before tables are made zero again, since only rows of the tables that a batch uses are written. Weights whose gradient and
// moments are zero do not change (rows of tokens never seen): they are not even read.
extern "C" __global__ void __launch_bounds__(256) adam(F4* w, G4* g, F4* m, F4* v, H4* shadow, i64 n, i64 decayed, i64 tables,
                                                      const float* head, const float* scalars, float beta1, float beta2, float eps,
                                                      float decay) {
  float clip = scalars[0], lr = head[0], size = lr / head[2], root = head[3];
  bool counts = scalars[1] != 0;
  i64 stride = static_cast<i64>(gridDim.x) * 256;
  for (i64 i = static_cast<i64>(blockIdx.x) * 256 + threadIdx.x; i < n / 4; i += stride) {
    G4 gi = g[i];
    F4 mi = m[i], vi = v[i];
    bool some = false, grads = false;
    for (int k = 0; k < 4; k++) {
      grads |= up(gi.v[k]) != 0;
      some |= mi.v[k] != 0 || vi.v[k] != 0;
    }
    if (4 * i < tables && grads) {
      G4 zero = {};
      g[i] = zero;
    }
    float keep = 4 * i < decayed ? 1 - lr * decay : 1.0f;
    if (!counts || (!some && !grads && keep == 1)) continue;
    F4 wi = w[i];
    H4 s;
    for (int k = 0; k < 4; k++) {
      float x = up(gi.v[k]) * clip;
      vi.v[k] = vi.v[k] * beta2 + (1 - beta2) * x * x;
      mi.v[k] += (x - mi.v[k]) * (1 - beta1);
      wi.v[k] = wi.v[k] * keep - size * mi.v[k] / (sqrtf(vi.v[k]) / root + eps);
      s.v[k] = narrow(wi.v[k]);
    }
    w[i] = wi;
    m[i] = mi;
    v[i] = vi;
#if G_BF16
    shadow[i] = s;
#endif
  }
}

// One block: the cross-entropy of logits[n c] with target[n c], in which a row has its share of the mean, and its gradient.
extern "C" __global__ void __launch_bounds__(256) loss(const float* logits, const float* target, G* grad, float* sum, int n, int c) {
  float total = 0;
  for (int i = threadIdx.x; i < n; i += 256) {
    const float *x = logits + static_cast<i64>(i) * c, *t = target + static_cast<i64>(i) * c;
    float most = x[0], z = 0, share = 0;
    for (int k = 1; k < c; k++) most = x[k] > most ? x[k] : most;
    for (int k = 0; k < c; k++) {
      z += expf(x[k] - most);
      share += t[k];
    }
    z = logf(z);
    for (int k = 0; k < c; k++) {
      float log_prob = (x[k] - most) - z;  // z is small, and adding most to it would round it
      total -= t[k] * log_prob;
      put(grad + static_cast<i64>(i) * c + k, expf(log_prob) * share - t[k]);
    }
  }
  total = block_sum(total);
  if (threadIdx.x == 0) *sum = total;
}

// The gradient of a table: out[key[i]] = sum of dy[j] over all j with key[j] = key[i], for rows of d; block x is token i and
// works only if it is the first of its key. Key skip gets none. 1024 columns a block of y.
extern "C" __global__ void __launch_bounds__(256) table_grad(const G* dy, const int* key, G* out, int n, int d, int skip) {
  __shared__ unsigned found[8];
  int i = blockIdx.x, id = key[i], column = blockIdx.y * 1024 + threadIdx.x;
  if (id == skip) return;
  float sum[4] = {0, 0, 0, 0};
  for (int base = 0; base < n; base += 256) {
    int j = base + threadIdx.x;
    unsigned same = __ballot_sync(~0u, j < n && key[j] == id);
    __syncthreads();
    if (threadIdx.x % 32 == 0) found[threadIdx.x / 32] = same;
    __syncthreads();
    for (int w = 0; w < 8; w++)
      for (unsigned bits = found[w]; bits; bits &= bits - 1) {
        int row = base + 32 * w + __ffs(bits) - 1;
        if (row < i) return;
        for (int k = 0; k < 4; k++)
          if (column + 256 * k < d) sum[k] += up(dy[static_cast<i64>(row) * d + column + 256 * k]);
      }
  }
  for (int k = 0; k < 4; k++)
    if (column + 256 * k < d) put(out + static_cast<i64>(id) * d + column + 256 * k, sum[k]);
}

// Adds up what 64 groups of 16 threads have for 16 columns, a column a thread. Lane 0 of warp w < 16 receives the sum of column w.
__device__ float column_total(float x) {
  __shared__ float part[64][17];
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  __syncthreads();
  part[threadIdx.x / 16][threadIdx.x % 16] = x;
  __syncthreads();
  if (warp >= 16) return 0;
  x = part[lane][warp] + part[lane + 32][warp];
  for (int o = 16; o > 0; o >>= 1) x += __shfl_down_sync(~0u, x, o);
  return x;
}

// The gradient of a bias: out[column] = sum of y[n d] over its rows; 16 columns a block.
extern "C" __global__ void __launch_bounds__(1024) column_sum(const G* y, G* out, int n, int d) {
  int column = 16 * blockIdx.x + threadIdx.x % 16, warp = threadIdx.x / 32;
  float sum = 0;
  if (column < d) {
#pragma unroll 8
    for (int i = threadIdx.x / 16; i < n; i += 64) sum += up(y[static_cast<i64>(i) * d + column]);
  }
  sum = column_total(sum);
  column = 16 * blockIdx.x + warp;
  if (threadIdx.x % 32 == 0 && warp < 16 && column < d) put(out + column, sum);
}

// The gradients of a layer norm's weight and bias: the sums of dy (x - mean) rstd and of dy over the rows; 16 columns a block.
extern "C" __global__ void __launch_bounds__(1024) norm_grad(const G* dy, const G* x, const float* mean, const float* rstd, G* weight,
                                                            G* bias, int n, int d) {
  int column = 16 * blockIdx.x + threadIdx.x % 16, warp = threadIdx.x / 32;
  float w = 0, b = 0;
  for (int i = threadIdx.x / 16; i < n && column < d; i += 64 * 4) {
    float g[4], normed[4];  // so that all loads are on their way before the first is used
#pragma unroll
    for (int k = 0; k < 4; k++) {
      int row = min(i + 64 * k, n - 1);
      i64 at = static_cast<i64>(row) * d + column;
      g[k] = up(dy[at]);
      normed[k] = (up(x[at]) - mean[row]) * rstd[row];
    }
#pragma unroll
    for (int k = 0; k < 4; k++)
      if (i + 64 * k < n) {
        w += g[k] * normed[k];
        b += g[k];
      }
  }
  w = column_total(w);
  b = column_total(b);
  column = 16 * blockIdx.x + warp;
  if (threadIdx.x % 32 == 0 && warp < 16 && column < d) {
    put(weight + column, w);
    put(bias + column, b);
  }
}
)cuda";
