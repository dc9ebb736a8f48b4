// SPDX-License-Identifier: Apache-2.0
#include "onnx_functions.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <tuple>

#include "hrnn/compiler.h"
#include "onnx_frontend.h"

namespace hrnn {
namespace {

using onnx::AttributeProto;
using onnx::FunctionProto;
using onnx::GraphProto;
using onnx::NodeProto;

using Key = std::tuple<std::string, std::string, std::string>;  // domain, name, overload

std::string plain_domain(const std::string &domain) { return domain == "ai.onnx" ? "" : domain; }
Key key_of(const NodeProto &node) { return {plain_domain(node.domain()), node.op_type(), node.overload()}; }

// What names and attributes of a function's body are at one call.
struct Call {
  const FunctionProto *function;
  const NodeProto *node;
  std::string prefix;
  std::map<std::string, std::string> names;  // of inputs and outputs

  std::string name_of(const std::string &inner) const {
    if (inner.empty()) return inner;
    const auto known = names.find(inner);
    return known == names.end() ? prefix + inner : known->second;
  }
  // The attribute a body's node refers to: of the call, or the function's default. Null: absent.
  const AttributeProto *attribute(const std::string &name) const {
    for (const AttributeProto &given : node->attribute()) {
      if (given.name() == name) return &given;
    }
    for (const AttributeProto &otherwise : function->attribute_proto()) {
      if (otherwise.name() == name) return &otherwise;
    }
    return nullptr;
  }
};

class Inliner {
 public:
  Inliner(onnx::ModelProto *model, int opset) : model_(*model), opset_(opset) {
    budget_ = 16 * static_cast<int64_t>(model->ByteSizeLong()) + (1 << 20);
    for (const FunctionProto &function : model->functions()) {
      const Key key{plain_domain(function.domain()), function.name(), function.overload()};
      if (!functions_.emplace(key, &function).second) {
        throw ModelError(fmt::format("defines function '{}' of domain '{}' twice", function.name(), function.domain()));
      }
    }
    collect_names(model->graph());
  }

  std::vector<int> run() {
    google::protobuf::RepeatedPtrField<NodeProto> nodes;
    nodes.Swap(model_.mutable_graph()->mutable_node());
    std::vector<int> opsets;
    for (NodeProto &node : nodes) expand(std::move(node), opset_, model_.mutable_graph(), &opsets);
    return opsets;
  }

 private:
  void collect_names(const GraphProto &graph) {
    for (const auto &value : graph.input()) names_.insert(value.name());
    for (const auto &value : graph.initializer()) names_.insert(value.name());
    for (const NodeProto &node : graph.node()) {
      names_.insert(node.output().begin(), node.output().end());
      for (const AttributeProto &attribute : node.attribute()) {
        if (attribute.has_g()) collect_names(attribute.g());
      }
    }
  }

  // Adds a node, or the body of the function it calls. `opsets` is null inside the body of a loop.
  void expand(NodeProto node, int opset, GraphProto *graph, std::vector<int> *opsets) {
    const auto function = functions_.find(key_of(node));
    if (function != functions_.end()) return call(*function->second, node, opset, graph, opsets);
    for (AttributeProto &attribute : *node.mutable_attribute()) {
      if (attribute.has_g()) expand_body(attribute.mutable_g(), opset);
    }
    *graph->add_node() = std::move(node);
    if (opsets) opsets->push_back(opset);
  }

  void expand_body(GraphProto *body, int opset) {
    google::protobuf::RepeatedPtrField<NodeProto> nodes;
    nodes.Swap(body->mutable_node());
    for (NodeProto &node : nodes) expand(std::move(node), opset, body, nullptr);
  }

  [[noreturn]] static void fail(const NodeProto &node, const std::string &message) {
    throw ModelError(fmt::format("node '{}', a call of function '{}': {}", label(node), node.op_type(), message));
  }

  static std::string label(const NodeProto &node) {
    if (!node.name().empty()) return node.name();
    for (const std::string &output : node.output()) {
      if (!output.empty()) return output;
    }
    return node.op_type();
  }

  int opset_of(const FunctionProto &function, const NodeProto &node, int caller) const {
    for (const auto &import : function.opset_import()) {
      if (!plain_domain(import.domain()).empty()) continue;
      if (import.version() < kMinOpset || import.version() > kMaxOpset) {
        fail(node, fmt::format("the function is of opset {}; opsets {} to {} are supported", import.version(), kMinOpset,
                               kMaxOpset));
      }
      return static_cast<int>(import.version());
    }
    return caller;
  }

  // A prefix no name of the model begins with yet.
  std::string prefix_of(const NodeProto &node) {
    std::string prefix = label(node) + "/";
    const auto taken = [&] {
      const auto next = names_.lower_bound(prefix);
      return next != names_.end() && next->compare(0, prefix.size(), prefix) == 0;
    };
    while (taken()) prefix.insert(prefix.size() - 1, "'");
    names_.insert(prefix);
    return prefix;
  }

  Call bind(const FunctionProto &function, const NodeProto &node) {
    Call call{&function, &node, prefix_of(node), {}};
    if (node.input_size() > function.input_size() || node.output_size() > function.output_size()) {
      fail(node, fmt::format("it has {} inputs and {} outputs, the function has {} and {}", node.input_size(),
                             node.output_size(), function.input_size(), function.output_size()));
    }
    for (int i = 0; i < function.input_size(); ++i) {
      const bool given = i < node.input_size();
      if (!call.names.emplace(function.input(i), given ? node.input(i) : "").second) {
        fail(node, fmt::format("the function's input '{}' is listed twice", function.input(i)));
      }
    }
    for (int i = 0; i < function.output_size() && i < node.output_size(); ++i) {
      if (!node.output(i).empty()) call.names.emplace(function.output(i), node.output(i));
    }
    for (const AttributeProto &attribute : node.attribute()) check_attribute(function, node, attribute.name());
    return call;
  }

  static void check_attribute(const FunctionProto &function, const NodeProto &node, const std::string &name) {
    const auto &required = function.attribute();
    const auto &optional = function.attribute_proto();
    const bool known = std::count(required.begin(), required.end(), name) > 0 ||
                       std::any_of(optional.begin(), optional.end(),
                                   [&](const AttributeProto &attribute) { return attribute.name() == name; });
    if (!known) fail(node, fmt::format("attribute '{}' is none of the function's", name));
  }

  void call(const FunctionProto &function, const NodeProto &node, int caller_opset, GraphProto *graph,
            std::vector<int> *opsets) {
    constexpr size_t kMaxDepth = 64;
    if (active_.size() == kMaxDepth) fail(node, fmt::format("functions call each other more than {} deep", kMaxDepth));
    if (!active_.insert(&function).second) fail(node, "the function calls itself");
    const Call call = bind(function, node);
    const int opset = opset_of(function, node, caller_opset);
    if (!opsets && opset != caller_opset) {
      fail(node, fmt::format("a function of opset {} is called in the body of a loop of opset {}, which is not supported",
                             opset, caller_opset));
    }
    pass_inputs_on(call, caller_opset, graph, opsets);
    for (const NodeProto &inner : function.node()) {
      budget_ -= static_cast<int64_t>(inner.ByteSizeLong()) + static_cast<int64_t>(call.prefix.size()) + 64;
      if (budget_ < 0) fail(node, "inlining its functions makes the model far larger than its file: it is damaged or made to");
      NodeProto copy = inner;
      rename(call, &copy);
      if (!copy.name().empty()) copy.set_name(call.prefix + copy.name());
      expand(std::move(copy), opset, graph, opsets);
    }
    active_.erase(&function);
  }

  // A function may return what it was given.
  static void pass_inputs_on(const Call &call, int opset, GraphProto *graph, std::vector<int> *opsets) {
    for (int i = 0; i < call.node->output_size(); ++i) {
      const std::string &inner = call.function->output(i);
      const auto &inputs = call.function->input();
      if (call.node->output(i).empty() || !std::count(inputs.begin(), inputs.end(), inner)) continue;
      NodeProto *copy = graph->add_node();
      copy->set_op_type("Identity");
      copy->add_input(call.name_of(inner));
      copy->add_output(call.node->output(i));
      if (opsets) opsets->push_back(opset);
    }
  }

  void rename(const Call &call, NodeProto *node) {
    for (std::string &name : *node->mutable_input()) name = call.name_of(name);
    for (std::string &name : *node->mutable_output()) name = call.name_of(name);
    google::protobuf::RepeatedPtrField<AttributeProto> attributes;
    attributes.Swap(node->mutable_attribute());
    for (AttributeProto &attribute : attributes) {
      if (!attribute.ref_attr_name().empty()) {
        const AttributeProto *actual = call.attribute(attribute.ref_attr_name());
        if (!actual) continue;  // absent at the call: absent in the body
        AttributeProto *copy = node->add_attribute();
        *copy = *actual;
        copy->set_name(attribute.name());
        continue;
      }
      if (attribute.has_g()) rename(call, attribute.mutable_g());
      *node->add_attribute() = std::move(attribute);
    }
  }

  void rename(const Call &call, GraphProto *body) {
    for (auto &value : *body->mutable_input()) value.set_name(call.name_of(value.name()));
    for (auto &value : *body->mutable_output()) value.set_name(call.name_of(value.name()));
    for (auto &value : *body->mutable_initializer()) value.set_name(call.name_of(value.name()));
    for (NodeProto &node : *body->mutable_node()) rename(call, &node);
  }

  onnx::ModelProto &model_;
  int opset_;
  int64_t budget_;  // bytes of copied nodes
  std::map<Key, const FunctionProto *> functions_;
  std::set<const FunctionProto *> active_;
  std::set<std::string> names_;
};

}  // namespace

std::vector<int> inline_functions(onnx::ModelProto *model, int opset) {
  if (model->functions_size() == 0) return std::vector<int>(static_cast<size_t>(model->graph().node_size()), opset);
  return Inliner(model, opset).run();
}

}  // namespace hrnn
