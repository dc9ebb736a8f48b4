// SPDX-License-Identifier: Apache-2.0
//
// Small ONNX models for tests, made through protobuf's own classes.
#pragma once
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "onnx.pb.h"
#include "onnx_frontend.h"

namespace hrnn::test {

// A dimension: a number, or the name of a dynamic one.
struct OnnxDim {
  OnnxDim(int value) : value(value) {}
  OnnxDim(int64_t value) : value(value) {}
  OnnxDim(const char *name) : name(name) {}
  int64_t value = 0;
  std::string name;
};
using OnnxDims = std::vector<OnnxDim>;
using Floats = std::vector<float>;
using Ints = std::vector<int64_t>;

class NodeBuilder {
 public:
  explicit NodeBuilder(onnx::NodeProto *node) : node_(node) {}

  NodeBuilder &attr(const std::string &name, int64_t value) {
    add(name, onnx::AttributeProto::INT)->set_i(value);
    return *this;
  }
  NodeBuilder &attr(const std::string &name, float value) {
    add(name, onnx::AttributeProto::FLOAT)->set_f(value);
    return *this;
  }
  NodeBuilder &attr(const std::string &name, const char *value) {
    add(name, onnx::AttributeProto::STRING)->set_s(value);
    return *this;
  }
  NodeBuilder &ints(const std::string &name, const Ints &values) {
    auto *attribute = add(name, onnx::AttributeProto::INTS);
    for (int64_t value : values) attribute->add_ints(value);
    return *this;
  }
  NodeBuilder &floats(const std::string &name, const Floats &values) {
    auto *attribute = add(name, onnx::AttributeProto::FLOATS);
    for (float value : values) attribute->add_floats(value);
    return *this;
  }
  NodeBuilder &strings(const std::string &name, const std::vector<std::string> &values) {
    auto *attribute = add(name, onnx::AttributeProto::STRINGS);
    for (const std::string &value : values) attribute->add_strings(value);
    return *this;
  }
  NodeBuilder &name(const std::string &name) {
    node_->set_name(name);
    return *this;
  }
  onnx::NodeProto *proto() { return node_; }
  onnx::AttributeProto *add(const std::string &name, onnx::AttributeProto::AttributeType type) {
    onnx::AttributeProto *attribute = node_->add_attribute();
    attribute->set_name(name);
    attribute->set_type(type);
    return attribute;
  }

 private:
  onnx::NodeProto *node_;
};

inline int64_t elements(const Ints &dims) {
  int64_t count = 1;
  for (int64_t dim : dims) count *= dim;
  return count;
}

// Values 0.01, 0.02, ...: no two alike, so that a wrong place shows.
inline Floats counted(int64_t count, float first = 0.01f) {
  Floats values;
  for (int64_t i = 0; i < count; ++i) values.push_back(first + 0.01f * static_cast<float>(i));
  return values;
}

class ModelBuilder {
 public:
  explicit ModelBuilder(int64_t opset = 17) {
    model.set_ir_version(8);
    model.set_producer_name("test");
    auto *import = model.add_opset_import();
    import->set_domain("");
    import->set_version(opset);
    model.mutable_graph()->set_name("graph");
  }

  onnx::ModelProto model;
  onnx::GraphProto &graph() { return *model.mutable_graph(); }

  ModelBuilder &input(const std::string &name, const OnnxDims &dims, int type = onnx::TensorProto::FLOAT) {
    fill(model.mutable_graph()->add_input(), name, dims, type);
    return *this;
  }
  ModelBuilder &output(const std::string &name) {
    model.mutable_graph()->add_output()->set_name(name);
    return *this;
  }
  ModelBuilder &output(const std::string &name, const OnnxDims &dims, int type = onnx::TensorProto::FLOAT) {
    fill(model.mutable_graph()->add_output(), name, dims, type);
    return *this;
  }
  onnx::TensorProto *tensor(const std::string &name, const Ints &dims, int type) {
    onnx::TensorProto *tensor = model.mutable_graph()->add_initializer();
    tensor->set_name(name);
    tensor->set_data_type(type);
    for (int64_t dim : dims) tensor->add_dims(dim);
    return tensor;
  }
  ModelBuilder &weights(const std::string &name, const Ints &dims) {
    return weights(name, dims, counted(elements(dims)));
  }
  ModelBuilder &weights(const std::string &name, const Ints &dims, const Floats &values) {
    tensor(name, dims, onnx::TensorProto::FLOAT)
        ->set_raw_data(reinterpret_cast<const char *>(values.data()), values.size() * sizeof(float));
    return *this;
  }
  ModelBuilder &integers(const std::string &name, const Ints &values) {
    onnx::TensorProto *tensor = this->tensor(name, {static_cast<int64_t>(values.size())}, onnx::TensorProto::INT64);
    for (int64_t value : values) tensor->add_int64_data(value);
    return *this;
  }
  ModelBuilder &scalar(const std::string &name, int64_t value) {
    tensor(name, {}, onnx::TensorProto::INT64)->add_int64_data(value);
    return *this;
  }
  NodeBuilder node(const std::string &type, const std::vector<std::string> &inputs,
                   const std::vector<std::string> &outputs) {
    onnx::NodeProto *node = model.mutable_graph()->add_node();
    node->set_op_type(type);
    for (const std::string &input : inputs) node->add_input(input);
    for (const std::string &output : outputs) node->add_output(output);
    return NodeBuilder(node);
  }

  Graph import(const std::string &folder = ".") const {
    onnx::ModelProto copy = model;  // importing takes it apart
    return import_onnx(copy, folder);
  }

  // What the error says, "" when there is none.
  std::string error(const std::string &folder = ".") const {
    try {
      import(folder);
      return "";
    } catch (const ModelError &error) {
      return error.what();
    }
  }

 private:
  static void fill(onnx::ValueInfoProto *info, const std::string &name, const OnnxDims &dims, int type) {
    info->set_name(name);
    auto *tensor = info->mutable_type()->mutable_tensor_type();
    tensor->set_elem_type(type);
    auto *shape = tensor->mutable_shape();
    for (const OnnxDim &dim : dims) {
      auto *entry = shape->add_dim();
      if (dim.name.empty()) {
        entry->set_dim_value(dim.value);
      } else {
        entry->set_dim_param(dim.name);
      }
    }
  }
};

// A folder that is gone after the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "hrnn_test_XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder &) = delete;
  TemporaryFolder &operator=(const TemporaryFolder &) = delete;

  std::string path() const { return path_.string(); }
  std::string file(const std::string &name) const { return (path_ / name).string(); }
  std::string write(const std::string &name, const std::string &bytes) const {
    std::ofstream(path_ / name, std::ios::binary) << bytes;
    return file(name);
  }

 private:
  std::filesystem::path path_;
};

// Sets the attributes of a node.
using Attributes = std::function<void(NodeBuilder &)>;

// What the model became, as `hrnn inspect` names it: a line a node.
inline std::vector<std::string> operations(const Graph &graph) {
  std::vector<std::string> names;
  for (const Node &node : graph.nodes) names.push_back(std::string(op_name(node.op)) + " " + describe(graph, node));
  return names;
}

}  // namespace hrnn::test
