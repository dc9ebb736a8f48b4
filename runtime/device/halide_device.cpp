// SPDX-License-Identifier: Apache-2.0
//
// A GPU backend over Halide's runtime. Compiled once per backend with HRNN_DEVICE_CUDA or HRNN_DEVICE_OPENCL defined and
// linked with that backend's Halide runtime; it exports one symbol, hrnn_cuda_device or hrnn_opencl_device.
#include <HalideRuntime.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "hrnn/device.h"

#if defined(HRNN_DEVICE_CUDA)
#include <HalideRuntimeCuda.h>
#define HRNN_DEVICE hrnn_cuda_device
#elif defined(HRNN_DEVICE_OPENCL)
#include <HalideRuntimeOpenCL.h>
#define HRNN_DEVICE hrnn_opencl_device
#else
#error "define HRNN_DEVICE_CUDA or HRNN_DEVICE_OPENCL"
#endif

#if defined(HRNN_DEVICE_CUDA)
// Of Halide's runtime; its header declares their types only.
extern "C" int halide_cuda_acquire_context(void *user_context, void **context, bool create);
extern "C" int halide_cuda_release_context(void *user_context);

// How Halide's runtime asks for the driver's functions: this takes the place of its own. Halide has every module compiled for
// at most 64 registers a thread, whatever the block; kernels here count on more, and would keep their sums in memory.
extern "C" void *halide_cuda_get_symbol(void *, const char *name) {
  using LoadModule = int (*)(void **module, const void *image, unsigned options, void *names, void **values);
  static LoadModule load_module;
  void *const found = dlsym(RTLD_DEFAULT, name);
  if (strcmp(name, "cuModuleLoadDataEx") != 0) return found;
  load_module = reinterpret_cast<LoadModule>(found);
  const LoadModule without_options = [](void **module, const void *image, unsigned, void *, void **) {
    return load_module(module, image, 0, nullptr, nullptr);
  };
  return found == nullptr ? nullptr : reinterpret_cast<void *>(without_options);
}
#endif

struct hrnn_device_memory {
  halide_buffer_t buffer;
  halide_dimension_t dim;
};

namespace {

#if defined(HRNN_DEVICE_CUDA)
constexpr uint32_t kFeature = HRNN_FEATURE_CUDA;
constexpr const char *kName = "cuda";
constexpr const char *kLibraries[] = {"libcuda.so.1", "libcuda.so"};
constexpr const char *kMissing = "no CUDA driver (libcuda.so.1 cannot be loaded)";
const halide_device_interface_t *interface() { return halide_cuda_device_interface(); }
#else
constexpr uint32_t kFeature = HRNN_FEATURE_OPENCL;
constexpr const char *kName = "opencl";
constexpr const char *kLibraries[] = {"libOpenCL.so.1", "libOpenCL.so"};
constexpr const char *kMissing = "no OpenCL loader (libOpenCL.so.1 cannot be loaded)";
const halide_device_interface_t *interface() { return halide_opencl_device_interface(); }
#endif

// Memory is counted in eight-byte units, so that extents of 32 bits reach 16 GiB.
constexpr uint64_t kUnit = 8;

thread_local char last_error[200];

// Halide's default handler aborts; ours remembers, and the failing call returns its code.
void remember_error(void *, const char *message) { snprintf(last_error, sizeof last_error, "%s", message); }
void print_nothing(void *, const char *) {}

void describe(halide_buffer_t *buffer, halide_dimension_t *dim, uint64_t offset, uint64_t bytes) {
  *buffer = {};
  *dim = {int32_t(offset / kUnit), int32_t((bytes + kUnit - 1) / kUnit), 1, 0};
  buffer->type = {halide_type_uint, 64, 1};
  buffer->dimensions = 1;
  buffer->dim = dim;
}

// Calls use(part) on the part of the memory from `offset`, `bytes` long.
template <class Use>
int with_part(hrnn_device_memory *memory, uint64_t offset, uint64_t bytes, Use use) {
  halide_buffer_t part;
  halide_dimension_t dim;
  describe(&part, &dim, offset, bytes);
  int code = halide_device_crop(nullptr, &memory->buffer, &part);
  if (code != 0) return code;
  code = use(&part);
  const int released = halide_device_release_crop(nullptr, &part);
  return code != 0 ? code : released;
}

int allocate(uint64_t bytes, hrnn_device_memory **memory) {
  if (bytes / kUnit >= INT32_MAX) return halide_error_code_buffer_allocation_too_large;
  auto *m = static_cast<hrnn_device_memory *>(calloc(1, sizeof(hrnn_device_memory)));
  if (m == nullptr) return halide_error_code_out_of_memory;
  describe(&m->buffer, &m->dim, 0, bytes);
  const int code = halide_device_malloc(nullptr, &m->buffer, interface());
  if (code != 0)
    free(m);
  else
    *memory = m;
  return code;
}

void release(hrnn_device_memory *memory) {
  halide_device_free(nullptr, &memory->buffer);
  free(memory);
}

int view(hrnn_device_memory *memory, uint64_t offset, uint64_t *handle) {
  halide_buffer_t part;
  halide_dimension_t dim;
  describe(&part, &dim, offset, uint64_t(memory->dim.extent) * kUnit - offset);
  const int code = halide_device_crop(nullptr, &memory->buffer, &part);
  *handle = part.device;
  return code;
}

void release_view(hrnn_device_memory *memory, uint64_t handle) {
  halide_buffer_t part = memory->buffer;
  part.device = handle;
  halide_device_release_crop(nullptr, &part);
}

// Whole units, by Halide.
int upload_units(hrnn_device_memory *memory, uint64_t offset, const void *from, uint64_t bytes) {
  if (bytes == 0) return 0;
  return with_part(memory, offset, bytes, [&](halide_buffer_t *part) {
    part->host = static_cast<uint8_t *>(const_cast<void *>(from));
    part->flags = halide_buffer_flag_host_dirty;
    return halide_copy_to_device(nullptr, part, interface());
  });
}

int download_units(hrnn_device_memory *memory, uint64_t offset, void *to, uint64_t bytes) {
  if (bytes == 0) return 0;
  return with_part(memory, offset, bytes, [&](halide_buffer_t *part) {
    part->host = static_cast<uint8_t *>(to);
    part->flags = halide_buffer_flag_device_dirty;
    return halide_copy_to_host(nullptr, part);
  });
}

// The last unit may go beyond what is the caller's.
int upload(hrnn_device_memory *memory, uint64_t offset, const void *from, uint64_t bytes) {
  const uint64_t rest = bytes % kUnit, whole = bytes - rest;
  const int code = upload_units(memory, offset, from, whole);
  if (code != 0 || rest == 0) return code;
  uint8_t last[kUnit] = {};
  memcpy(last, static_cast<const uint8_t *>(from) + whole, size_t(rest));
  return upload_units(memory, offset + whole, last, kUnit);
}

int download(hrnn_device_memory *memory, uint64_t offset, void *to, uint64_t bytes) {
  const uint64_t rest = bytes % kUnit, whole = bytes - rest;
  uint8_t last[kUnit];
  int code = download_units(memory, offset, to, whole);
  if (code != 0 || rest == 0) return code;
  code = download_units(memory, offset + whole, last, kUnit);
  if (code == 0) memcpy(static_cast<uint8_t *>(to) + whole, last, size_t(rest));
  return code;
}

#if defined(HRNN_DEVICE_CUDA)
// Of the driver, whose symbols are global (see driver_loads); null: it has none of this name.
template <class Function>
Function driver(const char *name) {
  return reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
}

// Halide has no name for what follows: the driver is called in its context.
template <class Call>
int in_context(Call call) {
  const auto push = driver<int (*)(void *)>("cuCtxPushCurrent_v2");
  const auto pop = driver<int (*)(void **)>("cuCtxPopCurrent_v2");
  if (push == nullptr || pop == nullptr) return halide_error_code_symbol_not_found;
  void *context = nullptr;
  int code = halide_cuda_acquire_context(nullptr, &context, true);
  if (code != 0) return code;
  code = push(context);
  if (code == 0) {
    code = call();
    pop(&context);
  }
  halide_cuda_release_context(nullptr);
  return code;
}

int pin(void *memory, uint64_t bytes) {
  const auto pages = driver<int (*)(void *, size_t, unsigned)>("cuMemHostRegister_v2");
  if (pages == nullptr) return halide_error_code_symbol_not_found;
  return in_context([&] { return pages(memory, size_t(bytes), 0); });
}

void unpin(void *memory) {
  const auto pages = driver<int (*)(void *)>("cuMemHostUnregister");
  if (pages != nullptr) in_context([&] { return pages(memory); });
}

int is_pinned(const void *memory, uint64_t bytes) {
  constexpr int kMemoryType = 2, kHost = 1;  // CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_MEMORYTYPE_HOST
  const auto attribute = driver<int (*)(void *, int, uint64_t)>("cuPointerGetAttribute");
  if (attribute == nullptr || bytes == 0) return 0;
  const uint64_t first = reinterpret_cast<uintptr_t>(memory);
  for (uint64_t byte : {first, first + bytes - 1}) {
    int type = 0;
    if (in_context([&] { return attribute(&type, kMemoryType, byte); }) != 0 || type != kHost) return 0;
  }
  return 1;
}

// CUDA_MEMCPY2D: lines of a picture.
struct Side {
  size_t x, y;
  int memory_type;
  const void *host;
  uint64_t device;
  void *array;
  size_t pitch;
};
struct Lines {
  Side from, to;
  size_t bytes, count;
};

int download_pieces(hrnn_device_memory *memory, uint64_t offset, uint64_t apart, void *to, uint64_t to_apart, uint64_t bytes,
                    uint64_t count) {
  constexpr int kHost = 1, kDevice = 2;  // CU_MEMORYTYPE_HOST, _DEVICE
  const auto copy = driver<int (*)(const Lines *)>("cuMemcpy2DUnaligned_v2");
  if (copy == nullptr) return halide_error_code_symbol_not_found;
  const uint64_t from = halide_cuda_get_device_ptr(nullptr, &memory->buffer) + offset;
  const Lines lines = {{0, 0, kDevice, nullptr, from, nullptr, size_t(apart)},
                       {0, 0, kHost, to, 0, nullptr, size_t(to_apart)},
                       size_t(bytes),
                       size_t(count)};
  last_error[0] = 0;
  return in_context([&] { return copy(&lines); });
}
#else
// OpenCL pins memory only that it allocates itself.
int pin(void *, uint64_t) { return halide_error_code_symbol_not_found; }
void unpin(void *) {}
int is_pinned(const void *, uint64_t) { return 0; }

int download_pieces(hrnn_device_memory *memory, uint64_t offset, uint64_t apart, void *to, uint64_t to_apart, uint64_t bytes,
                    uint64_t count) {
  int code = 0;
  for (uint64_t i = 0; i < count && code == 0; i++)
    code = download(memory, offset + i * apart, static_cast<uint8_t *>(to) + i * to_apart, bytes);
  return code;
}
#endif

const char *failure() { return last_error; }

const void *buffer_interface() { return interface(); }

// The driver is looked for at run time. It is loaded with global symbols because Halide asks for names it finds there
// before it tries file names that not every installation has.
bool driver_loads() {
  for (const char *library : kLibraries)
    if (dlopen(library, RTLD_NOW | RTLD_GLOBAL) != nullptr) return true;
  return false;
}

int probe(char *reason, size_t reason_bytes) {
  halide_set_error_handler(remember_error);
  halide_set_custom_print(print_nothing);
  if (!driver_loads()) {
    snprintf(reason, reason_bytes, "%s", kMissing);
    return 0;
  }
  last_error[0] = 0;
  hrnn_device_memory *memory = nullptr;
  const int code = allocate(64, &memory);
  if (code != 0) {
    snprintf(reason, reason_bytes, "the driver is there but no device can be used (error %d) %s", code, last_error);
    return 0;
  }
  release(memory);
  return 1;
}

}  // namespace

extern "C" HRNN_API const hrnn_device HRNN_DEVICE = {
    HRNN_ABI_VERSION, kFeature,     kName,  probe,    buffer_interface, allocate, release,
    view,             release_view, upload, download, download_pieces,  pin,      unpin,   is_pinned,
    failure};
