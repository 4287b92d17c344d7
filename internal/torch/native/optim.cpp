//go:build torch

// Optimizer work on flat buffers, for the CPU.

#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "kernels.h"
#include "native.h"

namespace {

const at::Tensor& ref(dt_tensor t) { return *static_cast<at::Tensor*>(t); }

// Blocks are the same for every number of threads, so that sums are, too.
constexpr int64_t kBlock = 16384;

}  // namespace

extern "C" {

char* dt_adam(const dt_adam_step* s) {
  try {
    float *w = ref(s->master).data_ptr<float>(), *g = ref(s->grad).data_ptr<float>(), *m = ref(s->m).data_ptr<float>(),
          *v = ref(s->v).data_ptr<float>();
    int64_t n = ref(s->master).numel();
    dt::Adam c{};
    c.lr = s->lr;
    c.beta1 = s->beta1;
    c.beta2 = s->beta2;
    c.eps = s->eps;
    c.bias1 = 1 - std::pow(s->beta1, s->t);
    c.bias2_sqrt = std::sqrt(1 - std::pow(s->beta2, s->t));
    c.clip = s->clip;
    uint16_t* shadow = s->shadow ? static_cast<uint16_t*>(ref(s->shadow).data_ptr()) : nullptr;
    int64_t first = s->shadow ? s->shadow_from : 0, last = s->shadow ? first + ref(s->shadow).numel() : 0;
    TORCH_CHECK(last <= s->decayed, "the shadow reaches beyond the decayed weights");
    auto run = [&](int64_t begin, int64_t end, double decay, uint16_t* out) {
      c.decay = decay;
      int64_t blocks = (end - begin + kBlock - 1) / kBlock;
      at::parallel_for(0, blocks, 1, [&](int64_t from, int64_t to) {
        int64_t a = begin + from * kBlock, b = std::min(end, begin + to * kBlock);
        if (a < b) dt::adam_block(w + a, g + a, m + a, v + a, out ? out + (a - begin) : nullptr, b - a, c);
      });
    };
    double decay = 1 - s->lr * s->weight_decay;
    run(0, first, decay, nullptr);
    run(first, last, decay, shadow);
    run(last, s->decayed, decay, nullptr);
    run(s->decayed, n, 1, nullptr);
    return nullptr;
  } catch (const std::exception& e) {
    return strdup(e.what());
  }
}

char* dt_norm2(double* out, dt_tensor flat) {
  try {
    const float* x = ref(flat).const_data_ptr<float>();
    int64_t n = ref(flat).numel(), blocks = (n + kBlock - 1) / kBlock;
    std::vector<double> sums(blocks);
    at::parallel_for(0, blocks, 1, [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; i++) sums[i] = dt::sum_squares(x + i * kBlock, std::min(kBlock, n - i * kBlock));
    });
    double sum = 0;
    for (double s : sums) sum += s;
    *out = std::sqrt(sum);
    return nullptr;
  } catch (const std::exception& e) {
    return strdup(e.what());
  }
}

char* dt_collect(dt_tensor grad, dt_tensor bf16, int64_t from, int accumulate) {
  try {
    float* y = ref(grad).data_ptr<float>() + from;
    const uint16_t* x = static_cast<const uint16_t*>(ref(bf16).const_data_ptr());
    int64_t n = ref(bf16).numel();
    TORCH_CHECK(from + n <= ref(grad).numel(), "collect: the gradients do not fit");
    at::parallel_for(0, n, kBlock, [&](int64_t a, int64_t b) {
      if (accumulate)
        dt::widen_add(y + a, x + a, b - a);
      else
        dt::widen(y + a, x + a, b - a);
    });
    return nullptr;
  } catch (const std::exception& e) {
    return strdup(e.what());
  }
}

}  // extern "C"
