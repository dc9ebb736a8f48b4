// SPDX-License-Identifier: Apache-2.0
//
// Products with a matrix: Gemm, MatMul, and the Add of a bias exporters write after MatMul.
#include <algorithm>

#include "onnx_importer.h"

namespace hrnn {
namespace {

struct Product {
  Value x, w;
  bool transposed;  // w is [in, out]
};

void check_product(const OnnxNode &node, const Product &product) {
  const auto &[x, w, transposed] = product;
  if (!is_float(x.type) || x.type != w.type) {
    node.fail("multiplies {} by {}; both must be float32, or both float64", type_name(x.type), type_name(w.type));
  }
  const Dim &inner = w.dims[transposed ? 0 : 1];
  if (x.dims.back().conflicts(inner)) {
    node.fail("multiplies shape {} by {}; the inner sizes {} and {} must be equal", node.importer().dims_text(x.dims),
              node.importer().dims_text(w.dims), *x.dims.back().literal(), *inner.literal());
  }
  const auto sizes = literals(w.dims);
  if (!sizes) {
    node.unsupported("its matrix has shape {}; both dimensions must be fixed numbers",
                     node.importer().dims_text(w.dims));
  }
  for (int64_t size : *sizes) {
    if (size >= 1 && size <= kMaxLayerSize) continue;
    node.unsupported("its matrix has shape {}; both dimensions must be 1 to {}", node.importer().dims_text(w.dims),
                     kMaxLayerSize);
  }
}

Value emit_product(const OnnxNode &node, const Product &product, TensorId bias) {
  check_product(node, product);
  Importer &importer = node.importer();
  op::Dense dense;
  dense.transposed = product.transposed;
  dense.in_features = *product.w.dims[product.transposed ? 0 : 1].literal();
  dense.out_features = *product.w.dims[product.transposed ? 1 : 0].literal();
  Dims dims = product.x.dims;
  dims.back() = Dim(dense.out_features);
  const TensorId x = importer.tensor(node, product.x), w = importer.tensor(node, product.w);
  return importer.emit(node, dense, {x, w, bias}, product.x.type, dims);
}

// A Dense layer needs the sizes of its weights; kernels are made for them.
bool has_layer_sizes(const Value &w) {
  const auto sizes = literals(w.dims);
  return w.rank() == 2 && sizes && (*sizes)[0] >= 1 && (*sizes)[1] >= 1;
}

// factor * value, computed once here where the value is known.
Value scaled(const OnnxNode &node, const Value &value, float factor) {
  if (factor == 1) return value;
  return apply(node, Function::Mul, {value, scalar(node, value.type, static_cast<double>(factor))});
}

// A known bias as `count` values: what numpy's broadcasting makes of [], [1], [count], [1, count], ...
// Nothing where it would not be the same for every row.
std::optional<Value> row_vector(Importer &importer, const Value &bias, int64_t count) {
  if (!bias.is_constant() || bias.rank() > kMaxRank) return std::nullopt;
  const std::vector<int64_t> &dims = bias.constant->dims;
  const int64_t elements = bias.constant->elements();
  if (elements != 1 && (elements != count || dims.empty() || dims.back() != count)) return std::nullopt;
  importer.charge(count * type_bytes(bias.type));
  return importer.constant(copy_view(*bias.constant, {{count}, {elements == 1 ? 0 : 1}, 0}));
}

// A bias a Dense layer can add: one for every output feature. Nothing where C is something else.
std::optional<TensorId> layer_bias(const OnnxNode &node, const Value &c, int64_t count) {
  Importer &importer = node.importer();
  if (const auto row = row_vector(importer, c, count)) return importer.tensor(node, *row);
  if (c.is_runtime() && c.rank() == 1 && c.dims[0].is(count)) return c.tensor;
  return std::nullopt;
}

// [1, ..., 1, in, out] as [in, out].
Value as_matrix(OnnxNode &node, const Value &w) {
  const Dims leading(w.dims.begin(), w.dims.end() - 2), matrix(w.dims.end() - 2, w.dims.end());
  const bool ones = std::all_of(leading.begin(), leading.end(), [](const Dim &dim) { return dim.is(1); });
  return w.rank() > 2 && w.is_constant() && ones ? reshaped(node, w, matrix) : w;
}

}  // namespace

Value product(const OnnxNode &node, const Value &x, const Value &w, bool transposed, TensorId bias) {
  return emit_product(node, {x, w, transposed}, bias);
}

Value matrix_product(OnnxNode &node, const Value &a, const Value &given) {
  Importer &importer = node.importer();
  const Value b = a.rank() >= given.rank() ? as_matrix(node, given) : given;
  if (!is_float(a.type) || a.type != b.type) {
    node.fail("multiplies {} by {}; both must be float32, or both float64", type_name(a.type), type_name(b.type));
  }
  const Dim &inner = a.dims.back(), &other = b.dims[b.rank() - 2];
  if (inner.conflicts(other)) {
    node.fail("multiplies shape {} by {}; the inner sizes {} and {} must be equal", importer.dims_text(a.dims),
              importer.dims_text(b.dims), *inner.literal(), *other.literal());
  }
  if (has_layer_sizes(b) && !a.is_constant()) return emit_product(node, {a, b, true}, kNoTensor);
  Dims dims = broadcast_dims(node, {a.dims.begin(), a.dims.end() - 2}, {b.dims.begin(), b.dims.end() - 2});
  dims.push_back(a.dims[a.rank() - 2]);
  dims.push_back(b.dims.back());
  return importer.emit(node, op::MatMul{}, {importer.tensor(node, a), importer.tensor(node, b)}, a.type, dims);
}

void import_gemm(OnnxNode &node) {
  const Value &a = node.input(0, "A"), &b = node.input(1, "B");
  if (a.rank() != 2 || b.rank() != 2) {
    node.fail("inputs A and B have shapes {} and {}; both must have 2 dimensions", node.importer().dims_text(a.dims),
              node.importer().dims_text(b.dims));
  }
  const int64_t trans_a = node.integer("transA", 0), trans_b = node.integer("transB", 0);
  const float alpha = node.real("alpha", 1), beta = node.real("beta", 1);
  if (node.opset() < 11 && !node.has_input(2)) node.fail("input 2 (C) is missing; Gemm requires it before opset 11");
  const Value x = trans_a != 0 ? transposed(node, a, {1, 0}) : a;
  const Value w = scaled(node, b, alpha);
  std::optional<Value> c;
  if (node.has_input(2)) {
    check_same_type(node, a, node.input(2, "C"));
    c = scaled(node, node.input(2, "C"), beta);
  }
  const bool layer = has_layer_sizes(w) && !x.is_constant();
  if (layer && (!c || layer_bias(node, *c, *w.dims[trans_b != 0 ? 0 : 1].literal()))) {
    const Dim &outputs = w.dims[trans_b != 0 ? 0 : 1];
    return node.set_output(0, product(node, x, w, trans_b == 0, c ? *layer_bias(node, *c, *outputs.literal()) : kNoTensor));
  }
  const Value y = matrix_product(node, x, trans_b != 0 ? transposed(node, w, {1, 0}) : w);
  if (c && broadcast_dims(node, y.dims, c->dims) != y.dims) {
    node.fail("input C ('{}') of shape {} cannot be broadcast to {}", node.input_name(2),
              node.importer().dims_text(c->dims), node.importer().dims_text(y.dims));
  }
  node.set_output(0, c ? apply(node, Function::Add, {y, *c}) : y);
}

// A vector on the left is a row, on the right a column, and leaves no dimension.
void import_matmul(OnnxNode &node) {
  Value a = node.input(0, "A"), b = node.input(1, "B");
  Importer &importer = node.importer();
  if (a.rank() == 0 || b.rank() == 0) {
    node.fail("multiplies shapes {} and {}; both must have at least one dimension", importer.dims_text(a.dims),
              importer.dims_text(b.dims));
  }
  const bool row = a.rank() == 1, column = b.rank() == 1;
  if (row) a = unsqueezed(node, a, {0});
  if (column) b = unsqueezed(node, b, {1});
  Value y = matrix_product(node, a, b);
  if (row) y = squeezed(node, y, {static_cast<int64_t>(y.rank()) - 2});
  if (column) y = squeezed(node, y, {static_cast<int64_t>(y.rank()) - 1});
  node.set_output(0, y);
}

bool fuse_bias(OnnxNode &node) {
  Importer &importer = node.importer();
  for (size_t side : {0, 1}) {
    const Value &y = node.input(side, "A"), &bias = node.input(1 - side, "B");
    if (!y.is_runtime() || y.type != bias.type || bias.rank() > y.rank()) continue;
    const Node *product = importer.producer(y.tensor);
    if (!product || !std::holds_alternative<op::Dense>(product->op) || product->inputs[2] != kNoTensor) continue;
    if (importer.uses[node.input_name(side)] != 1) continue;  // somebody wants the product without the bias
    const auto row = row_vector(importer, bias, std::get<op::Dense>(product->op).out_features);
    if (!row) continue;
    Node fused = *product;
    importer.remove_producer(y.tensor);
    fused.inputs[2] = importer.tensor(node, *row);
    importer.graph().nodes.push_back(fused);
    node.set_output(0, y);
    return true;
  }
  return false;
}

namespace {

// Whether nothing but one node reads a tensor, neither now nor, by one of its names, later.
bool read_once(Importer &importer, TensorId tensor) {
  int64_t readers = 0;
  for (const Node &node : importer.graph().nodes) readers += std::count(node.inputs.begin(), node.inputs.end(), tensor);
  for (const auto &[name, value] : importer.values) {
    if (value.is_runtime() && value.tensor == tensor && importer.uses[name] > 1) return false;
  }
  return readers <= 1;
}

// The axis of a view's input that `axis` of its output is; nothing where it is none.
std::optional<int64_t> axis_before(const Op &op, int64_t axis) {
  if (const auto *transpose = std::get_if<op::Transpose>(&op)) return transpose->permutation[axis];
  if (const auto *squeeze = std::get_if<op::Squeeze>(&op)) return axis < squeeze->axis ? axis : axis + 1;
  if (const auto *unsqueeze = std::get_if<op::Unsqueeze>(&op)) {
    if (axis == unsqueeze->axis) return std::nullopt;
    return axis < unsqueeze->axis ? axis : axis - 1;
  }
  return std::nullopt;
}

// The product that `tensor` is a view of, its outputs along `axis`; null where it is none that only this view reads.
Node *scalable_product(Importer &importer, TensorId tensor, int64_t axis) {
  while (read_once(importer, tensor)) {
    const Node *maker = importer.producer(tensor);
    if (!maker) return nullptr;
    Graph &graph = importer.graph();
    if (std::holds_alternative<op::Dense>(maker->op)) {
      const bool known = graph.is_constant(maker->inputs[1]) && (maker->inputs[2] == kNoTensor || graph.is_constant(maker->inputs[2]));
      const bool outputs = axis + 1 == static_cast<int64_t>(graph.tensor(tensor).dims.size());
      return known && outputs ? &graph.nodes[static_cast<size_t>(maker - graph.nodes.data())] : nullptr;
    }
    const auto before = axis_before(maker->op, axis);
    if (!before) return nullptr;
    axis = *before;
    tensor = maker->inputs[0];
  }
  return nullptr;
}

}  // namespace

bool fuse_scaling(OnnxNode &node, size_t y, const Value &factor, const Value &shift) {
  Importer &importer = node.importer();
  const Value &value = node.input(y, "X");
  if (!value.is_runtime() || !factor.is_constant() || !shift.is_constant()) return false;
  Node *product = scalable_product(importer, value.tensor, 1);
  if (!product) return false;
  const auto &dense = std::get<op::Dense>(product->op);
  const Constant &scale = *factor.constant, &offset = *shift.constant;
  Constant w = *importer.graph().tensor(product->inputs[1]).constant;
  Constant b = make_constant(w.type, {dense.out_features});
  if (product->inputs[2] != kNoTensor) b = *importer.graph().tensor(product->inputs[2]).constant;
  importer.charge(static_cast<int64_t>(w.bytes.size() + b.bytes.size()));
  for (int64_t i = 0; i < w.elements(); ++i) {
    w.set(i, w.real(i) * scale.real(dense.transposed ? i % dense.out_features : i / dense.in_features));
  }
  for (int64_t i = 0; i < dense.out_features; ++i) b.set(i, b.real(i) * scale.real(i) + offset.real(i));
  product->inputs[1] = importer.tensor(node, importer.constant(std::move(w)));
  product->inputs[2] = importer.tensor(node, importer.constant(std::move(b)));
  node.set_output(0, value);
  return true;
}

}  // namespace hrnn
