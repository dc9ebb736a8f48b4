// SPDX-License-Identifier: Apache-2.0
//
// Reductions along axes, and Softmax, which is made of them.
#include <algorithm>
#include <numeric>

#include "onnx_importer.h"

namespace hrnn {
namespace {

struct ReductionRow {
  const char *type;
  Reduction reduction;
  int axes_input_since;  // the first opset that takes axes as an input
};

constexpr ReductionRow kReductionRows[] = {
    {"ReduceSum", Reduction::Sum, 13},       {"ReduceMean", Reduction::Mean, 18},
    {"ReduceMax", Reduction::Max, 18},       {"ReduceMin", Reduction::Min, 18},
    {"ReduceProd", Reduction::Prod, 18},     {"ReduceSumSquare", Reduction::SumSquare, 18},
    {"ReduceL1", Reduction::L1, 18},         {"ReduceL2", Reduction::L2, 18},
    {"ReduceLogSum", Reduction::LogSum, 18}, {"ReduceLogSumExp", Reduction::LogSumExp, 18},
};

std::vector<int64_t> all_axes(size_t rank) {
  std::vector<int64_t> axes(rank);
  std::iota(axes.begin(), axes.end(), 0);
  return axes;
}

// The axes of a reduction; all where none are named, unless the node says that those are none.
std::vector<int64_t> reduced_axes(OnnxNode &node, int axes_input_since, size_t rank) {
  std::optional<std::vector<int64_t>> axes;
  bool none_is_none = false;
  if (node.opset() >= axes_input_since) {
    none_is_none = node.integer("noop_with_empty_axes", 0) != 0;
    if (node.has_input(1)) axes = node.ints_input(1, "axes");
  } else {
    if (node.input_count() > 1) {
      node.fail("has {} inputs; {} takes 1 before opset {}", node.input_count(), node.type(), axes_input_since);
    }
    axes = node.integers("axes");
  }
  if (axes && !axes->empty()) return node.axes(*axes, rank);
  return none_is_none ? std::vector<int64_t>{} : all_axes(rank);
}

// The product or sum of a shape that depends on dynamic dimensions, or nothing.
std::optional<Dim> reduced_shape(Reduction reduction, const Value &value) {
  if (value.kind != Value::Kind::Symbolic || value.rank() > 1) return std::nullopt;
  if (reduction == Reduction::Prod) return product(*value.elements);
  if (reduction != Reduction::Sum) return std::nullopt;
  return std::accumulate(value.elements->begin(), value.elements->end(), Dim(0));
}

}  // namespace

Value reduced(const OnnxNode &node, Reduction reduction, const Value &value, const std::vector<int64_t> &axes,
              bool keep_axes) {
  if ((reduction_types(reduction) >> runtime_type(computed_type(value.type)) & 1u) == 0) {
    node.fail("its input is {}, which {} does not take", type_name(value.type), node.type());
  }
  Dims dims;
  for (size_t i = 0; i < value.rank(); ++i) {
    const bool gone = std::find(axes.begin(), axes.end(), static_cast<int64_t>(i)) != axes.end();
    if (!gone) dims.push_back(value.dims[i]);
    if (gone && keep_axes) dims.push_back(Dim(1));
    if (gone && gives_index(reduction) && value.dims[i].is(0)) {
      node.fail("dimension {} is 0: it has no largest or least element", i);
    }
  }
  const DataType type = gives_index(reduction) ? DataType::Int64 : value.type;
  Importer &importer = node.importer();
  return importer.emit(node, op::Reduce{reduction, axes, keep_axes}, {importer.tensor(node, value)}, type, dims);
}

void import_reduce(OnnxNode &node) {
  const Value &value = node.input(0, "data");
  const auto *row = std::find_if(std::begin(kReductionRows), std::end(kReductionRows),
                                 [&](const ReductionRow &entry) { return node.type() == entry.type; });
  const bool keep = node.integer("keepdims", 1) != 0;
  const std::vector<int64_t> axes = reduced_axes(node, row->axes_input_since, value.rank());
  if (const auto known = axes.size() == value.rank() ? reduced_shape(row->reduction, value) : std::nullopt) {
    const std::vector<int64_t> dims(keep ? value.rank() : 0, 1);
    return node.set_output(0, node.importer().integers(value.type, dims, {*known}));
  }
  node.set_output(0, reduced(node, row->reduction, value, axes, keep));
}

void import_arg_extreme(OnnxNode &node) {
  const Value &value = node.input(0, "data");
  const bool largest = node.type() == "ArgMax", keep = node.integer("keepdims", 1) != 0;
  const bool last = node.opset() >= 12 && node.integer("select_last_index", 0) != 0;
  const int64_t axis = node.axis(node.integer("axis", 0), value.rank());
  const Reduction first_one = largest ? Reduction::ArgMax : Reduction::ArgMin;
  const Reduction last_one = largest ? Reduction::ArgMaxLast : Reduction::ArgMinLast;
  node.set_output(0, reduced(node, last ? last_one : first_one, value, {axis}, keep));
}

// Softmax and LogSoftmax. Before opset 13 they normalise over all axes from `axis` on.
void import_softmax(OnnxNode &node) {
  const Value &x = node.input(0, "input");
  if (!is_float(x.type)) node.fail("its input is {}, which {} does not take", type_name(x.type), node.type());
  const bool one_axis = node.opset() >= 13;
  const int64_t given = node.integer("axis", one_axis ? -1 : 1), rank = static_cast<int64_t>(x.rank());
  std::vector<int64_t> axes;
  if (one_axis || given != rank) axes = {node.axis(given, x.rank())};
  while (!one_axis && !axes.empty() && axes.back() + 1 < rank) axes.push_back(axes.back() + 1);
  // The largest becomes 0: no overflow, and the sum is at least 1.
  const Value shifted = apply(node, Function::Sub, {x, reduced(node, Reduction::Max, x, axes)});
  if (node.type() == "LogSoftmax") {
    const Value log_sum = reduced(node, Reduction::LogSumExp, shifted, axes);
    return node.set_output(0, apply(node, Function::Sub, {shifted, log_sum}));
  }
  const Value powers = apply(node, Function::Exp, {shifted});
  node.set_output(0, apply(node, Function::Div, {powers, reduced(node, Reduction::Sum, powers, axes)}));
}

}  // namespace hrnn
