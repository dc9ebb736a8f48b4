// SPDX-License-Identifier: Apache-2.0
#include "core_limits.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>
#include <thread>
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#include "burst.h"
#include "hrnn/hrnn.h"

namespace hrnn {
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

#if defined(__x86_64__)
// As above for bytes: `product` multiplies 8-bit integers and adds to sums of 32 bits.
#define HRNN_INT8_KERNEL(name, attribute, vector, product)                                                  \
  attribute double name(long iterations) {                                                                  \
    vector sums[kChains];                                                                                   \
    _Pragma("GCC unroll 16") for (int c = 0; c < kChains; c++) sums[c] = vector{} + c;                      \
    vector factor = vector{} + 0x0101010101010101;                                                          \
    for (long i = 0; i < iterations; i++)                                                                   \
      _Pragma("GCC unroll 16") for (int c = 0; c < kChains; c++) {                                          \
        sums[c] = product(sums[c], factor);                                                                 \
        asm("" : "+v"(sums[c])); /* one after the other: three instructions could otherwise be shared */    \
      }                                                                                                     \
    vector total = sums[0];                                                                                 \
    _Pragma("GCC unroll 16") for (int c = 1; c < kChains; c++) total ^= sums[c];                            \
    volatile vector sink = total;                                                                           \
    (void)sink;                                                                                             \
    return 2.0 * sizeof(vector) * kChains * double(iterations);                                             \
  }
#define HRNN_VNNI(sum, factor) _mm512_dpbusd_epi32(sum, factor, factor)
#define HRNN_AVX_VNNI(sum, factor) _mm256_dpbusd_avx_epi32(sum, factor, factor)
#define HRNN_MADDUBS(sum, factor) \
  _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(factor, sum), _mm256_set1_epi16(1)))

HRNN_INT8_KERNEL(avx512_vnni_int8, __attribute__((target("avx512f,avx512vnni"))), __m512i, HRNN_VNNI)
HRNN_INT8_KERNEL(avx_vnni_int8, __attribute__((target("avx2,avxvnni"))), __m256i, HRNN_AVX_VNNI)
HRNN_INT8_KERNEL(avx2_int8, __attribute__((target("avx2"))), __m256i, HRNN_MADDUBS)
#endif

// Repeats `work` for about `seconds`, returns the sum of what it gives over the time it took.
template <class Work>
double rate(double seconds, Work work) {
  const double begin = now(Clock::kThread);
  double done = 0, elapsed = 0;
  do {
    done += work();
    elapsed = now(Clock::kThread) - begin;
  } while (elapsed < seconds);
  return done / elapsed;
}

template <class Measure>
double median_of(int count, Measure &&measure) {
  std::vector<double> values;
  for (int i = 0; i < count; i++) values.push_back(measure());
  return median(values);
}

constexpr double kLimitSeconds = 0.001;

std::vector<int> usable_cores() {
  cpu_set_t set;
  std::vector<int> cores;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return cores;
  for (int core = 0; core < CPU_SETSIZE; core++)
    if (CPU_ISSET(core, &set)) cores.push_back(core);
  return cores;
}

void pin_thread(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  sched_setaffinity(0, sizeof set, &set);
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

std::optional<Int8Kernel> int8_kernel() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512vnni")) return Int8Kernel{"avx512_vnni", avx512_vnni_int8};
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;  // leaf 7.1, EAX bit 4: a question that not every compiler's builtin knows
  if (__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1) && __builtin_cpu_supports("avx2"))
    return Int8Kernel{"avx_vnni", avx_vnni_int8};
  if (__builtin_cpu_supports("avx2")) return Int8Kernel{"avx2", avx2_int8};
#endif
  return std::nullopt;
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

std::optional<double> measure_flag_ns() {
  const std::vector<int> cores = usable_cores();
  if (cores.size() < 2) return std::nullopt;
  constexpr int kRounds = 1000, kRepeats = 100;
  // Each on a cache line of its own, as threads that wait for each other would have them.
  alignas(128) std::atomic<int> there{0};
  alignas(128) std::atomic<int> back{0};
  std::thread other([&] {
    pin_thread(cores[1]);
    for (int i = 1; i <= kRounds * kRepeats; i++) {
      while (there.load(std::memory_order_acquire) != i) {
      }
      back.store(i, std::memory_order_release);
    }
  });
  std::vector<double> times;
  std::thread one([&] {
    pin_thread(cores[0]);
    for (int i = 1, repeat = 0; repeat < kRepeats; repeat++) {
      const double begin = now(Clock::kWall);
      for (int round = 0; round < kRounds; round++, i++) {
        there.store(i, std::memory_order_release);
        while (back.load(std::memory_order_acquire) != i) {
        }
      }
      times.push_back((now(Clock::kWall) - begin) / (2 * kRounds) * 1e9);
    }
  });
  one.join();
  other.join();
  return quantile(times, 0.25);  // what disturbs either core only adds
}

Limits measure_limits() {
  Limits limits;
  for (const LimitKernels &kernels : limit_kernels())
    limits.multiply_add.push_back({kernels.isa, median_of(30, [&] { return measure_gflops(kernels, kLimitSeconds); })});
  if (const auto kernel = int8_kernel()) {
    auto measure = [&] { return rate(kLimitSeconds, [&] { return kernel->multiply_add(10000); }) * 1e-9; };
    limits.int8 = Limits::Peak{kernel->isa, median_of(30, measure)};
  }
  auto read = [&](const char *level, size_t bytes) {
    const ReadBuffer buffer(bytes);
    const int bursts = bytes > size_t(64 << 20) ? 3 : 15;  // one such pass takes long enough
    const double gbs = median_of(bursts, [&] { return buffer.measure_gbs(limit_kernels()[0], 3 * kLimitSeconds); });
    limits.read.push_back({level, buffer.bytes(), gbs});
  };
  const size_t l1 = cache_bytes(1), l2 = cache_bytes(2), l3 = cache_bytes(3);
  if (l1 > 0) read("L1", l1 / 2);
  if (l2 > l1) read("L2", l2 / 2);
  if (l3 > l2) read("L3", std::min(l3 / 2, 4 * l2));
  // Far more than any cache, yet not a gigabyte where hundreds of megabytes of cache are shared by many cores.
  read("DRAM", std::min<size_t>(std::max<size_t>(4 * l3, 64 << 20), 512 << 20));
  limits.flag_ns = measure_flag_ns();
  return limits;
}

}  // namespace hrnn
