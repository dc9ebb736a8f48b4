// SPDX-License-Identifier: Apache-2.0
#include "onnx_frontend.h"

#include <fcntl.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <filesystem>
#include <numeric>

#include "onnx_functions.h"
#include "onnx_importer.h"
#include "onnx_tensor.h"

namespace hrnn {
namespace {

using onnx::GraphProto;
using onnx::ModelProto;

// ---- The model around the graph ----

int read_opset(const ModelProto &model) {
  std::optional<int64_t> opset;
  for (const auto &import : model.opset_import()) {
    if (!import.domain().empty() && import.domain() != "ai.onnx") continue;
    if (opset) throw ModelError("imports ai.onnx twice; the file is damaged");
    opset = import.version();
  }
  if (!opset) throw ModelError("names no opset of domain ai.onnx (opset_import); the file is truncated or no model");
  if (*opset < kMinOpset || *opset > kMaxOpset) {
    throw ModelError(
        fmt::format("is of opset {}; opsets {} to {} are supported: export it again, or convert it with "
                    "onnx.version_converter",
                    *opset, kMinOpset, kMaxOpset));
  }
  return static_cast<int>(*opset);
}

void check_model(const ModelProto &model) {
  if (!model.has_ir_version() || model.ir_version() < 1) {
    throw ModelError(fmt::format("has ir_version {}; it is truncated or no ONNX model", model.ir_version()));
  }
  if (!model.has_graph()) throw ModelError("has no graph; it is truncated or no ONNX model");
  const GraphProto &graph = model.graph();
  if (graph.sparse_initializer_size() > 0) {
    throw ModelError(fmt::format("holds sparse initializer '{}'; only dense ones are supported",
                                 graph.sparse_initializer(0).values().name()));
  }
  if (graph.quantization_annotation_size() > 0) {
    throw ModelError(fmt::format("annotates tensor '{}' as quantized, which is not supported",
                                 graph.quantization_annotation(0).tensor_name()));
  }
}

// ---- Names: each made once, before it is used ----

class Names {
 public:
  explicit Names(const GraphProto &graph) : graph_(graph) {
    for (const auto &initializer : graph.initializer()) define(initializer.name(), kGiven, "initializer");
    for (const auto &input : graph.input()) {
      // Before IR version 4 initializers had to be listed among the inputs as well.
      if (is_initializer(input.name()) && listed_.insert(input.name()).second) continue;
      define(input.name(), kGiven, "graph input");
    }
    for (int i = 0; i < graph.node_size(); ++i) {
      for (const std::string &output : graph.node(i).output()) {
        if (!output.empty()) define(output, i, "output");
      }
    }
  }

  bool is_initializer(const std::string &name) const { return initializers_.count(name) > 0; }

  void check_order(int index, const std::string &where) const {
    for (const std::string &input : graph_.node(index).input()) {
      if (input.empty()) continue;
      const auto maker = makers_.find(input);
      if (maker == makers_.end()) {
        throw ModelError(
            fmt::format("{}: input '{}' is not made by any node, initializer or graph input", where, input));
      }
      if (maker->second < index) continue;
      if (reaches(index, maker->second)) {
        throw ModelError(
            fmt::format("{}: input '{}' depends on the node's own output: the graph has a cycle", where, input));
      }
      throw ModelError(
          fmt::format("{}: input '{}' is made by a later node; ONNX requires nodes in the order they run: "
                      "sort the graph topologically",
                      where, input));
    }
  }

  void check_output(const std::string &name) const {
    if (makers_.count(name)) return;
    throw ModelError(fmt::format("graph output '{}' is not made by any node", name));
  }

 private:
  static constexpr int kGiven = -1;

  void define(const std::string &name, int maker, const char *what) {
    if (name.empty()) throw ModelError(fmt::format("an {} has no name; the file is damaged", what));
    if (maker == kGiven && std::strcmp(what, "initializer") == 0) initializers_.insert(name);
    if (makers_.emplace(name, maker).second) return;
    throw ModelError(fmt::format("'{}' is made twice ({} and before); every name must be made once", name, what));
  }

  // Whether what node `from` makes leads to node `to`.
  bool reaches(int from, int to) const {
    std::unordered_multimap<std::string, int> readers;
    for (int i = 0; i < graph_.node_size(); ++i) {
      for (const std::string &input : graph_.node(i).input()) readers.emplace(input, i);
    }
    std::set<int> seen = {from};
    for (std::vector<int> open = {from}; !open.empty();) {
      const int node = open.back();
      open.pop_back();
      if (node == to) return true;
      for (const std::string &output : graph_.node(node).output()) {
        const auto range = readers.equal_range(output);
        for (auto reader = range.first; !output.empty() && reader != range.second; ++reader) {
          if (seen.insert(reader->second).second) open.push_back(reader->second);
        }
      }
    }
    return false;
  }

  const GraphProto &graph_;
  std::unordered_map<std::string, int> makers_;
  std::set<std::string> initializers_, listed_;
};

// ---- Inputs, initializers, outputs ----

const onnx::TypeProto::Tensor &tensor_type(const onnx::ValueInfoProto &info, const std::string &what) {
  if (!info.has_type() || !info.type().has_tensor_type()) {
    throw ModelError(what + ": has no tensor type; only dense tensors are supported");
  }
  return info.type().tensor_type();
}

Dim read_dim(Importer &importer, const onnx::TensorShapeProto::Dimension &dim, const std::string &input, int index,
             const std::string &what) {
  if (dim.has_dim_value()) {
    if (dim.dim_value() < 0) {
      throw ModelError(
          fmt::format("{}: dimension {} is {}; it must be a size, or a name (dim_param) where it is dynamic", what,
                      index, dim.dim_value()));
    }
    return Dim(dim.dim_value());
  }
  if (dim.has_dim_param() && !dim.dim_param().empty()) return importer.input_symbol(dim.dim_param());
  return importer.input_symbol(fmt::format("{}.dim{}", input, index));
}

Value input_value(Importer &importer, const std::string &name, DataType type, const Dims &dims) {
  const TensorId stored = importer.graph().add_tensor({name, type, dims, nullptr});
  importer.graph().inputs.push_back(stored);
  onnx::NodeProto proto;
  proto.set_op_type("graph input");
  proto.set_name(name);
  return importer.loaded(OnnxNode(proto, &importer), stored);
}

void import_input(Importer &importer, const onnx::ValueInfoProto &info) {
  const std::string what = fmt::format("graph input '{}'", info.name());
  const auto &type = tensor_type(info, what);
  if (!type.has_shape()) throw ModelError(what + ": declares no shape; export the model with shapes of its inputs");
  if (static_cast<size_t>(type.shape().dim_size()) > kMaxRank) {
    throw ModelError(
        fmt::format("{}: has {} dimensions; at most {} are supported", what, type.shape().dim_size(), kMaxRank));
  }
  Value value;
  value.type = data_type(type.elem_type(), what);
  for (int i = 0; i < type.shape().dim_size(); ++i) {
    value.dims.push_back(read_dim(importer, type.shape().dim(i), info.name(), i, what));
  }
  literal_product(value.dims);  // throws where the size is absurd
  importer.values[info.name()] = input_value(importer, info.name(), value.type, value.dims);
}

// Moves the data out of the file's structure as it goes, so that weights are in memory twice only one at a time.
void import_initializers(Importer &importer, GraphProto &graph) {
  for (onnx::TensorProto &tensor : *graph.mutable_initializer()) {
    const std::string name = tensor.name();
    Constant data = read_tensor(tensor, importer.folder(), fmt::format("initializer '{}'", name));
    tensor.Clear();
    tensor.set_name(name);
    importer.grant(static_cast<int64_t>(data.bytes.size()));
    importer.values[name] = importer.constant(std::move(data));
  }
}

void check_declared(const Importer &importer, const onnx::ValueInfoProto &info, const Value &value) {
  const std::string what = fmt::format("graph output '{}'", info.name());
  if (!info.has_type()) return;  // optional for outputs
  const auto &type = tensor_type(info, what);
  if (type.has_elem_type() && data_type(type.elem_type(), what) != value.type) {
    throw ModelError(fmt::format("{}: is declared {}, the graph computes {}", what, onnx_type_name(type.elem_type()),
                                 type_name(value.type)));
  }
  if (!type.has_shape()) return;
  bool matches = static_cast<size_t>(type.shape().dim_size()) == value.rank();
  std::string declared;
  for (int i = 0; i < type.shape().dim_size(); ++i) {
    const auto &dim = type.shape().dim(i);
    declared += (i ? ", " : "") + (dim.has_dim_value() ? std::to_string(dim.dim_value()) : "?");
    matches = matches && !(dim.has_dim_value() && value.dims[i].conflicts(Dim(dim.dim_value())));
  }
  if (matches) return;
  throw ModelError(fmt::format("{}: is declared with shape [{}], the graph computes {}", what, declared,
                               importer.dims_text(value.dims)));
}

// An output is a tensor of its own: a copy where the graph passes on an input, a constant, or another output.
TensorId output_tensor(Importer &importer, const std::string &name, const Value &value) {
  Graph &graph = importer.graph();
  if (computed_type(value.type) != value.type) {
    onnx::NodeProto proto;
    proto.set_op_type("graph output");
    proto.add_output(name);
    const TensorId stored = importer.stored(OnnxNode(proto, &importer), value);
    graph.tensors[static_cast<size_t>(stored)].name = name;
    return stored;
  }
  const bool taken = std::count(graph.outputs.begin(), graph.outputs.end(), value.tensor) > 0;
  if (value.is_runtime() && !taken && importer.producer(value.tensor)) {
    graph.tensors[static_cast<size_t>(value.tensor)].name = name;
    return value.tensor;
  }
  onnx::NodeProto proto;
  proto.set_op_type("Identity");
  proto.add_output(name);
  const OnnxNode node(proto, &importer);
  std::vector<int64_t> identity(value.rank());
  std::iota(identity.begin(), identity.end(), 0);
  const TensorId source = importer.tensor(node, value);
  return importer.emit(node, op::Transpose{identity}, {source}, value.type, value.dims).tensor;
}

void import_outputs(Importer &importer, const GraphProto &graph) {
  if (graph.output_size() == 0) throw ModelError("has no outputs; it is truncated or no model");
  std::set<std::string> seen;
  for (const auto &info : graph.output()) {
    if (!seen.insert(info.name()).second) {
      throw ModelError(fmt::format("graph output '{}' is listed twice", info.name()));
    }
    const Value &value = importer.values.at(info.name());
    check_declared(importer, info, value);
    importer.graph().outputs.push_back(output_tensor(importer, info.name(), value));
  }
}

// ---- Nodes ----

std::optional<std::string> unknown_operator(const onnx::NodeProto &proto, const OnnxNode &node) {
  const bool standard = proto.domain().empty() || proto.domain() == "ai.onnx";
  if (!standard) return fmt::format("{}: operators of domain '{}' are not supported", node.where(), proto.domain());
  if (!proto.overload().empty())
    return fmt::format("{}: overload '{}' is not supported", node.where(), proto.overload());
  const OnnxOperator *entry = find_operator(node.type());
  if (!entry) return node.where() + ": the operator is not supported";
  if (node.opset() < entry->since) {
    return fmt::format("{}: the operator came with opset {}, the model is of opset {}", node.where(), entry->since,
                       node.opset());
  }
  return std::nullopt;
}

void check_counts(const OnnxNode &node, const OnnxOperator &entry) {
  const int inputs = static_cast<int>(node.input_count()), outputs = static_cast<int>(node.output_count());
  if (inputs < entry.min_inputs || inputs > entry.max_inputs) {
    node.fail("has {} inputs; {} takes {}{}", inputs, node.type(), entry.min_inputs,
              entry.max_inputs == entry.min_inputs ? ""
              : entry.max_inputs > 1000            ? " or more"
                                                   : fmt::format(" to {}", entry.max_inputs));
  }
  if (outputs > entry.max_outputs) {
    node.fail("has {} outputs; {} makes {}", outputs, node.type(), entry.max_outputs);
  }
}

bool has_unusable_input(const Importer &importer, const onnx::NodeProto &proto) {
  for (const std::string &input : proto.input()) {
    if (!input.empty() && importer.values.at(input).kind == Value::Kind::Unusable) return true;
  }
  return false;
}

// Shows a node the numbers instead of progressions in the inputs where it does not look for them (`taken` says where it
// does); what they were is returned. A name given twice is hidden in both.
std::unordered_map<std::string, Value> hide_progressions(const OnnxNode &node, unsigned taken) {
  Importer &importer = node.importer();
  std::unordered_map<std::string, Value> hidden;
  for (size_t i = 0; i < node.input_count(); ++i) {
    const bool takes_one = i < 32 && (taken >> i & 1) != 0;
    if (takes_one || !node.has_input(i) || node.input(i, "").kind != Value::Kind::Progression) continue;
    const Value value = node.input(i, "");
    hidden.emplace(node.input_name(i), value);
    importer.values[node.input_name(i)] = importer.counted(node, value);
  }
  return hidden;
}

void import_known_node(Importer &importer, const onnx::NodeProto &proto) {
  OnnxNode node(proto, &importer);
  const OnnxOperator &entry = *find_operator(node.type());
  check_counts(node, entry);
  const auto known = hide_progressions(node, entry.progressions);
  entry.import(node);
  node.finish();
  for (const auto &[name, value] : known) importer.values[name] = value;
}

// What cannot be compiled, and what of the model that concerns. A node nobody needs, like one that only decides whether
// a loop over a sequence goes on, is no problem.
class Problems {
 public:
  void add(const onnx::NodeProto &proto, const std::string &message) {
    const int index = static_cast<int>(messages_.size());
    messages_.push_back(message);
    std::set<int> concerned = of_inputs(proto);
    concerned.insert(index);
    mark(proto, concerned);
  }
  void pass_on(const onnx::NodeProto &proto) { mark(proto, of_inputs(proto)); }

  std::vector<std::string> of(const std::vector<std::string> &names) const {
    std::set<int> concerned;
    for (const std::string &name : names) {
      const auto found = of_.find(name);
      if (found != of_.end()) concerned.insert(found->second.begin(), found->second.end());
    }
    std::vector<std::string> result;
    for (int index : concerned) result.push_back(messages_[static_cast<size_t>(index)]);
    return result;
  }

 private:
  // Of the inputs, and of what the body of a loop takes from outside.
  std::set<int> of_inputs(const onnx::NodeProto &proto) const {
    std::set<int> concerned;
    add_inputs(proto, &concerned);
    return concerned;
  }
  void add_inputs(const onnx::NodeProto &proto, std::set<int> *concerned) const {
    for (const std::string &input : proto.input()) {
      const auto found = of_.find(input);
      if (found != of_.end()) concerned->insert(found->second.begin(), found->second.end());
    }
    for (const auto &attribute : proto.attribute()) {
      for (const auto &inner : attribute.g().node()) add_inputs(inner, concerned);
    }
  }
  void mark(const onnx::NodeProto &proto, const std::set<int> &concerned) {
    for (const std::string &output : proto.output()) of_[output] = concerned;
  }

  std::vector<std::string> messages_;
  std::unordered_map<std::string, std::set<int>> of_;
};

void mark_unusable(Importer &importer, const onnx::NodeProto &proto) {
  for (const std::string &output : proto.output()) {
    if (!output.empty()) importer.values[output] = Value{};
  }
}

[[noreturn]] void fail_unsupported(const std::vector<std::string> &problems) {
  throw ModelError(
      fmt::format("{} node(s) cannot be compiled:\n  {}\nsupported operators: {}\nThe option --extract compiles the "
                  "recurrent part of such a model.",
                  problems.size(), fmt::join(problems, "\n  "), operator_list()));
}

// A loop may carry something along that nobody needs.
bool makes_unusable(const Importer &importer, const onnx::NodeProto &proto) {
  for (const std::string &output : proto.output()) {
    if (!output.empty() && importer.values.at(output).kind == Value::Kind::Unusable) return true;
  }
  return false;
}

// The values a node takes, also those that the bodies of a loop take from outside.
void add_inputs_of(const onnx::NodeProto &proto, std::set<std::string> *names) {
  names->insert(proto.input().begin(), proto.input().end());
  for (const auto &attribute : proto.attribute()) {
    for (const auto &inner : attribute.g().node()) add_inputs_of(inner, names);
    for (const auto &output : attribute.g().output()) names->insert(output.name());
  }
}

// The recurrent part of a model: which values depend on a recurrent layer, and what becomes of nodes left out.
class Extraction {
 public:
  Extraction(Importer *importer, const GraphProto &graph) : importer_(*importer) {
    for (const auto &info : graph.value_info()) declared_[info.name()] = &info;
  }

  // Before a node is imported: gives what stands before a recurrent layer its place as an input.
  void prepare(const onnx::NodeProto &proto) {
    layers_ = count_layers();
    const bool layer = proto.op_type() == "RNN" || proto.op_type() == "GRU" || proto.op_type() == "LSTM";
    if (!layer || proto.input_size() < 2 || !missing(proto.input(0))) return;
    const auto w = importer_.values.find(proto.input(1));  // [directions, gates hidden, input]
    if (w == importer_.values.end() || w->second.rank() != 3 || w->second.kind == Value::Kind::Unusable) return;
    const std::string &name = proto.input(0);
    const auto symbol = [&](int axis) { return importer_.input_symbol(fmt::format("{}.dim{}", name, axis)); };
    add_input(name, w->second.type, {symbol(0), symbol(1), w->second.dims[2]});
  }

  // After it was imported, or left out because of `problem`.
  void taken(const onnx::NodeProto &proto) {
    if (count_layers() > layers_ || follows_layer(proto)) mark(proto);
  }
  void left_out(const onnx::NodeProto &proto, const std::string &problem) {
    const OnnxNode node(proto, &importer_);
    left_out_.push_back(problem.empty() ? node.where() + ": needs what is left out" : problem);
    add_inputs_of(proto, &wanted_);
    if (follows_layer(proto)) return mark(proto);
    for (const std::string &output : proto.output()) {
      if (output.empty()) continue;
      const auto info = declared_.find(output);
      missing_.insert(output);
      if (info != declared_.end()) add_declared(*info->second);
    }
  }

  // The outputs: what a node left out wants of the recurrent part, and the model's outputs that are part of it.
  std::vector<std::string> outputs(const GraphProto &graph) const {
    std::vector<std::string> names;
    std::set<std::string> seen;
    const auto add = [&](const std::string &name) {
      const auto value = importer_.values.find(name);
      if (value == importer_.values.end() || !value->second.is_runtime() || after_.count(name) == 0) return;
      if (seen.insert(name).second) names.push_back(name);
    };
    for (const auto &output : graph.output()) add(output.name());
    for (const auto &node : graph.node()) {
      for (const std::string &output : node.output()) {
        if (wanted_.count(output)) add(output);
      }
    }
    return names;
  }
  const std::vector<std::string> &left_out() const { return left_out_; }

 private:
  size_t count_layers() const {
    size_t count = 0;
    for (const Node &node : importer_.graph().nodes) count += std::holds_alternative<op::Recurrent>(node.op);
    return count;
  }
  bool missing(const std::string &name) const {
    return missing_.count(name) > 0 && importer_.values.at(name).kind == Value::Kind::Unusable;
  }
  bool follows_layer(const onnx::NodeProto &proto) const {
    std::set<std::string> inputs;
    add_inputs_of(proto, &inputs);
    return std::any_of(inputs.begin(), inputs.end(), [&](const std::string &name) { return after_.count(name) > 0; });
  }
  void mark(const onnx::NodeProto &proto) { after_.insert(proto.output().begin(), proto.output().end()); }

  void add_declared(const onnx::ValueInfoProto &info) {
    if (!info.type().has_tensor_type() || !info.type().tensor_type().has_shape()) return;
    const auto &type = info.type().tensor_type();
    Dims dims;
    const std::string what = fmt::format("value '{}'", info.name());
    for (int i = 0; i < type.shape().dim_size(); ++i) {
      dims.push_back(read_dim(importer_, type.shape().dim(i), info.name(), i, what));
    }
    if (dims.size() <= kMaxRank) add_input(info.name(), data_type(type.elem_type(), what), dims);
  }
  void add_input(const std::string &name, DataType type, const Dims &dims) {
    literal_product(dims);  // throws where the size is absurd
    importer_.values[name] = input_value(importer_, name, type, dims);
  }

  Importer &importer_;
  std::unordered_map<std::string, const onnx::ValueInfoProto *> declared_;
  std::set<std::string> after_;    // values that depend on a recurrent layer
  std::set<std::string> missing_;  // values of nodes left out that depend on none
  std::set<std::string> wanted_;   // by nodes left out
  std::vector<std::string> left_out_;
  size_t layers_ = 0;
};

// `opsets`: of each node. `extraction` is null where everything that is needed must be compiled.
void import_nodes(Importer &importer, const GraphProto &graph, const Names &names, const std::vector<int> &opsets,
                  Extraction *extraction) {
  Problems problems;
  for (int i = 0; i < graph.node_size(); ++i) names.check_order(i, OnnxNode(graph.node(i), &importer).where());
  for (int i = 0; i < graph.node_size(); ++i) {
    const onnx::NodeProto &proto = graph.node(i);
    importer.set_opset(opsets.at(static_cast<size_t>(i)));
    if (extraction) {
      extraction->prepare(proto);
      const auto problem = import_node(importer, proto);
      if (problem) mark_unusable(importer, proto);
      problem ? extraction->left_out(proto, *problem) : extraction->taken(proto);
      continue;
    }
    const OnnxOperator *entry = find_operator(proto.op_type());
    if (has_unusable_input(importer, proto) && !(entry && entry->takes_unusable)) {
      mark_unusable(importer, proto);
      const auto problem = unknown_operator(proto, OnnxNode(proto, &importer));
      problem ? problems.add(proto, *problem) : problems.pass_on(proto);
    } else if (const auto problem = import_node(importer, proto)) {
      mark_unusable(importer, proto);
      problems.add(proto, *problem);
    } else if (makes_unusable(importer, proto)) {
      problems.add(proto, OnnxNode(proto, &importer).where() + ": one of its results is not supported");
    }
  }
  std::vector<std::string> outputs;
  if (extraction) return;
  for (const auto &output : graph.output()) {
    if (importer.values.at(output.name()).kind == Value::Kind::Unusable) outputs.push_back(output.name());
  }
  if (!outputs.empty()) fail_unsupported(problems.of(outputs));
}

void count_node_uses(Importer &importer, const GraphProto &graph) {
  for (const auto &node : graph.node()) {
    for (const std::string &input : node.input()) ++importer.uses[input];
    for (const auto &attribute : node.attribute()) {
      if (attribute.has_g()) count_node_uses(importer, attribute.g());
    }
  }
}

void count_uses(Importer &importer, const GraphProto &graph) {
  count_node_uses(importer, graph);
  for (const auto &output : graph.output()) ++importer.uses[output.name()];
  for (const auto &node : graph.node()) {
    for (const std::string &output : node.output()) importer.makers[output] = &node;
  }
}

std::string producer_text(const ModelProto &model) {
  if (model.producer_version().empty()) return model.producer_name();
  return model.producer_name() + " " + model.producer_version();
}

// ---- The file ----

class Descriptor {
 public:
  explicit Descriptor(const std::string &path) : value_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (value_ < 0) throw ModelError(fmt::format("cannot open: {}", std::strerror(errno)));
    struct stat status {};
    if (::fstat(value_, &status) != 0 || !S_ISREG(status.st_mode)) {
      ::close(value_);
      throw ModelError("is not a regular file; name a model file");
    }
    size_ = status.st_size;
  }
  ~Descriptor() { ::close(value_); }
  Descriptor(const Descriptor &) = delete;
  Descriptor &operator=(const Descriptor &) = delete;
  int value() const { return value_; }
  int64_t size() const { return size_; }

 private:
  int value_;
  int64_t size_ = 0;
};

void parse(const std::string &path, ModelProto *model) {
  const Descriptor file(path);
  if (file.size() == 0) throw ModelError("is empty");
  if (file.size() > INT_MAX) {
    throw ModelError(fmt::format("has {} bytes; an ONNX file has at most {}: save the weights as external data",
                                 file.size(), INT_MAX));
  }
  google::protobuf::io::FileInputStream stream(file.value());
  google::protobuf::io::CodedInputStream coded(&stream);
  coded.SetTotalBytesLimit(INT_MAX);
  coded.SetRecursionLimit(32);  // nothing that is supported nests deeper than a tensor in an attribute
  if (!model->ParseFromCodedStream(&coded) || !coded.ConsumedEntireMessage()) {
    throw ModelError("is not an ONNX model, or is damaged (its protobuf encoding ends or breaks in the middle)");
  }
}

}  // namespace

std::optional<std::string> import_node(Importer &importer, const onnx::NodeProto &proto) {
  const OnnxNode node(proto, &importer);
  if (auto problem = unknown_operator(proto, node)) return problem;
  if (!find_operator(proto.op_type())->takes_unusable && has_unusable_input(importer, proto)) {
    return node.where() + ": takes what cannot be compiled";
  }
  try {
    import_known_node(importer, proto);
  } catch (const Unsupported &problem) {
    return problem.message;
  }
  return std::nullopt;
}

namespace {

void extract(Importer &importer, const GraphProto &graph, const Names &names, const std::vector<int> &opsets) {
  Extraction extraction(&importer, graph);
  import_nodes(importer, graph, names, opsets, &extraction);
  const std::vector<std::string> outputs = extraction.outputs(graph);
  if (outputs.empty()) {
    throw ModelError(fmt::format("has no recurrent part that can be compiled (--extract); left out were:\n  {}",
                                 fmt::join(extraction.left_out(), "\n  ")));
  }
  for (const std::string &name : outputs) {
    importer.graph().outputs.push_back(output_tensor(importer, name, importer.values.at(name)));
  }
  for (const std::string &problem : extraction.left_out()) importer.graph().warnings.push_back("left out: " + problem);
}

}  // namespace

Graph import_onnx(ModelProto &model, const std::string &folder, bool extracting) {
  check_model(model);
  Graph graph;
  const int opset = read_opset(model);
  const std::vector<int> opsets = inline_functions(&model, opset);
  graph.producer = producer_text(model);
  graph.format = fmt::format("ONNX, opset {}", opset);
  Importer importer(&graph, folder, opset);
  const Names names(model.graph());
  for (const auto &output : model.graph().output()) names.check_output(output.name());
  import_initializers(importer, *model.mutable_graph());
  for (const auto &input : model.graph().input()) {
    if (!names.is_initializer(input.name())) import_input(importer, input);
  }
  count_uses(importer, model.graph());
  try {
    if (extracting) {
      extract(importer, model.graph(), names, opsets);
    } else {
      import_nodes(importer, model.graph(), names, opsets, nullptr);
      import_outputs(importer, model.graph());
    }
  } catch (const Unsupported &problem) {
    fail_unsupported({problem.message});
  }
  graph.remove_dead_nodes();
  fold_scalings(importer);
  if (extracting) graph.remove_unused_inputs();
  return graph;
}

Graph load_onnx(const std::string &path, bool extract) {
  try {
    ModelProto model;
    parse(path, &model);
    const std::filesystem::path file(path);
    const std::string folder = file.parent_path().empty() ? "." : file.parent_path().string();
    Graph graph = import_onnx(model, folder, extract);
    graph.path = path;
    graph.name = file.stem().string();
    return graph;
  } catch (const ModelError &error) {
    throw ModelError(path + ": " + error.what());
  } catch (const std::bad_alloc &) {
    throw ModelError(path + ": there is not enough memory to read it");
  }
}

}  // namespace hrnn
