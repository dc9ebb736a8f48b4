// SPDX-License-Identifier: Apache-2.0
#include "graph.h"

#include <fmt/format.h>
#include <strings.h>

#include <algorithm>

namespace hrnn {
namespace {

// In the order of hrnn_activation_kind. The defaults are those of the ONNX operators of the same names; Affine's are
// those of the operator ONNX once had, and ScaledTanh never had any, so it must be given both.
constexpr std::nullopt_t kNoDefault = std::nullopt;
const ActivationRule kRules[HRNN_ACTIVATION_COUNT] = {
    {"Relu", false, false, kNoDefault, kNoDefault},
    {"Tanh", false, false, kNoDefault, kNoDefault},
    {"Sigmoid", false, false, kNoDefault, kNoDefault},
    {"Affine", true, true, 1.0, 0.0},
    {"LeakyRelu", true, false, 0.01, kNoDefault},
    {"ThresholdedRelu", true, false, 1.0, kNoDefault},
    {"ScaledTanh", true, true, kNoDefault, kNoDefault},
    {"HardSigmoid", true, true, 0.2, 0.5},
    {"Elu", true, false, 1.0, kNoDefault},
    {"Softsign", false, false, kNoDefault, kNoDefault},
    {"Softplus", false, false, kNoDefault, kNoDefault},
};

std::string describe(const op::Recurrent &layer) {
  std::string result =
      fmt::format("{} {} -> {}, {}", layer.cell, layer.input_size, layer.hidden_size, direction_name(layer.direction));
  if (layer.layout == 1) result += ", batch-major";
  result += ", activations";
  for (const auto &direction : layer.activations) {
    for (const hrnn_activation &activation : direction) result += " " + hrnn::describe(activation);
  }
  if (layer.clip) result += fmt::format(", clip {}", *layer.clip);
  return result;
}

struct Describer {
  const Graph &graph;
  const Node &node;

  std::string operator()(const op::Recurrent &layer) const { return describe(layer); }
  std::string operator()(const op::Dense &dense) const {
    return fmt::format("{} -> {}{}", dense.in_features, dense.out_features,
                       node.inputs[2] == kNoTensor ? "" : ", bias");
  }
  std::string operator()(const op::Transpose &op) const {
    return fmt::format("permutation [{}]", fmt::join(op.permutation, ", "));
  }
  std::string operator()(const op::Slice &op) const {
    return fmt::format("axis {}, start {}, stop {}, step {}", op.axis, op.start, op.stop, op.step);
  }
  std::string operator()(const op::Select &op) const { return fmt::format("axis {}, index {}", op.axis, op.index); }
  std::string operator()(const op::Unsqueeze &op) const { return fmt::format("axis {}", op.axis); }
  std::string operator()(const op::Squeeze &op) const { return fmt::format("axis {}", op.axis); }
  std::string operator()(const op::Reshape &) const { return "to " + graph.dims_text(node.outputs[0]); }
  std::string operator()(const op::Expand &) const { return "to " + graph.dims_text(node.outputs[0]); }
  std::string operator()(const op::Elementwise &op) const {
    const int64_t function = static_cast<int64_t>(op.function);
    if (function < HRNN_ACTIVATION_COUNT) {
      return hrnn::describe(hrnn_activation{static_cast<hrnn_activation_kind>(function), op.alpha, op.beta});
    }
    const std::string name = function_info(function)->name;
    return op.function == Function::Cast ? name + " to " + type_name(graph.tensor(node.outputs[0]).type) : name;
  }
  std::string operator()(const op::Concat &op) const { return fmt::format("axis {}", op.axis); }
  std::string operator()(const op::Reduce &op) const {
    static constexpr const char *kNames[kReductions] = {"Sum", "Mean",   "Max",       "Min",    "Prod",
                                                        "SumSquare", "L1", "L2", "LogSum", "LogSumExp",
                                                        "ArgMax", "ArgMin", "ArgMax",    "ArgMin"};
    return fmt::format("{} over axes [{}]", kNames[static_cast<int>(op.reduction)], fmt::join(op.axes, ", "));
  }
  std::string operator()(const op::MatMul &) const {
    return graph.dims_text(node.inputs[0]) + " by " + graph.dims_text(node.inputs[1]);
  }
  std::string operator()(const op::Gather &op) const {
    return fmt::format("axis {} of {}", op.axis, graph.dims_text(node.inputs[0]));
  }
  std::string operator()(const op::Pad &op) const {
    return fmt::format("[{}] before, [{}] after, with {}", fmt::join(op.before, ", "), fmt::join(op.after, ", "), op.value);
  }
  std::string operator()(const op::GatherElements &op) const {
    return fmt::format("axis {} of {}", op.axis, graph.dims_text(node.inputs[0]));
  }
  std::string operator()(const op::GatherND &op) const {
    const std::string batch = op.batch > 0 ? fmt::format(", batch {}", op.batch) : "";
    return fmt::format("by {} of {}{}", op.size, graph.dims_text(node.inputs[0]), batch);
  }
  static std::string meets(const std::optional<Function> &reduction) {
    return reduction ? std::string(", ") + function_info(static_cast<int64_t>(*reduction))->name : "";
  }
  std::string operator()(const op::ScatterElements &op) const {
    return fmt::format("axis {} of {}{}", op.axis, graph.dims_text(node.inputs[0]), meets(op.reduction));
  }
  std::string operator()(const op::ScatterND &op) const {
    return fmt::format("by {} of {}{}", op.size, graph.dims_text(node.inputs[0]), meets(op.reduction));
  }
  std::string operator()(const op::TopK &op) const {
    return fmt::format("the {} along axis {} of {}", op.largest ? "largest" : "smallest", op.axis,
                       graph.dims_text(node.inputs[0]));
  }
  std::string operator()(const op::Range &op) const { return fmt::format("from {} in steps of {}", op.first.text(graph.symbols), op.step); }
  std::string operator()(const op::Window &op) const {
    return fmt::format("axis {}, size {}, stride {}, dilation {}", op.axis, op.size, op.stride, op.dilation);
  }
};

bool any_live(const std::vector<TensorId> &ids, const std::vector<bool> &live) {
  return std::any_of(ids.begin(), ids.end(), [&](TensorId id) { return id != kNoTensor && live[id]; });
}

}  // namespace

TensorId Graph::add_tensor(Tensor tensor) {
  tensors.push_back(std::move(tensor));
  return static_cast<TensorId>(tensors.size()) - 1;
}

void Graph::remove_dead_nodes() {
  std::vector<bool> live(tensors.size(), false);
  for (TensorId id : outputs) live[id] = true;
  std::vector<Node> kept;
  for (size_t i = nodes.size(); i-- > 0;) {
    if (!any_live(nodes[i].outputs, live)) continue;
    for (TensorId id : nodes[i].inputs) {
      if (id != kNoTensor) live[id] = true;
    }
    for (TensorId &id : nodes[i].outputs) {
      if (id != kNoTensor && !live[id]) id = kNoTensor;  // an output nobody reads need not be computed
    }
    kept.push_back(std::move(nodes[i]));
  }
  std::reverse(kept.begin(), kept.end());
  nodes = std::move(kept);
}

void Graph::remove_unused_inputs() {
  std::vector<bool> used(tensors.size(), false);
  for (const Node &node : nodes) {
    for (TensorId id : node.inputs) {
      if (id != kNoTensor) used[id] = true;
    }
  }
  for (TensorId id : outputs) used[id] = true;
  inputs.erase(std::remove_if(inputs.begin(), inputs.end(), [&](TensorId id) { return !used[id]; }), inputs.end());
}

int64_t Graph::parameter_count() const {
  std::vector<TensorId> ids;
  for (const Node &node : nodes) {
    for (TensorId id : node.inputs) {
      if (is_constant(id) && is_float(tensor(id).type)) ids.push_back(id);
    }
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  int64_t count = 0;
  for (TensorId id : ids) count += tensor(id).constant->elements();
  return count;
}

const char *op_name(const Op &op) {
  static constexpr const char *kNames[] = {"Recurrent", "Dense",   "Transpose", "Slice",       "Select", "Unsqueeze",
                                           "Squeeze",   "Reshape", "Expand",    "Elementwise", "Concat", "Reduce",
                                           "MatMul",    "Gather",  "Pad",       "Window",
                                           "GatherElements", "GatherND", "ScatterElements", "ScatterND",
                                           "TopK",      "Range"};
  static_assert(std::size(kNames) == std::variant_size_v<Op>, "one name an operation, in the order of Op");
  return kNames[op.index()];
}

const ActivationRule &activation_rule(hrnn_activation_kind kind) { return kRules[kind]; }

const char *activation_name(hrnn_activation_kind kind) { return kRules[kind].name; }

std::optional<hrnn_activation_kind> find_activation(const std::string &name) {
  for (int kind = 0; kind < HRNN_ACTIVATION_COUNT; ++kind) {
    if (name.find('\0') == std::string::npos && strcasecmp(name.c_str(), kRules[kind].name) == 0) {
      return static_cast<hrnn_activation_kind>(kind);
    }
  }
  return std::nullopt;
}

const char *direction_name(hrnn_direction direction) {
  switch (direction) {
    case HRNN_FORWARD:
      return "forward";
    case HRNN_REVERSE:
      return "reverse";
    case HRNN_BIDIRECTIONAL:
      return "bidirectional";
  }
  return "?";
}

std::string describe(const hrnn_activation &activation) {
  const ActivationRule &rule = activation_rule(activation.kind);
  if (!rule.takes_alpha) return rule.name;
  if (!rule.takes_beta) return fmt::format("{}(alpha={})", rule.name, activation.alpha);
  return fmt::format("{}(alpha={}, beta={})", rule.name, activation.alpha, activation.beta);
}

std::string describe(const Graph &graph, const Node &node) { return std::visit(Describer{graph, node}, node.op); }

}  // namespace hrnn
