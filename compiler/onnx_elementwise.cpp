// SPDX-License-Identifier: Apache-2.0
//
// Operators that compute element by element. Most are a row of the table below; known values are computed here and now.
#include <algorithm>
#include <cmath>

#include "onnx_importer.h"
#include "onnx_tensor.h"

namespace hrnn {
namespace {

// ---- Operands -------------------------------------------------------------------------------------------------------

// A known value all of whose elements are the same one.
bool is_uniform(const Value &value) {
  return value.kind == Value::Kind::Fill || (value.is_constant() && value.constant->elements() == 1);
}

// That element, with as many dimensions as there are, of 1.
Value element_of(const OnnxNode &node, const Value &value) {
  Constant element = *value.constant;
  element.dims.assign(value.rank(), 1);
  return node.importer().constant(std::move(element));
}

// Repeating a Fill is left to broadcasting where the other operands have the result's shape.
std::vector<Value> without_fills(const OnnxNode &node, const std::vector<Value> &operands, const Dims &dims) {
  std::vector<Value> result = operands;
  for (size_t i = 0; i < operands.size(); ++i) {
    if (operands[i].kind != Value::Kind::Fill) continue;
    for (size_t k = 0; k < operands.size(); ++k) {
      if (k == i || operands[k].kind == Value::Kind::Fill || operands[k].dims != dims) continue;
      result[i] = element_of(node, operands[i]);
      break;
    }
  }
  return result;
}

void check_types(const OnnxNode &node, Function function, const FunctionInfo &info,
                 const std::vector<Value> &operands) {
  for (size_t i = 0; i < operands.size(); ++i) {
    if (function == Function::Where && i == 0) {
      if (operands[i].type == DataType::Bool) continue;
      node.fail("input condition is {}; it must be bool", type_name(operands[i].type));
    }
    if ((info.types >> runtime_type(computed_type(operands[i].type)) & 1u) == 0) {
      node.fail("its input is {}, which {} does not take", type_name(operands[i].type), node.type());
    }
    check_same_type(node, operands.back(), operands[i]);
  }
}

// ---- Shapes on their way to Reshape or Expand -----------------------------------------------------------------------

std::vector<int64_t> shape_of(const Value &value) { return *literals(value.dims); }

Value broadcast_list(const OnnxNode &node, const Value &value, const std::vector<int64_t> &shape) {
  StridedView view{shape, std::vector<int64_t>(shape.size(), 0), 0};
  const std::vector<int64_t> from = shape_of(value), strides = dense_strides(from);
  for (size_t i = 0; i < from.size(); ++i) {
    if (from[i] != 1) view.strides[i + shape.size() - from.size()] = strides[i];
  }
  return node.importer().view(value, Dims(shape.begin(), shape.end()), view);
}

Dim quotient(const OnnxNode &node, const Dim &a, const Dim &b) {
  if (b.is(0)) node.fail("divides by zero");
  if (a.literal() && b.literal()) {
    if (*b.literal() == -1) return Dim(0) - a;
    return *a.literal() / *b.literal();  // towards zero, as ONNX says
  }
  if (const auto whole = a.quotient(b)) return *whole;
  const auto &symbols = node.importer().graph().symbols;
  node.unsupported("divides the dimension {} by {}, which is not a whole number for every size", a.text(symbols),
                   b.text(symbols));
}

Dim known_equal(const OnnxNode &node, const Dim &a, const Dim &b) {
  if (a == b) return Dim(1);
  if (a.literal() && b.literal()) return Dim(0);
  // A dimension is never negative; exporters compare shapes with -1.
  const Dim &literal = a.literal() ? a : b, &other = a.literal() ? b : a;
  if (literal.literal() && *literal.literal() < 0 && other.symbol()) return Dim(0);
  node.unsupported("whether dynamic dimensions are equal is not known when the model is compiled");
}

Dim compute(const OnnxNode &node, Function function, const std::vector<Dim> &operands) {
  switch (function) {
    case Function::Add:
      return operands[0] + operands[1];
    case Function::Sub:
      return operands[0] - operands[1];
    case Function::Mul:
      return operands[0] * operands[1];
    case Function::Div:
      return quotient(node, operands[0], operands[1]);
    case Function::Equal:
      return known_equal(node, operands[0], operands[1]);
    case Function::Neg:
      return Dim(0) - operands[0];
    default:
      return operands[0].is(0) ? operands[2] : operands[1];  // Where
  }
}

bool takes_lists(Function function) {
  switch (function) {
    case Function::Add:
    case Function::Sub:
    case Function::Mul:
    case Function::Div:
    case Function::Equal:
    case Function::Neg:
    case Function::Where:
      return true;
    default:
      return false;
  }
}

// Integers that are known but for the values of symbols. Nothing where an operand is no such list.
std::optional<Value> list_result(const OnnxNode &node, Function function, const std::vector<Value> &operands) {
  std::vector<int64_t> shape;
  if (!takes_lists(function)) return std::nullopt;
  for (const Value &value : operands) {
    if (!known_integers(value)) return std::nullopt;
    shape = *literals(broadcast_dims(node, Dims(shape.begin(), shape.end()), value.dims));
  }
  if (shape.size() > kMaxRank) node.unsupported("its result has {} dimensions", shape.size());
  std::vector<std::vector<Dim>> lists;
  for (const Value &value : operands) {
    const auto list = known_integers(broadcast_list(node, value, shape));
    if (!list) return std::nullopt;  // too many elements for a shape
    lists.push_back(*list);
  }
  const DataType type = function == Function::Equal ? DataType::Bool : operands.back().type;
  std::vector<Dim> result;
  for (size_t i = 0; i < lists[0].size(); ++i) {
    std::vector<Dim> elements;
    for (const auto &list : lists) elements.push_back(list[i]);
    result.push_back(compute(node, function, elements));
    const auto literal = result.back().literal();
    if (type == DataType::Int32 && literal && *literal != static_cast<int32_t>(*literal)) {
      node.fail("its result {} does not fit int32", *literal);
    }
  }
  return node.importer().integers(type, shape, std::move(result));
}

// ---- The table ------------------------------------------------------------------------------------------------------

// Attributes, in the order of alpha and beta, with what ONNX says where they are not given.
struct Attribute {
  const char *name;
  double otherwise;
};

struct ElementwiseRow {
  const char *type;
  Function function;
  Attribute alpha = {nullptr, 0}, beta = {nullptr, 0};
};

const ElementwiseRow kElementwise[] = {
    {"Neg", Function::Neg},
    {"Abs", Function::Abs},
    {"Sqrt", Function::Sqrt},
    {"Reciprocal", Function::Reciprocal},
    {"Exp", Function::Exp},
    {"Log", Function::Log},
    {"Erf", Function::Erf},
    {"Floor", Function::Floor},
    {"Ceil", Function::Ceil},
    {"Round", Function::Round},
    {"Sign", Function::Sign},
    {"Sin", Function::Sin},
    {"Cos", Function::Cos},
    {"Tan", Function::Tan},
    {"Asin", Function::Asin},
    {"Acos", Function::Acos},
    {"Atan", Function::Atan},
    {"Sinh", Function::Sinh},
    {"Cosh", Function::Cosh},
    {"Asinh", Function::Asinh},
    {"Acosh", Function::Acosh},
    {"Atanh", Function::Atanh},
    {"Not", Function::Not},
    {"IsNaN", Function::IsNaN},
    {"Selu", Function::Selu, {"alpha", 1.67326319217681884765625}, {"gamma", 1.05070102214813232421875}},
    {"Celu", Function::Celu, {"alpha", 1}},
    {"HardSwish", Function::HardSwish},
    {"Mish", Function::Mish},
    {"Swish", Function::Swish, {"alpha", 1}},
    {"Shrink", Function::Shrink, {"lambd", 0.5}, {"bias", 0}},
    {"Add", Function::Add},
    {"Sub", Function::Sub},
    {"Mul", Function::Mul},
    {"Div", Function::Div},
    {"And", Function::And},
    {"Or", Function::Or},
    {"Xor", Function::Xor},
    {"Equal", Function::Equal},
    {"Less", Function::Less},
    {"LessOrEqual", Function::LessOrEqual},
    {"Greater", Function::Greater},
    {"GreaterOrEqual", Function::GreaterOrEqual},
};

double read(OnnxNode &node, const Attribute &attribute) {
  if (!attribute.name) return 0;
  const double value = static_cast<double>(node.real(attribute.name, static_cast<float>(attribute.otherwise)));
  if (!std::isfinite(value)) node.fail("attribute '{}' is {}; it must be finite", attribute.name, value);
  return value;
}

struct ReadFunction {
  Function function;
  double alpha = 0, beta = 0;
};

// The function a node computes, and its attributes.
ReadFunction read_function(OnnxNode &node) {
  for (const ElementwiseRow &row : kElementwise) {
    if (node.type() == row.type) return {row.function, read(node, row.alpha), read(node, row.beta)};
  }
  if (node.type() == "Gelu") {
    const std::string approximation = node.string("approximate").value_or("none");
    if (approximation == "none") return {Function::Gelu};
    if (approximation == "tanh") return {Function::GeluTanh};
    node.fail("attribute 'approximate' is '{}'; it must be none or tanh", approximation);
  }
  if (node.type() == "Mod") return {node.integer("fmod", 0) != 0 ? Function::Fmod : Function::Mod};
  if (node.type() == "IsInf") {
    const int64_t negative = node.integer("detect_negative", 1), positive = node.integer("detect_positive", 1);
    return {Function::IsInf, negative != 0 ? 1.0 : 0.0, positive != 0 ? 1.0 : 0.0};
  }
  const hrnn_activation activation = read_activation(node);
  return {static_cast<Function>(activation.kind), activation.alpha, activation.beta};
}

// A progression plus or minus a single known integer, or the other way round. Nothing where it is something else.
std::optional<Value> moved_progression(const OnnxNode &node, Function function, const Value &a, const Value &b) {
  const bool left = a.kind == Value::Kind::Progression, right = b.kind == Value::Kind::Progression;
  if (!left && !right) return std::nullopt;
  const auto single = known_integers(left ? b : a);
  if (left == right || !single || single->size() != 1) return std::nullopt;
  const Value &many = left ? a : b;
  const Dim &first = (*many.elements)[0], &step = (*many.elements)[1], &other = (*single)[0];
  const bool minus = function == Function::Sub;
  const Dim moved = !minus ? first + other : left ? first - other : other - first;
  return node.importer().progression(a.type, moved, minus && right ? Dim(0) - step : step, many.dims[0]);
}

std::vector<Value> all_inputs(const OnnxNode &node) {
  std::vector<Value> values;
  for (size_t i = 0; i < node.input_count(); ++i) values.push_back(node.input(i, "operands"));
  return values;
}

// ---- Cast -----------------------------------------------------------------------------------------------------------

Value rounded(const OnnxNode &node, const Value &value, DataType type) {
  const Function round = type == DataType::Float16 ? Function::RoundF16 : Function::RoundBF16;
  // By way of double where float32 would round a first time.
  const bool exact = computed_type(value.type) == DataType::Float32 || value.type == DataType::Bool;
  Value wide = converted(node, value, exact ? DataType::Float32 : DataType::Float64);
  Value result = converted(node, apply(node, round, {wide}), DataType::Float32);
  if (result.is_constant()) return node.importer().constant(cast(*result.constant, type));
  if (result.kind == Value::Kind::Fill) return node.importer().fill(cast(*result.constant, type), result.dims);
  result.type = type;
  return result;
}

void check_saturation(OnnxNode &node) {
  // Both are about 8-bit floats, which data_type() refuses.
  if (node.opset() >= 19) node.integer("saturate");
  if (node.opset() >= 24) node.string("round_mode");
}

}  // namespace

hrnn_activation read_activation(OnnxNode &node) {
  const hrnn_activation_kind kind = *find_activation(node.type());
  const ActivationRule &rule = activation_rule(kind);
  hrnn_activation activation{kind, 0, 0};
  if (rule.takes_alpha) activation.alpha = read(node, {"alpha", *rule.alpha});
  if (rule.takes_beta) activation.beta = read(node, {"beta", *rule.beta});
  return activation;
}

void check_same_type(const OnnxNode &node, const Value &a, const Value &b) {
  if (a.type != b.type) {
    node.fail("combines {} and {}; both must have the same type", type_name(a.type), type_name(b.type));
  }
}

Dims broadcast_dims(const OnnxNode &node, const Dims &a, const Dims &b) {
  Importer &importer = node.importer();
  const size_t rank = std::max(a.size(), b.size());
  Dims result;
  for (size_t i = 0; i < rank; ++i) {
    const Dim x = i + a.size() >= rank ? a[i + a.size() - rank] : Dim(1);
    const Dim y = i + b.size() >= rank ? b[i + b.size() - rank] : Dim(1);
    if (x.is(1) || x == y) {
      result.push_back(y);
    } else if (y.is(1)) {
      result.push_back(x);
    } else if (x.conflicts(y)) {
      node.fail("shapes {} and {} cannot be combined", importer.dims_text(a), importer.dims_text(b));
    } else if (x.literal() || y.literal()) {
      result.push_back(x.literal() ? x : y);  // the other is that or 1
    } else {
      const auto &symbols = importer.graph().symbols;
      result.push_back(importer.unknown_dim(fmt::format("broadcast({}, {})", x.text(symbols), y.text(symbols))));
    }
  }
  return result;
}

Value scalar(const OnnxNode &node, DataType type, double number) {
  Constant constant = make_constant(type, {});
  constant.set(0, number);
  return node.importer().constant(std::move(constant));
}

Value apply(const OnnxNode &node, Function function, const std::vector<Value> &operands, double alpha, double beta) {
  Importer &importer = node.importer();
  const FunctionInfo &info = *function_info(static_cast<int64_t>(function));
  check_types(node, function, info, operands);
  if (auto list = list_result(node, function, operands)) return *list;
  Dims dims;
  for (const Value &value : operands) dims = broadcast_dims(node, dims, value.dims);
  if (dims.size() > kMaxRank) node.unsupported("its result has {} dimensions", dims.size());
  const DataType type = info.result == ResultType::Bool ? DataType::Bool : operands.back().type;
  const op::Elementwise op{function, alpha, beta};
  const bool uniform = std::all_of(operands.begin(), operands.end(), is_uniform) &&
                       std::any_of(operands.begin(), operands.end(),
                                   [](const Value &value) { return value.kind == Value::Kind::Fill; });
  std::vector<TensorId> ids;
  if (uniform) {
    for (const Value &value : operands) ids.push_back(importer.tensor(node, element_of(node, value)));
    return importer.fill(*importer.emit(node, op, ids, type, Dims(dims.size(), Dim(1))).constant, dims);
  }
  for (const Value &value : without_fills(node, operands, dims)) ids.push_back(importer.tensor(node, value));
  return importer.emit(node, op, ids, type, dims);
}

Value converted(const OnnxNode &node, const Value &value, DataType type) {
  Importer &importer = node.importer();
  if (type == value.type) return value;
  if (value.kind == Value::Kind::Symbolic || value.kind == Value::Kind::Progression) {
    if (type != DataType::Int32 && type != DataType::Int64) return converted(node, importer.counted(node, value), type);
    const std::vector<Dim> &terms = *value.elements;
    if (value.kind == Value::Kind::Progression) return importer.progression(type, terms[0], terms[1], value.dims[0]);
    return importer.integers(type, shape_of(value), terms);
  }
  if (!value.is_runtime()) {
    importer.charge(value.constant->elements() * type_bytes(type));
    Constant result = cast(*value.constant, type);
    return value.kind == Value::Kind::Fill ? importer.fill(result, value.dims) : importer.constant(std::move(result));
  }
  if (computed_type(type) != type) return rounded(node, value, type);
  if (computed_type(value.type) == type) {  // float16 to float32: it is computed as one
    Value same = value;
    same.type = type;
    return same;
  }
  return importer.emit(node, op::Elementwise{Function::Cast}, {value.tensor}, type, value.dims);
}

void import_elementwise(OnnxNode &node) {
  const ReadFunction read = read_function(node);
  const std::vector<Value> operands = all_inputs(node);
  const size_t takes = static_cast<size_t>(function_info(static_cast<int64_t>(read.function))->operands);
  if (operands.size() != takes) node.fail("has {} inputs; {} takes {}", operands.size(), node.type(), takes);
  if (read.function == Function::Add || read.function == Function::Sub) {
    check_same_type(node, operands[0], operands[1]);
    if (const auto moved = moved_progression(node, read.function, operands[0], operands[1])) {
      return node.set_output(0, *moved);
    }
    if (read.function == Function::Add && fuse_bias(node)) return;
  }
  node.set_output(0, apply(node, read.function, operands, read.alpha, read.beta));
}

void import_where(OnnxNode &node) { node.set_output(0, apply(node, Function::Where, all_inputs(node))); }

// Sum, Mean, Min and Max of any number of operands.
void import_variadic(OnnxNode &node) {
  const std::vector<Value> operands = all_inputs(node);
  const Function function = node.type() == "Min" ? Function::Min : node.type() == "Max" ? Function::Max : Function::Add;
  Value result = operands[0];
  for (size_t i = 1; i < operands.size(); ++i) result = apply(node, function, {result, operands[i]});
  if (node.type() == "Mean") {
    const double count = static_cast<double>(operands.size());
    result = apply(node, Function::Div, {result, scalar(node, result.type, count)});
  }
  node.set_output(0, result);
}

void import_clip(OnnxNode &node) {
  Value result = node.input(0, "input");
  const struct {
    const char *name;
    Function function;
  } bounds[] = {{"min", Function::Max}, {"max", Function::Min}};
  for (size_t i = 0; i < 2; ++i) {
    if (node.opset() < 11) {
      if (node.input_count() > 1) node.fail("has {} inputs; Clip takes 1 before opset 11", node.input_count());
      if (const auto bound = node.real(bounds[i].name)) {
        if (std::isnan(*bound)) node.fail("attribute '{}' is not a number", bounds[i].name);
        result = apply(node, bounds[i].function, {result, scalar(node, result.type, static_cast<double>(*bound))});
      }
    } else if (node.has_input(i + 1)) {
      const Value &bound = node.input(i + 1, bounds[i].name);
      if (bound.rank() != 0 && literal_product(bound.dims) != 1) {
        node.fail("input {} has shape {}; it must be a scalar", bounds[i].name, node.importer().dims_text(bound.dims));
      }
      result = apply(node, bounds[i].function, {result, bound.rank() == 0 ? bound : reshaped(node, bound, {})});
    }
  }
  node.set_output(0, result);
}

// The result has the type of the base. An exponent of another type is converted to it, but for a fraction over an
// integer: then both are computed in double precision.
void import_pow(OnnxNode &node) {
  const Value &base = node.input(0, "X"), &exponent = node.input(1, "Y");
  if (node.opset() < 12) check_same_type(node, base, exponent);
  const bool fraction = !is_float(base.type) && is_float(exponent.type);
  const DataType type = fraction ? DataType::Float64 : base.type;
  const Value result = apply(node, Function::Pow, {converted(node, base, type), converted(node, exponent, type)});
  node.set_output(0, converted(node, result, base.type));
}

// The slope is broadcast to x, never x to it.
void import_prelu(OnnxNode &node) {
  const Value &x = node.input(0, "X"), &slope = node.input(1, "slope");
  const Dims dims = broadcast_dims(node, x.dims, slope.dims);
  if (dims != x.dims) {
    node.fail("its slope of shape {} cannot be broadcast to {}", node.importer().dims_text(slope.dims),
              node.importer().dims_text(x.dims));
  }
  node.set_output(0, apply(node, Function::PRelu, {x, slope}));
}

void import_cast(OnnxNode &node) {
  const auto to = node.integer("to");
  if (!to) node.fail("attribute 'to' is missing; Cast requires it");
  check_saturation(node);
  if (*to != static_cast<int32_t>(*to)) node.fail("attribute 'to' is {}, which is no type", *to);
  const DataType type = data_type(static_cast<int32_t>(*to), node.where() + ": attribute 'to'");
  node.set_output(0, converted(node, node.input(0, "input"), type));
}

void import_cast_like(OnnxNode &node) {
  check_saturation(node);
  node.set_output(0, converted(node, node.input(0, "input"), node.input(1, "target_type").type));
}

}  // namespace hrnn
