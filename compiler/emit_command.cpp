// SPDX-License-Identifier: Apache-2.0
//
// The command of hrnn-emit, and of emitters with cells of a user's own: makes kernel libraries at build time
// (hrnn_add_kernels in CMake), by the same path as `hrnn compile`.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>

#include "emit.h"
#include "hrnn/emit.h"

namespace {

using namespace hrnn;

void write_header(const EmitRequest &request, const std::vector<EmittedLibrary> &libraries) {
  std::ofstream header(request.directory + "/" + request.name + ".h");
  header << "/* Kernel tables of " << request.name << ", made by hrnn-emit. */\n#pragma once\n#include \"hrnn/hrnn.h\"\n"
         << "#ifdef __cplusplus\nextern \"C\" {\n#endif\n";
  std::string last;
  for (const EmittedLibrary &library : libraries) {
    if (library.table != last) header << "extern const hrnn_kernel_table " << library.table << ";\n";
    last = library.table;
  }
  header << "#ifdef __cplusplus\n}\n#endif\n";
}

int run(int argc, char **argv) {
  CLI::App app("Makes libraries of recurrent kernels", "hrnn-emit");
  std::string name, directory, runtime;
  std::vector<std::string> cells = {"rnn", "rnn_masked", "gru", "gru_reset_before"}, dtypes = {"f32"}, targets = {"x86"};
  std::vector<int> hidden;
  bool ptx = false;
  app.add_option("--name", name, "prefix of all symbols; the table is NAME_kernels");
  app.add_option("-o,--output", directory, "folder for <architecture>/libNAME.a and NAME.h");
  app.add_option("--cells", cells, "cells: " + CLI::detail::join(cell_names(), ", "))->delimiter(',');
  app.add_option("--dtypes", dtypes, "types: f32, f64")->delimiter(',')->check(CLI::IsMember({"f32", "f64"}));
  app.add_option("--hidden", hidden, "hidden sizes that get kernels of their own")->delimiter(',')->check(CLI::Range(1, 65536));
  app.add_option("--targets", targets, "targets or families: x86, arm, cuda, opencl, avx2, ...")->delimiter(',');
  app.add_flag("--ptx", ptx, "also write the PTX of CUDA kernels");
  app.add_option("--device-runtime", runtime, "only write Halide's runtime for this backend to the file -o names");
  CLI11_PARSE(app, argc, argv);
  if (!runtime.empty()) {
    emit_device_runtime(runtime, directory);
    return 0;
  }
  EmitRequest request;
  request.name = name;
  request.directory = directory;
  request.keep_ptx = ptx;
  std::vector<hrnn_dtype> types;
  for (const std::string &dtype : dtypes) types.push_back(dtype == "f64" ? HRNN_F64 : HRNN_F32);
  request.families = library_families(cells, types, hidden);
  request.targets = targets_by_name(targets);
  write_header(request, emit(request));
  return 0;
}

}  // namespace

int hrnn::emit_command(int argc, char **argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception &error) {
    fprintf(stderr, "hrnn-emit: error: %s\n", error.what());
    return 1;
  }
}
