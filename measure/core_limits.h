// SPDX-License-Identifier: Apache-2.0
//
// What the core that runs this can do at best: every figure of the benchmark is a share of one of these.
#pragma once
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace hrnn {

// Multiply-adds and loads in the registers of one instruction set: "avx512", "avx2", or "base" (what any CPU that this
// was compiled for has: SSE2 without fused multiply-adds, NEON).
struct LimitKernels {
  const char *isa;
  // Independent multiply-adds in registers; returns how many floating-point operations were done.
  double (*multiply_add)(const float *operands, float *sink, long iterations);
  // Reads all of `data` once: one multiply-add a vector, as a matrix-vector product. `bytes` a multiple of kReadBlock.
  void (*read)(const float *data, size_t bytes, float *sink);
};
constexpr size_t kReadBlock = 1024;

// Products of 8-bit integers, summed in 32 bits: by one instruction (VNNI), or by three (AVX2). Nothing elsewhere.
struct Int8Kernel {
  const char *isa;  // "avx512_vnni", "avx_vnni", "avx2"
  double (*multiply_add)(long iterations);  // returns how many operations were done, two a multiply-add
};
std::optional<Int8Kernel> int8_kernel();

// Those that this machine can run, best first.
const std::vector<LimitKernels> &limit_kernels();
// The one a kernel variant such as "gru.f32.avx2" is to be measured against.
const LimitKernels &limit_kernels_for(const std::string &variant);

// Bytes of the data cache of a level (1 to 3), or 0 where the machine has none or does not say.
size_t cache_bytes(int level);
std::string cache_holding(size_t bytes);  // "L1", "L2", "L3" or "DRAM"

// One burst of about `seconds`. The callers repeat it, in turns with what they measure.
double measure_gflops(const LimitKernels &kernels, double seconds);

class ReadBuffer {
 public:
  explicit ReadBuffer(size_t bytes);
  ~ReadBuffer();
  ReadBuffer(const ReadBuffer &) = delete;
  ReadBuffer &operator=(const ReadBuffer &) = delete;

  // GB/s of reading the buffer again and again for about `seconds`.
  double measure_gbs(const LimitKernels &kernels, double seconds) const;
  size_t bytes() const { return bytes_; }
  // Whether it stands for weights of so many bytes.
  bool holds(size_t bytes) const { return bytes <= bytes_ && bytes + kReadBlock > bytes_; }

 private:
  size_t bytes_;
  float *data_;
};

// Nanoseconds until a thread on one core sees what a thread on another core wrote; nothing where this process may use but
// one core.
std::optional<double> measure_flag_ns();

// All of the above.
struct Limits {
  struct Peak {
    std::string isa;
    double giga;  // operations a second
  };
  struct Read {
    std::string level;
    size_t bytes;
    double gbs;
  };
  std::vector<Peak> multiply_add;  // float
  std::optional<Peak> int8;
  std::vector<Read> read;
  std::optional<double> flag_ns;
};
Limits measure_limits();

}  // namespace hrnn
