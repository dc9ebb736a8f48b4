// SPDX-License-Identifier: Apache-2.0
//
// How the ONNX frontend works inside: every ONNX value is a Value, which may be known at compile time; every node goes
// to one handler, which folds it or emits nodes of the Graph. Handlers are listed in onnx_ops.cpp.
#pragma once
#include <fmt/format.h>

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "graph.h"
#include "onnx.pb.h"

namespace hrnn {

// What is known of an ONNX value.
struct Value {
  enum class Kind {
    Constant,  // all of it
    Fill,      // one element repeated; the dimensions may be dynamic (initial states are zeros(batch))
    Symbolic,  // integers that depend on dynamic dimensions: a shape on its way to Reshape or Expand
    Progression,  // integers first, first + step, ... as many as the one dimension says (Range, or one repeated)
    Runtime,   // its type and dimensions: it is computed when the model runs
    Unusable,  // nothing: it comes from a node that cannot be compiled, which is reported once
  };
  Kind kind = Kind::Unusable;
  DataType type = DataType::Float32;
  Dims dims;
  std::shared_ptr<const Constant> constant;          // Constant: the data; Fill: the element (rank 0)
  std::shared_ptr<const std::vector<Dim>> elements;  // Symbolic, dense; Progression: first and step
  TensorId tensor = kNoTensor;                       // Runtime

  bool is_constant() const { return kind == Kind::Constant; }
  bool is_runtime() const { return kind == Kind::Runtime; }
  size_t rank() const { return dims.size(); }
};

// A node asks for something this compiler cannot do (yet). Collected, so that one error lists all of them.
struct Unsupported {
  std::string message;
};

class OnnxNode;

// The graph under construction and what handlers need to add to it.
class Importer {
 public:
  Importer(Graph *graph, std::string folder, int opset) : graph_(graph), folder_(std::move(folder)), opset_(opset) {}

  // Of the nodes that are imported now: a function of the model has an opset of its own.
  int opset() const { return opset_; }
  void set_opset(int opset) { opset_ = opset; }
  const std::string &folder() const { return folder_; }
  Graph &graph() { return *graph_; }
  std::string dims_text(const Dims &dims) const { return text(dims, graph_->symbols); }

  // Symbols of graph inputs, by name; the same name is the same dimension.
  Dim input_symbol(const std::string &name);
  // A dimension no formula was found for. `name` says what it is, e.g. "min(time, 5)".
  Dim unknown_dim(const std::string &name);

  // Known values. Folding makes copies; the budget keeps a small file from asking for a large one.
  void grant(int64_t bytes) { budget_ += 16 * bytes; }
  void charge(int64_t bytes);
  Value constant(Constant constant);
  Value fill(const Constant &element, const Dims &dims);  // a Constant where it is small
  Value integers(DataType type, std::vector<int64_t> dims, std::vector<Dim> elements);
  // A known value with its elements picked by `view`, which only needs to be right for literal dimensions.
  Value view(const Value &value, const Dims &dims, const StridedView &view);
  Value with_dims(const Value &value, const Dims &dims);  // a known value, its elements in the same order

  // A Symbolic or a Progression as a tensor.
  Value counted(const OnnxNode &node, const Value &value);
  Value progression(DataType type, const Dim &first, const Dim &step, const Dim &count);

  // Adds a node; returns its output, which is known where the inputs are and the node computes (no view or layer). `name`
  // of the output tensor is set when the ONNX output is bound.
  Value emit(const OnnxNode &node, Op op, const std::vector<TensorId> &inputs, DataType type, const Dims &dims);
  // The tensor that holds a value when the model runs; known values become constants.
  TensorId tensor(const OnnxNode &node, const Value &value);
  TensorId tensor(const std::string &name, const Value &value);
  // The node that makes this tensor, or null.
  const Node *producer(TensorId tensor) const;
  void remove_producer(TensorId tensor);
  // A value of a 16-bit type is computed in float32; these are its tensors at the borders of the graph.
  Value loaded(const OnnxNode &node, TensorId stored);
  TensorId stored(const OnnxNode &node, const Value &value);

  std::unordered_map<std::string, Value> values;
  std::unordered_map<std::string, int> uses;  // of each name, by nodes (those in bodies of loops too) and graph outputs
  // The node of the model's graph that makes a value, or null.
  const onnx::NodeProto *proto(const std::string &name) const;
  std::unordered_map<std::string, const onnx::NodeProto *> makers;

 private:
  Value evaluated(const OnnxNode &node, const Op &op, const std::vector<TensorId> &inputs, DataType type,
                  const Dims &dims);

  Graph *graph_;
  std::string folder_;
  int opset_;
  int64_t budget_ = 64 << 20;
  std::unordered_map<std::string, int> symbols_;
  std::unordered_map<const Constant *, TensorId> constants_;
};

// One ONNX node while it is imported: checked access to its inputs and attributes. Whatever a handler does not ask
// for is an error in finish(): nothing in a model is ever ignored.
class OnnxNode {
 public:
  OnnxNode(const onnx::NodeProto &proto, Importer *importer);

  const std::string &type() const { return proto_.op_type(); }
  std::string name() const;   // its own, or its first output's
  std::string where() const;  // "node 'gru' (GRU)"
  int opset() const { return importer_->opset(); }
  Importer &importer() const { return *importer_; }

  // The file is wrong: `message` says what, with both values.
  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args &&...args) const {
    throw ModelError(where() + ": " + fmt::format(format, std::forward<Args>(args)...));
  }
  // The file may be right, this compiler cannot do it.
  template <class... Args>
  [[noreturn]] void unsupported(fmt::format_string<Args...> format, Args &&...args) const {
    throw Unsupported{where() + ": " + fmt::format(format, std::forward<Args>(args)...)};
  }

  size_t input_count() const { return static_cast<size_t>(proto_.input_size()); }
  bool has_input(size_t index) const;
  const Value &input(size_t index, const char *name) const;  // fails where it is absent
  const std::string &input_name(size_t index) const { return proto_.input(static_cast<int>(index)); }
  // Integers that must be known at compile time: a scalar or a list. Elements may be symbolic.
  std::vector<Dim> shape_input(size_t index, const char *name) const;
  std::vector<int64_t> ints_input(size_t index, const char *name) const;

  size_t output_count() const { return static_cast<size_t>(proto_.output_size()); }
  bool has_output(size_t index) const;
  const std::string &output_name(size_t index) const { return proto_.output(static_cast<int>(index)); }
  void set_output(size_t index, Value value) const;

  bool has_attribute(const std::string &name) const { return attributes_.count(name) > 0; }
  int64_t integer(const std::string &name, int64_t otherwise);
  std::optional<int64_t> integer(const std::string &name);
  std::optional<float> real(const std::string &name);
  float real(const std::string &name, float otherwise) { return real(name).value_or(otherwise); }
  std::optional<std::string> string(const std::string &name);
  std::optional<std::vector<int64_t>> integers(const std::string &name);
  std::optional<std::vector<float>> reals(const std::string &name);
  std::optional<std::vector<std::string>> strings(const std::string &name);
  const onnx::TensorProto *tensor(const std::string &name);
  const onnx::GraphProto *graph(const std::string &name);

  // axis in [-rank, rank) as 0 <= axis < rank; fails outside.
  int64_t axis(int64_t axis, size_t rank) const;
  // axes, each normalised, without duplicates, ascending.
  std::vector<int64_t> axes(std::vector<int64_t> axes, size_t rank) const;
  // A bound or index along a dimension as program.h wants it: negative ones count from the end. Resolves "T - 1".
  int64_t position(const Dim &value, const Dim &extent) const;

  // Throws for attributes nobody asked for and for outputs nobody made.
  void finish() const;
  void finish_attributes() const;

 private:
  void count_shared_uses(TensorId tensor, const std::string &name) const;
  const onnx::AttributeProto *find(const std::string &name, onnx::AttributeProto::AttributeType type);

  const onnx::NodeProto &proto_;
  Importer *importer_;
  std::unordered_map<std::string, const onnx::AttributeProto *> attributes_;
  std::set<std::string> read_;
};

// The operators. One row each; adding one is a row in onnx_ops.cpp and its handler.
struct OnnxOperator {
  const char *type;
  int since;  // the first opset (of those accepted) that defines it
  int min_inputs, max_inputs, max_outputs;
  void (*import)(OnnxNode &node);
  unsigned progressions = 0;    // bit i: input i may be one; other inputs are not shown such values
  bool takes_unusable = false;  // looks itself whether it needs what cannot be compiled
};
const OnnxOperator *find_operator(const std::string &type);
std::string operator_list();  // of all, for messages

// Imports a node whose inputs are in `values`. Returns why it cannot be compiled, or nothing.
std::optional<std::string> import_node(Importer &importer, const onnx::NodeProto &proto);

// The handlers, by file: onnx_recurrent.cpp ...
void import_recurrent(OnnxNode &node);
// ... onnx_loop.cpp ...
void import_loop(OnnxNode &node);
void import_scan(OnnxNode &node);
void import_if(OnnxNode &node);
// ... onnx_dense.cpp ...
void import_gemm(OnnxNode &node);
void import_matmul(OnnxNode &node);
bool fuse_bias(OnnxNode &node);  // Add of a constant to a product; false where it is something else
// y * factor + shift along axis 1 of the input `y`, a number a channel, made part of the product that y is a view of. False
// where it is something else, or somebody else wants y.
bool fuse_scaling(OnnxNode &node, size_t y, const Value &factor, const Value &shift);
// x [..., in] times w [in, out] ([out, in] where `transposed` is false), plus bias [out] or kNoTensor.
Value product(const OnnxNode &node, const Value &x, const Value &w, bool transposed, TensorId bias = kNoTensor);
Value matrix_product(OnnxNode &node, const Value &a, const Value &b);  // of values of at least two dimensions
// ... onnx_shapes.cpp (elements move) ...
void import_transpose(OnnxNode &node);
void import_slice(OnnxNode &node);
void import_split(OnnxNode &node);
void import_reverse_sequence(OnnxNode &node);
void import_gather(OnnxNode &node);
void import_squeeze(OnnxNode &node);
void import_unsqueeze(OnnxNode &node);
void import_reshape(OnnxNode &node);
void import_flatten(OnnxNode &node);
void import_expand(OnnxNode &node);
void import_concat(OnnxNode &node);
Value transposed(OnnxNode &node, const Value &value, const std::vector<int64_t> &permutation);
Value reshaped(OnnxNode &node, const Value &value, const Dims &dims);
Value expanded(OnnxNode &node, const Value &value, const Dims &dims);
Value sliced(OnnxNode &node, const Value &value, int64_t axis, int64_t start, int64_t stop, int64_t step);
Value squeezed(OnnxNode &node, const Value &value, std::vector<int64_t> axes);
Value unsqueezed(OnnxNode &node, const Value &value, const std::vector<int64_t> &axes);  // ascending
Value joined(OnnxNode &node, const std::vector<Value> &values, int64_t axis);
// `with` around a value: before[i] and after[i] elements along axis i.
Value padded(const OnnxNode &node, const Value &value, const std::vector<int64_t> &before,
             const std::vector<int64_t> &after, double with);
void import_tile(OnnxNode &node);
void import_pad(OnnxNode &node);
// ... onnx_index.cpp (elements chosen by numbers) ...
void import_gather_elements(OnnxNode &node);
void import_gather_nd(OnnxNode &node);
void import_scatter_elements(OnnxNode &node);
void import_scatter_nd(OnnxNode &node);
void import_top_k(OnnxNode &node);
// The first lengths[n] steps of sequence n backwards, the others as they are.
Value reversed_by_lengths(OnnxNode &node, const Value &value, int64_t time, const Value &lengths);
// ... onnx_elementwise.cpp ...
Value apply(const OnnxNode &node, Function function, const std::vector<Value> &operands, double alpha = 0,
            double beta = 0);
Value scalar(const OnnxNode &node, DataType type, double number);
Value converted(const OnnxNode &node, const Value &value, DataType type);
Dims broadcast_dims(const OnnxNode &node, const Dims &a, const Dims &b);  // of numpy's broadcasting
void check_same_type(const OnnxNode &node, const Value &a, const Value &b);
hrnn_activation read_activation(OnnxNode &node);  // of a node that is one of ONNX's activation functions
void import_elementwise(OnnxNode &node);
void import_where(OnnxNode &node);
void import_clip(OnnxNode &node);
void import_pow(OnnxNode &node);
void import_cast(OnnxNode &node);
void import_cast_like(OnnxNode &node);
void import_variadic(OnnxNode &node);
void import_prelu(OnnxNode &node);
// ... onnx_reduce.cpp ...
Value reduced(const OnnxNode &node, Reduction reduction, const Value &value, const std::vector<int64_t> &axes,
              bool keep_axes = true);
void import_reduce(OnnxNode &node);
void import_arg_extreme(OnnxNode &node);
void import_softmax(OnnxNode &node);
// ... onnx_normalize.cpp ...
void import_layer_normalization(OnnxNode &node);
void import_rms_normalization(OnnxNode &node);
void import_batch_normalization(OnnxNode &node);
void import_instance_normalization(OnnxNode &node);
void import_group_normalization(OnnxNode &node);
void import_lp_normalization(OnnxNode &node);
// ... onnx_conv.cpp ...
void import_conv(OnnxNode &node);
void import_pool(OnnxNode &node);
void import_global_pool(OnnxNode &node);
// ... onnx_scaling.cpp: scalings before products become part of them, in the whole graph ...
void fold_scalings(Importer &importer);
// ... onnx_values.cpp (values are passed on, or known).
void import_identity(OnnxNode &node);
void import_dropout(OnnxNode &node);
void import_constant(OnnxNode &node);
void import_constant_of_shape(OnnxNode &node);
void import_shape(OnnxNode &node);
void import_size(OnnxNode &node);
void import_range(OnnxNode &node);

// Integers of a known value as dimensions, or nothing where they are not known. At most kMaxShapeElements.
constexpr int64_t kMaxShapeElements = 4096;
std::optional<std::vector<Dim>> known_integers(const Value &value);

}  // namespace hrnn
