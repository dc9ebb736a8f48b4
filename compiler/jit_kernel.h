// SPDX-License-Identifier: Apache-2.0
//
// Kernels compiled into this process, for the tuner: the same modules that emit() writes to objects.
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "kernels.h"

namespace hrnn {

struct JitKernel {
  std::string symbol;
  std::string identity;  // of its code: changes whenever the algorithm, the schedule, the target or Halide does
  hrnn_kernel_entry entry;
  std::shared_ptr<const void> code;  // keeps `entry` alive
};

using CompileKernel = std::function<std::shared_ptr<const JitKernel>(const KernelSpec &, const TargetRow &)>;

std::shared_ptr<const JitKernel> jit_kernel(const KernelSpec &spec, const TargetRow &target);

// Any module with a function of this name.
std::shared_ptr<const JitKernel> jit_module(const Halide::Module &module, const std::string &symbol);

// 16 hexadecimal digits.
std::string hash_text(const std::string &text);

}  // namespace hrnn
