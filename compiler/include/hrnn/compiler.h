// SPDX-License-Identifier: Apache-2.0
//
// The compiler as a library. The `hrnn` command is a thin user of it:
//
//   hrnn::Model model = hrnn::load_model("net.onnx");     // read, check, fold: what the file means
//   hrnn::CompiledModel compiled = hrnn::lower(*model);   // program and packed weights, ready to embed or run
//
// Whatever is wrong with a model is a ModelError whose message says where, both values, and what to do.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "hrnn/hrnn.h"

// What libhrnn_compiler.so shows.
#define HRNN_COMPILER_API __attribute__((visibility("default")))

namespace hrnn {

// The one exception of this library: the user's model, arrays or arguments are wrong.
class HRNN_COMPILER_API ModelError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A model in the compiler's own terms; the structure is in compiler/graph.h.
struct Graph;
using Model = std::shared_ptr<const Graph>;

// Reads a model file. The format follows from the file's ending (.onnx).
// `extract`: only the recurrent part, where the rest cannot be compiled (see docs/operators.md).
HRNN_COMPILER_API Model load_model(const std::string &path, bool extract = false);

// The runtime asks for weights on a 64-byte boundary (pack.h), which std::vector alone does not promise.
template <class T>
struct Allocator64 {
  using value_type = T;
  Allocator64() = default;
  template <class U>
  Allocator64(const Allocator64<U> &) {}
  T *allocate(size_t count) { return static_cast<T *>(::operator new (count * sizeof(T), std::align_val_t{64})); }
  void deallocate(T *memory, size_t) { ::operator delete (memory, std::align_val_t{64}); }
};
template <class T, class U>
bool operator==(const Allocator64<T> &, const Allocator64<U> &) {
  return true;
}
template <class T, class U>
bool operator!=(const Allocator64<T> &, const Allocator64<U> &) {
  return false;
}
using AlignedBytes = std::vector<uint8_t, Allocator64<uint8_t>>;

// What the runtime executes: see runtime/src/program.h. Same bytes on every target (little-endian).
struct HRNN_COMPILER_API CompiledModel {
  std::string name;
  std::vector<uint8_t> program;
  AlignedBytes weights;

  // A view for hrnn_session_create, valid while this object lives and is not moved. `kernels` may be null where
  // the tables are given in hrnn_options.
  hrnn_model view(const hrnn_kernel_table *kernels = nullptr) const;
};

// `name` empty: the model file's name without folder and ending.
HRNN_COMPILER_API CompiledModel lower(const Graph &graph, const std::string &name = "");

// load_model and lower in one.
HRNN_COMPILER_API CompiledModel compile_model(const std::string &path, const std::string &name = "");

}  // namespace hrnn
