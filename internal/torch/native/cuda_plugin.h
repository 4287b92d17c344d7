// What libtorch_cpu has no call for: the plugin's functions, and own kernels.
#pragma once

#include <future>
#include <string>

#include "cuda_kernels.h"
#include "cuda_model.h"

namespace dt {

// Plugin is the functions of infra/libtorch/plugin/cudagraph.cpp.
struct Plugin {
  char* (*device)(int, char*, int, int*, int*);
  char* (*begin)(void**, unsigned long long*);
  char *(*end)(void*), *(*replay)(void*), *(*free)(void*);
  char* (*compile)(const char*, const char*, int, int, int, const char* const*, void**);
  char* (*launch)(void*, int, int, int, void**);

  Plugin(const char* path, const char* hash);
};

// check throws what a function of the plugin returned.
void check(char* message);

// OwnKernels is cuda_kernels.h, compiled beside the rest of a device's start.
class OwnKernels : public Sums {
 public:
  OwnKernels(const Plugin& plugin, int device, int major, int minor, bool bf16);
  // ready waits for the compilation and tells whether it succeeded; problem receives why not.
  bool ready(std::string* problem);
  // launch puts a kernel on the current stream. The arguments have the types of the kernel's parameters.
  template <typename... Args>
  void launch(Kernel k, int grid_x, int grid_y, int block, Args... args) const {
    void* list[] = {&args...};
    check(plugin_.launch(functions_[k], grid_x, grid_y, block, list));
  }
  at::Tensor loss(const at::Tensor& logits, const at::Tensor& target, at::Tensor dlogits) const override;
  void table(const Table& t, const at::Tensor& dy, const at::Tensor& key) const override;
  void columns(at::Tensor g, const at::Tensor& dy) const override;
  at::Tensor norm(const LayerNorm& w, const Normed& t, const at::Tensor& dy) const override;

 private:
  const Plugin& plugin_;
  void* functions_[kKernels] = {};
  std::future<std::string> compiling_;  // gives why it failed, or ""; the last member, since it is waited for first
};

}  // namespace dt
