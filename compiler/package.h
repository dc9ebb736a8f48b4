// SPDX-License-Identifier: Apache-2.0
//
// What `hrnn compile` writes: everything another project needs of a model. For a model `net`:
//
//   net.h                     declares the model and a typed call; hrnn/ beside it holds the runtime's headers
//   <architecture>/libnet.a   kernels, packed weights (once for all instruction sets) and the program
//   <architecture>/libhrnn_runtime.a  the runtime, where this installation has it for that architecture
//   x86-64/libnet_cuda.a, libhrnn_cuda.a   CUDA kernels, and what they need of Halide's runtime
//   hrnn_runtime.cpp          the runtime in one source, for every other architecture and toolchain
//   net-config.cmake          find_package(net): links all of it
//   example.c                 a program that runs the model, with the command that compiles it
#pragma once
#include <string>
#include <vector>

#include "emit.h"
#include "graph.h"
#include "hrnn/compiler.h"

namespace hrnn {

struct PackageOptions {
  std::string model;                           // the file that was named, for messages
  std::string output;                          // folder to write to
  std::string name;                            // "" = the model's
  std::vector<std::string> targets = {"x86"};  // families or single targets
  bool keep_ptx = false;                       // also write the PTX of CUDA kernels beside their archive
  std::string installation;                    // folder with lib/, include/, share/hrnn/; "" = next to this program
  std::function<void(size_t done, size_t total, const std::string &what)> progress;
};

// Writes libraries, header, CMake package file and example for a lowered model. Throws ModelError where an option is
// wrong. Part of the library that emits code, which needs Halide's compiler.
std::vector<EmittedLibrary> write_package(const Graph &graph, const CompiledModel &model, const PackageOptions &options);

}  // namespace hrnn
