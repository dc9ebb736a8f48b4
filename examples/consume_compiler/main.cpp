// SPDX-License-Identifier: Apache-2.0
//
// Reads a model and runs it on zeros; dimensions that the model leaves open are 1.
#include <cstdio>
#include <vector>

#include "hrnn/compiler.h"
#include "hrnn/hrnn.hpp"
#include "hrnn/prebuilt.h"

int main(int argc, char **argv) try {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s model.onnx\n", argv[0]);
    return 2;
  }
  const hrnn::CompiledModel compiled = hrnn::compile_model(argv[1]);
  auto options = hrnn::make<hrnn_options>();
  options.tables = hrnn_prebuilt_tables;
  options.table_count = uint32_t(hrnn_prebuilt_table_count);
  const hrnn_model model = compiled.view();
  hrnn::Session session(model, &options);

  std::vector<std::vector<char>> memory;
  auto tensor_of = [&](const hrnn_tensor_info &info) {
    hrnn_tensor tensor = {};
    tensor.dtype = info.dtype;
    tensor.rank = info.rank;
    size_t bytes = 8;
    for (int i = 0; i < info.rank; i++) bytes *= size_t(tensor.dims[i] = info.dims[i] < 0 ? 1 : info.dims[i]);
    memory.emplace_back(bytes);
    tensor.data = memory.back().data();
    tensor.bytes = bytes;
    return tensor;
  };
  std::vector<hrnn_tensor> inputs, outputs;
  for (size_t i = 0; i < session.input_count(); i++) inputs.push_back(tensor_of(session.input(i)));
  for (size_t i = 0; i < session.output_count(); i++) outputs.push_back(tensor_of(session.output(i)));
  session.reserve(inputs).check();
  session.run(inputs, outputs).check();
  for (size_t i = 0; i < outputs.size(); i++) {
    const void *data = outputs[i].data;
    const bool f64 = outputs[i].dtype == HRNN_F64;
    std::printf("%s[0] = %g\n", session.output(i).name, f64 ? *static_cast<const double *>(data) : *static_cast<const float *>(data));
  }
  return 0;
} catch (const std::exception &error) {  // hrnn::ModelError of the compiler, hrnn::Error of the runtime
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
