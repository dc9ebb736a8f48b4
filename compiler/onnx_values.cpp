// SPDX-License-Identifier: Apache-2.0
//
// Operators that pass values on, or whose results are known when the model is compiled.
#include <algorithm>
#include <cmath>

#include "onnx_importer.h"
#include "onnx_tensor.h"

namespace hrnn {
namespace {

// ---- Constant ----

Constant list_constant(const OnnxNode &node, const std::vector<float> &values) {
  Constant result = make_constant(DataType::Float32, {static_cast<int64_t>(values.size())});
  node.importer().charge(static_cast<int64_t>(result.bytes.size()));
  for (size_t i = 0; i < values.size(); ++i) result.set(static_cast<int64_t>(i), static_cast<double>(values[i]));
  return result;
}

Constant list_constant(const OnnxNode &node, const std::vector<int64_t> &values) {
  Constant result = make_constant(DataType::Int64, {static_cast<int64_t>(values.size())});
  node.importer().charge(static_cast<int64_t>(result.bytes.size()));
  for (size_t i = 0; i < values.size(); ++i) result.set(static_cast<int64_t>(i), values[i]);
  return result;
}

template <class T>
Constant scalar_constant(const OnnxNode &node, T value) {
  Constant result = list_constant(node, std::vector<T>{value});
  result.dims.clear();
  return result;
}

// The one of the attributes of Constant that is there.
std::string constant_attribute(OnnxNode &node) {
  static constexpr const char *kNames[] = {"value",      "value_float",  "value_floats",  "value_int",
                                           "value_ints", "value_string", "value_strings", "sparse_value"};
  std::string found;
  for (const char *name : kNames) {
    if (!node.has_attribute(name)) continue;
    if (!found.empty()) node.fail("has attributes '{}' and '{}'; it must have one", found, name);
    found = name;
  }
  if (found.empty())
    node.fail("has no value; one of value, value_float, value_floats, value_int, value_ints is required");
  return found;
}

}  // namespace

void import_identity(OnnxNode &node) { node.set_output(0, node.input(0, "input")); }

// At inference Dropout passes its input on, whatever its ratio and seed.
void import_dropout(OnnxNode &node) {
  if (node.opset() < 12) {
    node.real("ratio");
  } else {
    node.integer("seed");
    if (node.has_input(2)) {
      const Value &training = node.input(2, "training_mode");
      if (!training.is_constant()) node.unsupported("training_mode is computed at run time; only false is supported");
      if (!training.constant->all_zero()) node.unsupported("training_mode is true; only inference is supported");
    }
  }
  if (node.has_output(1)) {  // nothing is dropped
    const Value &data = node.input(0, "data");
    Constant kept = make_constant(node.opset() < 10 ? data.type : DataType::Bool, {});
    kept.set(0, int64_t{1});
    node.set_output(1, node.importer().fill(kept, data.dims));
  }
  node.set_output(0, node.input(0, "data"));
}

void import_constant(OnnxNode &node) {
  const std::string name = constant_attribute(node);
  Importer &importer = node.importer();
  if (name != "value" && name != "sparse_value" && node.opset() < 12) return;  // finish() says what is wrong
  if (name == "value") {
    Constant data = read_tensor(*node.tensor(name), importer.folder(), node.where() + ": attribute 'value'");
    importer.grant(static_cast<int64_t>(data.bytes.size()));
    return node.set_output(0, importer.constant(std::move(data)));
  }
  if (name == "value_float") return node.set_output(0, importer.constant(scalar_constant(node, *node.real(name))));
  if (name == "value_int") return node.set_output(0, importer.constant(scalar_constant(node, *node.integer(name))));
  if (name == "value_floats") return node.set_output(0, importer.constant(list_constant(node, *node.reals(name))));
  if (name == "value_ints") return node.set_output(0, importer.constant(list_constant(node, *node.integers(name))));
  node.unsupported("attribute '{}': strings and sparse tensors are not supported", name);
}

void import_constant_of_shape(OnnxNode &node) {
  Constant element = make_constant(DataType::Float32, {1});
  if (const onnx::TensorProto *value = node.tensor("value")) {
    element = read_tensor(*value, node.importer().folder(), node.where() + ": attribute 'value'");
    if (element.elements() != 1) node.fail("attribute 'value' has {} elements; it must have 1", element.elements());
  }
  const std::vector<Dim> dims = node.shape_input(0, "input");
  if (dims.size() > kMaxRank) node.unsupported("makes {} dimensions; at most {} are supported", dims.size(), kMaxRank);
  for (const Dim &dim : dims) {
    if (dim.literal() && *dim.literal() < 0) node.fail("shape has {}; dimensions are not negative", *dim.literal());
  }
  literal_product(dims);  // throws where the size is absurd
  node.set_output(0, node.importer().fill(element, dims));
}

void import_shape(OnnxNode &node) {
  const Dims &dims = node.input(0, "data").dims;
  const int64_t rank = static_cast<int64_t>(dims.size());
  int64_t start = 0, end = rank;
  if (node.opset() >= 15) {
    start = node.integer("start", 0);
    end = node.integer("end", rank);
  }
  if (start < 0) start += rank;
  if (end < 0) end += rank;
  start = std::clamp<int64_t>(start, 0, rank);
  end = std::clamp<int64_t>(end, start, rank);
  std::vector<Dim> elements(dims.begin() + start, dims.begin() + end);
  node.set_output(0, node.importer().integers(DataType::Int64, {end - start}, std::move(elements)));
}

void import_size(OnnxNode &node) {
  node.set_output(0, node.importer().integers(DataType::Int64, {}, {product(node.input(0, "data").dims)}));
}

namespace {

// A range of floats, all of which are constants.
Value real_range(OnnxNode &node, const Constant &start, const Constant &limit, const Constant &delta) {
  const double first = start.real(0), step = delta.real(0), count = std::ceil((limit.real(0) - first) / step);
  if (!(count < 0x1p40)) node.fail("has limits {} and {} and delta {}", first, limit.real(0), step);
  const int64_t elements = count > 0 ? static_cast<int64_t>(count) : 0;
  node.importer().charge(elements * type_bytes(start.type));
  Constant result = make_constant(start.type, {elements});
  for (int64_t i = 0; i < elements; ++i) result.set(i, first + static_cast<double>(i) * step);
  return node.importer().constant(std::move(result));
}

}  // namespace

void import_range(OnnxNode &node) {
  const Value &start = node.input(0, "start"), &limit = node.input(1, "limit"), &delta = node.input(2, "delta");
  const auto is_number = [](const Value &value) {
    return is_float(value.type) && value.is_constant() && value.constant->elements() == 1;
  };
  if (is_number(start) && is_number(limit) && is_number(delta) && start.type == limit.type && start.type == delta.type) {
    if (node.opset() >= 27) node.integer("stash_type");
    return node.set_output(0, real_range(node, *start.constant, *limit.constant, *delta.constant));
  }
  const auto first = known_integers(start), last = known_integers(limit), step = known_integers(delta);
  const bool scalars = first && last && step && first->size() == 1 && last->size() == 1 && step->size() == 1;
  if (!scalars || start.type != limit.type || start.type != delta.type) {
    node.unsupported("makes a range of numbers when the model runs; only ranges of integers known at compile time are "
                     "supported");
  }
  const auto stride = (*step)[0].literal();
  if (!stride || *stride == 0) node.unsupported("has a delta that is no fixed number other than 0");
  Dim count = (*last)[0] - (*first)[0];
  if (count.literal()) {
    const int64_t span = *count.literal();
    count = Dim(std::max<int64_t>(0, span / *stride + (span % *stride != 0 && (span > 0) == (*stride > 0))));
  } else if (*stride != 1) {
    node.unsupported("counts a dynamic dimension in steps of {}; only 1 is supported", *stride);
  }
  if (node.opset() >= 27) node.integer("stash_type");  // about types that are refused above
  node.set_output(0, node.importer().progression(start.type, (*first)[0], (*step)[0], count));
}

}  // namespace hrnn
