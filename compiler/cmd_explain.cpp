// SPDX-License-Identifier: Apache-2.0
//
// hrnn explain: which kernels run each layer of a model on this machine, why, and how much memory it takes.
#include <fmt/format.h>

#include "cli.h"

namespace hrnn {
namespace {

struct Options {
  std::string model, variant;
  std::vector<std::string> dims;
  uint32_t threads = 1;
  bool json = false;
};

struct Memory {
  size_t program, weights, session;
};

// What the session holds after reserving for inputs of these sizes.
size_t reserved_bytes(hrnn_session *session, const Sizes &sizes, const std::string &where) {
  const std::vector<hrnn_tensor> inputs = sized_inputs(session, sizes);
  hrnn_error error{};
  check(hrnn_session_reserve(session, inputs.data(), inputs.size(), nullptr, 0, &error), error, where);
  return hrnn_session_bytes(session);
}

std::vector<const Node *> recurrent_nodes(const Graph &graph) {
  std::vector<const Node *> nodes;
  for (const Node &node : graph.nodes) {
    if (std::holds_alternative<op::Recurrent>(node.op)) nodes.push_back(&node);
  }
  return nodes;
}

std::vector<std::string> lines(const std::string &text) {
  std::vector<std::string> result;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    if (end > begin) result.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return result;
}

std::string machine_text(const hrnn_machine &machine) {
  std::string text = machine.cpu;
  for (int level = 1; level <= 3; ++level) {
    const uint64_t bytes = machine.cache_bytes[level - 1];
    text += bytes > 0 ? fmt::format(", L{} {} KiB", level, bytes / 1024) : fmt::format(", L{} unknown", level);
  }
  return text;
}

Json explanation_json(const Graph &graph, const hrnn_machine &machine, const std::vector<hrnn_selection> &selections,
                      const Memory &memory) {
  Json json = {{"file", graph.path}, {"cpu", machine.cpu}, {"cache_bytes", machine.cache_bytes}, {"layers", Json::array()}};
  const std::vector<const Node *> nodes = recurrent_nodes(graph);
  for (size_t i = 0; i < selections.size(); ++i) {
    const hrnn_selection &selection = selections[i];
    json["layers"].push_back({{"name", i < nodes.size() ? nodes[i]->name : ""},
                              {"layer", i < nodes.size() ? describe(graph, *nodes[i]) : ""},
                              {"variant", selection.variant},
                              {"target", selection.target},
                              {"step", selection.step},
                              {"projection", selection.projection},
                              {"reason", lines(selection.reason)}});
  }
  json["memory"] = {
      {"program_bytes", memory.program}, {"weights_bytes", memory.weights}, {"session_bytes", memory.session}};
  return json;
}

void print_explanation(const Graph &graph, const hrnn_machine &machine, const std::vector<hrnn_selection> &selections,
                       const Memory &memory) {
  fmt::print("model    {}\nmachine  {}\n", graph.path, machine_text(machine));
  const std::vector<const Node *> nodes = recurrent_nodes(graph);
  for (size_t i = 0; i < selections.size(); ++i) {
    const hrnn_selection &selection = selections[i];
    fmt::print("layer    '{}': {}\n", i < nodes.size() ? nodes[i]->name : "",
               i < nodes.size() ? describe(graph, *nodes[i]) : "");
    fmt::print("  variant     {}\n  step        {}\n  projection  {}\n", selection.variant, selection.step,
               selection.projection);
    for (const std::string &line : lines(selection.reason)) fmt::print("  because     {}\n", line);
  }
  fmt::print("memory   program {} bytes, weights {} bytes, session {} bytes\n", memory.program, memory.weights,
             memory.session);
}

void explain(const Options &options) {
  const Sizes sizes = parse_sizes(options.dims);
  const Model graph = load(options.model);
  const CompiledModel model = lower(*graph);
  const Team team = make_team(options.threads);
  const Session session = make_session(model, options.variant, options.model, team.get());
  check_names(session.get(), sizes, options.model);
  hrnn_machine machine{};
  machine.struct_size = sizeof machine;
  hrnn_machine_detect(hrnn_prebuilt_tables, hrnn_prebuilt_table_count, &machine);
  const Memory memory{model.program.size(), model.weights.size(), reserved_bytes(session.get(), sizes, options.model)};
  const std::vector<hrnn_selection> selections = session_selections(session.get());
  if (options.json) {
    print(explanation_json(*graph, machine, selections, memory));
  } else {
    print_explanation(*graph, machine, selections, memory);
  }
}

}  // namespace

void add_explain(CLI::App &app) {
  CLI::App *command =
      app.add_subcommand("explain", "Show which kernels run a model here, why, and the memory it takes");
  auto options = std::make_shared<Options>();
  command->add_option("MODEL", options->model, "Model file (.onnx)")->required();
  command->add_option("--variant", options->variant, "Use this instruction set or kernel variant instead of choosing");
  command->add_option("--dim", options->dims, "NAME=SIZE of a dynamic dimension, for the memory (others count as 1)");
  command->add_option("--threads", options->threads, "Threads of a run, for the memory");
  command->add_flag("--json", options->json, "Print JSON");
  command->callback([options] { explain(*options); });
}

}  // namespace hrnn
