// SPDX-License-Identifier: Apache-2.0
//
// The public face of the library: see hrnn/compiler.h.
#include "hrnn/compiler.h"

#include <filesystem>

#include "graph.h"
#include "onnx_frontend.h"
#include "program_writer.h"

namespace hrnn {

Model load_model(const std::string &path, bool extract) {
  const std::string ending = std::filesystem::path(path).extension().string();
  if (ending == ".onnx") return std::make_shared<const Graph>(load_onnx(path, extract));
  throw ModelError(path + ": the file's ending '" + ending + "' names no supported format (supported: .onnx)");
}

CompiledModel lower(const Graph &graph, const std::string &name) {
  try {
    return write_program(graph, name.empty() ? graph.name : name);
  } catch (const ModelError &error) {
    throw ModelError(graph.path + ": " + error.what());
  } catch (const std::bad_alloc &) {
    throw ModelError(graph.path + ": there is not enough memory to pack its weights");
  }
}

CompiledModel compile_model(const std::string &path, const std::string &name) { return lower(*load_model(path), name); }

hrnn_model CompiledModel::view(const hrnn_kernel_table *kernels) const {
  hrnn_model model{};
  model.abi_version = HRNN_ABI_VERSION;
  model.name = name.c_str();
  model.program = program.data();
  model.program_bytes = program.size();
  model.weights = weights.data();
  model.weights_bytes = weights.size();
  model.kernels = kernels;
  return model;
}

}  // namespace hrnn
