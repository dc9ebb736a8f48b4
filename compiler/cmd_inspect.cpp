// SPDX-License-Identifier: Apache-2.0
//
// hrnn inspect: a model as the compiler understood it.
#include <fmt/format.h>

#include "cli.h"

namespace hrnn {
namespace {

struct Options {
  std::string model;
  bool json = false, extract = false;
};

int64_t parameters(const Graph &graph, const Node &node) {
  int64_t count = 0;
  for (TensorId id : node.inputs) {
    if (graph.is_constant(id) && is_float(graph.tensor(id).type)) count += graph.tensor(id).constant->elements();
  }
  return count;
}

Json tensor_json(const Graph &graph, TensorId id) {
  const Tensor &tensor = graph.tensor(id);
  return {{"name", tensor.name}, {"type", type_name(tensor.type)}, {"dims", dims_json(tensor.dims, graph.symbols)}};
}

Json activations_json(const op::Recurrent &layer) {
  Json result = Json::array();
  for (const auto &direction : layer.activations) {
    for (const hrnn_activation &activation : direction) {
      const ActivationRule &rule = activation_rule(activation.kind);
      Json entry = {{"function", rule.name}};
      if (rule.takes_alpha) entry["alpha"] = activation.alpha;
      if (rule.takes_beta) entry["beta"] = activation.beta;
      result.push_back(entry);
    }
  }
  return result;
}

void add_layer(const Graph &graph, const Node &node, const op::Recurrent &layer, Json *json) {
  (*json)["cell"] = layer.cell;
  (*json)["direction"] = direction_name(layer.direction);
  (*json)["layout"] = layer.layout;
  (*json)["input_size"] = layer.input_size;
  (*json)["hidden_size"] = layer.hidden_size;
  (*json)["activations"] = activations_json(layer);
  if (layer.clip) (*json)["clip"] = *layer.clip;
  static constexpr const char *kOperands[] = {"X", "W", "R", "B", "sequence_lens", "initial_h"};
  Json operands = Json::object();
  for (size_t i = 1; i < node.inputs.size(); ++i) {
    const TensorId id = node.inputs[i];
    operands[kOperands[i]] = id == kNoTensor ? "absent" : graph.is_constant(id) ? "constant" : "at run time";
  }
  (*json)["operands"] = operands;
}

Json node_json(const Graph &graph, const Node &node) {
  Json json = {{"name", node.name}, {"operator", node.source}, {"operation", op_name(node.op)}};
  if (const auto *layer = std::get_if<op::Recurrent>(&node.op)) {
    add_layer(graph, node, *layer, &json);
  } else {
    json["detail"] = describe(graph, node);
  }
  json["parameters"] = parameters(graph, node);
  json["outputs"] = Json::array();
  for (TensorId id : node.outputs) {
    if (id != kNoTensor) json["outputs"].push_back(tensor_json(graph, id));
  }
  return json;
}

Json graph_json(const Graph &graph) {
  Json json = {{"file", graph.path}, {"format", graph.format}, {"producer", graph.producer}};
  for (const char *key : {"inputs", "outputs", "layers", "notes", "warnings"}) json[key] = Json::array();
  for (TensorId id : graph.inputs) json["inputs"].push_back(tensor_json(graph, id));
  for (TensorId id : graph.outputs) json["outputs"].push_back(tensor_json(graph, id));
  for (const Node &node : graph.nodes) json["layers"].push_back(node_json(graph, node));
  for (const std::string &note : graph.notes) json["notes"].push_back(note);
  for (const std::string &warning : graph.warnings) json["warnings"].push_back(warning);
  json["parameters"] = graph.parameter_count();
  return json;
}

void print_tensor(const Graph &graph, const char *what, TensorId id) {
  const Tensor &tensor = graph.tensor(id);
  fmt::print("{:<8} {}  {} {}\n", what, tensor.name, type_name(tensor.type), graph.dims_text(id));
}

void print_node(const Graph &graph, const Node &node) {
  fmt::print("  {:<10} {}", op_name(node.op), describe(graph, node));
  if (const int64_t count = parameters(graph, node)) fmt::print(", {} parameters", count);
  fmt::print("\n             node '{}' ({}):", node.name, node.source);
  for (TensorId id : node.outputs) {
    if (id != kNoTensor) fmt::print(" {} {}", graph.tensor(id).name, graph.dims_text(id));
  }
  fmt::print("\n");
}

void print_graph(const Graph &graph) {
  fmt::print("model    {}  ({}{}{})\n", graph.path, graph.format, graph.producer.empty() ? "" : ", by ",
             graph.producer);
  for (TensorId id : graph.inputs) print_tensor(graph, "input", id);
  for (TensorId id : graph.outputs) print_tensor(graph, "output", id);
  fmt::print("layers   {}, {} parameters\n", graph.nodes.size(), graph.parameter_count());
  for (const Node &node : graph.nodes) print_node(graph, node);
  for (const std::string &note : graph.notes) fmt::print("note     {}\n", note);
}

}  // namespace

void add_inspect(CLI::App &app) {
  CLI::App *command = app.add_subcommand("inspect", "Show a model as the compiler understood it");
  auto options = std::make_shared<Options>();
  command->add_option("MODEL", options->model, "Model file (.onnx)")->required();
  command->add_flag("--json", options->json, "Print JSON");
  add_extract(command, &options->extract);
  command->callback([options] {
    const Model model = load(options->model, options->extract);
    if (options->json) {
      print(graph_json(*model));
    } else {
      print_graph(*model);
    }
  });
}

}  // namespace hrnn
