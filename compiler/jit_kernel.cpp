// SPDX-License-Identifier: Apache-2.0
#include "jit_kernel.h"

#include <fmt/format.h>

#include <cctype>
#include <sstream>
#include <stdexcept>

namespace hrnn {
namespace {

bool in_name(char c) { return isalnum(static_cast<unsigned char>(c)) || c == '_'; }

// Halide numbers the names of a process in the order in which they come up: "product", "product$3", "t12". Without those
// numbers a kernel's text depends on the kernel alone.
std::string without_numbers(const std::string &text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); i++) {
    const bool dollar = text[i] == '$', temporary = text[i] == 't' && (i == 0 || !in_name(text[i - 1]));
    size_t end = i + 1;
    while ((dollar || temporary) && end < text.size() && isdigit(static_cast<unsigned char>(text[end]))) end++;
    const bool numbered = end > i + 1 && (end == text.size() || !in_name(text[end]));
    if (!(dollar && numbered)) plain += text[i];
    if (numbered) i = end - 1;
  }
  return plain;
}

}  // namespace

// FNV-1a: it must be the same on every machine, and nobody forges it.
std::string hash_text(const std::string &text) {
  uint64_t h = 0xcbf29ce484222325u;
  for (unsigned char c : text) h = (h ^ c) * 0x100000001b3u;
  return fmt::format("{:016x}", h);
}

std::shared_ptr<const JitKernel> jit_module(const Halide::Module &module, const std::string &symbol) {
  auto kernel = std::make_shared<JitKernel>();
  kernel->symbol = symbol;
  std::ostringstream text;
  text << module << HALIDE_VERSION_MAJOR << "." << HALIDE_VERSION_MINOR << "." << HALIDE_VERSION_PATCH;
  kernel->identity = hash_text(without_numbers(text.str()));
  auto code = std::make_shared<Halide::Internal::JITModule>(module, module.get_function_by_name(symbol));
  // The argv form takes an array of addresses, as hrnn_kernel_entry does.
  kernel->entry = reinterpret_cast<hrnn_kernel_entry>(code->argv_function());
  if (kernel->entry == nullptr) throw std::runtime_error("no code was made for kernel " + symbol);
  kernel->code = code;
  return kernel;
}

std::shared_ptr<const JitKernel> jit_kernel(const KernelSpec &spec, const TargetRow &target) {
  const std::string symbol = kernel_symbol("tune", spec, target);
  return jit_module(build_kernel(spec, target, symbol), symbol);
}

}  // namespace hrnn
