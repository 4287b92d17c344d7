//go:build torch

// The plugin and own kernels; see cuda_plugin.h.

#include "cuda_plugin.h"

#define AT_PER_OPERATOR_HEADERS
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/native_layer_norm_backward.h>
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>

namespace dt {

using at::Tensor;

Plugin::Plugin(const char* path, const char* hash) {
  void* library = dlopen(path, RTLD_NOW);
  TORCH_CHECK(library, "CUDA plugin: ", dlerror());
  auto find = [&](auto& f, const char* name) {
    f = reinterpret_cast<std::decay_t<decltype(f)>>(dlsym(library, name));
    TORCH_CHECK(f, "CUDA plugin ", path, ": no ", name);
  };
  const char* (*have)() = nullptr;
  find(have, "dt_cuda_hash");
  TORCH_CHECK(strcmp(have(), hash) == 0, "CUDA plugin ", path, " was built from another source (", have(), ", this program wants ", hash, ")");
  find(device, "dt_cuda_device");
  find(begin, "dt_cuda_graph_begin");
  find(end, "dt_cuda_graph_end");
  find(replay, "dt_cuda_graph_replay");
  find(free, "dt_cuda_graph_free");
  find(compile, "dt_cuda_compile");
  find(launch, "dt_cuda_launch");
}

void check(char* message) {
  if (!message) return;
  std::string text = message;
  free(message);
  TORCH_CHECK(false, text);
}

OwnKernels::OwnKernels(const Plugin& plugin, int device, int major, int minor, bool bf16) : plugin_(plugin) {
  compiling_ = std::async(std::launch::async, [this, device, major, minor, bf16] {
    char* problem = plugin_.compile(kKernelSource, bf16 ? "-DG_BF16=1" : "-DG_BF16=0", device, major, minor, kKernelNames, functions_);
    std::string text = problem ? problem : "";
    free(problem);
    return text;
  });
}

bool OwnKernels::ready(std::string* problem) {
  if (compiling_.valid()) *problem = compiling_.get();
  return problem->empty();
}

Tensor OwnKernels::loss(const Tensor& logits, const Tensor& target, Tensor dlogits) const {
  Tensor sum = at::empty({}, logits.options());
  int rows = static_cast<int>(logits.size(0)), labels = static_cast<int>(logits.size(1));
  launch(kLoss, 1, 1, 256, logits.const_data_ptr(), target.const_data_ptr(), dlogits.data_ptr(), sum.data_ptr(), rows, labels);
  return sum;
}

void OwnKernels::table(const Table& t, const Tensor& dy, const Tensor& key) const {
  int tokens = static_cast<int>(dy.size(0)), width = static_cast<int>(dy.size(1)), skip = static_cast<int>(t.pad);
  launch(kTableGrad, tokens, (width + 1023) / 1024, 256, dy.const_data_ptr(), key.const_data_ptr(), t.g.data_ptr(), tokens, width, skip);
}

void OwnKernels::columns(Tensor g, const Tensor& dy) const {
  if (!dy.is_contiguous()) return Sums::columns(g, dy);
  int rows = static_cast<int>(dy.size(0)), width = static_cast<int>(dy.size(1));
  launch(kColumnSum, (width + 15) / 16, 1, 1024, dy.const_data_ptr(), g.data_ptr(), rows, width);
}

Tensor OwnKernels::norm(const LayerNorm& w, const Normed& t, const Tensor& dy) const {
  if (!dy.is_contiguous() || !t.sum.is_contiguous()) return Sums::norm(w, t, dy);
  Tensor dx = std::get<0>(at::native_layer_norm_backward(dy, t.sum, w.w.sizes(), t.mean, t.rstd, w.w, w.b, {true, false, false}));
  int rows = static_cast<int>(dy.size(0)), width = static_cast<int>(dy.size(1));
  launch(kNormGrad, (width + 15) / 16, 1, 1024, dy.const_data_ptr(), t.sum.const_data_ptr(), t.mean.const_data_ptr(), t.rstd.const_data_ptr(), w.gw.data_ptr(),
         w.gb.data_ptr(), rows, width);
  return dx;
}

}  // namespace dt
