//go:build torch

// Operations with a backward pass that writes parameter gradients straight into the flat buffer, and dropout that is a
// function of keys. On the CPU they are fused row kernels (kernels.cpp); elsewhere they are made of ATen's operations.

#include "native.h"

#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <torch/torch.h>

#include <cstdlib>
#include <cstring>
#include <future>
#include <vector>

#include "kernels.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

#define GUARD(...)                                   \
  try {                                              \
    __VA_ARGS__ return nullptr;                      \
  } catch (const std::exception& e) {                \
    return strdup(e.what());                         \
  } catch (...) {                                    \
    return strdup("unknown C++ exception");          \
  }

namespace {

// oneDNN and libtorch's layer above it each keep what they made for the last 1,024 shapes of a bf16 product, 0.9 GB where
// batches are packed and no two have as many tokens. 64 are more than a step's. Read on the first product, long after this.
const int bounded = setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64", 0) | setenv("LRU_CACHE_CAPACITY", "64", 0);

const Tensor& ref(dt_tensor t) {
  static const Tensor none;
  return t ? *static_cast<Tensor*>(t) : none;
}

std::optional<Tensor> maybe(dt_tensor t) { return t ? std::optional<Tensor>(ref(t)) : std::nullopt; }

void give(dt_tensor* out, const Tensor& t) { *out = new Tensor(t); }

// Rows of about this many elements go to a thread at once.
int64_t grain(int64_t width) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, width)); }

// Scratch is memory of one thread that is kept from call to call.
float* scratch(int which, int64_t n) {
  thread_local std::vector<float> buffers[8];
  if (static_cast<int64_t>(buffers[which].size()) < n) buffers[which].resize(n);
  return buffers[which].data();
}

// Floats reads a row as fp32, converting it into scratch if it is bf16.
const float* read_row(const Tensor& t, int64_t row, int64_t n, int which) {
  if (t.scalar_type() == at::kFloat) return t.const_data_ptr<float>() + row * n;
  float* y = scratch(which, n);
  dt::widen(y, static_cast<const uint16_t*>(t.const_data_ptr()) + row * n, n);
  return y;
}

void write_row(Tensor& t, int64_t row, const float* x, int64_t n) {
  if (t.scalar_type() == at::kFloat)
    std::memcpy(t.data_ptr<float>() + row * n, x, n * sizeof(float));
  else
    dt::narrow(static_cast<uint16_t*>(t.data_ptr()) + row * n, x, n);
}

struct DropRef {
  Tensor keys;
  int64_t site = 0;
  double p = 0;

  DropRef(const dt_drop& d, const Tensor& x) : keys(d.p > 0 ? ref(d.keys) : Tensor()), site(d.site), p(d.p) {
    TORCH_CHECK(p == 0 || (keys.defined() && keys.numel() == x.size(0)), "dropout: a key is needed for each of ", x.size(0), " rows");
  }
  DropRef(const Tensor& k, int64_t s, double prob) : keys(k), site(s), p(prob) {}
  dt::DropKey key(int64_t row) const {
    return p > 0 ? dt::drop_key(static_cast<uint64_t>(keys.const_data_ptr<int64_t>()[row]), site) : dt::DropKey{0, 0};
  }
};

void check_cpu(const Tensor& t, const char* op) { TORCH_CHECK(t.is_cpu(), op, ": the tensor is not on the CPU"); }

// Weight is a parameter. It is no tensor argument of the functions below, so autograd does not follow it: its gradient is
// written where grad points, as a side effect of the backward pass.
struct Weight {
  Tensor value, grad;

  explicit Weight(const dt_param& p) : value(ref(p.value)), grad(ref(p.grad)) {}
};

// ---- linear ----

struct Linear : Function<Linear> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Weight& w, const Weight& b, bool accumulate) {
    auto type = w.value.scalar_type();
    Tensor input = x.scalar_type() == type ? x : x.to(type);
    Tensor offset = b.value.scalar_type() == type ? b.value : b.value.to(type);
    ctx->save_for_backward({input, w.value});
    ctx->saved_data["gw"] = w.grad;
    ctx->saved_data["gb"] = b.grad;
    ctx->saved_data["accumulate"] = accumulate;
    ctx->saved_data["dtype"] = static_cast<int64_t>(x.scalar_type());
    return at::linear(input, w.value, offset);
  }
  static variable_list backward(AutogradContext* ctx, variable_list dy) {
    auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &w = saved[1];
    Tensor g = dy[0].scalar_type() == w.scalar_type() ? dy[0] : dy[0].to(w.scalar_type());
    Tensor gw = ctx->saved_data["gw"].toTensor(), gb = ctx->saved_data["gb"].toTensor();
    bool accumulate = ctx->saved_data["accumulate"].toBool();
    // Micro-batches are added up in fp32: bf16 gradients are collected after each (dt_collect) and always replaced here.
    if (accumulate && gw.scalar_type() == at::kFloat)
      gw.addmm_(g.t(), x);
    else
      at::mm_out(gw, g.t(), x);
    if (accumulate)
      gb.add_(g.sum(0, false, gb.scalar_type()));
    else
      at::sum_out(gb, g, {0}, false, gb.scalar_type());
    Tensor dx;
    if (ctx->needs_input_grad(0)) dx = at::mm(g, w).to(static_cast<at::ScalarType>(ctx->saved_data["dtype"].toInt()));
    return {dx, Tensor(), Tensor(), Tensor()};
  }
};

// ---- embeddings: word[ids] + type[types] + position[positions] ----

struct EmbedArgs {
  Tensor ids, positions, types, word, position, type, gword, gposition, gtype;  // no types: all are 0
  int64_t word_pad, position_pad;
  bool accumulate;

  const int64_t* kinds() const { return types.defined() ? types.const_data_ptr<int64_t>() : nullptr; }
};

Tensor embed_cpu(const EmbedArgs& a) {
  int64_t n = a.ids.numel(), d = a.word.size(1);
  Tensor out = at::empty({n, d}, a.word.options());
  const int64_t *ids = a.ids.const_data_ptr<int64_t>(), *pos = a.positions.const_data_ptr<int64_t>(), *kinds = a.kinds();
  for (int64_t i = 0; i < n; i++) {
    TORCH_CHECK(ids[i] >= 0 && ids[i] < a.word.size(0), "token id ", ids[i], " is outside the vocabulary of ", a.word.size(0));
    TORCH_CHECK(pos[i] >= 0 && pos[i] < a.position.size(0), "position ", pos[i], " is beyond the model's ", a.position.size(0));
    TORCH_CHECK(!kinds || (kinds[i] >= 0 && kinds[i] < a.type.size(0)), "token type ", kinds[i], " is beyond the model's ", a.type.size(0));
  }
  const float *w = a.word.const_data_ptr<float>(), *p = a.position.const_data_ptr<float>();
  const float* t = a.type.defined() ? a.type.const_data_ptr<float>() : nullptr;
  float* y = out.data_ptr<float>();
  at::parallel_for(0, n, grain(d), [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++) {
      std::memcpy(y + i * d, w + ids[i] * d, d * sizeof(float));
      if (t) dt::add_row(y + i * d, t + (kinds ? kinds[i] * d : 0), d);
      dt::add_row(y + i * d, p + pos[i] * d, d);
    }
  });
  return out;
}

// The word gradient is expected to be zero but for rows of earlier micro-batches: whoever reads it clears those rows again,
// which is far less than the table. Padding tokens get no gradient, as in torch.nn.Embedding.
void embed_backward_cpu(const EmbedArgs& a, const Tensor& dy) {
  int64_t n = a.ids.numel(), d = a.word.size(1);
  if (!a.accumulate) {
    a.gposition.zero_();
    if (a.gtype.defined()) a.gtype.zero_();
  }
  const int64_t *ids = a.ids.const_data_ptr<int64_t>(), *pos = a.positions.const_data_ptr<int64_t>(), *kinds = a.kinds();
  const float* g = dy.const_data_ptr<float>();
  float *gw = a.gword.data_ptr<float>(), *gp = a.gposition.data_ptr<float>();
  float* gt = a.gtype.defined() ? a.gtype.data_ptr<float>() : nullptr;
  for (int64_t i = 0; i < n; i++) {
    if (ids[i] != a.word_pad) dt::add_row(gw + ids[i] * d, g + i * d, d);
    if (pos[i] != a.position_pad) dt::add_row(gp + pos[i] * d, g + i * d, d);
    if (gt) dt::add_row(gt + (kinds ? kinds[i] * d : 0), g + i * d, d);
  }
}

struct Embed : Function<Embed> {
  static Tensor forward(AutogradContext* ctx, const Tensor& anchor, const EmbedArgs& a) {
    check_cpu(a.word, "embed");
    ctx->save_for_backward({a.ids, a.positions, a.word});
    ctx->saved_data["types"] = a.types;
    ctx->saved_data["position"] = a.position;
    ctx->saved_data["gword"] = a.gword;
    ctx->saved_data["gposition"] = a.gposition;
    ctx->saved_data["gtype"] = a.gtype;
    ctx->saved_data["word_pad"] = a.word_pad;
    ctx->saved_data["position_pad"] = a.position_pad;
    ctx->saved_data["accumulate"] = a.accumulate;
    return embed_cpu(a);
  }
  static variable_list backward(AutogradContext* ctx, variable_list dy) {
    auto saved = ctx->get_saved_variables();
    auto& d = ctx->saved_data;
    EmbedArgs a{saved[0], saved[1], d["types"].toTensor(), saved[2], d["position"].toTensor(), Tensor(), d["gword"].toTensor(),
                d["gposition"].toTensor(), d["gtype"].toTensor(), d["word_pad"].toInt(), d["position_pad"].toInt(),
                d["accumulate"].toBool()};
    embed_backward_cpu(a, dy[0].contiguous());
    return {Tensor(), Tensor()};
  }
};

// ---- LayerNorm(residual + dropout(h)) ----

struct Norm : Function<Norm> {
  static Tensor forward(AutogradContext* ctx, const Tensor& h, const std::optional<Tensor>& residual, const Weight& gamma,
                        const Weight& beta, double eps, const DropRef& drop, bool accumulate) {
    check_cpu(h, "norm");
    int64_t rows = h.size(0), n = h.size(1);
    Tensor hc = h.contiguous(), rc = residual ? residual->contiguous() : Tensor();
    Tensor y = at::empty({rows, n}, gamma.value.options()), xhat = at::empty_like(y), rstd = at::empty({rows}, y.options());
    dt::Drop d = dt::make_drop(drop.p);
    const float *gm = gamma.value.const_data_ptr<float>(), *bt = beta.value.const_data_ptr<float>();
    float *yp = y.data_ptr<float>(), *xp = xhat.data_ptr<float>(), *rp = rstd.data_ptr<float>();
    at::parallel_for(0, rows, grain(n), [&](int64_t from, int64_t to) {
      for (int64_t r = from; r < to; r++)
        rp[r] = dt::norm_row(yp + r * n, xp + r * n, read_row(hc, r, n, 0), rc.defined() ? read_row(rc, r, n, 1) : nullptr, gm,
                             bt, n, eps, drop.key(r), drop.p > 0 ? &d : nullptr);
    });
    ctx->save_for_backward({xhat, rstd, gamma.value, drop.keys});
    ctx->saved_data["ggamma"] = gamma.grad;
    ctx->saved_data["gbeta"] = beta.grad;
    ctx->saved_data["site"] = drop.site;
    ctx->saved_data["p"] = drop.p;
    ctx->saved_data["accumulate"] = accumulate;
    ctx->saved_data["dtype"] = static_cast<int64_t>(h.scalar_type());
    ctx->saved_data["residual"] = residual.has_value();
    return y;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto saved = ctx->get_saved_variables();
    auto& data = ctx->saved_data;
    const Tensor &xhat = saved[0], &rstd = saved[1], &gamma = saved[2];
    Tensor dy = grads[0].contiguous(), ggamma = data["ggamma"].toTensor(), gbeta = data["gbeta"].toTensor();
    DropRef drop(saved[3], data["site"].toInt(), data["p"].toDouble());
    bool residual = data["residual"].toBool();
    int64_t rows = xhat.size(0), n = xhat.size(1);
    auto htype = static_cast<at::ScalarType>(data["dtype"].toInt());
    // dz is the residual's gradient and, where nothing is dropped, h's as well.
    Tensor dz = at::empty_like(xhat), dh;
    bool apart = drop.p > 0 || htype != at::kFloat;
    if (apart) dh = at::empty({rows, n}, xhat.options().dtype(htype));
    dt::Drop d = dt::make_drop(drop.p);
    const float *gp = dy.const_data_ptr<float>(), *xp = xhat.const_data_ptr<float>(), *gm = gamma.const_data_ptr<float>(),
                *rp = rstd.const_data_ptr<float>();
    float* zp = dz.data_ptr<float>();
    at::parallel_for(0, rows, grain(n), [&](int64_t from, int64_t to) {
      for (int64_t r = from; r < to; r++) {
        float* row = apart ? scratch(0, n) : nullptr;
        dt::norm_row_backward(zp + r * n, row, gp + r * n, xp + r * n, gm, rp[r], n, drop.key(r), drop.p > 0 ? &d : nullptr);
        if (apart) write_row(dh, r, row, n);
      }
    });
    if (!data["accumulate"].toBool()) {
      ggamma.zero_();
      gbeta.zero_();
    }
    float *gg = ggamma.data_ptr<float>(), *gb = gbeta.data_ptr<float>();
    at::parallel_for(0, n, grain(rows), [&](int64_t from, int64_t to) {
      dt::norm_columns_backward(gg, gb, gp, xp, rows, n, from, to);
    });
    return {apart ? dh : dz, residual ? dz : Tensor(), Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

// ---- dropout ----

Tensor drop_rows(const Tensor& x, const DropRef& drop) {
  Tensor xc = x.contiguous(), y = at::empty_like(xc);
  int64_t rows = xc.size(0), n = xc.size(1);
  dt::Drop d = dt::make_drop(drop.p);
  at::parallel_for(0, rows, grain(n), [&](int64_t from, int64_t to) {
    for (int64_t r = from; r < to; r++) {
      float* row = scratch(1, n);
      dt::drop_row(row, read_row(xc, r, n, 0), n, drop.key(r), d);
      write_row(y, r, row, n);
    }
  });
  return y;
}

struct Dropout : Function<Dropout> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const DropRef& drop) {
    check_cpu(x, "dropout");
    ctx->save_for_backward({drop.keys});
    ctx->saved_data["site"] = drop.site;
    ctx->saved_data["p"] = drop.p;
    return drop_rows(x, drop);
  }
  static variable_list backward(AutogradContext* ctx, variable_list dy) {
    DropRef drop(ctx->get_saved_variables()[0], ctx->saved_data["site"].toInt(), ctx->saved_data["p"].toDouble());
    return {drop_rows(dy[0], drop), Tensor()};
  }
};

// wake initialises the driver and begins to make the first device's context, which takes as long as mapping libtorch's kernels. The
// first must be done before, since it waits for the loader. What fails here fails again, and is reported, where the device is opened.
// The future tells whether there is a context.
std::future<bool> wake(void* driver) {
  auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(driver, "cuInit"));
  auto get = reinterpret_cast<int (*)(int*, int)>(dlsym(driver, "cuDeviceGet"));
  auto retain = reinterpret_cast<int (*)(void**, int)>(dlsym(driver, "cuDevicePrimaryCtxRetain"));
  int device = 0;
  if (!init || !get || !retain || init(0) != 0 || get(&device, 0) != 0) return {};
  return std::async(std::launch::async, [=] {
    void* context = nullptr;
    return retain(&context, device) == 0;
  });
}

// sleep_again gives back the context that wake made: some hundreds of MB of the device.
void sleep_again(void* driver) {
  if (auto release = reinterpret_cast<int (*)(int)>(dlsym(driver, "cuDevicePrimaryCtxRelease"))) release(0);
}

}  // namespace

extern "C" {

char* dt_init_thread(int threads) { GUARD(at::set_num_threads(threads); c10::GradMode::set_enabled(false);) }

char* dt_cpu_capability(void) { return strdup(at::get_cpu_capability().c_str()); }

char* dt_load_cuda(int* devices) {
  *devices = 0;
  // Without a driver there is no GPU, and half a gigabyte of kernels need not be mapped.
  void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
  if (!driver) return nullptr;
  GUARD(std::future<bool> waking = wake(driver);
        // Its static initializers register the CUDA kernels with the dispatcher.
        bool loaded = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL);
        char* why = loaded ? nullptr : strdup(dlerror());
        bool awake = waking.valid() && waking.get();
        if (!loaded) {
          if (awake) sleep_again(driver);
          return why;
        }
        *devices = at::globalContext().hasCUDA() ? at::detail::getCUDAHooks().deviceCount() : 0;)
}

int dt_grad_mode(int on) {
  bool was = c10::GradMode::is_enabled();
  c10::GradMode::set_enabled(on);
  return was;
}

int dt_device(dt_tensor t) { return ref(t).is_cpu() ? -1 : ref(t).device().index(); }

char* dt_detach(dt_tensor* out, dt_tensor x) { GUARD(give(out, ref(x).detach());) }

char* dt_linear(dt_tensor* out, dt_tensor x, dt_param w, dt_param b, int accumulate) {
  GUARD(give(out, Linear::apply(ref(x), Weight(w), Weight(b), accumulate != 0));)
}

char* dt_embed(dt_tensor* out, dt_tensor anchor, dt_tensor ids, dt_tensor positions, dt_tensor types, dt_param word, dt_param position, dt_param type,
               int64_t word_pad, int64_t position_pad, int accumulate) {
  GUARD(EmbedArgs a{ref(ids), ref(positions), ref(types), ref(word.value), ref(position.value), ref(type.value), ref(word.grad),
                    ref(position.grad), ref(type.grad), word_pad, position_pad, accumulate != 0};
        give(out, Embed::apply(ref(anchor), a));)
}

char* dt_norm(dt_tensor* out, dt_tensor h, dt_tensor residual, dt_param gamma, dt_param beta, double eps, dt_drop drop,
              int accumulate) {
  GUARD(give(out, Norm::apply(ref(h), maybe(residual), Weight(gamma), Weight(beta), eps, DropRef(drop, ref(h)), accumulate != 0));)
}

char* dt_dropout(dt_tensor* out, dt_tensor x, dt_drop drop) { GUARD(give(out, Dropout::apply(ref(x), DropRef(drop, ref(x))));) }

char* dt_gelu(dt_tensor* out, dt_tensor x, int tanh) { GUARD(give(out, at::gelu(ref(x), tanh ? "tanh" : "none"));) }

}  // extern "C"
