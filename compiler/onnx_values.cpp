// SPDX-License-Identifier: Apache-2.0
//
// Operators that compute elements: constants and shape arithmetic are computed here and now, activations by the model.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

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

// ---- Broadcasting of known values ----

std::vector<int64_t> broadcast_shape(const OnnxNode &node, const std::vector<int64_t> &a,
                                     const std::vector<int64_t> &b) {
  std::vector<int64_t> result(std::max(a.size(), b.size()), 1);
  for (size_t i = 0; i < result.size(); ++i) {
    const int64_t from_a = i + a.size() >= result.size() ? a[i + a.size() - result.size()] : 1;
    const int64_t from_b = i + b.size() >= result.size() ? b[i + b.size() - result.size()] : 1;
    if (from_a != from_b && from_a != 1 && from_b != 1) {
      node.fail("shapes [{}] and [{}] cannot be combined", fmt::join(a, ", "), fmt::join(b, ", "));
    }
    result[i] = from_a == 1 ? from_b : from_a;
  }
  return result;
}

StridedView broadcast_view(const std::vector<int64_t> &from, const std::vector<int64_t> &to) {
  StridedView view{to, std::vector<int64_t>(to.size(), 0), 0};
  const std::vector<int64_t> strides = dense_strides(from);
  for (size_t i = 0; i < from.size(); ++i) {
    if (from[i] != 1) view.strides[i + to.size() - from.size()] = strides[i];
  }
  return view;
}

std::vector<int64_t> shape_of(const Value &value) { return *literals(value.dims); }

Value broadcast_to(const OnnxNode &node, const Value &value, const std::vector<int64_t> &shape) {
  return node.importer().view(value, Dims(shape.begin(), shape.end()), broadcast_view(shape_of(value), shape));
}

bool is_list(const Value &value) { return known_integers(value).has_value(); }

// ---- Arithmetic ----

double compute(const OnnxNode &node, double a, double b) {
  if (node.type() == "Add") return a + b;
  if (node.type() == "Sub") return a - b;
  return node.type() == "Mul" ? a * b : a / b;
}

Dim compute(const OnnxNode &node, const Dim &a, const Dim &b) {
  if (node.type() == "Add") return a + b;
  if (node.type() == "Sub") return a - b;
  if (node.type() == "Mul") return a * b;
  if (b.is(0)) node.fail("divides by zero");
  if (a.literal() && b.literal()) {
    if (*b.literal() == -1) return Dim(0) - a;
    return *a.literal() / *b.literal();  // towards zero, as ONNX says
  }
  if (const auto quotient = a.quotient(b)) return *quotient;
  const auto &symbols = node.importer().graph().symbols;
  node.unsupported("divides the dimension {} by {}, which is not a whole number for every size", a.text(symbols),
                   b.text(symbols));
}

void check_same_type(const OnnxNode &node, const Value &a, const Value &b) {
  if (a.type != b.type) {
    node.fail("combines {} and {}; both must have the same type", type_name(a.type), type_name(b.type));
  }
}

Value integer_arithmetic(const OnnxNode &node, const Value &a, const Value &b, const std::vector<int64_t> &shape) {
  const std::vector<Dim> x = *known_integers(a), y = *known_integers(b);
  std::vector<Dim> result;
  for (size_t i = 0; i < x.size(); ++i) {
    result.push_back(compute(node, x[i], y[i]));
    const auto literal = result.back().literal();
    if (a.type == DataType::Int32 && literal && *literal != static_cast<int32_t>(*literal)) {
      node.fail("its result {} does not fit int32", *literal);
    }
  }
  return node.importer().integers(a.type, shape, std::move(result));
}

Value real_arithmetic(const OnnxNode &node, const Value &a, const Value &b) {
  Constant result = make_constant(a.type, a.constant->dims);
  node.importer().charge(static_cast<int64_t>(result.bytes.size()));
  for (int64_t i = 0; i < result.elements(); ++i) {
    result.set(i, compute(node, a.constant->real(i), b.constant->real(i)));
  }
  return node.importer().constant(std::move(result));
}

// ---- Equal ----

std::optional<bool> known_equal(const Dim &a, const Dim &b) {
  if (a == b) return true;
  if (a.literal() && b.literal()) return false;
  // A dimension is never negative; exporters compare shapes with -1.
  const Dim &literal = a.literal() ? a : b, &other = a.literal() ? b : a;
  if (literal.literal() && *literal.literal() < 0 && other.symbol()) return false;
  return std::nullopt;
}

// ---- Cast ----

DataType cast_type(OnnxNode &node) {
  const auto to = node.integer("to");
  if (!to) node.fail("attribute 'to' is missing; Cast requires it");
  // Both are about 8-bit floats, which data_type() refuses.
  if (node.opset() >= 19) node.integer("saturate");
  if (node.opset() >= 24) node.string("round_mode");
  if (*to != static_cast<int32_t>(*to)) node.fail("attribute 'to' is {}, which is no type", *to);
  return data_type(static_cast<int32_t>(*to), node.where() + ": attribute 'to'");
}

}  // namespace

hrnn_activation read_activation(OnnxNode &node) {
  const hrnn_activation_kind kind = *find_activation(node.type());
  const ActivationRule &rule = activation_rule(kind);
  hrnn_activation activation{kind, 0, 0};
  if (rule.takes_alpha) activation.alpha = node.real("alpha", static_cast<float>(*rule.alpha));
  if (rule.takes_beta) activation.beta = node.real("beta", static_cast<float>(*rule.beta));
  for (double value : {activation.alpha, activation.beta}) {
    if (!std::isfinite(value)) node.fail("attribute 'alpha' or 'beta' is {}; it must be finite", value);
  }
  return activation;
}

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
  if (node.has_output(1)) node.unsupported("output 1 (mask) is used; only inference without it is supported");
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

void import_range(OnnxNode &node) {
  const Value &start = node.input(0, "start"), &limit = node.input(1, "limit"), &delta = node.input(2, "delta");
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

void import_cast(OnnxNode &node) {
  const Value &value = node.input(0, "input");
  Importer &importer = node.importer();
  const DataType type = cast_type(node);
  if (type == value.type) return node.set_output(0, value);
  if (value.kind == Value::Kind::Progression) {
    if (type != DataType::Int32 && type != DataType::Int64) {
      node.unsupported("converts integers that depend on dynamic dimensions to {}", type_name(type));
    }
    const std::vector<Dim> &terms = *value.elements;
    return node.set_output(0, importer.progression(type, terms[0], terms[1], value.dims[0]));
  }
  if (value.is_runtime()) {
    node.unsupported("converts {} to {} when the model runs; only constants can be converted", type_name(value.type),
                     type_name(type));
  }
  if (value.kind == Value::Kind::Symbolic) {
    if (type != DataType::Int32 && type != DataType::Int64) {
      node.unsupported("converts a shape that depends on dynamic dimensions to {}", type_name(type));
    }
    return node.set_output(0, importer.integers(type, shape_of(value), *value.elements));
  }
  importer.charge(value.constant->elements() * type_bytes(type));
  Constant converted = cast(*value.constant, type);
  if (value.kind == Value::Kind::Fill) return node.set_output(0, importer.fill(converted, value.dims));
  node.set_output(0, importer.constant(std::move(converted)));
}

// A progression plus or minus a single integer, or the other way round.
bool progression_arithmetic(OnnxNode &node, const Value &a, const Value &b) {
  const bool left = a.kind == Value::Kind::Progression, right = b.kind == Value::Kind::Progression;
  if (!left && !right) return false;
  const auto single = known_integers(left ? b : a);
  const bool sum = node.type() == "Add" || node.type() == "Sub";
  if (!sum || left == right || !single || single->size() != 1) {
    node.unsupported("computes with integers that depend on dynamic dimensions");
  }
  const Value &many = left ? a : b;
  const Dim &first = (*many.elements)[0], &step = (*many.elements)[1], &other = (*single)[0];
  const bool minus = node.type() == "Sub";
  const Dim moved = !minus ? first + other : left ? first - other : other - first;
  const Dim stride = minus && right ? Dim(0) - step : step;
  node.set_output(0, node.importer().progression(a.type, moved, stride, many.dims[0]));
  return true;
}

void import_arithmetic(OnnxNode &node) {
  const Value &a = node.input(0, "A"), &b = node.input(1, "B");
  check_same_type(node, a, b);
  if (progression_arithmetic(node, a, b)) return;
  if (a.is_runtime() || b.is_runtime()) {
    if (node.type() == "Add" && fuse_bias(node)) return;
    node.unsupported(
        "computes with tensors when the model runs; only constants, shapes and the bias after a MatMul are supported");
  }
  const bool lists = is_list(a) && is_list(b);
  if (!lists && !(a.is_constant() && b.is_constant() && is_float(a.type))) {
    node.unsupported("computes with constants of shapes {} and {}, type {}; this combination is not folded",
                     node.importer().dims_text(a.dims), node.importer().dims_text(b.dims), type_name(a.type));
  }
  const std::vector<int64_t> shape = broadcast_shape(node, shape_of(a), shape_of(b));
  if (shape.size() > kMaxRank) node.unsupported("its result has {} dimensions", shape.size());
  const Value x = broadcast_to(node, a, shape), y = broadcast_to(node, b, shape);
  if (lists && !(is_list(x) && is_list(y))) node.unsupported("its result has too many elements for a shape");
  node.set_output(0, lists ? integer_arithmetic(node, x, y, shape) : real_arithmetic(node, x, y));
}

void import_equal(OnnxNode &node) {
  const Value &a = node.input(0, "A"), &b = node.input(1, "B");
  check_same_type(node, a, b);
  if (!is_list(a) || !is_list(b)) node.unsupported("compares tensors; only shapes can be compared");
  const std::vector<int64_t> shape = broadcast_shape(node, shape_of(a), shape_of(b));
  const auto x = known_integers(broadcast_to(node, a, shape)), y = known_integers(broadcast_to(node, b, shape));
  if (!x || !y) node.unsupported("its result has too many elements for a shape");
  Constant result = make_constant(DataType::Bool, shape);
  for (size_t i = 0; i < x->size(); ++i) {
    const auto equal = known_equal((*x)[i], (*y)[i]);
    if (!equal) node.unsupported("whether dynamic dimensions are equal is not known when the model is compiled");
    result.bytes[i] = *equal;
  }
  node.set_output(0, node.importer().constant(std::move(result)));
}

void import_where(OnnxNode &node) {
  const Value &condition = node.input(0, "condition"), &a = node.input(1, "X"), &b = node.input(2, "Y");
  check_same_type(node, a, b);
  if (condition.type != DataType::Bool) node.fail("input condition is {}; it must be bool", type_name(condition.type));
  if (!condition.is_constant() || !is_list(a) || !is_list(b)) {
    node.unsupported("chooses between tensors; only shapes can be chosen from");
  }
  const std::vector<int64_t> shape =
      broadcast_shape(node, broadcast_shape(node, shape_of(a), shape_of(b)), shape_of(condition));
  const auto choose = known_integers(broadcast_to(node, condition, shape));
  const auto x = known_integers(broadcast_to(node, a, shape)), y = known_integers(broadcast_to(node, b, shape));
  if (!choose || !x || !y) node.unsupported("its result has too many elements for a shape");
  std::vector<Dim> result;
  for (size_t i = 0; i < x->size(); ++i) result.push_back((*choose)[i].is(0) ? (*y)[i] : (*x)[i]);
  node.set_output(0, node.importer().integers(a.type, shape, std::move(result)));
}

void import_activation(OnnxNode &node) {
  const Value &value = node.input(0, "X");
  if (!is_float(value.type)) {
    if (node.type() != "Relu") node.fail("input is {}; it must be float32 or float64", type_name(value.type));
    node.unsupported("its input is {}; only float32 and float64 are supported", type_name(value.type));
  }
  const TensorId input = node.importer().tensor(node, value);
  node.set_output(0,
                  node.importer().emit(node, op::Activation{read_activation(node)}, {input}, value.type, value.dims));
}

}  // namespace hrnn
