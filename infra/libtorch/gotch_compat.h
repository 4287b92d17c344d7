// gotch 0.9.1 was generated for libtorch 2.1. Three functions that it binds have another shape in libtorch 2.11; these
// overloads have the old one, so that gotch compiles unmodified. Nothing of Duratune calls them.
//
// This file is passed to every C++ file by -include. Its hash is part of its path (see libtorch.go), because Go's build
// cache does not look into it.
#pragma once
#ifdef __cplusplus
#include <torch/torch.h>
#include <tuple>

namespace torch {

inline at::Tensor _cslt_sparse_mm(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias, bool transpose_result) {
  std::optional<at::Tensor> maybe_bias;
  if (bias.defined()) maybe_bias = bias;
  return at::_cslt_sparse_mm(a, b, maybe_bias, {}, std::nullopt, transpose_result);
}

// The second result used to be the largest absolute value; libtorch no longer computes it.
inline std::tuple<at::Tensor, at::Tensor> _scaled_mm(const at::Tensor& self, const at::Tensor& mat2, const at::Tensor& bias,
                                                     std::optional<at::ScalarType> out_dtype, const at::Tensor& scale_a,
                                                     const at::Tensor& scale_b, const at::Tensor& scale_result) {
  std::optional<at::Tensor> maybe_bias, maybe_scale;
  if (bias.defined()) maybe_bias = bias;
  if (scale_result.defined()) maybe_scale = scale_result;
  return {at::_scaled_mm(self, mat2, scale_a, scale_b, maybe_bias, maybe_scale, out_dtype), at::Tensor()};
}

inline std::tuple<at::Tensor, at::Tensor> _scaled_mm_out(at::Tensor& out, at::Tensor& out_amax, const at::Tensor& self,
                                                         const at::Tensor& mat2, const at::Tensor& bias,
                                                         std::optional<at::ScalarType> out_dtype, const at::Tensor& scale_a,
                                                         const at::Tensor& scale_b, const at::Tensor& scale_result) {
  std::optional<at::Tensor> maybe_bias, maybe_scale;
  if (bias.defined()) maybe_bias = bias;
  if (scale_result.defined()) maybe_scale = scale_result;
  at::_scaled_mm_out(out, self, mat2, scale_a, scale_b, maybe_bias, maybe_scale, out_dtype);
  return {out, out_amax};
}

}  // namespace torch
#endif
