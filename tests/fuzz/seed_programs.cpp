// SPDX-License-Identifier: Apache-2.0
//
// fuzz_seed_programs MODELS PROGRAMS: lowers every model of a folder to an input of fuzz_program.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "hrnn/compiler.h"
#include "onnx.pb.h"
#include "onnx_frontend.h"

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  for (const auto &entry : std::filesystem::directory_iterator(argv[1])) try {
      std::ifstream in(entry.path(), std::ios::binary);
      const std::string bytes((std::istreambuf_iterator<char>(in)), {});
      onnx::ModelProto proto;
      if (!proto.ParseFromString(bytes)) continue;
      const hrnn::CompiledModel model = hrnn::lower(hrnn::import_onnx(proto, "no folder"), "seed");
      std::ofstream out(std::filesystem::path(argv[2]) / entry.path().filename(), std::ios::binary);
      out.put(char(std::min<size_t>(255, (model.weights.size() + 63) / 64))).put(3);
      out.write(reinterpret_cast<const char *>(model.program.data()), std::streamsize(model.program.size()));
    } catch (const hrnn::ModelError &) {  // a model that is refused is no program
    }
  return 0;
}
