// SPDX-License-Identifier: Apache-2.0
//
// Normalisations, made of reductions and elementwise operations.
#include <cmath>
#include <numeric>

#include "onnx_importer.h"

namespace hrnn {
namespace {

double epsilon(OnnxNode &node, double otherwise) {
  const double value = static_cast<double>(node.real("epsilon", static_cast<float>(otherwise)));
  if (!std::isfinite(value)) node.fail("attribute 'epsilon' is {}; it must be finite", value);
  return value;
}

std::vector<int64_t> axes_from(int64_t first, size_t rank) {
  std::vector<int64_t> axes(rank - static_cast<size_t>(first));
  std::iota(axes.begin(), axes.end(), first);
  return axes;
}

// 1 / sqrt(variance + epsilon)
Value inverse_deviation(const OnnxNode &node, const Value &variance, double epsilon) {
  const Value above = apply(node, Function::Add, {variance, scalar(node, variance.type, epsilon)});
  return apply(node, Function::Reciprocal, {apply(node, Function::Sqrt, {above})});
}

struct Normalized {
  Value values, mean, inverse;
};

Normalized normalized(const OnnxNode &node, const Value &x, const std::vector<int64_t> &axes, double epsilon) {
  const Value mean = reduced(node, Reduction::Mean, x, axes);
  const Value centred = apply(node, Function::Sub, {x, mean});
  const Value squares = apply(node, Function::Mul, {centred, centred});
  const Value inverse = inverse_deviation(node, reduced(node, Reduction::Mean, squares, axes), epsilon);
  return {apply(node, Function::Mul, {centred, inverse}), mean, inverse};
}

// One number a channel, next to a tensor of channels along axis 1.
Value per_channel(OnnxNode &node, const Value &value, size_t rank) {
  std::vector<int64_t> axes;
  for (size_t i = 2; i < rank; ++i) axes.push_back(static_cast<int64_t>(i) - 1);
  return unsqueezed(node, value, axes);
}

void check_float(const OnnxNode &node, const Value &x) {
  if (!is_float(x.type)) node.fail("its input is {}, which {} does not take", type_name(x.type), node.type());
}

void check_stash(OnnxNode &node) {
  const int64_t stash = node.integer("stash_type", 1);
  if (stash != 1) node.unsupported("attribute 'stash_type' is {}; only 1 (float32) is supported", stash);
}

void check_channels(OnnxNode &node, const Value &x, size_t input, const char *name) {
  const Value &value = node.input(input, name);
  if (x.rank() < 2) node.fail("input X has {} dimensions; it must have at least 2", x.rank());
  if (value.rank() != 1 || value.dims[0].conflicts(x.dims[1])) {
    node.fail("input {} has shape {}; it must have one number for each of {} channels", name,
              node.importer().dims_text(value.dims), x.dims[1].text(node.importer().graph().symbols));
  }
  check_same_type(node, x, value);
}

}  // namespace

void import_layer_normalization(OnnxNode &node) {
  const Value &x = node.input(0, "X"), &scale = node.input(1, "Scale");
  check_float(node, x);
  check_same_type(node, x, scale);
  check_stash(node);
  const int64_t axis = node.axis(node.integer("axis", -1), x.rank());
  const Normalized result = normalized(node, x, axes_from(axis, x.rank()), epsilon(node, 1e-5));
  node.set_output(0, node.has_input(2) ? apply(node, Function::MulAdd, {result.values, scale, node.input(2, "B")})
                                       : apply(node, Function::Mul, {result.values, scale}));
  node.set_output(1, converted(node, result.mean, DataType::Float32));
  node.set_output(2, converted(node, result.inverse, DataType::Float32));
}

void import_rms_normalization(OnnxNode &node) {
  const Value &x = node.input(0, "X"), &scale = node.input(1, "scale");
  check_float(node, x);
  check_stash(node);
  const int64_t axis = node.axis(node.integer("axis", -1), x.rank());
  const Value squares = apply(node, Function::Mul, {x, x});
  const Value mean = reduced(node, Reduction::Mean, squares, axes_from(axis, x.rank()));
  const Value values = apply(node, Function::Mul, {x, inverse_deviation(node, mean, epsilon(node, 1e-5))});
  node.set_output(0, apply(node, Function::Mul, {values, scale}));
}

// At inference: x times a factor plus a shift a channel, which fold where the statistics are constants, and become part of
// the convolution or product before, or of what follows (fold_scalings).
void import_batch_normalization(OnnxNode &node) {
  const Value &x = node.input(0, "X");
  check_float(node, x);
  for (const auto &[input, name] : {std::pair<size_t, const char *>{1, "scale"}, {2, "B"}, {3, "mean"}, {4, "var"}}) {
    check_channels(node, x, input, name);
  }
  node.real("momentum");  // of training
  if (node.opset() < 9 && node.integer("spatial", 1) != 1) {
    node.unsupported("attribute 'spatial' is not 1; only statistics a channel are supported");
  }
  if (node.opset() >= 14 && node.integer("training_mode", 0) != 0) {
    node.unsupported("attribute 'training_mode' is not 0; only inference is supported");
  }
  for (size_t i = 1; i < node.output_count(); ++i) {
    if (node.has_output(i)) {
      node.unsupported("output {} ('{}') is a result of training; only inference is supported", i, node.output_name(i));
    }
  }
  const Value inverse = inverse_deviation(node, node.input(4, "var"), epsilon(node, 1e-5));
  const Value factor = apply(node, Function::Mul, {node.input(1, "scale"), inverse});
  const Value shift =
      apply(node, Function::Sub, {node.input(2, "B"), apply(node, Function::Mul, {node.input(3, "mean"), factor})});
  if (fuse_scaling(node, 0, factor, shift)) return;
  node.set_output(0, apply(node, Function::MulAdd, {x, per_channel(node, factor, x.rank()),
                                                    per_channel(node, shift, x.rank())}));
}

void import_instance_normalization(OnnxNode &node) {
  const Value &x = node.input(0, "input");
  check_float(node, x);
  check_channels(node, x, 1, "scale");
  check_channels(node, x, 2, "B");
  const Normalized result = normalized(node, x, axes_from(2, x.rank()), epsilon(node, 1e-5));
  node.set_output(0, apply(node, Function::MulAdd, {result.values, per_channel(node, node.input(1, "scale"), x.rank()),
                                                    per_channel(node, node.input(2, "B"), x.rank())}));
}

// Channels in groups: [N, C, ...] is normalised as [N, groups, C / groups, ...].
void import_group_normalization(OnnxNode &node) {
  const Value &x = node.input(0, "X");
  check_float(node, x);
  check_stash(node);
  const auto groups = node.integer("num_groups");
  if (!groups) node.fail("attribute 'num_groups' is missing; GroupNormalization requires it");
  if (node.opset() < 21) node.unsupported("before opset 21 it has another meaning; export the model in opset 21");
  check_channels(node, x, 1, "scale");
  check_channels(node, x, 2, "bias");
  const auto channels = x.dims[1].literal();
  if (!channels || *groups < 1 || *channels % *groups != 0) {
    node.fail("has {} channels in {} groups; they must be equally large", x.dims[1].text(node.importer().graph().symbols),
              *groups);
  }
  Dims dims = x.dims;
  dims[1] = Dim(*groups);
  dims.insert(dims.begin() + 2, Dim(*channels / *groups));
  const Value split = reshaped(node, x, dims);
  const Normalized result = normalized(node, split, axes_from(2, split.rank()), epsilon(node, 1e-5));
  const Value values = reshaped(node, result.values, x.dims);
  node.set_output(0, apply(node, Function::MulAdd, {values, per_channel(node, node.input(1, "scale"), x.rank()),
                                                    per_channel(node, node.input(2, "bias"), x.rank())}));
}

void import_lp_normalization(OnnxNode &node) {
  const Value &x = node.input(0, "input");
  check_float(node, x);
  const int64_t p = node.integer("p", 2), axis = node.axis(node.integer("axis", -1), x.rank());
  if (p != 1 && p != 2) node.fail("attribute 'p' is {}; it must be 1 or 2", p);
  const Value norm = reduced(node, p == 1 ? Reduction::L1 : Reduction::L2, x, {axis});
  const Value zero = scalar(node, x.type, 0), is_zero = apply(node, Function::Equal, {norm, zero});
  node.set_output(0, apply(node, Function::Where, {is_zero, zero, apply(node, Function::Div, {x, norm})}));
}

}  // namespace hrnn
