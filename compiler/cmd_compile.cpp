// SPDX-License-Identifier: Apache-2.0
//
// hrnn compile: a model to a static library per architecture, a header, a CMake package file and an example.
#include <fmt/format.h>
#include <unistd.h>

#include <cctype>
#include <cstdio>

#include "cli.h"
#include "package.h"

namespace hrnn {
namespace {

struct Options {
  PackageOptions package;
  bool json = false, extract = false;
};

// The name becomes file names and C identifiers.
void check_name(const std::string &name) {
  bool fits = !name.empty() && !std::isdigit(static_cast<unsigned char>(name[0]));
  for (unsigned char c : name) fits = fits && c < 128 && (c == '_' || std::isalnum(c));
  if (fits) return;
  throw ModelError(
      fmt::format("the name '{}' is no C identifier (letters, digits and _); choose one with --name", name));
}

void show_progress(size_t done, size_t total, const std::string &what) {
  fmt::print(stderr, "\r\x1b[K[{}/{}] {}{}", done, total, what, done == total ? "\r\x1b[K" : "");
  std::fflush(stderr);
}

uint64_t code_bytes(const EmittedLibrary &library) {
  uint64_t bytes = 0;
  for (const EmittedLibrary::Object &object : library.objects) bytes += object.code_bytes;
  return bytes;
}

Json library_json(const EmittedLibrary &library) {
  Json json = {{"architecture", library.architecture},
               {"backend", library.backend},
               {"path", library.path},
               {"table", library.table},
               {"model", library.model},
               {"code_bytes", code_bytes(library)},
               {"kernels", Json::array()}};
  for (const EmittedLibrary::Object &object : library.objects) {
    json["kernels"].push_back(
        {{"symbol", object.symbol}, {"target", object.target}, {"code_bytes", object.code_bytes}});
  }
  return json;
}

void print_json(const CompiledModel &model, const std::vector<EmittedLibrary> &libraries) {
  Json json = {{"name", model.name},
               {"program_bytes", model.program.size()},
               {"weights_bytes", model.weights.size()},
               {"libraries", Json::array()}};
  for (const EmittedLibrary &library : libraries) json["libraries"].push_back(library_json(library));
  print(json);
}

void print_summary(const CompiledModel &model, const std::vector<EmittedLibrary> &libraries) {
  for (const EmittedLibrary &library : libraries) {
    fmt::print("{}  {} kernels, {} bytes of code\n", library.path, library.objects.size(), code_bytes(library));
  }
  fmt::print("{}  {} bytes of weights, {} bytes of program\n", model.name, model.weights.size(), model.program.size());
}

void compile(const Options &options) {
  const Model graph = load(options.package.model, options.extract);
  const CompiledModel model = lower(*graph, options.package.name);
  check_name(model.name);
  const std::vector<EmittedLibrary> libraries = write_package(*graph, model, options.package);
  if (options.json) {
    print_json(model, libraries);
  } else {
    print_summary(model, libraries);
  }
}

}  // namespace

void add_compile(CLI::App &app) {
  CLI::App *command =
      app.add_subcommand("compile", "Compile a model to a static library, a header and a CMake package");
  auto options = std::make_shared<Options>();
  if (::isatty(STDERR_FILENO)) options->package.progress = show_progress;
  command->add_option("MODEL", options->package.model, "Model file (.onnx)")->required();
  command->add_option("-o,--output", options->package.output, "Folder to write to, made where it is missing")
      ->required();
  command->add_option("--name", options->package.name,
                      "Name of the library and its C functions (default: the file's name)");
  command
      ->add_option("--targets", options->package.targets,
                   "Families (x86, arm, cuda, opencl) or single targets (avx2, ...), separated by commas")
      ->delimiter(',')
      ->capture_default_str();
  command->add_flag("--ptx", options->package.keep_ptx, "Also write the PTX of CUDA kernels");
  command->add_flag("--json", options->json, "Print what was written as JSON");
  add_extract(command, &options->extract);
  command->callback([options] { compile(*options); });
}

}  // namespace hrnn
