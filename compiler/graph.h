// SPDX-License-Identifier: Apache-2.0
//
// A model in the compiler's own terms: ONNX semantics, tensors by number, nodes in the order they run. Every frontend
// produces this, and program_writer lowers it: each operation here is one of runtime/src/program.h. A new operator is a
// struct in `op`, an entry in `Op`, its case in program_writer.cpp and its line in describe().
#pragma once
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "constant.h"
#include "dim.h"
#include "elementwise.h"
#include "hrnn/compiler.h"
#include "reduce.h"

namespace hrnn {

using TensorId = int;
constexpr TensorId kNoTensor = -1;

// Constants hold data. Everything else is an input or the output of one node.
struct Tensor {
  std::string name;
  DataType type = DataType::Float32;
  Dims dims;
  std::shared_ptr<const Constant> constant;
};

namespace op {

// in: X, W, R, B, sequence_lens, initial_h (the last three may be kNoTensor); out: Y, Y_h (either may be kNoTensor).
// Tensors are laid out as ONNX says for `layout`; W, R, B as ONNX says for the cell (gates z, r, h).
struct Recurrent {
  std::string cell;  // "rnn", "rnn_masked" (hrnn.h), "gru" (linear_before_reset = 1), "gru_reset_before" (= 0)
  hrnn_direction direction = HRNN_FORWARD;
  int layout = 0;
  int64_t input_size = 0, hidden_size = 0;
  std::optional<double> clip;
  std::vector<std::vector<hrnn_activation>> activations;  // [direction][activation]

  int64_t directions() const { return direction == HRNN_BIDIRECTIONAL ? 2 : 1; }
};

// in: x [..., in], w, b (may be kNoTensor). w is [out, in], or [in, out] when `transposed`.
struct Dense {
  int64_t in_features = 0, out_features = 0;
  bool transposed = false;
};

struct Transpose {
  std::vector<int64_t> permutation;
};
struct Slice {  // as in ONNX: negative start and stop count from the end, out of range clamps
  int64_t axis = 0, start = 0, stop = 0, step = 1;
};
struct Select {
  int64_t axis = 0, index = 0;
};
struct Unsqueeze {
  int64_t axis = 0;
};
struct Squeeze {
  int64_t axis = 0;
};
struct Reshape {};  // to the output's dimensions
struct Expand {};   // to the output's dimensions
// in: the function's operands, broadcast as numpy does. A Cast is to the output's type.
struct Elementwise {
  Function function{};
  double alpha = 0, beta = 0;
};
struct Concat {
  int64_t axis = 0;
};
struct Reduce {
  Reduction reduction{};
  std::vector<int64_t> axes;
  bool keep_axes = true;
};
struct MatMul {};  // in: a [..., m, k], b [..., k, n], leading dimensions broadcast
struct Gather {    // in: data, indices
  int64_t axis = 0;
};
struct Pad {
  std::vector<int64_t> before, after;
  double value = 0;
};
struct GatherElements {  // in: data, indices
  int64_t axis = 0;
};
struct GatherND {  // in: data, indices: tuples of `size` along their last axis
  int64_t size = 1, batch = 0;
};
// in: data, indices, updates. How an update meets what is there: replaces it, or a function of both.
struct ScatterElements {
  int64_t axis = 0;
  std::optional<Function> reduction;
};
struct ScatterND {
  int64_t size = 1;
  std::optional<Function> reduction;
};
struct TopK {  // the indices of the largest (smallest) as the output's dimension says, in order
  int64_t axis = 0;
  bool largest = true;
};
struct Range {  // first, first + step, ... as many as the output's dimension says
  Dim first;  // a literal, or a dimension and a literal
  int64_t step = 1;
};
struct Window {  // a last axis of `size` elements `dilation` apart, for every `stride`-th position of the axis
  int64_t axis = 0, size = 1, stride = 1, dilation = 1;
};

}  // namespace op

using Op = std::variant<op::Recurrent, op::Dense, op::Transpose, op::Slice, op::Select, op::Unsqueeze, op::Squeeze,
                        op::Reshape, op::Expand, op::Elementwise, op::Concat, op::Reduce, op::MatMul, op::Gather,
                        op::Pad, op::Window, op::GatherElements, op::GatherND, op::ScatterElements, op::ScatterND,
                        op::TopK, op::Range>;

struct Node {
  Op op;
  std::string name;    // the source node's, for messages
  std::string source;  // its operator in the source format
  std::vector<TensorId> inputs, outputs;
};

struct Graph {
  std::string path;      // of the file it was read from
  std::string name;      // the file's name without folder and ending
  std::string producer;  // who wrote the file, e.g. "pytorch 2.5", for inspect
  std::string format;    // "ONNX, opset 17"
  std::vector<Symbol> symbols;
  std::vector<Tensor> tensors;
  std::vector<Node> nodes;
  std::vector<TensorId> inputs, outputs;
  std::vector<std::string> notes;     // what the reader may want to know, e.g. an initial state folded away
  std::vector<std::string> warnings;  // what is well formed but probably not what its author meant

  TensorId add_tensor(Tensor tensor);
  const Tensor &tensor(TensorId id) const { return tensors.at(static_cast<size_t>(id)); }
  bool is_constant(TensorId id) const { return id != kNoTensor && tensor(id).constant != nullptr; }
  std::string dims_text(TensorId id) const { return text(tensor(id).dims, symbols); }

  // Drops nodes whose outputs reach no output of the graph.
  void remove_dead_nodes();
  // Drops inputs that no node and no output uses.
  void remove_unused_inputs();
  // Numbers the model learned, each counted once.
  int64_t parameter_count() const;
};

// The largest input, hidden or output size of a layer: the runtime's limit too, so that sizes computed from two of them
// cannot overflow.
constexpr int64_t kMaxLayerSize = int64_t{1} << 24;

const char *op_name(const Op &op);  // "Recurrent"
const char *activation_name(hrnn_activation_kind kind);
const char *direction_name(hrnn_direction direction);
std::string describe(const hrnn_activation &activation);  // "LeakyRelu(alpha=0.01)"
std::string describe(const Graph &graph, const Node &node);

// Which of alpha and beta a function takes, and what ONNX says where they are not given.
struct ActivationRule {
  const char *name;
  bool takes_alpha, takes_beta;
  std::optional<double> alpha, beta;  // defaults; a parameter it takes without a default must be given
};
const ActivationRule &activation_rule(hrnn_activation_kind kind);
std::optional<hrnn_activation_kind> find_activation(const std::string &name);  // case-insensitive, as ONNX says

}  // namespace hrnn
