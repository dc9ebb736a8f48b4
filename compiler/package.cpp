// SPDX-License-Identifier: Apache-2.0
#include "package.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <set>

#include "activations.h"

namespace hrnn {
namespace {

namespace fs = std::filesystem;

// ---- Kernels: what this very model needs, its sizes compiled in -------------------------------------------------------

bool same_family(const KernelFamily &a, const KernelFamily &b) {
  return a.kind == b.kind && a.cell == b.cell && a.activations == b.activations && a.gates == b.gates &&
         a.dtype == b.dtype && a.inner == b.inner;
}

void add_family(std::vector<KernelFamily> *families, KernelFamily family) {
  for (const KernelFamily &other : *families)
    if (same_family(other, family)) return;
  families->push_back(std::move(family));
}

// The names of a direction's activations, or none where they take parameters: kernels get those at run time.
std::vector<std::string> compiled_activations(const op::Recurrent &layer, size_t direction) {
  std::vector<std::string> names;
  if (layer.clip) return names;
  for (const hrnn_activation &activation : layer.activations.at(direction)) {
    const ActivationRule &rule = activation_rule(activation.kind);
    if (rule.takes_alpha || rule.takes_beta) return {};
    std::string name = rule.name;
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    names.push_back(name);
  }
  return names;
}

std::vector<KernelFamily> families_of(const Graph &graph) {
  std::vector<KernelFamily> families;
  for (const Node &node : graph.nodes) {
    const hrnn_dtype dtype = runtime_type(graph.tensor(node.inputs.at(0)).type);  // of a product: float or double
    if (const auto *layer = std::get_if<op::Recurrent>(&node.op)) {
      const int hidden = static_cast<int>(layer->hidden_size), input = static_cast<int>(layer->input_size);
      add_family(&families, {HRNN_PROJECTION, "", {}, cell_by_name(layer->cell).gates, dtype, input});
      std::vector<KernelFamily> steps;
      for (int64_t d = 0; d < layer->directions(); d++)
        add_steps(&steps, {HRNN_STEP, layer->cell, compiled_activations(*layer, static_cast<size_t>(d)), 0, dtype, hidden});
      for (const KernelFamily &family : steps) add_family(&families, family);
    } else if (const auto *dense = std::get_if<op::Dense>(&node.op)) {
      add_family(&families, {HRNN_PROJECTION, "", {}, 1, dtype, static_cast<int>(dense->in_features)});
    }
  }
  return families;
}

// ---- Files of the installation -----------------------------------------------------------------------------------------

fs::path installation_of_this_program() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (error) throw ModelError("cannot find the folder this program is installed in: " + error.message());
  return program.parent_path().parent_path();
}

void install_file(const fs::path &from, const fs::path &to) {
  std::error_code error;
  fs::create_directories(to.parent_path(), error);
  fs::copy_file(from, to, fs::copy_options::overwrite_existing, error);
  if (error) throw ModelError(fmt::format("cannot copy {} to {}: {}", from.string(), to.string(), error.message()));
}

void write_file(const fs::path &path, const std::string &text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file) throw ModelError(fmt::format("cannot write {}", path.string()));
}

constexpr const char *kHostArchitecture =
#if defined(__aarch64__)
    "arm-64";
#else
    "x86-64";
#endif

void copy_runtime(const fs::path &installation, const fs::path &out, const std::vector<EmittedLibrary> &libraries) {
  for (const char *header : {"hrnn.h", "hrnn.hpp", "device.h"})
    install_file(installation / "include/hrnn" / header, out / "hrnn" / header);
  install_file(installation / "share/hrnn/hrnn_runtime.cpp", out / "hrnn_runtime.cpp");
  for (const EmittedLibrary &library : libraries) {
    if (library.architecture != kHostArchitecture) continue;
    const std::string file = library.backend.empty() ? "libhrnn_runtime.a" : "libhrnn_" + library.backend + ".a";
    install_file(installation / "lib" / file, out / library.architecture / file);
  }
}

// ---- Header ------------------------------------------------------------------------------------------------------------

std::string identifier(const std::string &text) {
  std::string result;
  for (unsigned char c : text) result += std::isalnum(c) ? static_cast<char>(c) : '_';
  if (result.empty() || std::isdigit(static_cast<unsigned char>(result[0]))) result.insert(0, "_");
  return result;
}

const char *c_type(DataType type) {
  switch (type) {
    case DataType::Float64: return "double";
    case DataType::Int32: return "int32_t";
    case DataType::Int64: return "int64_t";
    case DataType::Float16:
    case DataType::BFloat16: return "uint16_t";  // their bits
    case DataType::Bool: return "uint8_t";
    default: return "float";
  }
}

const char *c_dtype(DataType type) {
  switch (type) {
    case DataType::Float64: return "HRNN_F64";
    case DataType::Int32: return "HRNN_I32";
    case DataType::Int64: return "HRNN_I64";
    case DataType::Float16: return "HRNN_F16";
    case DataType::BFloat16: return "HRNN_BF16";
    case DataType::Bool: return "HRNN_BOOL";
    default: return "HRNN_F32";
  }
}

// Names of C parameters, each once.
class Names {
 public:
  std::string add(const std::string &text) {
    std::string name = identifier(text);
    while (!used_.insert(name).second) name += "_";
    return name;
  }

 private:
  std::set<std::string> used_ = {"session", "error", "in", "out", "status", "int", "float", "double", "for", "if"};
};

struct Parameters {
  std::vector<std::string> symbols;          // per symbol: its parameter, "" where no input has it
  std::vector<std::string> inputs, outputs;  // parameters of data
};

Parameters name_parameters(const Graph &graph) {
  Names names;
  Parameters p;
  for (const Symbol &symbol : graph.symbols) p.symbols.push_back(symbol.from_input ? names.add(symbol.name) : "");
  for (TensorId id : graph.inputs) p.inputs.push_back(names.add(graph.tensor(id).name));
  for (TensorId id : graph.outputs) p.outputs.push_back(names.add(graph.tensor(id).name));
  return p;
}

// Names come from the model file and may hold anything: what could end a comment or a line becomes '?'.
std::string comment_safe(std::string text) {
  for (size_t i = 0; i < text.size(); i++) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    if (c < 0x20 || c == 0x7f || c == '\\' || (c == '/' && i > 0 && text[i - 1] == '*')) text[i] = '?';
  }
  return text;
}

std::string tensor_comment(const Graph &graph, TensorId id) {
  const Tensor &tensor = graph.tensor(id);
  return comment_safe(fmt::format("\"{}\", {} {}", tensor.name, type_name(tensor.type), graph.dims_text(id)));
}

std::string typed_call(const Graph &graph, const std::string &name, const Parameters &p) {
  std::string signature = "hrnn_session *session";
  for (const std::string &symbol : p.symbols)
    if (!symbol.empty()) signature += ", int64_t " + symbol;
  std::string inputs, outputs, comment;
  for (size_t i = 0; i < graph.inputs.size(); i++) {
    const Tensor &tensor = graph.tensor(graph.inputs[i]);
    signature += fmt::format(", const {} *{}", c_type(tensor.type), p.inputs[i]);
    comment += fmt::format(" *   {}: input {}\n", p.inputs[i], tensor_comment(graph, graph.inputs[i]));
    std::string dims;
    for (const Dim &dim : tensor.dims) {
      const std::string value = dim.literal() ? fmt::format("{}", *dim.literal()) : p.symbols.at(*dim.symbol());
      dims += (dims.empty() ? "" : ", ") + value;
    }
    inputs += fmt::format("      {{{}, {}, {{{}}}, (void *){}, SIZE_MAX}},\n", c_dtype(tensor.type), tensor.dims.size(),
                          dims.empty() ? "0" : dims, p.inputs[i]);
  }
  for (size_t i = 0; i < graph.outputs.size(); i++) {
    const Tensor &tensor = graph.tensor(graph.outputs[i]);
    signature += fmt::format(", {} *{}, size_t {}_bytes", c_type(tensor.type), p.outputs[i], p.outputs[i]);
    comment += fmt::format(" *   {}: output {}; NULL when not wanted\n", p.outputs[i], tensor_comment(graph, graph.outputs[i]));
    outputs += fmt::format("      {{{}, {}, {{0}}, {}, {}_bytes}},\n", c_dtype(tensor.type), tensor.dims.size(), p.outputs[i],
                           p.outputs[i]);
  }
  return fmt::format(
      "/* Runs the model; arrays are dense, the innermost dimension last. Sizes beyond what hrnn_session_reserve was\n"
      " * given: HRNN_CAPACITY.\n{}"
      " */\n"
      "static inline hrnn_status {}_run({}, hrnn_error *error) {{\n"
      "  const hrnn_tensor in[] = {{\n{}  }};\n"
      "  hrnn_tensor out[] = {{\n{}  }};\n"
      "  return hrnn_session_run(session, in, {}, out, {}, error);\n}}\n",
      comment, name, signature, inputs, outputs, graph.inputs.size(), graph.outputs.size());
}

bool inputs_are_symbols_or_literals(const Graph &graph) {
  for (TensorId id : graph.inputs)
    for (const Dim &dim : graph.tensor(id).dims)
      if (!dim.literal() && !dim.symbol()) return false;
  return true;
}

std::string header(const Graph &graph, const std::string &name, const std::vector<EmittedLibrary> &libraries) {
  std::string text = fmt::format(
      "/* {0}: a model compiled by hrnn {1}.\n *\n"
      " *   hrnn_session *session;\n"
      " *   hrnn_session_create(&{0}_model, NULL, &session, &error);\n"
      " *   hrnn_session_reserve(session, ...);     allocates; nothing after it does\n"
      " *   {0}_run(session, ...);\n *\n"
      " * Link <architecture>/lib{0}.a and libhrnn_runtime.a (or compile hrnn_runtime.cpp). */\n"
      "#ifndef HRNN_MODEL_{0}_H\n#define HRNN_MODEL_{0}_H\n\n#include \"hrnn/hrnn.h\"\n\n"
      "#ifdef __cplusplus\nextern \"C\" {{\n#endif\n\nextern const hrnn_model {0}_model;\n",
      name, hrnn_version());
  for (const EmittedLibrary &library : libraries)
    if (!library.backend.empty())
      text += fmt::format("/* Kernels for {}: offer them in hrnn_options.tables and link lib{}_{}.a, libhrnn_{}.a. */\n"
                          "extern const hrnn_kernel_table {};\n",
                          library.backend, name, library.backend, library.backend, library.table);
  text += "\n";
  if (inputs_are_symbols_or_literals(graph)) text += typed_call(graph, name, name_parameters(graph));
  text += "\n#ifdef __cplusplus\n}\n#endif\n#endif\n";
  return text;
}

// ---- CMake package and example -----------------------------------------------------------------------------------------

std::string cmake_config(const std::string &name, const std::vector<EmittedLibrary> &libraries) {
  std::string text = fmt::format(
      "# find_package({0}): the library {0}::{0}, for the architecture that is compiled for.\n"
      "if(TARGET {0}::{0})\n  return()\nendif()\n"
      "if(CMAKE_SYSTEM_PROCESSOR MATCHES \"^(aarch64|arm64|ARM64)$\")\n  set(_hrnn_architecture arm-64)\nelse()\n"
      "  set(_hrnn_architecture x86-64)\nendif()\n"
      "set(_hrnn_folder \"${{CMAKE_CURRENT_LIST_DIR}}/${{_hrnn_architecture}}\")\n"
      "if(NOT EXISTS \"${{_hrnn_folder}}/lib{0}.a\")\n"
      "  set({0}_FOUND FALSE)\n"
      "  set({0}_NOT_FOUND_MESSAGE \"{0} was not compiled for ${{_hrnn_architecture}}: no ${{_hrnn_folder}}/lib{0}.a\")\n"
      "  return()\nendif()\n"
      "add_library({0}::{0} INTERFACE IMPORTED)\n"
      "target_include_directories({0}::{0} INTERFACE \"${{CMAKE_CURRENT_LIST_DIR}}\")\n"
      "target_link_libraries({0}::{0} INTERFACE \"${{_hrnn_folder}}/lib{0}.a\")\n"
      "if(EXISTS \"${{_hrnn_folder}}/libhrnn_runtime.a\")\n"
      "  target_link_libraries({0}::{0} INTERFACE \"${{_hrnn_folder}}/libhrnn_runtime.a\")\n"
      "else()\n"
      "  # No prebuilt runtime for this architecture: compile the single source.\n"
      "  if(NOT TARGET hrnn_runtime_source)\n"
      "    enable_language(CXX)\n"
      "    add_library(hrnn_runtime_source STATIC \"${{CMAKE_CURRENT_LIST_DIR}}/hrnn_runtime.cpp\")\n"
      "    target_include_directories(hrnn_runtime_source PRIVATE \"${{CMAKE_CURRENT_LIST_DIR}}\")\n"
      "    target_compile_features(hrnn_runtime_source PRIVATE cxx_std_17)\n"
      "    target_compile_options(hrnn_runtime_source PRIVATE -fno-exceptions -fno-rtti)\n"
      "  endif()\n"
      "  target_link_libraries({0}::{0} INTERFACE hrnn_runtime_source)\n"
      "endif()\n"
      "target_link_libraries({0}::{0} INTERFACE m pthread)\n",
      name);
  for (const EmittedLibrary &library : libraries) {
    if (library.backend.empty()) continue;
    text += fmt::format(
        "if(EXISTS \"${{_hrnn_folder}}/lib{0}_{1}.a\")\n"
        "  add_library({0}::{1} INTERFACE IMPORTED)\n"
        "  target_link_libraries({0}::{1} INTERFACE \"${{_hrnn_folder}}/lib{0}_{1}.a\" "
        "\"${{_hrnn_folder}}/libhrnn_{1}.a\" dl pthread {0}::{0})\nendif()\n",
        name, library.backend);
  }
  return text;
}

std::string example(const Graph &graph, const std::string &name) {
  const std::string note = fmt::format(
      "/* Runs {0} once on zeros. Compile with:\n"
      " *   cc -I. example.c {1}/lib{0}.a {1}/libhrnn_runtime.a -lm -pthread -o example\n"
      " */\n",
      name, kHostArchitecture);
  std::string inputs;
  for (TensorId id : graph.inputs) {
    const Tensor &tensor = graph.tensor(id);
    std::string dims;
    for (const Dim &dim : tensor.dims) dims += fmt::format("{}{}", dims.empty() ? "" : ", ", dim.literal().value_or(1));
    inputs += fmt::format("      {{{}, {}, {{{}}}, NULL, 0}}, /* {} */\n", c_dtype(tensor.type), tensor.dims.size(),
                          dims.empty() ? "0" : dims, tensor_comment(graph, id));
  }
  return note + fmt::format(
      "#include <stdio.h>\n#include <stdlib.h>\n\n#include \"{0}.h\"\n\n"
      "enum {{ kInputs = {1}, kOutputs = {2} }};\n\n"
      "static size_t bytes_of(const hrnn_tensor *t) {{\n"
      "  size_t bytes = t->dtype == HRNN_F64 || t->dtype == HRNN_I64    ? 8\n"
      "                 : t->dtype == HRNN_F16 || t->dtype == HRNN_BF16 ? 2\n"
      "                 : t->dtype == HRNN_BOOL                         ? 1\n"
      "                                                                 : 4;\n"
      "  for (int i = 0; i < t->rank; i++) bytes *= (size_t)t->dims[i];\n"
      "  return bytes;\n}}\n\n"
      "int main(void) {{\n"
      "  hrnn_error error;\n  hrnn_session *session;\n"
      "  /* Dynamic dimensions are 1 here. */\n"
      "  hrnn_tensor in[kInputs] = {{\n{3}  }};\n"
      "  hrnn_tensor out[kOutputs] = {{{{0}}}};\n"
      "  if (hrnn_session_create(&{0}_model, NULL, &session, &error) != HRNN_OK ||\n"
      "      hrnn_session_reserve(session, in, kInputs, out, kOutputs, &error) != HRNN_OK) {{\n"
      "    fprintf(stderr, \"%s\\n\", error.message);\n    return 1;\n  }}\n"
      "  for (int i = 0; i < kInputs; i++) in[i].data = calloc(1, in[i].bytes = bytes_of(&in[i]));\n"
      "  for (int i = 0; i < kOutputs; i++) out[i].data = calloc(1, out[i].bytes = bytes_of(&out[i]));\n"
      "  if (hrnn_session_run(session, in, kInputs, out, kOutputs, &error) != HRNN_OK) {{\n"
      "    fprintf(stderr, \"%s\\n\", error.message);\n    return 1;\n  }}\n"
      "  for (int i = 0; i < kOutputs; i++) {{\n"
      "    hrnn_tensor_info info;\n    hrnn_session_output(session, (size_t)i, &info);\n"
      "    printf(\"%s:\", info.name);\n"
      "    for (size_t k = 0; k < bytes_of(&out[i]) / 4 && k < 8 && out[i].dtype == HRNN_F32; k++)\n"
      "      printf(\" %g\", ((const float *)out[i].data)[k]);\n"
      "    printf(\" (%zu bytes)\\n\", bytes_of(&out[i]));\n  }}\n"
      "  for (int i = 0; i < kInputs; i++) free(in[i].data);\n"
      "  for (int i = 0; i < kOutputs; i++) free(out[i].data);\n"
      "  hrnn_session_destroy(session);\n  return 0;\n}}\n",
      name, graph.inputs.size(), graph.outputs.size(), inputs);
}

}  // namespace

std::vector<EmittedLibrary> write_package(const Graph &graph, const CompiledModel &model, const PackageOptions &options) {
  const fs::path out = options.output;
  const fs::path installation =
      options.installation.empty() ? installation_of_this_program() : fs::path(options.installation);
  const ModelBlob blob{model.program.data(), model.weights.data(), model.program.size(), model.weights.size()};

  EmitRequest request;
  request.name = model.name;
  request.families = families_of(graph);
  request.directory = options.output;
  request.model = &blob;
  request.progress = options.progress;
  request.keep_ptx = options.keep_ptx;
  std::vector<EmittedLibrary> libraries;
  try {
    request.targets = targets_by_name(options.targets);
    std::error_code error;
    fs::create_directories(out, error);
    if (error) throw ModelError(fmt::format("cannot make the folder {}: {}", options.output, error.message()));
    libraries = emit(request);
  } catch (const ModelError &) {
    throw;
  } catch (const std::exception &error) {
    throw ModelError(fmt::format("{}: {}", options.model, error.what()));
  }
  copy_runtime(installation, out, libraries);
  write_file(out / (model.name + ".h"), header(graph, model.name, libraries));
  write_file(out / (model.name + "-config.cmake"), cmake_config(model.name, libraries));
  write_file(out / "example.c", example(graph, model.name));
  return libraries;
}

}  // namespace hrnn
