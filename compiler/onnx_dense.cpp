// SPDX-License-Identifier: Apache-2.0
//
// Products with a matrix: Gemm, MatMul, and the Add of a bias exporters write after MatMul.
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

// factor * constant, computed once here instead of at every run.
Value scaled(const OnnxNode &node, const Value &value, float factor, const char *attribute) {
  if (factor == 1) return value;
  if (!value.is_constant()) {
    node.unsupported("attribute '{}' is {}; other than 1 is only supported where the scaled input is a constant",
                     attribute, factor);
  }
  node.importer().charge(static_cast<int64_t>(value.constant->bytes.size()));
  Constant result = *value.constant;
  for (int64_t i = 0; i < result.elements(); ++i) result.set(i, result.real(i) * static_cast<double>(factor));
  return node.importer().constant(std::move(result));
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

TensorId gemm_bias(const OnnxNode &node, const Value &c, float beta, int64_t count) {
  Importer &importer = node.importer();
  const Value scaled_c = scaled(node, c, beta, "beta");
  if (const auto row = row_vector(importer, scaled_c, count)) return importer.tensor(node, *row);
  if (scaled_c.is_runtime() && scaled_c.rank() == 1 && scaled_c.dims[0].is(count)) return scaled_c.tensor;
  node.unsupported("input C ('{}') has shape {}; only a bias that is the same for every row is supported: [{}]",
                   node.input_name(2), importer.dims_text(c.dims), count);
}

// [1, ..., 1, in, out] as [in, out].
Value as_matrix(const OnnxNode &node, const Value &w) {
  if (w.rank() == 2) return w;
  const Dims matrix(w.dims.end() - 2, w.dims.end());
  const bool leading_ones = literal_product({w.dims.begin(), w.dims.end() - 2}) == 1;
  if (!w.is_constant() || !leading_ones) {
    node.unsupported("multiplies by a tensor of shape {}; only a matrix is supported",
                     node.importer().dims_text(w.dims));
  }
  return node.importer().with_dims(w, matrix);
}

}  // namespace

void import_gemm(OnnxNode &node) {
  const Value &a = node.input(0, "A"), &b = node.input(1, "B");
  if (a.rank() != 2 || b.rank() != 2) {
    node.fail("inputs A and B have shapes {} and {}; both must have 2 dimensions", node.importer().dims_text(a.dims),
              node.importer().dims_text(b.dims));
  }
  const int64_t trans_a = node.integer("transA", 0), trans_b = node.integer("transB", 0);
  const float alpha = node.real("alpha", 1), beta = node.real("beta", 1);
  if (trans_a != 0) node.unsupported("attribute 'transA' is {}; only 0 is supported", trans_a);
  if (node.opset() < 11 && !node.has_input(2)) node.fail("input 2 (C) is missing; Gemm requires it before opset 11");
  const Product product{a, scaled(node, b, alpha, "alpha"), trans_b == 0};
  check_product(node, product);
  TensorId bias = kNoTensor;
  if (node.has_input(2)) {
    const Value &c = node.input(2, "C");
    if (c.type != a.type)
      node.fail("input C is {}, input A is {}; they must be the same", type_name(c.type), type_name(a.type));
    bias = gemm_bias(node, c, beta, *product.w.dims[product.transposed ? 1 : 0].literal());
  }
  node.set_output(0, emit_product(node, product, bias));
}

void import_matmul(OnnxNode &node) {
  const Value &x = node.input(0, "A"), &w = node.input(1, "B");
  Importer &importer = node.importer();
  if (x.rank() == 0 || w.rank() == 0) {
    node.fail("multiplies shapes {} and {}; both must have at least one dimension", importer.dims_text(x.dims),
              importer.dims_text(w.dims));
  }
  if (w.rank() > 2 && x.rank() < w.rank()) {
    node.unsupported("multiplies shape {} by {}; only a matrix is supported on the right", importer.dims_text(x.dims),
                     importer.dims_text(w.dims));
  }
  if (w.rank() == 1) {
    if (!w.is_constant()) node.unsupported("multiplies by a vector that is not a constant");
    const Value column = importer.with_dims(w, {w.dims[0], Dim(1)});
    const Value y = emit_product(node, {x, column, true}, kNoTensor);
    const Dims dims(y.dims.begin(), y.dims.end() - 1);
    const int64_t last = static_cast<int64_t>(dims.size());
    return node.set_output(0, importer.emit(node, op::Squeeze{last}, {y.tensor}, y.type, dims));
  }
  node.set_output(0, emit_product(node, {x, as_matrix(node, w), true}, kNoTensor));
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

}  // namespace hrnn
