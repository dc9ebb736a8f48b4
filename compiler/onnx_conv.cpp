// SPDX-License-Identifier: Apache-2.0
//
// Convolutions and pooling. Both look at windows of their input, which are views of it (padded first): a convolution is
// a product of every window with the weights, pooling a reduction of it.
#include <algorithm>
#include <limits>
#include <numeric>

#include "onnx_importer.h"

namespace hrnn {
namespace {

// How windows lie along the spatial axes.
struct Windows {
  std::vector<int64_t> size, stride, dilation, before, after;
  std::vector<int64_t> beyond;  // of `after`, what only rounds the number of windows up (ceil_mode)

  size_t axes() const { return size.size(); }
};

std::vector<int64_t> list_attribute(OnnxNode &node, const char *name, size_t count, int64_t otherwise, int64_t least) {
  const std::vector<int64_t> values = node.integers(name).value_or(std::vector<int64_t>(count, otherwise));
  if (values.size() != count) node.fail("attribute '{}' has {} numbers; it must have {}", name, values.size(), count);
  for (int64_t value : values) {
    if (value < least) node.fail("attribute '{}' has {}; at least {} is allowed", name, value, least);
    if (value > (int64_t{1} << 31)) node.unsupported("attribute '{}' has {}; at most 2^31 is supported", name, value);
  }
  return values;
}

int64_t extent_of(const Windows &windows, size_t i) { return (windows.size[i] - 1) * windows.dilation[i] + 1; }

// auto_pad SAME_*: as many windows as strides fit, the padding shared by both ends.
void pad_same(OnnxNode &node, const Value &x, bool more_after, Windows *windows) {
  for (size_t i = 0; i < windows->axes(); ++i) {
    const int64_t stride = windows->stride[i], extent = extent_of(*windows, i);
    const auto dim = x.dims[i + 2].literal();
    if (!dim && stride != 1) {
      node.unsupported("attribute 'auto_pad' needs the size of the dynamic dimension '{}' where the stride is {}; "
                       "write pads instead",
                       x.dims[i + 2].text(node.importer().graph().symbols), stride);
    }
    const int64_t last = dim ? (*dim + stride - 1) / stride * stride - stride : 0;  // where the last window starts
    const int64_t total = std::max<int64_t>(dim ? last + extent - *dim : extent - 1, 0);
    windows->before[i] = more_after ? total / 2 : total - total / 2;
    windows->after[i] = total - windows->before[i];
  }
}

void read_pads(OnnxNode &node, const Value &x, Windows *windows) {
  const size_t axes = windows->axes();
  const std::string automatic = node.string("auto_pad").value_or("NOTSET");
  if (automatic != "NOTSET" && automatic != "VALID" && automatic != "SAME_UPPER" && automatic != "SAME_LOWER") {
    node.fail("attribute 'auto_pad' is '{}'; it must be NOTSET, VALID, SAME_UPPER or SAME_LOWER", automatic);
  }
  const std::vector<int64_t> pads = list_attribute(node, "pads", 2 * axes, 0, 0);
  const bool any = std::any_of(pads.begin(), pads.end(), [](int64_t pad) { return pad != 0; });
  if (automatic != "NOTSET" && any) node.fail("has both pads and auto_pad '{}'; one must be absent", automatic);
  windows->before.assign(pads.begin(), pads.begin() + static_cast<std::ptrdiff_t>(axes));
  windows->after.assign(pads.begin() + static_cast<std::ptrdiff_t>(axes), pads.end());
  windows->beyond.assign(axes, 0);
  if (automatic == "SAME_UPPER" || automatic == "SAME_LOWER") pad_same(node, x, automatic == "SAME_UPPER", windows);
}

// ceil_mode: one window more where the last stride leaves elements over, if it starts inside the input.
void round_up(OnnxNode &node, const Value &x, Windows *windows) {
  for (size_t i = 0; i < windows->axes(); ++i) {
    const auto dim = x.dims[i + 2].literal();
    const int64_t stride = windows->stride[i];
    if (stride == 1) continue;
    if (!dim) {
      node.unsupported("attribute 'ceil_mode' of the dynamic dimension '{}'; only 0 is supported for one",
                       x.dims[i + 2].text(node.importer().graph().symbols));
    }
    const int64_t padded = *dim + windows->before[i] + windows->after[i], left = padded - extent_of(*windows, i);
    if (left < 0 || left % stride == 0) continue;
    const int64_t start = (left / stride + 1) * stride;
    if (start >= *dim + windows->before[i]) continue;
    windows->beyond[i] = start + extent_of(*windows, i) - padded;
    windows->after[i] += windows->beyond[i];
  }
}

void check_image(const OnnxNode &node, const Value &x) {
  if (x.rank() < 3) {
    node.fail("its input has shape {}; it must have a batch, channels and at least one spatial dimension",
              node.importer().dims_text(x.dims));
  }
}

Windows read_windows(OnnxNode &node, const Value &x, std::vector<int64_t> size) {
  Windows windows;
  windows.size = std::move(size);
  windows.stride = list_attribute(node, "strides", windows.axes(), 1, 1);
  windows.dilation.assign(windows.axes(), 1);
  if (node.type() != "AveragePool" || node.opset() >= 19) {
    windows.dilation = list_attribute(node, "dilations", windows.axes(), 1, 1);
  }
  read_pads(node, x, &windows);
  return windows;
}

// [N, C, spatial...] as [N, C, positions..., window...]
Value windows_of(const OnnxNode &node, const Value &x, const Windows &windows, double padding) {
  Importer &importer = node.importer();
  std::vector<int64_t> before(2, 0), after(2, 0);
  before.insert(before.end(), windows.before.begin(), windows.before.end());
  after.insert(after.end(), windows.after.begin(), windows.after.end());
  Value value = padded(node, x, before, after, padding);
  for (size_t i = 0; i < windows.axes(); ++i) {
    const Dim &dim = value.dims[i + 2];
    const int64_t extent = extent_of(windows, i), stride = windows.stride[i];
    if (dim.literal() && *dim.literal() < extent) {
      node.fail("spatial dimension {} is {} with its padding; a window of {} does not fit", i, *dim.literal(), extent);
    }
    Dims dims = value.dims;
    if (dim.literal()) {
      dims[i + 2] = Dim((*dim.literal() - extent) / stride + 1);
    } else if (stride == 1) {
      dims[i + 2] = dim - Dim(extent - 1);
    } else {
      dims[i + 2] = importer.unknown_dim(
          fmt::format("({} - {})/{} + 1", dim.text(importer.graph().symbols), extent, stride));
    }
    dims.push_back(Dim(windows.size[i]));
    const op::Window op{static_cast<int64_t>(i) + 2, windows.size[i], stride, windows.dilation[i]};
    value = importer.emit(node, op, {importer.tensor(node, value)}, value.type, dims);
  }
  return value;
}

// ---- Convolution ----------------------------------------------------------------------------------------------------

// [N, C, positions..., window...] as [N, positions..., C window], times weights [M, C window].
Value whole_convolution(OnnxNode &node, const Value &windows, const Value &w, size_t axes, TensorId bias) {
  std::vector<int64_t> order = {0};
  for (size_t i = 0; i < axes; ++i) order.push_back(static_cast<int64_t>(i) + 2);
  order.push_back(1);
  for (size_t i = 0; i < axes; ++i) order.push_back(static_cast<int64_t>(axes + i) + 2);
  const Value apart = transposed(node, windows, order);
  Dims rows(apart.dims.begin(), apart.dims.begin() + static_cast<std::ptrdiff_t>(axes) + 1);
  const Dim inner = product({w.dims.begin() + 1, w.dims.end()});
  rows.push_back(inner);
  const Value y = product(node, reshaped(node, apart, rows), reshaped(node, w, {w.dims[0], inner}), false, bias);
  std::vector<int64_t> back = {0, static_cast<int64_t>(axes) + 1};
  for (size_t i = 0; i < axes; ++i) back.push_back(static_cast<int64_t>(i) + 1);
  return transposed(node, y, back);
}

// In groups: [N, G, positions..., (C / G) window] times [G, 1..., (C / G) window, M / G].
Value grouped_convolution(OnnxNode &node, const Value &windows, const Value &w, size_t axes, int64_t groups) {
  if (2 * axes + 3 > kMaxRank) {
    node.unsupported("attribute 'group' is {} with {} spatial dimensions; at most 2 are supported then", groups, axes);
  }
  const int64_t outputs = *w.dims[0].literal();
  Dims split = windows.dims;
  split[1] = Dim(groups);
  split.insert(split.begin() + 2, w.dims[1]);
  std::vector<int64_t> order = {0, 1};
  for (size_t i = 0; i < axes; ++i) order.push_back(static_cast<int64_t>(i) + 3);
  order.push_back(2);
  for (size_t i = 0; i < axes; ++i) order.push_back(static_cast<int64_t>(axes + i) + 3);
  const Value apart = transposed(node, reshaped(node, windows, split), order);
  Dims rows(apart.dims.begin(), apart.dims.begin() + static_cast<std::ptrdiff_t>(axes) + 2);
  const Dim inner = product({w.dims.begin() + 1, w.dims.end()});
  rows.push_back(inner);
  const Value matrices = transposed(node, reshaped(node, w, {Dim(groups), Dim(outputs / groups), inner}), {0, 2, 1});
  std::vector<int64_t> ones(axes - 1);
  std::iota(ones.begin(), ones.end(), 1);
  Value y = matrix_product(node, reshaped(node, apart, rows), unsqueezed(node, matrices, ones));
  // [N, G, positions..., M / G] as [N, M, positions...]
  std::vector<int64_t> back = {0, 1, static_cast<int64_t>(axes) + 2};
  for (size_t i = 0; i < axes; ++i) back.push_back(static_cast<int64_t>(i) + 2);
  y = transposed(node, y, back);
  Dims dims = y.dims;
  dims.erase(dims.begin() + 2);
  dims[1] = Dim(outputs);
  return reshaped(node, y, dims);
}

void check_convolution(const OnnxNode &node, const Value &x, const Value &w, int64_t groups) {
  const Importer &importer = node.importer();
  check_image(node, x);
  if (!is_float(x.type)) node.fail("its input is {}, which {} does not take", type_name(x.type), node.type());
  check_same_type(node, x, w);
  const auto sizes = literals(w.dims);
  if (w.rank() != x.rank() || !sizes) {
    node.fail("input W has shape {}; it must have {} fixed dimensions, as X has", importer.dims_text(w.dims), x.rank());
  }
  const auto channels = x.dims[1].literal();
  const int64_t outputs = (*sizes)[0];
  int64_t expected = 0;
  const bool sane = groups >= 1 && outputs >= 1 && outputs % groups == 0 && *literal_product(w.dims) > 0 &&
                    !__builtin_mul_overflow((*sizes)[1], groups, &expected);
  if (!sane || (channels && *channels != expected)) {
    node.fail("has {} channels, weights of shape {} and {} groups, which do not fit each other",
              x.dims[1].text(node.importer().graph().symbols), importer.dims_text(w.dims), groups);
  }
}

// ---- Pooling --------------------------------------------------------------------------------------------------------

std::vector<int64_t> window_axes(const Windows &windows) {
  std::vector<int64_t> axes(windows.axes());
  std::iota(axes.begin(), axes.end(), static_cast<int64_t>(windows.axes()) + 2);
  return axes;
}

// The elements each window averages over: those of the input, and of the padding where that counts.
Value counts(OnnxNode &node, const Value &x, Windows windows, bool count_padding) {
  Dims dims(x.dims.begin() + 2, x.dims.end());
  dims.insert(dims.begin(), 2, Dim(1));
  if (count_padding) {
    for (size_t i = 0; i < windows.axes(); ++i) {
      dims[i + 2] = dims[i + 2] + Dim(windows.before[i] + windows.after[i] - windows.beyond[i]);
      windows.before[i] = 0;
      windows.after[i] = windows.beyond[i];
    }
  }
  const Value ones = expanded(node, scalar(node, x.type, 1), dims);
  return reduced(node, Reduction::Sum, windows_of(node, ones, windows, 0), window_axes(windows), false);
}

Value average_pool(OnnxNode &node, const Value &x, const Windows &windows) {
  const bool count_padding = node.integer("count_include_pad", 0) != 0;
  const auto none = [](const std::vector<int64_t> &values) {
    return std::all_of(values.begin(), values.end(), [](int64_t value) { return value == 0; });
  };
  const Value seen = windows_of(node, x, windows, 0);
  const bool equal = count_padding ? none(windows.beyond) : none(windows.before) && none(windows.after);
  if (equal) return reduced(node, Reduction::Mean, seen, window_axes(windows), false);
  const Value sums = reduced(node, Reduction::Sum, seen, window_axes(windows), false);
  return apply(node, Function::Div, {sums, counts(node, x, windows, count_padding)});
}

Value max_pool(OnnxNode &node, const Value &x, const Windows &windows) {
  if (node.has_output(1)) node.unsupported("output 1 (Indices) is used; only the values are supported");
  const int64_t order = node.opset() >= 8 ? node.integer("storage_order", 0) : 0;
  if (order != 0) node.unsupported("attribute 'storage_order' is {}; only 0 is supported", order);
  const double least = -std::numeric_limits<double>::infinity();
  return reduced(node, Reduction::Max, windows_of(node, x, windows, least), window_axes(windows), false);
}

}  // namespace

void import_conv(OnnxNode &node) {
  const Value &x = node.input(0, "X"), &w = node.input(1, "W");
  const int64_t groups = node.integer("group", 1);
  check_convolution(node, x, w, groups);
  const size_t axes = x.rank() - 2;
  if (2 * axes + 2 > kMaxRank) node.unsupported("has {} spatial dimensions; at most 3 are supported", axes);
  const std::vector<int64_t> sizes = *literals({w.dims.begin() + 2, w.dims.end()});
  if (const auto kernel = node.integers("kernel_shape"); kernel && *kernel != sizes) {
    node.fail("attribute 'kernel_shape' is [{}], the weights are of [{}]", fmt::join(*kernel, ", "),
              fmt::join(sizes, ", "));
  }
  std::optional<Value> bias;
  if (node.has_input(2)) {
    bias = node.input(2, "B");
    check_same_type(node, x, *bias);
    if (bias->rank() != 1 || bias->dims[0].conflicts(w.dims[0])) {
      node.fail("input B has shape {}; it must have one number for each of {} outputs",
                node.importer().dims_text(bias->dims), *w.dims[0].literal());
    }
  }
  const Value windows = windows_of(node, x, read_windows(node, x, sizes), 0);
  if (groups == 1) {
    const TensorId bias_tensor = bias ? node.importer().tensor(node, *bias) : kNoTensor;
    return node.set_output(0, whole_convolution(node, windows, w, axes, bias_tensor));
  }
  Value y = grouped_convolution(node, windows, w, axes, groups);
  if (bias) {
    std::vector<int64_t> ones(axes);
    std::iota(ones.begin(), ones.end(), 1);
    y = apply(node, Function::Add, {y, unsqueezed(node, *bias, ones)});
  }
  node.set_output(0, y);
}

void import_pool(OnnxNode &node) {
  const Value &x = node.input(0, "X");
  check_image(node, x);
  if (!is_float(x.type)) node.unsupported("its input is {}; only floating-point types are supported", type_name(x.type));
  const size_t axes = x.rank() - 2;
  if (2 * axes + 2 > kMaxRank) node.unsupported("has {} spatial dimensions; at most 3 are supported", axes);
  if (!node.has_attribute("kernel_shape")) node.fail("attribute 'kernel_shape' is missing; {} requires it", node.type());
  Windows windows = read_windows(node, x, list_attribute(node, "kernel_shape", axes, 1, 1));
  if (node.opset() >= 10 && node.integer("ceil_mode", 0) != 0) round_up(node, x, &windows);
  node.set_output(0, node.type() == "MaxPool" ? max_pool(node, x, windows) : average_pool(node, x, windows));
}

void import_global_pool(OnnxNode &node) {
  const Value &x = node.input(0, "X");
  check_image(node, x);
  std::vector<int64_t> axes(x.rank() - 2);
  std::iota(axes.begin(), axes.end(), 2);
  const Reduction reduction = node.type() == "GlobalMaxPool" ? Reduction::Max : Reduction::Mean;
  node.set_output(0, reduced(node, reduction, x, axes));
}

}  // namespace hrnn
