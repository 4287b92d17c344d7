//go:build torch

#include "kernels.h"

#include <cmath>
#include <cstring>

// Each kernel is compiled for three instruction sets and the best one the processor has is taken when the program is
// loaded. Contraction into FMA makes the bits depend on it, as it does throughout libtorch.
#if defined(__x86_64__)
#include <immintrin.h>
#define KERNEL __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define KERNEL
#endif
#define INLINE inline __attribute__((always_inline))

namespace dt {

// splitmix64's finalizer: spreads consecutive keys over all bits.
static INLINE uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

DropKey drop_key(uint64_t token, uint64_t site) {
  uint64_t z = mix(token + (site + 1) * 0x9e3779b97f4a7c15ull);
  return {static_cast<uint32_t>(z), static_cast<uint32_t>(z >> 32)};
}

Drop make_drop(double p) {
  return {static_cast<uint32_t>(std::lround(p * 4294967295.0)), static_cast<float>(1.0 / (1.0 - p))};
}

// keep hashes element i of a row in 32-bit lanes ("lowbias32" with a second key word in the middle), so that the mask is
// a function of seed, step, row and place alone: no generator has a state, and packing or splitting a batch changes nothing.
static INLINE float keep(uint32_t i, DropKey key, Drop drop) {
  uint32_t x = key.a + i * 0x9e3779b9u;
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= key.b;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  x ^= x >> 16;
  return x >= drop.threshold ? drop.scale : 0.0f;
}

KERNEL void drop_row(float* __restrict y, const float* __restrict x, int64_t n, DropKey key, Drop drop) {
  for (int64_t i = 0; i < n; i++) y[i] = x[i] * keep(static_cast<uint32_t>(i), key, drop);
}

KERNEL float norm_row(float* __restrict y, float* __restrict xhat, const float* __restrict h, const float* __restrict residual,
                      const float* __restrict gamma, const float* __restrict beta, int64_t n, float eps, DropKey key,
                      const Drop* drop) {
  if (drop) {
    Drop d = *drop;
    for (int64_t i = 0; i < n; i++) xhat[i] = h[i] * keep(static_cast<uint32_t>(i), key, d);
  } else {
    for (int64_t i = 0; i < n; i++) xhat[i] = h[i];
  }
  if (residual)
    for (int64_t i = 0; i < n; i++) xhat[i] += residual[i];
  // Sixteen partial sums let the compiler vectorize without reassociating.
  float part[16] = {0};
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < 16; j++) part[j] += xhat[i + j];
  float sum = 0;
  for (; i < n; i++) sum += xhat[i];
  for (int j = 0; j < 16; j++) sum += part[j];
  float mean = sum / n;
  for (int j = 0; j < 16; j++) part[j] = 0;
  for (i = 0; i + 16 <= n; i += 16)
    for (int j = 0; j < 16; j++) {
      float d = xhat[i + j] - mean;
      part[j] += d * d;
    }
  float var = 0;
  for (; i < n; i++) var += (xhat[i] - mean) * (xhat[i] - mean);
  for (int j = 0; j < 16; j++) var += part[j];
  float rstd = 1.0f / std::sqrt(var / n + eps);
  for (i = 0; i < n; i++) {
    xhat[i] = (xhat[i] - mean) * rstd;
    y[i] = xhat[i] * gamma[i] + beta[i];
  }
  return rstd;
}

KERNEL void norm_row_backward(float* __restrict dz, float* __restrict dh, const float* __restrict dy,
                              const float* __restrict xhat, const float* __restrict gamma, float rstd, int64_t n, DropKey key,
                              const Drop* drop) {
  float a[16] = {0}, b[16] = {0}, sum = 0, dot = 0;
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < 16; j++) {
      float g = dy[i + j] * gamma[i + j];
      a[j] += g;
      b[j] += g * xhat[i + j];
    }
  for (; i < n; i++) {
    float g = dy[i] * gamma[i];
    sum += g;
    dot += g * xhat[i];
  }
  for (int j = 0; j < 16; j++) {
    sum += a[j];
    dot += b[j];
  }
  sum /= n;
  dot /= n;
  for (i = 0; i < n; i++) dz[i] = rstd * (dy[i] * gamma[i] - sum - xhat[i] * dot);
  if (!dh) return;
  if (drop) {
    Drop d = *drop;
    for (i = 0; i < n; i++) dh[i] = dz[i] * keep(static_cast<uint32_t>(i), key, d);
  } else {
    std::memcpy(dh, dz, n * sizeof(float));
  }
}

KERNEL void norm_columns_backward(float* __restrict dgamma, float* __restrict dbeta, const float* __restrict dy,
                                  const float* __restrict xhat, int64_t rows, int64_t n, int64_t from, int64_t to) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = from; i < to; i++) {
      dgamma[i] += dy[r * n + i] * xhat[r * n + i];
      dbeta[i] += dy[r * n + i];
    }
}

KERNEL void add_row(float* __restrict y, const float* __restrict x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] += x[i];
}

// exp for arguments up to 88, accurate to about one ulp (Cephes' polynomial); below -87 it is 0.
static INLINE float exp_lane(float x) {
  float clamped = x < -87.0f ? -87.0f : x;
  float n = std::floor(clamped * 1.44269504088896341f + 0.5f);
  float r = clamped - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23;
  float two_n;
  std::memcpy(&two_n, &bits, 4);
  return x < -87.0f ? 0.0f : p * two_n;
}

KERNEL void softmax_row(float* __restrict s, int64_t len, float scale, float* lse) {
  float m[16], part[16] = {0}, max, sum = 0;
  for (int j = 0; j < 16; j++) m[j] = s[0];
  int64_t i = 0;
  for (; i + 16 <= len; i += 16)
    for (int j = 0; j < 16; j++) m[j] = s[i + j] > m[j] ? s[i + j] : m[j];
  max = m[0];
  for (; i < len; i++) max = s[i] > max ? s[i] : max;
  for (int j = 0; j < 16; j++) max = m[j] > max ? m[j] : max;
  max *= scale;
  for (i = 0; i < len; i++) s[i] = exp_lane(s[i] * scale - max);
  for (i = 0; i + 16 <= len; i += 16)
    for (int j = 0; j < 16; j++) part[j] += s[i + j];
  for (; i < len; i++) sum += s[i];
  for (int j = 0; j < 16; j++) sum += part[j];
  float inv = 1.0f / sum;
  for (i = 0; i < len; i++) s[i] *= inv;
  *lse = max + std::log(sum);
}

KERNEL void softmax_row_again(float* __restrict s, int64_t len, float scale, float lse) {
  for (int64_t i = 0; i < len; i++) s[i] = exp_lane(s[i] * scale - lse);
}

KERNEL void softmax_row_backward(float* __restrict p, float* __restrict dp, int64_t len, float delta, float scale, DropKey key,
                                 const Drop* drop) {
  if (drop) {
    Drop d = *drop;
    for (int64_t i = 0; i < len; i++) {
      float k = keep(static_cast<uint32_t>(i), key, d);
      dp[i] = p[i] * (dp[i] * k - delta) * scale;
      p[i] *= k;
    }
  } else {
    for (int64_t i = 0; i < len; i++) dp[i] = p[i] * (dp[i] - delta) * scale;
  }
}

KERNEL float dot_row(const float* __restrict a, const float* __restrict b, int64_t n) {
  float part[16] = {0}, sum = 0;
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < 16; j++) part[j] += a[i + j] * b[i + j];
  for (; i < n; i++) sum += a[i] * b[i];
  for (int j = 0; j < 16; j++) sum += part[j];
  return sum;
}

KERNEL void widen(float* __restrict y, const uint16_t* __restrict x, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    uint32_t bits = static_cast<uint32_t>(x[i]) << 16;
    std::memcpy(&y[i], &bits, 4);
  }
}

KERNEL void widen_add(float* __restrict y, const uint16_t* __restrict x, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    uint32_t bits = static_cast<uint32_t>(x[i]) << 16;
    float f;
    std::memcpy(&f, &bits, 4);
    y[i] += f;
  }
}

// Rounds to nearest even, as libtorch does; NaN stays NaN.
static INLINE uint16_t narrow_lane(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

KERNEL void narrow(uint16_t* __restrict y, const float* __restrict x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = narrow_lane(x[i]);
}

KERNEL double sum_squares(const float* __restrict x, int64_t n) {
  double part[16] = {0}, sum = 0;
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < 16; j++) part[j] += static_cast<double>(x[i + j]) * x[i + j];
  for (; i < n; i++) sum += static_cast<double>(x[i]) * x[i];
  for (int j = 0; j < 16; j++) sum += part[j];
  return sum;
}

// Square roots in place; n is a multiple of 16. The compiler does not vectorize sqrt while errno has to be kept, and cgo
// allows no flag to change that.
#if defined(__x86_64__)
__attribute__((target("avx512f"))) static void roots(float* x, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) _mm512_storeu_ps(x + i, _mm512_sqrt_ps(_mm512_loadu_ps(x + i)));
}
__attribute__((target("avx"))) static void roots(float* x, int64_t n) {
  for (int64_t i = 0; i < n; i += 8) _mm256_storeu_ps(x + i, _mm256_sqrt_ps(_mm256_loadu_ps(x + i)));
}
__attribute__((target("default")))
#endif
static void roots(float* x, int64_t n) {
  for (int64_t i = 0; i < n; i++) x[i] = std::sqrt(x[i]);
}

// The moments first, then, while they are in the first-level cache, the weights.
KERNEL void adam_block(float* __restrict w, const float* __restrict grad, float* __restrict m, float* __restrict v,
                       uint16_t* __restrict shadow, int64_t n, const Adam& c) {
  const Adam a = c;
  const float step_size = a.lr / a.bias1;
  constexpr int64_t kChunk = 512;
  float root[kChunk] = {0};
  for (int64_t at = 0; at < n; at += kChunk) {
    int64_t len = n - at < kChunk ? n - at : kChunk;
    for (int64_t i = 0; i < len; i++) {
      float g = grad[at + i] * a.clip;
      float vi = v[at + i] * a.beta2 + (1.0f - a.beta2) * g * g;
      m[at + i] += (g - m[at + i]) * (1.0f - a.beta1);
      v[at + i] = vi;
      root[i] = vi;
    }
    roots(root, (len + 15) / 16 * 16);
    for (int64_t i = 0; i < len; i++)
      w[at + i] = w[at + i] * a.decay - step_size * m[at + i] / (root[i] / a.bias2_sqrt + a.eps);
    if (shadow) narrow(shadow + at, w + at, len);
  }
}

}  // namespace dt
