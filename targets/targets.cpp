// SPDX-License-Identifier: Apache-2.0
#include "targets.h"

#include <elf.h>

#include <algorithm>
#include <stdexcept>

namespace hrnn {

namespace {

constexpr uint64_t bits() { return 0; }
template <class... Rest>
constexpr uint64_t bits(hrnn_feature first, Rest... rest) {
  return uint64_t(1) << first | bits(rest...);
}

constexpr uint64_t kSse41 = bits(HRNN_FEATURE_SSE41);
constexpr uint64_t kAvx2 = kSse41 | bits(HRNN_FEATURE_AVX, HRNN_FEATURE_FMA, HRNN_FEATURE_F16C, HRNN_FEATURE_AVX2);
constexpr uint64_t kAvx512 = kAvx2 | bits(HRNN_FEATURE_AVX512F, HRNN_FEATURE_AVX512DQ, HRNN_FEATURE_AVX512CD,
                                          HRNN_FEATURE_AVX512BW, HRNN_FEATURE_AVX512VL);

}  // namespace

const std::vector<TargetRow> &target_rows() {
  static const std::vector<TargetRow> rows = {
      // Vector registers of 16, 32 and 64 bytes; 16 of them, 32 with AVX-512.
      {"sse41", "x86", kSse41, 10, HRNN_USE_CPU, "x86-64-linux-sse41", {false, 16, 16}, EM_X86_64, true, "natively"},
      {"avx2", "x86", kAvx2, 20, HRNN_USE_CPU, "x86-64-linux-avx-avx2-f16c-fma-sse41", {false, 32, 16}, EM_X86_64, true,
       "natively"},
      {"avx512", "x86", kAvx512, 30, HRNN_USE_CPU, "x86-64-linux-avx-avx2-avx512-avx512_skylake-f16c-fma-sse41",
       {false, 64, 32}, EM_X86_64, true, "natively"},
      {"neon", "arm", bits(HRNN_FEATURE_NEON), 10, HRNN_USE_CPU, "arm-64-linux", {false, 16, 32, 0, 0, true}, EM_AARCH64, true,
       "under qemu-aarch64"},
      // Threads and memory of a block. 256 threads may have as many registers each as there can be, on every CUDA device.
      // Halide 21 writes double constants as floats into OpenCL source, so that target has no kernels in double.
      {"opencl", "opencl", bits(HRNN_FEATURE_OPENCL), 5, HRNN_USE_FORCED, "x86-64-linux-opencl-cl_doubles",
       {true, 0, 0, 256, 32 << 10}, EM_X86_64, false, "on PoCL"},
      {"cuda", "cuda", bits(HRNN_FEATURE_CUDA), 100, HRNN_USE_GPU, "x86-64-linux-cuda-cuda_capability_70",
       {true, 0, 0, 256, 48 << 10}, EM_X86_64, true,
       "on an H100; without a GPU, its PTX is assembled by ptxas for sm_80 and sm_90"},
  };
  return rows;
}

std::vector<const TargetRow *> targets_by_name(const std::vector<std::string> &names) {
  std::vector<const TargetRow *> chosen;
  for (const std::string &name : names) {
    bool found = false;
    for (const TargetRow &row : target_rows()) {
      if (name != row.name && name != row.family) continue;
      found = true;
      if (std::find(chosen.begin(), chosen.end(), &row) == chosen.end()) chosen.push_back(&row);
    }
    if (found) continue;
    std::string known;
    for (const TargetRow &row : target_rows()) known += std::string(" ") + row.family + ":" + row.name;
    throw std::invalid_argument("no target is called '" + name + "'; known (family:target):" + known);
  }
  return chosen;
}

}  // namespace hrnn
