// SPDX-License-Identifier: Apache-2.0
//
// From kernel families to archives: the one path by which the build's kernel libraries and compiled models are made.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "variants.h"

namespace hrnn {

// What a compiled model adds to its kernels.
struct ModelBlob {
  const void *program, *weights;
  uint64_t program_bytes, weights_bytes;
};

// One archive: kernels of some targets of one architecture behind one table.
struct EmittedLibrary {
  std::string architecture;  // "x86-64", "arm-64"
  std::string backend;       // "" for a CPU, else "cuda" or "opencl"
  std::string path;          // <directory>/<architecture>/lib<name>[_<backend>].a
  std::string table;         // symbol of its hrnn_kernel_table: <name>[_<backend>]_kernels
  std::string model;         // symbol of its hrnn_model, "" without: <name>_model
  struct Object {
    std::string target, symbol;
    uint64_t code_bytes;
  };
  std::vector<Object> objects;
};

struct EmitRequest {
  std::string name;                      // a C identifier: prefix of every symbol
  std::vector<KernelFamily> families;
  std::vector<const TargetRow *> targets;
  std::string directory;
  const ModelBlob *model = nullptr;      // embedded into the CPU libraries
  bool keep_ptx = false;                 // also write <directory>/<architecture>/<symbol>.ptx for CUDA kernels
  std::function<void(size_t done, size_t total, const std::string &what)> progress;
};

// Throws std::runtime_error (or Halide's errors) with the file or kernel it was about.
std::vector<EmittedLibrary> emit(const EmitRequest &request);

// Writes the object with Halide's runtime for a GPU backend ("cuda", "opencl").
void emit_device_runtime(const std::string &backend, const std::string &object_path);

}  // namespace hrnn
