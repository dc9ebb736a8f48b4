// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as an ONNX model: an error with a message, or a model that is lowered and runs. Under libFuzzer, half of the
// mutations are of the parsed model: one of bytes seldom leaves a model.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "hrnn/compiler.h"
#include "onnx.pb.h"
#include "onnx_frontend.h"
#include "run_model.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size) __attribute__((weak));

namespace {

// One change to a model, of the kind that a converter with a fault makes.
class ModelMutator {
 public:
  ModelMutator(onnx::GraphProto *graph, unsigned seed) : graph_(graph), random_(seed) {
    for (const auto &node : graph->node())
      for (const auto &output : node.output()) names_.push_back(output);
    for (const auto &input : graph->input()) names_.push_back(input.name());
    for (const auto &tensor : graph->initializer()) names_.push_back(tensor.name());
    names_.push_back("");
  }

  void change_something() {
    switch (below(8)) {
      case 0: return change_node();
      case 1: case 2: return change_attribute();
      case 3: case 4: return change_tensor(graph_->mutable_initializer());
      case 5: return change_shape(graph_->mutable_input());
      case 6: return change_shape(graph_->mutable_output());
      default: return copy_node();
    }
  }

 private:
  unsigned below(int count) { return unsigned(random_()) % unsigned(count); }
  int64_t number() {
    const int64_t some[] = {0, 1, 2, 3, 5, -1, -2, -7, 4096, INT32_MAX, INT64_MAX, INT64_MIN, int64_t(1) << 32};
    return some[below(std::size(some))];
  }
  float real() {
    const float some[] = {0, 1, -1, 0.5f, 1e30f, -1e-40f, INFINITY, NAN};
    return some[below(std::size(some))];
  }
  std::string name() { return names_[below(int(names_.size()))]; }
  template <class List>
  auto *pick(List *list) {
    return list->size() == 0 ? nullptr : list->Mutable(int(below(list->size())));
  }
  template <class Numbers>
  void change_numbers(Numbers *numbers) {
    if (numbers->size() == 0 || below(4) == 0)
      numbers->Add(number());
    else if (below(4) == 0)
      numbers->RemoveLast();
    else
      numbers->Set(int(below(numbers->size())), number());
  }

  void change_node() {
    auto *node = pick(graph_->mutable_node());
    if (node == nullptr) return;
    if (below(3) == 0) {
      node->add_input(name());
    } else if (node->input_size() > 0 && below(2) == 0) {
      node->set_input(int(below(node->input_size())), name());
    } else if (node->output_size() > 0) {
      node->set_output(int(below(node->output_size())), name());
    }
  }
  void copy_node() {
    if (graph_->node_size() == 0 || graph_->node_size() > 20) return;
    const onnx::NodeProto node = graph_->node(int(below(graph_->node_size())));
    if (node.output_size() == 0) return;
    *graph_->add_node() = node;
    graph_->mutable_node(graph_->node_size() - 1)->set_output(0, "copied" + std::to_string(below(9)));
    graph_->mutable_node()->SwapElements(int(below(graph_->node_size())), graph_->node_size() - 1);
  }
  void change_attribute() {
    auto *node = pick(graph_->mutable_node());
    if (node == nullptr || node->attribute_size() == 0) return;
    auto *attribute = pick(node->mutable_attribute());
    switch (attribute->type()) {
      case onnx::AttributeProto::INT: return attribute->set_i(number());
      case onnx::AttributeProto::FLOAT: return attribute->set_f(real());
      case onnx::AttributeProto::INTS: return change_numbers(attribute->mutable_ints());
      case onnx::AttributeProto::FLOATS: return attribute->add_floats(real());
      case onnx::AttributeProto::STRINGS: return attribute->mutable_strings()->Add("Relu");
      case onnx::AttributeProto::TENSOR: return change(attribute->mutable_t());
      default: return attribute->set_type(onnx::AttributeProto::INTS);
    }
  }
  template <class List>
  void change_tensor(List *list) {
    if (auto *tensor = pick(list)) change(tensor);
  }
  void change(onnx::TensorProto *tensor) {
    switch (below(4)) {
      case 0: return change_numbers(tensor->mutable_dims());
      case 1: return tensor->set_data_type(int(below(17)));
      case 2: return tensor->mutable_raw_data()->resize(below(300));
      default:
        if (tensor->raw_data().size() < 8) return change_numbers(tensor->mutable_int64_data());
        const int64_t value = number();
        memcpy(&(*tensor->mutable_raw_data())[below(int(tensor->raw_data().size()) - 7)], &value, 8);
    }
  }
  template <class List>
  void change_shape(List *list) {
    auto *value = pick(list);
    if (value == nullptr) return;
    auto *type = value->mutable_type()->mutable_tensor_type();
    if (below(4) == 0) return type->set_elem_type(int(below(17)));
    auto *dims = type->mutable_shape()->mutable_dim();
    if (dims->size() == 0 || below(4) == 0)
      dims->Add()->set_dim_value(number());
    else if (below(2) == 0)
      pick(dims)->set_dim_param("n");
    else
      pick(dims)->set_dim_value(number());
  }

  onnx::GraphProto *graph_;
  std::minstd_rand random_;
  std::vector<std::string> names_;
};

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
  onnx::ModelProto model;
  std::string changed;
  if (seed % 2 == 0 && model.ParseFromArray(data, int(size)) && model.has_graph()) {
    ModelMutator mutator(model.mutable_graph(), seed / 2);
    for (unsigned i = 0; i <= seed / 2 % 3; i++) mutator.change_something();
    if (model.SerializeToString(&changed) && changed.size() <= max_size) {
      memcpy(data, changed.data(), changed.size());
      return changed.size();
    }
  }
  return LLVMFuzzerMutate(data, size, max_size);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  onnx::ModelProto proto;
  if (size > 1 << 16 || !proto.ParseFromArray(data, int(size))) return 0;
  try {
    const hrnn::Graph graph = hrnn::import_onnx(proto, "no folder");
    const hrnn::CompiledModel compiled = hrnn::lower(graph, "fuzz");
    const hrnn_model model = compiled.view();
    hrnn_fuzz::run_model(model);
  } catch (const hrnn::ModelError &error) {
    if (error.what()[0] == 0) abort();
  }
  return 0;
}
