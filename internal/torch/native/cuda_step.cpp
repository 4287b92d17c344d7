//go:build torch

// A model on a device with its optimizer: staging, graphs, the update, copies. See cuda.h.

#include <ATen/Context.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <cstring>
#include <future>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#define AT_PER_OPERATOR_HEADERS
#include <ATen/TensorOperators.h>

#include "cuda_model.h"
#include "cuda_plugin.h"

#define GUARD(...)                          \
  try {                                     \
    __VA_ARGS__ return nullptr;             \
  } catch (const std::exception& e) {       \
    return strdup(e.what());                \
  } catch (...) {                           \
    return strdup("unknown C++ exception"); \
  }

namespace {

using at::Tensor;
using c10::impl::VirtualGuardImpl;

// Event is a point on a stream. On the CPU it does nothing.
struct Event {
  void* event = nullptr;

  void record(const VirtualGuardImpl& gpu, const c10::Stream& s) { gpu.record(&event, s, s.device_index(), c10::EventFlag::PYTORCH_DEFAULT); }
  void wait(const VirtualGuardImpl& gpu) {
    if (event) gpu.synchronizeEvent(event);
  }
};

struct Slot {
  Tensor memory;  // int32, pinned
  Event used;
};

struct Graph {
  void* graph = nullptr;  // NULL: run eagerly
};

constexpr int kSlots = 8;         // batches that may be on their way
constexpr int64_t kStats = 4096;  // steps between two reads of the statistics
constexpr int kPartials = 1024;

}  // namespace

struct dt_card {
  dt_card_config c;
  at::Device device;
  bool cuda, graphs;
  std::unique_ptr<dt::Plugin> plugin;
  std::unique_ptr<VirtualGuardImpl> gpu;
  c10::Stream stream;
  std::string note;

  Tensor master, m, v, shadow, grad, sum;  // flat [size]; sum holds fp32 gradients of micro-batches
  Tensor input, stats, bad, scalars, partial, micro_loss, logits;
  std::vector<Slot> slots;
  int next = 0;
  std::unique_ptr<dt::Classifier> model;
  std::map<std::tuple<int, int64_t, int64_t, int64_t, bool>, Graph> captured;
  unsigned long long pool[2] = {0, 0};
  std::unique_ptr<dt::OwnKernels> kernels;  // NULL: libtorch's operations do it all
  dt::Sums plain;
  std::future<void> warming;  // of cuBLAS, beside the rest of the start

  explicit dt_card(const dt_card_config& config);
  ~dt_card();
  void open_cuda(dt_card_info* info);
  bool fused();
  const dt::Sums& sums() { return fused() ? *kernels : plain; }
  void allocate();
  dt::Batch batch(int64_t rows, int64_t tokens, int64_t max_key, bool typed) const;
  void body(int kind, const dt::Batch& b);
  void update(const Tensor& head, const Tensor& loss, const Tensor& gradients);
  void update_fused(const Tensor& head, const Tensor& loss);
  Graph capture(int kind, const dt::Batch& b);
  void abandon(Graph& g);
  void choose_products();
  void seed(uint64_t s);
  void add_note(const std::string& why) { note += (note.empty() ? "" : "; ") + why; }
  void synchronize() {
    if (cuda) gpu->synchronizeStream(stream);
  }
};

namespace {

c10::Stream cpu_stream() { return c10::Stream(c10::Stream::DEFAULT, at::Device(at::kCPU)); }

// Streams that nothing uses; libtorch itself hands 32 out in turn, used or not. The last one is used again first, because cuBLAS
// keeps 32 MiB for every stream that a handle of it worked on.
std::mutex idle_mutex;
std::vector<c10::Stream> idle;

c10::Stream take_stream(const VirtualGuardImpl& gpu, at::Device device) {
  std::lock_guard<std::mutex> lock(idle_mutex);
  auto found = std::find_if(idle.rbegin(), idle.rend(), [&](const c10::Stream& s) { return s.device() == device; });
  if (found == idle.rend()) return gpu.getStreamFromGlobalPool(device, false);
  c10::Stream s = *found;
  idle.erase(std::next(found).base());
  return s;
}

void leave_stream(const c10::Stream& s) {
  std::lock_guard<std::mutex> lock(idle_mutex);
  idle.push_back(s);
}

// SideStream is the thread's stream while it lives, and nobody else's.
struct SideStream {
  VirtualGuardImpl gpu{at::kCUDA};
  c10::Stream stream, before;

  explicit SideStream(at::Device device) : stream(take_stream(gpu, device)), before(gpu.exchangeStream(stream)) {}
  ~SideStream() {
    gpu.exchangeStream(before);
    leave_stream(stream);
  }
};

}  // namespace

dt_card::dt_card(const dt_card_config& config)
    : c(config), device(config.device < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, config.device)), cuda(config.device >= 0), graphs(cuda), stream(cpu_stream()) {
}

dt_card::~dt_card() {
  if (!gpu) return;  // on the CPU, or the plugin was refused
  if (warming.valid()) warming.wait();
  try {
    synchronize();
    for (auto& [key, g] : captured)
      if (g.graph) dt::check(plugin->free(g.graph));
    for (auto& s : slots)
      if (s.used.event) gpu->destroyEvent(s.used.event, device.index());
    leave_stream(stream);
  } catch (const std::exception&) {  // the device is lost; its memory went with it
  }
}

void dt_card::open_cuda(dt_card_info* info) {
  plugin = std::make_unique<dt::Plugin>(c.plugin, c.plugin_hash);
  dt::check(plugin->device(device.index(), info->name, sizeof info->name, &info->major, &info->minor));
  gpu = std::make_unique<VirtualGuardImpl>(at::kCUDA);
  gpu->setDevice(device);
  at::globalContext().lazyInitDevice(at::kCUDA);
  stream = take_stream(*gpu, device);
  gpu->exchangeStream(stream);  // a graph is not captured from the default stream
  warming = std::async(std::launch::async, [this] {  // its first product takes some hundredths of a second
    VirtualGuardImpl thread(at::kCUDA);
    thread.setDevice(device);
    thread.exchangeStream(stream);
    Tensor x = at::zeros({64, 64}, at::TensorOptions(device).dtype(c.precision == DT_BF16 ? at::kBFloat16 : at::kFloat));
    at::addmm(x.select(0, 0), x, x.t());
  });
  if (c.train) kernels = std::make_unique<dt::OwnKernels>(*plugin, device.index(), info->major, info->minor, c.precision == DT_BF16);
}

// fused tells whether there are own kernels. The first call waits for their compilation.
bool dt_card::fused() {
  std::string problem;
  if (kernels && !kernels->ready(&problem)) {
    add_note("own kernels are not used: " + problem);
    kernels.reset();
  }
  return kernels != nullptr;
}

void dt_card::allocate() {
  auto f32 = at::TensorOptions(device).dtype(at::kFloat);
  auto i32 = at::TensorOptions(device).dtype(at::kInt);
  bool bf16 = c.precision == DT_BF16;
  master = at::zeros({c.size}, f32);
  if (bf16) shadow = at::zeros({c.size}, f32.dtype(at::kBFloat16));
  if (c.train) {
    m = at::zeros({c.size}, f32);
    v = at::zeros({c.size}, f32);
    grad = at::zeros({c.size}, bf16 ? f32.dtype(at::kBFloat16) : f32);
    stats = at::zeros({kStats, 2}, f32);
    bad = at::full({1}, -1, i32);
    scalars = at::zeros({2}, f32);
    partial = at::zeros({kPartials}, f32);
    micro_loss = at::zeros({}, f32);
  }
  input = at::zeros({c.max_ints}, i32);
  logits = at::zeros({c.max_rows, c.labels}, f32);
  slots.resize(cuda ? kSlots : 1);
  for (auto& s : slots) s.memory = at::empty({c.max_ints}, at::TensorOptions(at::kCPU).dtype(at::kInt).pinned_memory(cuda));
  model = std::make_unique<dt::Classifier>(c, bf16 ? shadow : master, grad);
}

dt::Batch dt_card::batch(int64_t rows, int64_t tokens, int64_t max_key, bool typed) const {
  int64_t at = 0;
  auto take = [&](int64_t n) {
    Tensor t = input.narrow(0, at, n);
    at += n;
    return t;
  };
  dt::Batch b;
  b.head = take(DT_HEADER).view(at::kFloat);
  b.target = take(rows * c.labels).view(at::kFloat).view({rows, c.labels});
  b.first = take(rows);
  b.query_starts = take(2 * rows + 1);
  b.key_starts = take(2 * rows + 1);
  b.ids = take(tokens);
  b.positions = take(tokens);
  if (typed) b.types = take(tokens);
  b.max_key = max_key;
  return b;
}

// update_fused is norm, clipping, AdamW and the new shadow in three kernels.
void dt_card::update_fused(const Tensor& head, const Tensor& loss) {
  const void *h = head.const_data_ptr(), *l = loss.const_data_ptr();
  void *g = grad.data_ptr(), *sums = partial.data_ptr(), *clip = scalars.data_ptr(), *sh = shadow.defined() ? shadow.data_ptr() : nullptr;
  float max_norm = c.max_norm, beta1 = c.beta1, beta2 = c.beta2, eps = c.adam_eps, decay = c.decay;
  kernels->launch(kNormPartial, kPartials, 1, 256, g, sums, c.size);
  kernels->launch(kNormFinish, 1, 1, 256, sums, kPartials, h, l, bad.data_ptr(), stats.data_ptr(), clip, max_norm);
  kernels->launch(kAdam, 132 * 16, 1, 256, master.data_ptr(), g, m.data_ptr(), v.data_ptr(), sh, c.size, c.decayed, c.tables, h, clip, beta1, beta2, eps, decay);
}

// update is the same in libtorch's operations.
void dt_card::update(const Tensor& head, const Tensor& loss, const Tensor& gradients) {
  Tensor g = gradients.scalar_type() == at::kFloat ? gradients : gradients.to(at::kFloat);
  Tensor norm = at::linalg_vector_norm(g), row = at::stack({loss, norm});
  Tensor live = bad.lt(0), counts = at::isfinite(row).all().logical_and(live);
  Tensor slot = head.view(at::kInt).narrow(0, 4, 1).to(at::kLong);
  Tensor nan = at::full({}, std::numeric_limits<float>::quiet_NaN(), row.options());
  stats.index_copy_(0, slot, at::where(live, row, nan).unsqueeze(0));
  Tensor step = head.narrow(0, 1, 1);
  bad.copy_(at::where(live.logical_and(counts.logical_not()), step.to(at::kInt), bad));
  Tensor divisor = c.max_norm > 0 ? ((norm + 1e-6) / c.max_norm).clamp_min(1).view({1}) : at::full({1}, 1.0, row.options());
  Tensor skip = counts.logical_not().to(at::kFloat), lr = head.select(0, 0).clone();
  for (auto [from, to, decay] : {std::make_tuple<int64_t, int64_t, double>(0, int64_t(c.decayed), double(c.decay)),
                                 std::make_tuple<int64_t, int64_t, double>(int64_t(c.decayed), int64_t(c.size), 0.0)}) {
    auto part = [&](const Tensor& t) { return std::vector<Tensor>{t.narrow(0, from, to - from)}; };
    at::_fused_adamw_(part(master), part(g), part(m), part(v), {}, std::vector<Tensor>{step}, lr, c.beta1, c.beta2, decay, c.adam_eps, false, false, divisor, skip);
  }
  if (shadow.defined()) shadow.copy_(master);
  grad.narrow(0, 0, c.tables).zero_();
}

// body is what a graph holds.
void dt_card::body(int kind, const dt::Batch& b) {
  if (kind == DT_UPDATE) return update(b.head, micro_loss, sum);
  dt::Tape tape = model->forward(b, kind != DT_EVAL);
  if (kind == DT_EVAL) {
    logits.narrow(0, 0, tape.logits.size(0)).copy_(tape.logits);
    return;
  }
  Tensor loss = model->loss(tape, b, sums());
  model->backward(tape, b, sums());
  if (kind == DT_STEP) return fused() ? update_fused(b.head, loss) : update(b.head, loss, grad);
  if (kind == DT_MICRO_FIRST) {
    sum.copy_(grad);
    micro_loss.copy_(loss);
  } else {
    sum.add_(grad);
    micro_loss.add_(loss);
  }
  grad.narrow(0, 0, c.tables).zero_();
}

// abandon leaves a capture that failed.
void dt_card::abandon(Graph& g) {
  if (!g.graph) return;
  free(plugin->end(g.graph));  // its complaint is known
  free(plugin->free(g.graph));
  g.graph = nullptr;
}

// choose_products says how precise fp32 matrix products are. It is the process's setting, and engines may differ.
void dt_card::choose_products() {
  if (cuda) at::globalContext().setAllowTF32CuBLAS(c.precision != DT_FP32);
}

// capture records the body as a graph. It first runs forward and backward pass once, which loads kernels and leaves no trace
// but in gradients that are written again.
Graph dt_card::capture(int kind, const dt::Batch& b) {
  Graph g;
  if (!graphs) return g;
  if (warming.valid()) warming.wait();  // what failed there fails again, and is reported, in the pass below
  choose_products();
  if (kind != DT_UPDATE) {
    dt::Tape tape = model->forward(b, kind != DT_EVAL);
    if (kind != DT_EVAL) {
      model->loss(tape, b, sums());
      model->backward(tape, b, sums());
      grad.narrow(0, 0, c.tables).zero_();
    }
  }
  synchronize();
  try {
    dt::check(plugin->begin(&g.graph, pool));
    body(kind, b);
    dt::check(plugin->end(g.graph));
  } catch (const c10::OutOfMemoryError&) {
    abandon(g);
    throw;  // eager steps would need as much
  } catch (const std::exception& e) {
    add_note(std::string("steps are not captured in CUDA graphs: ") + e.what());
    graphs = false;
    abandon(g);
  }
  return g;
}

// seed makes the dropout of what follows a function of s.
void dt_card::seed(uint64_t s) {
  auto gen = at::globalContext().defaultGenerator(device);
  std::lock_guard<std::mutex> lock(gen.mutex());
  gen.set_current_seed(s);
}

struct dt_copy {
  c10::Device device;
  bool cuda;
  Event ready;
  Tensor card[3], host[3];

  ~dt_copy() {
    if (ready.event) VirtualGuardImpl(at::kCUDA).destroyEvent(ready.event, device.index());
  }
};

extern "C" {

char* dt_card_open(dt_card** out, const dt_card_config* config, dt_card_info* info) {
  GUARD(memset(info, 0, sizeof *info);
        auto card = std::make_unique<dt_card>(*config);
        if (card->cuda) {
          card->open_cuda(info);
          c10::getDeviceAllocator(at::kCUDA)->resetPeakStats(card->device.index());
        }
        card->allocate();
        card->c.offsets = nullptr;
        card->synchronize();
        *out = card.release();)
}

void dt_card_close(dt_card* card) {
  bool cuda = card->cuda;
  delete card;
  if (!cuda) return;
  try {
    c10::getDeviceAllocator(at::kCUDA)->emptyCache();  // a graph's memory goes back to the device only so
  } catch (const std::exception&) {  // the device is lost; its memory went with it
  }
}

char* dt_card_stage(dt_card* card, int32_t** out) {
  GUARD(Slot& s = card->slots[card->next];
        if (card->cuda) s.used.wait(*card->gpu);
        *out = s.memory.data_ptr<int32_t>();)
}

char* dt_card_run(dt_card* card, int kind, int64_t rows, int64_t tokens, int64_t max_key, int typed, int64_t n, uint64_t seed) {
  GUARD(Slot& s = card->slots[card->next];
        card->next = (card->next + 1) % static_cast<int>(card->slots.size());
        card->input.narrow(0, 0, n).copy_(s.memory.narrow(0, 0, n), true);
        if (card->cuda) s.used.record(*card->gpu, card->stream);
        if (kind >= DT_MICRO_FIRST && !card->sum.defined()) card->sum = at::zeros_like(card->master);
        dt::Batch b = card->batch(rows, tokens, max_key, typed != 0);
        auto key = std::make_tuple(kind, rows, tokens, max_key, typed != 0);
        auto found = card->captured.find(key);
        if (found == card->captured.end()) found = card->captured.emplace(key, card->capture(kind, b)).first;
        if (kind != DT_EVAL) card->seed(seed);
        if (found->second.graph)
          dt::check(card->plugin->replay(found->second.graph));
        else {
          card->choose_products();
          card->body(kind, b);
        })
}

char* dt_card_logits(dt_card* card, float* out, int64_t rows) {
  GUARD(Tensor host = card->logits.narrow(0, 0, rows).cpu();
        memcpy(out, host.const_data_ptr<float>(), host.nbytes());)
}

char* dt_card_stats(dt_card* card, float* out, int64_t rows) {
  GUARD(Tensor host = card->stats.narrow(0, 0, rows).cpu();
        memcpy(out, host.const_data_ptr<float>(), host.nbytes());)
}

char* dt_card_write(dt_card* card, const float* w, const float* m, const float* v) {
  GUARD(auto put = [&](const Tensor& to, const float* from) {
    if (from) to.copy_(at::from_blob(const_cast<float*>(from), {card->c.size}, at::kFloat));
  };
        put(card->master, w);
        put(card->m, m);
        put(card->v, v);
        if (card->shadow.defined()) card->shadow.copy_(card->master);
        if (card->bad.defined()) card->bad.fill_(-1);
        card->synchronize();)
}

char* dt_card_gradients(dt_card* card, float* out) {
  GUARD(Tensor host = card->sum.cpu();
        memcpy(out, host.const_data_ptr<float>(), host.nbytes());)
}

char* dt_card_memory(dt_card* card, int64_t* peak) {
  GUARD(*peak = 0;
        if (card->cuda) *peak = c10::getDeviceAllocator(at::kCUDA)->getDeviceStats(card->device.index()).reserved_bytes[0].peak;)
}

char* dt_card_note(dt_card* card) {
  if (card->note.empty()) return nullptr;
  char* note = strdup(card->note.c_str());
  card->note.clear();
  return note;
}

char* dt_card_copy(dt_card* card, dt_copy** out) {
  GUARD(auto copy = std::make_unique<dt_copy>(dt_copy{card->device, card->cuda, {}, {}, {}});
        const Tensor* from[] = {&card->master, &card->m, &card->v};
        for (int i = 0; i < 3; i++) copy->card[i] = from[i]->clone();
        if (card->cuda) copy->ready.record(*card->gpu, card->stream);
        *out = copy.release();)
}

char* dt_copy_fetch(dt_copy* copy, float** w, float** m, float** v) {
  GUARD(float** to[] = {w, m, v};
        if (copy->cuda) {
          SideStream side(copy->device);
          side.gpu.block(copy->ready.event, side.stream);
          for (int i = 0; i < 3; i++) {
            copy->host[i] = at::empty(copy->card[i].sizes(), copy->card[i].options().device(at::kCPU).pinned_memory(true));
            copy->host[i].copy_(copy->card[i], true);
          }
          side.gpu.synchronizeStream(side.stream);
        } else {
          for (int i = 0; i < 3; i++) copy->host[i] = copy->card[i];
        }
        for (int i = 0; i < 3; i++) {
          copy->card[i] = Tensor();
          *to[i] = copy->host[i].data_ptr<float>();
        })
}

void dt_copy_free(dt_copy* copy) { delete copy; }

}  // extern "C"
