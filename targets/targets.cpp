// SPDX-License-Identifier: Apache-2.0
#include "targets.h"

#include <elf.h>

#include <algorithm>
#include <stdexcept>

namespace hrnn {

const std::vector<TargetRow> &target_rows() {
  // Within a family, better targets come later.
  static const std::vector<TargetRow> rows = {
      {"sse41", "x86", HRNN_X86_SSE41, "x86-64-linux-sse41", {false, 16, 16, 0}, EM_X86_64, true, "natively"},
      {"avx2", "x86", HRNN_X86_AVX2, "x86-64-linux-avx-avx2-f16c-fma-sse41", {false, 32, 16, 0}, EM_X86_64, true, "natively"},
      {"avx512", "x86", HRNN_X86_AVX512, "x86-64-linux-avx-avx2-avx512-avx512_skylake-f16c-fma-sse41",
       {false, 64, 32, 0}, EM_X86_64, true, "natively"},
      {"neon", "arm", HRNN_ARM64_NEON, "arm-64-linux", {false, 16, 32, 0}, EM_AARCH64, true, "under qemu-aarch64"},
      // Halide 21 writes double constants as floats into OpenCL source, so this target has no kernels in double.
      {"opencl", "opencl", HRNN_OPENCL, "x86-64-linux-opencl-cl_doubles", {true, 0, 0, 64}, EM_X86_64, false, "on PoCL"},
      {"cuda", "cuda", HRNN_CUDA, "x86-64-linux-cuda-cuda_capability_70", {true, 0, 0, 64}, EM_X86_64, true,
       "on a GPU; without one, its PTX is assembled by ptxas for sm_80 and sm_90"},
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
