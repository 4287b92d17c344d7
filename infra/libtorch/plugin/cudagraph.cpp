// The plugin: what of CUDA libtorch_cpu has no generic call for. A worker opens it at run time, after libtorch_cuda, so that
// one binary serves machines with and without a GPU. Everything else goes through libtorch's dispatcher.
//
// A function that can fail returns a message to be freed by the caller, or NULL. DURATUNE_PLUGIN_HASH is the SHA-256 of this
// file; the worker was built with the same, or it refuses the plugin.

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda.h>
#include <cuda_runtime.h>
#include <dlfcn.h>

#include <cstring>
#include <string>
#include <vector>

#define GUARD(...)                   \
  try {                              \
    __VA_ARGS__ return nullptr;      \
  } catch (const std::exception& e) { \
    return strdup(e.what());         \
  } catch (...) {                    \
    return strdup("unknown C++ exception"); \
  }

namespace {

void check(bool ok, const std::string& what) {
  if (!ok) throw std::runtime_error(what);
}

template <typename F>
F symbol(void* library, const char* name) {
  void* p = library ? dlsym(library, name) : nullptr;
  check(p != nullptr, std::string("CUDA driver or NVRTC: no ") + name);
  return reinterpret_cast<F>(p);
}

// NVRTC is opened by name, or through the stub of libtorch that knows where its wheel put it.
void* nvrtc() {
  void* library = dlopen("libnvrtc.so.13", RTLD_NOW);
  return library ? library : dlopen("libcaffe2_nvrtc.so", RTLD_NOW);
}

// compile turns CUDA C++ into machine code for one architecture.
std::vector<char> compile(const char* source, const std::vector<const char*>& options) {
  void *library = nvrtc(), *program = nullptr;
  auto create = symbol<int (*)(void**, const char*, const char*, int, const char* const*, const char* const*)>(library, "nvrtcCreateProgram");
  auto build = symbol<int (*)(void*, int, const char* const*)>(library, "nvrtcCompileProgram");
  auto log_size = symbol<int (*)(void*, size_t*)>(library, "nvrtcGetProgramLogSize");
  auto log = symbol<int (*)(void*, char*)>(library, "nvrtcGetProgramLog");
  auto code_size = symbol<int (*)(void*, size_t*)>(library, "nvrtcGetCUBINSize");
  auto code = symbol<int (*)(void*, char*)>(library, "nvrtcGetCUBIN");
  auto destroy = symbol<int (*)(void**)>(library, "nvrtcDestroyProgram");

  check(create(&program, source, "duratune.cu", 0, nullptr, nullptr) == 0, "NVRTC: cannot make a program");
  int result = build(program, static_cast<int>(options.size()), options.data());
  size_t size = 0;
  if (result != 0) {
    log_size(program, &size);
    std::string text(size, ' ');
    log(program, text.data());
    destroy(&program);
    throw std::runtime_error("NVRTC: " + text);
  }
  code_size(program, &size);
  std::vector<char> binary(size);
  result = code(program, binary.data());
  destroy(&program);
  check(result == 0, "NVRTC: no machine code");
  return binary;
}

}  // namespace

extern "C" {

const char* dt_cuda_hash(void) { return DURATUNE_PLUGIN_HASH; }

// dt_cuda_device makes a device the calling thread's, for the driver's calls too, and tells its name and compute capability.
char* dt_cuda_device(int device, char* name, int size, int* major, int* minor) {
  GUARD(cudaDeviceProp p{};
        cudaError_t err = cudaSetDevice(device);
        if (err == cudaSuccess) err = cudaFree(nullptr);  // makes the context, if this is the first call
        if (err == cudaSuccess) err = cudaGetDeviceProperties(&p, device);
        check(err == cudaSuccess, std::string("CUDA error: ") + cudaGetErrorString(err));
        strncpy(name, p.name, size - 1);
        *major = p.major;
        *minor = p.minor;)
}

// dt_cuda_graph_begin starts to capture what the calling thread puts on its current stream. Graphs of one pool may not
// run at the same time; the pool is made with the first and passed to the others.
char* dt_cuda_graph_begin(void** graph, unsigned long long pool[2]) {
  GUARD(if (pool[0] == 0 && pool[1] == 0) {
    auto made = at::cuda::graph_pool_handle();
    pool[0] = made.first;
    pool[1] = made.second;
  } auto* g = new at::cuda::CUDAGraph();
        *graph = g;
        g->capture_begin({pool[0], pool[1]}, cudaStreamCaptureModeThreadLocal);)
}

char* dt_cuda_graph_end(void* graph) { GUARD(static_cast<at::cuda::CUDAGraph*>(graph)->capture_end();) }

char* dt_cuda_graph_replay(void* graph) { GUARD(static_cast<at::cuda::CUDAGraph*>(graph)->replay();) }

// dt_cuda_graph_free also serves a graph whose capture failed.
char* dt_cuda_graph_free(void* graph) { GUARD(delete static_cast<at::cuda::CUDAGraph*>(graph);) }

// dt_cuda_compile makes a device's kernels out of CUDA C++, on any thread; names is a list that ends with NULL, functions receives
// as many.
char* dt_cuda_compile(const char* source, const char* define, int device, int major, int minor, const char* const* names, void** functions) {
  GUARD(std::string arch = "--gpu-architecture=sm_" + std::to_string(major) + std::to_string(minor);
        std::vector<char> binary = compile(source, {arch.c_str(), "--std=c++17", "-default-device", define});
        check(cudaSetDevice(device) == cudaSuccess, "CUDA: cannot use the device");
        void* driver = dlopen("libcuda.so.1", RTLD_NOW);
        auto load = symbol<CUresult (*)(CUmodule*, const void*)>(driver, "cuModuleLoadData");
        auto find = symbol<CUresult (*)(CUfunction*, CUmodule, const char*)>(driver, "cuModuleGetFunction");
        CUmodule module = nullptr;
        CUresult r = load(&module, binary.data());
        check(r == CUDA_SUCCESS, "CUDA driver: cannot load the kernels: error " + std::to_string(r));
        for (int i = 0; names[i]; i++) {
          CUfunction f = nullptr;
          check(find(&f, module, names[i]) == CUDA_SUCCESS, std::string("CUDA driver: no kernel ") + names[i]);
          functions[i] = f;
        })
}

// dt_cuda_launch puts a kernel on the current stream.
char* dt_cuda_launch(void* function, int grid_x, int grid_y, int block, void** args) {
  GUARD(static auto launch = symbol<CUresult (*)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream,
                                                 void**, void**)>(dlopen("libcuda.so.1", RTLD_NOW), "cuLaunchKernel");
        CUresult r = launch(static_cast<CUfunction>(function), grid_x, grid_y, 1, block, 1, 1, 0,
                            c10::cuda::getCurrentCUDAStream().stream(), args, nullptr);
        check(r == CUDA_SUCCESS, "CUDA driver: kernel launch failed with " + std::to_string(r));)
}

}  // extern "C"
