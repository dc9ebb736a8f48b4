// SPDX-License-Identifier: Apache-2.0
//
// The ONNX operators RNN and GRU, every attribute and input of opsets 7 and later.
#include <cmath>

#include "onnx_importer.h"

namespace hrnn {
namespace {

// Position of an operand in the list of inputs, the same for RNN and GRU.
enum Input : size_t { kX, kW, kR, kB, kSequenceLens, kInitialH, kInputCount };
constexpr const char *kInputNames[] = {"X", "W", "R", "B", "sequence_lens", "initial_h"};

struct Cell {
  int64_t gates, activations;
  std::vector<hrnn_activation_kind> defaults;
};

Cell cell_of(const OnnxNode &node) {
  if (node.type() == "RNN") return {1, 1, {HRNN_TANH}};
  return {3, 2, {HRNN_SIGMOID, HRNN_TANH}};
}

hrnn_direction read_direction(OnnxNode &node) {
  const std::string direction = node.string("direction").value_or("forward");
  for (hrnn_direction known : {HRNN_FORWARD, HRNN_REVERSE, HRNN_BIDIRECTIONAL}) {
    if (direction == direction_name(known)) return known;
  }
  node.fail("attribute 'direction' is '{}'; it must be forward, reverse or bidirectional", direction);
}

int read_layout(OnnxNode &node) {
  if (node.opset() < 14) return 0;  // the attribute came with opset 14; finish() reports it in an older one
  const int64_t layout = node.integer("layout", 0);
  if (layout != 0 && layout != 1) node.fail("attribute 'layout' is {}; it must be 0 or 1", layout);
  return static_cast<int>(layout);
}

std::optional<double> read_clip(OnnxNode &node) {
  const std::optional<float> clip = node.real("clip");
  if (!clip) return std::nullopt;
  if (!(*clip >= 0)) node.fail("attribute 'clip' is {}; it must not be negative (leave it out to clip nothing)", *clip);
  return *clip;
}

// ---- Activations ----

std::vector<hrnn_activation_kind> default_kinds(const Cell &cell, int64_t directions) {
  std::vector<hrnn_activation_kind> kinds;
  for (int64_t d = 0; d < directions; ++d) kinds.insert(kinds.end(), cell.defaults.begin(), cell.defaults.end());
  return kinds;
}

hrnn_activation_kind read_kind(const OnnxNode &node, const std::string &name) {
  if (const auto kind = find_activation(name)) return *kind;
  std::string known;
  for (int kind = 0; kind < HRNN_ACTIVATION_COUNT; ++kind) {
    known += (known.empty() ? "" : ", ") + std::string(activation_name(static_cast<hrnn_activation_kind>(kind)));
  }
  node.fail("attribute 'activations' names '{}', which is not an ONNX activation function ({})", name, known);
}

// RNN's schema writes its default as ["Tanh", "Tanh"] even for one direction, and some exporters write that down.
bool is_written_default(const OnnxNode &node, const std::vector<hrnn_activation_kind> &kinds) {
  return node.type() == "RNN" && kinds == std::vector<hrnn_activation_kind>{HRNN_TANH, HRNN_TANH};
}

std::vector<hrnn_activation_kind> read_kinds(OnnxNode &node, const Cell &cell, int64_t directions) {
  const auto names = node.strings("activations");
  if (!names) return default_kinds(cell, directions);
  std::vector<hrnn_activation_kind> kinds;
  for (const std::string &name : *names) kinds.push_back(read_kind(node, name));
  const size_t expected = static_cast<size_t>(cell.activations * directions);
  if (expected == 1 && is_written_default(node, kinds)) kinds.resize(1);
  if (kinds.size() != expected) {
    node.fail("attribute 'activations' has {} names; {} with {} direction(s) takes {}", kinds.size(), node.type(),
              directions, expected);
  }
  return kinds;
}

// How a list of alphas or betas belongs to the activations. ONNX leaves it open, so only lists that can be read one
// way are taken: one value for every activation that needs one, in order, or one for every activation.
class ParameterList {
 public:
  ParameterList(const OnnxNode &node, const char *name, std::optional<std::vector<float>> values, size_t needing,
                size_t activations)
      : node_(node), name_(name), values_(std::move(values).value_or(std::vector<float>{})) {
    positional_ = values_.size() == activations;
    if (values_.empty() || positional_ || values_.size() == needing) return;
    node.fail(
        "attribute '{}' has {} values; it must have one for each of the {} activations that take one, or one for "
        "each of all {}",
        name, values_.size(), needing, activations);
  }

  // The value for activation `index`, which takes one.
  double take(size_t index, hrnn_activation_kind kind, const std::optional<double> &otherwise) {
    if (values_.empty()) {
      if (otherwise) return *otherwise;
      node_.fail("activation {} has no default for attribute '{}', which is missing; ONNX defines none, so give it",
                 activation_name(kind), name_);
    }
    const float value = values_[positional_ ? index : next_++];
    if (!std::isfinite(value)) node_.fail("attribute '{}' holds {}; it must be finite", name_, value);
    return value;
  }

 private:
  const OnnxNode &node_;
  const char *name_;
  std::vector<float> values_;
  bool positional_;
  size_t next_ = 0;
};

std::vector<std::vector<hrnn_activation>> read_activations(OnnxNode &node, const Cell &cell, int64_t directions) {
  const std::vector<hrnn_activation_kind> kinds = read_kinds(node, cell, directions);
  size_t alphas = 0, betas = 0;
  for (hrnn_activation_kind kind : kinds) {
    alphas += activation_rule(kind).takes_alpha;
    betas += activation_rule(kind).takes_beta;
  }
  ParameterList alpha(node, "activation_alpha", node.reals("activation_alpha"), alphas, kinds.size());
  ParameterList beta(node, "activation_beta", node.reals("activation_beta"), betas, kinds.size());
  std::vector<std::vector<hrnn_activation>> result(static_cast<size_t>(directions));
  for (size_t i = 0; i < kinds.size(); ++i) {
    const ActivationRule &rule = activation_rule(kinds[i]);
    hrnn_activation activation{kinds[i], 0, 0};
    if (rule.takes_alpha) activation.alpha = alpha.take(i, kinds[i], rule.alpha);
    if (rule.takes_beta) activation.beta = beta.take(i, kinds[i], rule.beta);
    result[i / static_cast<size_t>(cell.activations)].push_back(activation);
  }
  return result;
}

// ---- Shapes ----

// Checks an operand's dimensions; those that are dynamic are checked again when the model runs.
void check_dims(const OnnxNode &node, Input input, const Dims &expected, const char *meaning) {
  if (!node.has_input(input)) return;
  const Dims &dims = node.input(input, kInputNames[input]).dims;
  bool matches = dims.size() == expected.size();
  for (size_t i = 0; matches && i < dims.size(); ++i) matches = !dims[i].conflicts(expected[i]);
  if (matches) return;
  node.fail("input {} ('{}') has shape {}; it must be {} = {}", kInputNames[input], node.input_name(input),
            node.importer().dims_text(dims), meaning, node.importer().dims_text(expected));
}

void check_rank3(const OnnxNode &node, Input input, const char *meaning) {
  const Value &value = node.input(input, kInputNames[input]);
  if (value.rank() == 3) return;
  node.fail("input {} ('{}') has shape {}; it must have 3 dimensions, {}", kInputNames[input], node.input_name(input),
            node.importer().dims_text(value.dims), meaning);
}

void check_types(const OnnxNode &node) {
  const Value &x = node.input(kX, "X");
  if (!is_float(x.type)) {
    node.fail("input X ('{}') is {}; it must be float32 or float64", node.input_name(kX), type_name(x.type));
  }
  for (Input input : {kW, kR, kB, kInitialH}) {
    if (!node.has_input(input)) continue;
    const Value &value = node.input(input, kInputNames[input]);
    if (value.type == x.type) continue;
    node.fail("input {} ('{}') is {}, input X is {}; they must be the same", kInputNames[input], node.input_name(input),
              type_name(value.type), type_name(x.type));
  }
  if (!node.has_input(kSequenceLens)) return;
  const Value &lengths = node.input(kSequenceLens, "sequence_lens");
  if (lengths.type != DataType::Int32) {
    node.fail("input sequence_lens ('{}') is {}; it must be int32", node.input_name(kSequenceLens),
              type_name(lengths.type));
  }
}

int64_t fixed_size(const OnnxNode &node, Input input, size_t axis, const char *meaning) {
  const Value &value = node.input(input, kInputNames[input]);
  const std::optional<int64_t> size = value.dims[axis].literal();
  if (!size) {
    node.fail("input {} ('{}') has shape {}; its {} must be a fixed number, not '{}'", kInputNames[input],
              node.input_name(input), node.importer().dims_text(value.dims), meaning,
              value.dims[axis].text(node.importer().graph().symbols));
  }
  if (*size < 1 || *size > kMaxLayerSize) {
    node.fail("input {} ('{}') has shape {}; its {} must be 1 to {}", kInputNames[input], node.input_name(input),
              node.importer().dims_text(value.dims), meaning, kMaxLayerSize);
  }
  return *size;
}

// hidden_size may be left out: R says it as well.
int64_t read_hidden_size(OnnxNode &node) {
  const int64_t from_r = fixed_size(node, kR, 2, "hidden size");
  const int64_t attribute = node.integer("hidden_size", from_r);
  if (attribute != from_r) {
    node.fail("attribute 'hidden_size' is {}, but input R ('{}') has shape {}, which means {}", attribute,
              node.input_name(kR), node.importer().dims_text(node.input(kR, "R").dims), from_r);
  }
  return attribute;
}

Dims ordered(int layout, const Dim &first, const Dim &batch, const Dim &last) {
  return layout == 0 ? Dims{first, batch, last} : Dims{batch, first, last};
}

void check_shapes(const OnnxNode &node, const op::Recurrent &layer, const Cell &cell) {
  const Dim directions(layer.directions()), hidden(layer.hidden_size), input(layer.input_size);
  const Dim rows = Dim(cell.gates) * hidden;
  const Dims &x = node.input(kX, "X").dims;
  const Dim &batch = x[layer.layout == 0 ? 1 : 0];
  check_dims(node, kX, {x[0], x[1], input},
             layer.layout == 0 ? "[time, batch, input size of W]" : "[batch, time, input size of W]");
  check_dims(node, kW, {directions, rows, input},
             cell.gates == 1 ? "[directions, hidden, input]" : "[directions, 3 * hidden, input]");
  check_dims(node, kR, {directions, rows, hidden},
             cell.gates == 1 ? "[directions, hidden, hidden]" : "[directions, 3 * hidden, hidden]");
  check_dims(node, kB, {directions, rows * Dim(2)},
             cell.gates == 1 ? "[directions, 2 * hidden]" : "[directions, 6 * hidden]");
  check_dims(node, kSequenceLens, {batch}, "[batch]");
  check_dims(node, kInitialH, ordered(layer.layout, directions, batch, hidden),
             layer.layout == 0 ? "[directions, batch, hidden]" : "[batch, directions, hidden]");
}

// ---- Operands and results ----

// Zeros are what an absent bias or initial state means, and cost nothing that way.
bool is_zero(const Value &value) { return !value.is_runtime() && value.constant && value.constant->all_zero(); }

std::vector<TensorId> operands(const OnnxNode &node) {
  std::vector<TensorId> ids;
  for (size_t input = kX; input < kInputCount; ++input) {
    if (!node.has_input(input)) {
      ids.push_back(kNoTensor);
      continue;
    }
    const Value &value = node.input(input, kInputNames[input]);
    if (input == kInitialH && is_zero(value)) {
      node.importer().graph().notes.push_back(node.where() + ": initial_h is zeros and was left out");
      ids.push_back(kNoTensor);
      continue;
    }
    ids.push_back(node.importer().tensor(node, value));
  }
  return ids;
}

Value result(const OnnxNode &node, size_t index, const Dims &dims) {
  Value value;
  value.kind = Value::Kind::Runtime;
  value.type = node.input(kX, "X").type;
  value.dims = dims;
  if (node.has_output(index)) {
    value.tensor = node.importer().graph().add_tensor({node.output_name(index), computed_type(value.type), dims, nullptr});
  }
  return value;
}

// nn.GRU always means linear_before_reset = 1; some of torch's exporters left the attribute out all the same, and the
// model then computes something else than what was trained.
void warn_of_lost_attribute(const OnnxNode &node, const op::Recurrent &layer) {
  Graph &graph = node.importer().graph();
  if (layer.cell != "gru_reset_before" || graph.producer.rfind("pytorch", 0) != 0) return;
  graph.warnings.push_back(node.where() +
                           ": attribute 'linear_before_reset' is 0 in a model by PyTorch, whose nn.GRU means 1: its "
                           "exporter lost it. Export again with another version of torch (or dynamo=False), or set the "
                           "attribute to 1; as it is the results will differ from PyTorch's");
}

}  // namespace

void import_recurrent(OnnxNode &node) {
  const Cell cell = cell_of(node);
  check_types(node);
  check_rank3(node, kX, "[time, batch, input] ([batch, time, input] with layout = 1)");
  check_rank3(node, kW, "[directions, gates * hidden, input]");
  check_rank3(node, kR, "[directions, gates * hidden, hidden]");

  op::Recurrent layer;
  layer.cell = "rnn";
  if (node.type() == "GRU") layer.cell = node.integer("linear_before_reset", 0) ? "gru" : "gru_reset_before";
  layer.direction = read_direction(node);
  layer.layout = read_layout(node);
  layer.clip = read_clip(node);
  layer.activations = read_activations(node, cell, layer.directions());
  layer.hidden_size = read_hidden_size(node);
  layer.input_size = fixed_size(node, kW, 2, "input size");
  check_shapes(node, layer, cell);
  warn_of_lost_attribute(node, layer);

  const Dims &x = node.input(kX, "X").dims;
  const Dim time = x[layer.layout], batch = x[1 - layer.layout];
  const Dim directions(layer.directions()), hidden(layer.hidden_size);
  const Dims y = layer.layout == 0 ? Dims{time, directions, batch, hidden} : Dims{batch, time, directions, hidden};
  const std::vector<TensorId> inputs = operands(node);
  const Value values[] = {result(node, 0, y), result(node, 1, ordered(layer.layout, directions, batch, hidden))};
  node.importer().graph().nodes.push_back(
      {layer, node.name(), node.type(), inputs, {values[0].tensor, values[1].tensor}});
  for (size_t i = 0; i < 2; ++i) node.set_output(i, values[i]);
}

}  // namespace hrnn
