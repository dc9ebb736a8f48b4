// SPDX-License-Identifier: Apache-2.0
#include "limits.h"

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <new>

#include "hrnn/hrnn.h"

namespace hrnn::bench {
namespace {

// Twelve chains of multiply-adds hide the latency on every core (at most 5 cycles, two a cycle) and leave registers for
// the operands in all instruction sets.
constexpr int kChains = 12;
constexpr int kLoads = 8;

// A macro, as a function with a target attribute of its own cannot be an instance of a template without one.
#define HRNN_LIMIT_KERNELS(isa, attribute, vector_bytes)                                                         \
  typedef float isa##_vector __attribute__((vector_size(vector_bytes), aligned(4), may_alias));                  \
  attribute double isa##_multiply_add(const float *operands, float *sink, long iterations) {                     \
    const isa##_vector scale = *(const isa##_vector *)operands, offset = *(const isa##_vector *)(operands + 16); \
    isa##_vector sums[kChains];                                                                                  \
    _Pragma("GCC unroll 16") for (int c = 0; c < kChains; c++) sums[c] = scale * float(c);                       \
    for (long i = 0; i < iterations; i++)                                                                        \
      _Pragma("GCC unroll 16") for (int c = 0; c < kChains; c++) sums[c] = sums[c] * scale + offset;             \
    isa##_vector total = sums[0];                                                                                \
    _Pragma("GCC unroll 16") for (int c = 1; c < kChains; c++) total += sums[c];                                 \
    *(isa##_vector *)sink = total;                                                                               \
    return 2.0 * (vector_bytes / 4) * kChains * double(iterations);                                              \
  }                                                                                                              \
  attribute void isa##_read(const float *data, size_t bytes, float *sink) {                                      \
    constexpr size_t kFloats = vector_bytes / 4;                                                                 \
    const isa##_vector scale = *(const isa##_vector *)sink;                                                      \
    isa##_vector sums[kLoads];                                                                                   \
    _Pragma("GCC unroll 16") for (int c = 0; c < kLoads; c++) sums[c] = scale;                                   \
    for (const float *end = data + bytes / 4; data < end; data += kLoads * kFloats)                              \
      _Pragma("GCC unroll 16") for (int c = 0; c < kLoads; c++) sums[c] =                                        \
          *(const isa##_vector *)(data + c * kFloats) * scale + sums[c];                                         \
    isa##_vector total = sums[0];                                                                                \
    _Pragma("GCC unroll 16") for (int c = 1; c < kLoads; c++) total += sums[c];                                  \
    *(isa##_vector *)(sink + 16) = total;                                                                        \
  }

HRNN_LIMIT_KERNELS(base, , 16)
#if defined(__x86_64__)
HRNN_LIMIT_KERNELS(avx2, __attribute__((target("avx2,fma"))), 32)
HRNN_LIMIT_KERNELS(avx512, __attribute__((target("avx512f"))), 64)
#endif

// Repeats `work` for about `seconds`, returns the sum of what it gives over the time it took.
template <class Work>
double rate(double seconds, Work work) {
  const double begin = thread_seconds();
  double done = 0, elapsed = 0;
  do {
    done += work();
    elapsed = thread_seconds() - begin;
  } while (elapsed < seconds);
  return done / elapsed;
}

}  // namespace

const std::vector<LimitKernels> &limit_kernels() {
  static const std::vector<LimitKernels> usable = [] {
    std::vector<LimitKernels> all;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) all.push_back({"avx512", avx512_multiply_add, avx512_read});
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
      all.push_back({"avx2", avx2_multiply_add, avx2_read});
#endif
    all.push_back({"base", base_multiply_add, base_read});
    return all;
  }();
  return usable;
}

const LimitKernels &limit_kernels_for(const std::string &variant) {
  for (const LimitKernels &kernels : limit_kernels())
    if (variant.find(kernels.isa) != std::string::npos) return kernels;
  return limit_kernels().back();
}

size_t cache_bytes(int level) {
  static const hrnn_machine machine = [] {
    hrnn_machine detected{};
    detected.struct_size = sizeof detected;
    hrnn_machine_detect(nullptr, 0, &detected);
    return detected;
  }();
  return size_t(machine.cache_bytes[level - 1]);
}

std::string cache_holding(size_t bytes) {
  for (int level = 1; level <= 3; level++)
    if (bytes <= cache_bytes(level)) return "L" + std::to_string(level);
  return "DRAM";
}

double thread_seconds() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return double(time.tv_sec) + double(time.tv_nsec) * 1e-9;
}

double measure_gflops(const LimitKernels &kernels, double seconds) {
  // x / 2 + 1: the sums stay ordinary numbers, near 2.
  alignas(64) float operands[32], sink[16];
  std::fill(operands, operands + 16, 0.5f);
  std::fill(operands + 16, operands + 32, 1.0f);
  return rate(seconds, [&] { return kernels.multiply_add(operands, sink, 10000); }) * 1e-9;
}

ReadBuffer::ReadBuffer(size_t bytes) : bytes_((bytes + kReadBlock - 1) / kReadBlock * kReadBlock) {
  data_ = static_cast<float *>(std::aligned_alloc(kReadBlock, bytes_));
  if (data_ == nullptr) throw std::bad_alloc();
  std::fill(data_, data_ + bytes_ / sizeof(float), 1.0f);
}

ReadBuffer::~ReadBuffer() { std::free(data_); }

double ReadBuffer::measure_gbs(const LimitKernels &kernels, double seconds) const {
  alignas(64) float sink[32] = {};
  // Several passes between two looks at the clock where a pass is short: a look takes part of a microsecond.
  const size_t passes = std::max<size_t>(1, (4 << 20) / bytes_);
  auto read = [&] {
    for (size_t i = 0; i < passes; i++) kernels.read(data_, bytes_, sink);
    return double(passes * bytes_);
  };
  for (int i = 0; i < 3; i++) read();  // a last-level cache takes more than one to hold a buffer near its size
  return rate(seconds, read) * 1e-9;
}

}  // namespace hrnn::bench
