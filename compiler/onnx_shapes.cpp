// SPDX-License-Identifier: Apache-2.0
//
// Operators that move elements: known values are moved here and now, the rest become views in the program.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "onnx_importer.h"
#include "program_reader.h"

namespace hrnn {
namespace {

// The strides of a known value; zeros for a Fill, whose elements are all the same.
std::vector<int64_t> strides_of(const Value &value) {
  if (value.kind == Value::Kind::Fill) return std::vector<int64_t>(value.rank(), 0);
  return dense_strides(*literals(value.dims));
}

// Dimensions of a view of a known value. Those of a Fill may be dynamic, and nothing is copied then.
std::vector<int64_t> view_dims(const Dims &dims) { return literals(dims).value_or(std::vector<int64_t>{}); }

// ---- Slice ----

struct Bounds {
  int64_t start, stop, step;
  std::optional<int64_t> count;  // known where the dimension is
};

// ONNX's clamping, for a literal dimension.
Bounds clamp(int64_t extent, int64_t start, int64_t stop, int64_t step) {
  if (start < 0) start += extent;
  if (stop < 0) stop += extent;
  // A step past the extent takes the first element alone, whatever its size.
  const int64_t longest = std::max<int64_t>(extent, 1);
  step = std::clamp(step, -longest, longest);
  int64_t count;
  if (step > 0) {
    start = std::clamp<int64_t>(start, 0, extent);
    stop = std::clamp<int64_t>(stop, 0, extent);
    count = stop > start ? (stop - start + step - 1) / step : 0;
  } else {
    start = std::clamp<int64_t>(start, -1, extent - 1);
    stop = std::clamp<int64_t>(stop, -1, extent - 1);
    count = start > stop ? (start - stop - step - 1) / -step : 0;
  }
  return {start, stop, step, count};
}

constexpr int64_t kOpenEnd = std::numeric_limits<int32_t>::max();  // exporters write INT32_MAX or INT64_MAX

// The length of a slice of a dynamic dimension. Exporters slice off one element at either end; those lengths are
// formulas (for a dimension of at least one), the rest get a name.
Dim dynamic_count(OnnxNode &node, const Dim &extent, const Bounds &bounds) {
  const bool to_end = bounds.stop >= kOpenEnd, from_start = bounds.start == 0;
  const bool reverse_all =
      bounds.step == -1 && (bounds.start == -1 || bounds.start >= kOpenEnd) && bounds.stop <= -kOpenEnd;
  if ((bounds.step == 1 && from_start && to_end) || reverse_all) return extent;
  if (bounds.step == 1 && bounds.start == -1 && to_end) return Dim(1);
  if (bounds.step == 1 && from_start && bounds.stop == 1) return Dim(1);
  if (bounds.step == 1 && bounds.start == 1 && to_end) return extent - Dim(1);
  if (bounds.step == 1 && from_start && bounds.stop == -1) return extent - Dim(1);
  return node.importer().unknown_dim(fmt::format("len({}[{}:{}:{}])", extent.text(node.importer().graph().symbols),
                                                 bounds.start, to_end ? "" : std::to_string(bounds.stop), bounds.step));
}

// The same slice in numbers a program can hold whatever the dimension turns out to be.
op::Slice slice_op(int64_t axis, const Bounds &bounds) {
  constexpr int64_t kLimit = std::numeric_limits<int64_t>::max() / 4;
  return {axis, std::clamp(bounds.start, -kLimit, kLimit), std::clamp(bounds.stop, -kLimit, kLimit),
          std::clamp(bounds.step, -kOpenEnd, kOpenEnd)};
}

// Element start, start + step, ... `count` of them, of a known value.
Value known_slice(OnnxNode &node, const Value &value, int64_t axis, const Bounds &bounds, const Dims &dims) {
  StridedView view{view_dims(dims), strides_of(value), 0};
  if (bounds.count && *bounds.count > 0) view.offset = view.strides[axis] * bounds.start;
  view.strides[axis] *= bounds.step;
  return node.importer().view(value, dims, view);
}

struct SliceList {
  std::vector<Dim> starts, stops;
  std::vector<int64_t> axes, steps;
};

SliceList read_slices(OnnxNode &node) {
  SliceList list;
  if (node.opset() < 10) {
    const auto starts = node.integers("starts"), ends = node.integers("ends"), axes = node.integers("axes");
    if (!starts || !ends) node.fail("attribute '{}' is missing", starts ? "ends" : "starts");
    if (node.input_count() > 1) node.fail("has {} inputs; Slice takes 1 before opset 10", node.input_count());
    list.starts.assign(starts->begin(), starts->end());
    list.stops.assign(ends->begin(), ends->end());
    if (axes) list.axes = *axes;
    if (!axes) list.axes.resize(starts->size()), std::iota(list.axes.begin(), list.axes.end(), 0);
  } else {
    list.starts = node.shape_input(1, "starts");
    list.stops = node.shape_input(2, "ends");
    if (node.has_input(3)) list.axes = node.ints_input(3, "axes");
    if (!node.has_input(3)) list.axes.resize(list.starts.size()), std::iota(list.axes.begin(), list.axes.end(), 0);
    if (node.has_input(4)) list.steps = node.ints_input(4, "steps");
  }
  if (list.steps.empty()) list.steps.assign(list.starts.size(), 1);
  const size_t count = list.starts.size();
  if (list.stops.size() != count || list.axes.size() != count || list.steps.size() != count) {
    node.fail("has {} starts, {} ends, {} axes and {} steps; they must be as many", count, list.stops.size(),
              list.axes.size(), list.steps.size());
  }
  return list;
}

// ---- Gather ----

// Elements at `indices` along `axis` of a known value, one index after the other.
Value known_gather(OnnxNode &node, const Value &data, int64_t axis, const Value &indices, const Dims &dims) {
  if (data.kind == Value::Kind::Fill) return node.importer().fill(*data.constant, dims);
  const std::vector<int64_t> shape = *literals(data.dims), out = *literals(dims);
  const int64_t extent = shape[axis], picks = indices.constant->elements();
  const int64_t outer = element_count({shape.begin(), shape.begin() + axis});
  const int64_t inner = element_count({shape.begin() + axis + 1, shape.end()});
  node.importer().charge(element_count(out) * type_bytes(data.type));
  std::vector<Dim> elements;
  Constant result;
  if (data.is_constant()) result = make_constant(data.type, out);
  const int64_t block = inner * type_bytes(data.type);
  for (int64_t o = 0, to = 0; o < outer; ++o) {
    for (int64_t p = 0; p < picks; ++p, ++to) {
      const int64_t index = indices.constant->integer(p), from = o * extent + (index < 0 ? index + extent : index);
      if (data.is_constant()) {
        if (block) std::memcpy(result.bytes.data() + to * block, data.constant->bytes.data() + from * block, block);
      } else {
        const auto first = data.elements->begin() + from * inner;
        elements.insert(elements.end(), first, first + inner);
      }
    }
  }
  if (data.is_constant()) return node.importer().constant(std::move(result));
  return node.importer().integers(data.type, out, std::move(elements));
}

void check_indices(OnnxNode &node, const std::vector<int64_t> &indices, const Dim &extent) {
  const int64_t most = extent.literal().value_or(int64_t{1} << 56);  // a dynamic one is checked when the model runs
  for (int64_t index : indices) {
    if (index >= -most && index < most) continue;
    node.fail("index {} is out of range for a dimension of {}", index, extent.text(node.importer().graph().symbols));
  }
}

// A list of indices a constant step apart is a slice, which costs nothing.
std::optional<Value> gather_slice(OnnxNode &node, const Value &data, int64_t axis,
                                  const std::vector<int64_t> &indices) {
  const int64_t first = indices[0], step = indices.size() > 1 ? indices[1] - first : 1;
  bool regular = step != 0;
  for (size_t i = 1; i < indices.size(); ++i) {
    regular = regular && indices[i] - indices[i - 1] == step && (indices[i] < 0) == (first < 0);
  }
  // Of a dynamic dimension a slice would be cut short where an index is out of range.
  if (!regular || !data.dims[axis].literal()) return std::nullopt;
  int64_t stop = indices.back() + (step > 0 ? 1 : -1);
  if (step > 0 && first < 0 && stop == 0) stop = std::numeric_limits<int64_t>::max();
  if (step < 0 && first >= 0 && stop == -1) stop = std::numeric_limits<int64_t>::min();
  const op::Slice op = slice_op(axis, {first, stop, step, std::nullopt});
  Dims dims = data.dims;
  dims[axis] = Dim(static_cast<int64_t>(indices.size()));
  return node.importer().emit(node, op, {data.tensor}, data.type, dims);
}

Value runtime_gather(OnnxNode &node, const Value &data, int64_t axis, const Value &indices, const Dims &dims) {
  Importer &importer = node.importer();
  const TensorId from = importer.tensor(node, data), at = importer.tensor(node, indices);
  return importer.emit(node, op::Gather{axis}, {from, at}, data.type, dims);
}

// ---- Squeeze, Unsqueeze ----

// The axes of Squeeze and Unsqueeze: an attribute before opset 13, an input from then on.
std::optional<std::vector<int64_t>> read_axes(OnnxNode &node) {
  if (node.opset() >= 13) {
    if (!node.has_input(1)) return std::nullopt;
    return node.ints_input(1, "axes");
  }
  if (node.input_count() > 1) node.fail("has {} inputs; {} takes 1 before opset 13", node.input_count(), node.type());
  return node.integers("axes");
}

std::vector<int64_t> squeezed_axes(OnnxNode &node, const Value &value) {
  if (const auto axes = read_axes(node)) return node.axes(*axes, value.rank());
  std::vector<int64_t> ones;
  for (size_t axis = 0; axis < value.rank(); ++axis) {
    if (!value.dims[axis].literal()) {
      node.unsupported(
          "axes is absent and dimension {} is dynamic ('{}'), so the rank of its result is not known; "
          "name the axes",
          axis, value.dims[axis].text(node.importer().graph().symbols));
    }
    if (value.dims[axis].is(1)) ones.push_back(static_cast<int64_t>(axis));
  }
  return ones;
}

// ---- Reshape, Expand ----

// `total` elements over the product of `known`: the dimension a -1 stands for.
Dim inferred_dim(OnnxNode &node, Dims total, Dims known) {
  for (auto dim = known.begin(); dim != known.end();) {  // what both have cancels, dynamic or not
    const auto same = std::find(total.begin(), total.end(), *dim);
    const bool cancels = same != total.end() && !dim->is(0);
    if (cancels) total.erase(same);
    dim = cancels ? known.erase(dim) : dim + 1;
  }
  const Dim dividend = product(total), divisor = product(known);
  if (const auto quotient = dividend.quotient(divisor)) return *quotient;
  const auto &symbols = node.importer().graph().symbols;
  if (dividend.literal() && divisor.literal()) {
    node.fail("cannot infer the dimension -1: {} elements do not divide into {}", *dividend.literal(),
              *divisor.literal());
  }
  return node.importer().unknown_dim(fmt::format("({})/({})", dividend.text(symbols), divisor.text(symbols)));
}

Dims reshape_dims(OnnxNode &node, const Dims &from, const std::vector<Dim> &target, bool allow_zero) {
  Dims dims, known;
  std::optional<size_t> inferred;
  for (size_t i = 0; i < target.size(); ++i) {
    const std::optional<int64_t> literal = target[i].literal();
    Dim dim = target[i];
    if (literal == 0 && !allow_zero) {
      if (i >= from.size()) {
        node.fail("shape has 0 (copy) at {}, but the input has {} dimensions", i, from.size());
      }
      dim = from[i];
    }
    if (literal && *literal < -1) node.fail("shape has {} at {}; dimensions are positive, 0 or -1", *literal, i);
    if (literal == -1 && inferred) node.fail("shape has -1 at {} and {}; only one can be inferred", *inferred, i);
    if (literal == -1) inferred = i;
    if (literal != -1) known.push_back(dim);
    dims.push_back(dim);
  }
  if (inferred) dims[*inferred] = inferred_dim(node, from, known);
  return dims;
}

// One dimension of numpy's broadcasting; dynamic ones are checked when the model runs.
Dim broadcast(OnnxNode &node, const Dim &from, const Dim &to) {
  if (to.is(1) || from == to) return from;
  if (from.is(1)) return to;
  if (from.conflicts(to)) {
    node.fail("cannot expand a dimension of {} to {}", *from.literal(), *to.literal());
  }
  return from.literal() ? from : to;
}

Dims expand_dims(OnnxNode &node, const Dims &from, const std::vector<Dim> &target) {
  const size_t rank = std::max(from.size(), target.size());
  if (rank > kMaxRank) node.unsupported("expands to {} dimensions; at most {} are supported", rank, kMaxRank);
  Dims dims;
  for (size_t i = 0; i < rank; ++i) {
    const Dim a = i + from.size() >= rank ? from[i + from.size() - rank] : Dim(1);
    const Dim b = i + target.size() >= rank ? target[i + target.size() - rank] : Dim(1);
    if (b.literal() && *b.literal() < 0) node.fail("shape has {}; dimensions are not negative", *b.literal());
    dims.push_back(broadcast(node, a, b));
  }
  return dims;
}

StridedView expand_view(const Value &value, const Dims &dims) {
  StridedView view{view_dims(dims), std::vector<int64_t>(dims.size(), 0), 0};
  const std::vector<int64_t> strides = strides_of(value);
  for (size_t i = 0; i < strides.size(); ++i) {
    if (!value.dims[i].is(1)) view.strides[i + dims.size() - strides.size()] = strides[i];
  }
  return view;
}

// ---- Concat ----

struct Parts {
  std::vector<const Value *> values;
  int64_t axis = 0;
  Dims dims;  // of the whole
};

Parts checked_parts(OnnxNode &node, const std::vector<Value> &values, int64_t axis) {
  const Value &first = values[0];
  Parts parts{{}, axis, first.dims};
  Dim extent(0);
  for (const Value &value : values) {
    bool fits = value.type == first.type && value.rank() == first.rank();
    for (size_t k = 0; fits && k < first.rank(); ++k) {
      fits = k == static_cast<size_t>(parts.axis) || !value.dims[k].conflicts(first.dims[k]);
    }
    if (!fits) {
      node.fail("joins {} {} and {} {} along axis {}; types and the other dimensions must be equal",
                type_name(first.type), node.importer().dims_text(first.dims), type_name(value.type),
                node.importer().dims_text(value.dims), parts.axis);
    }
    for (size_t k = 0; k < first.rank(); ++k) {
      if (value.dims[k].literal()) parts.dims[k] = value.dims[k];  // a literal says more than a symbol
    }
    extent = extent + value.dims[parts.axis];
    parts.values.push_back(&value);
  }
  parts.dims[parts.axis] = extent;
  return parts;
}

bool all_of_kind(const Parts &parts, std::initializer_list<Value::Kind> kinds) {
  return std::all_of(parts.values.begin(), parts.values.end(), [&](const Value *value) {
    return std::find(kinds.begin(), kinds.end(), value->kind) != kinds.end();
  });
}

bool same_fill(const Parts &parts) {
  const auto bytes = [](const Value *value) { return value->constant->bytes; };
  return all_of_kind(parts, {Value::Kind::Fill}) &&
         std::all_of(parts.values.begin(), parts.values.end(),
                     [&](const Value *value) { return bytes(value) == bytes(parts.values[0]); });
}

Value join_constants(OnnxNode &node, const Parts &parts) {
  Constant result = make_constant(parts.values[0]->type, {});
  result.dims = *literals(parts.dims);
  result.bytes.clear();
  node.importer().charge(element_count(result.dims) * type_bytes(result.type));
  result.bytes.reserve(static_cast<size_t>(element_count(result.dims) * type_bytes(result.type)));
  const int64_t outer = element_count({result.dims.begin(), result.dims.begin() + parts.axis});
  for (int64_t o = 0; o < outer; ++o) {
    for (const Value *value : parts.values) {
      const auto &bytes = value->constant->bytes;
      const auto block = static_cast<std::ptrdiff_t>(bytes.size()) / outer;
      result.bytes.insert(result.bytes.end(), bytes.begin() + o * block, bytes.begin() + (o + 1) * block);
    }
  }
  return node.importer().constant(std::move(result));
}

// Shapes on their way to Reshape: lists, some of whose elements are symbolic.
std::optional<Value> join_lists(OnnxNode &node, const Parts &parts) {
  std::vector<Dim> elements;
  if (parts.dims.size() != 1) return std::nullopt;
  for (const Value *value : parts.values) {
    const auto known = known_integers(*value);
    if (!known || elements.size() + known->size() > static_cast<size_t>(kMaxShapeElements)) return std::nullopt;
    elements.insert(elements.end(), known->begin(), known->end());
  }
  const int64_t count = static_cast<int64_t>(elements.size());
  return node.importer().integers(parts.values[0]->type, {count}, std::move(elements));
}

// A program joins up to eight tensors at a time.
Value join_runtime(OnnxNode &node, const Parts &parts) {
  constexpr size_t kAtOnce = 8;
  Importer &importer = node.importer();
  const DataType type = parts.values[0]->type;
  Value joined = *parts.values[0];
  for (size_t next = 1; next < parts.values.size();) {
    std::vector<TensorId> ids = {importer.tensor(node, joined)};
    Dims dims = parts.dims;
    dims[parts.axis] = joined.dims[parts.axis];
    for (; next < parts.values.size() && ids.size() < kAtOnce; ++next) {
      ids.push_back(importer.tensor(node, *parts.values[next]));
      dims[parts.axis] = dims[parts.axis] + parts.values[next]->dims[parts.axis];
    }
    joined = importer.emit(node, op::Concat{parts.axis}, ids, type, dims);
  }
  return joined;
}

}  // namespace

Value transposed(OnnxNode &node, const Value &value, const std::vector<int64_t> &permutation) {
  if (std::is_sorted(permutation.begin(), permutation.end())) return value;
  Dims dims;
  for (int64_t axis : permutation) dims.push_back(value.dims[axis]);
  if (value.is_runtime()) {
    return node.importer().emit(node, op::Transpose{permutation}, {value.tensor}, value.type, dims);
  }
  StridedView view{view_dims(dims), {}, 0};
  const std::vector<int64_t> strides = strides_of(value);
  for (int64_t axis : permutation) view.strides.push_back(strides[axis]);
  return node.importer().view(value, dims, view);
}

Value reshaped(OnnxNode &node, const Value &value, const Dims &dims) {
  if (value.dims == dims) return value;
  Importer &importer = node.importer();
  const bool known = !value.is_runtime() && (value.kind == Value::Kind::Fill || literals(dims));
  if (known) return importer.with_dims(value, dims);
  return importer.emit(node, op::Reshape{}, {importer.tensor(node, value)}, value.type, dims);
}

Value sliced(OnnxNode &node, const Value &value, int64_t axis, int64_t start, int64_t stop, int64_t step) {
  const Dim &extent = value.dims[axis];
  Bounds bounds{start, stop, step, std::nullopt};
  if (extent.literal()) bounds = clamp(*extent.literal(), start, stop, step);
  Dims dims = value.dims;
  dims[axis] = bounds.count ? Dim(*bounds.count) : dynamic_count(node, extent, bounds);
  if (dims[axis] == extent && bounds.step > 0) return value;  // all of it, in order
  if (!value.is_runtime()) return known_slice(node, value, axis, bounds, dims);
  // Of a literal dimension, -1 as the stop of a clamped backward slice means "before the first": say it unmistakably.
  if (bounds.count && bounds.step < 0 && bounds.stop == -1) bounds.stop = std::numeric_limits<int64_t>::min();
  const op::Slice op = slice_op(axis, bounds);
  return node.importer().emit(node, op, {value.tensor}, value.type, dims);
}

Value expanded(OnnxNode &node, const Value &value, const Dims &dims) {
  Importer &importer = node.importer();
  if (dims == value.dims) return value;
  const bool one_element = value.is_constant() && value.constant->elements() == 1;
  if (one_element) return importer.fill(*value.constant, dims);
  const bool known = value.kind == Value::Kind::Fill || (!value.is_runtime() && literals(dims));
  if (known) return importer.view(value, dims, expand_view(value, dims));
  return importer.emit(node, op::Expand{}, {importer.tensor(node, value)}, value.type, dims);
}

Value squeezed(OnnxNode &node, const Value &given, std::vector<int64_t> axes) {
  Value value = given;
  for (size_t i = axes.size(); i-- > 0;) {
    const Dim dim = value.dims[axes[i]];
    if (dim.literal() && !dim.is(1))
      node.fail("cannot squeeze axis {} of size {}; it must be 1", axes[i], *dim.literal());
    Dims dims = value.dims;
    dims.erase(dims.begin() + axes[i]);
    value = value.is_runtime() ? node.importer().emit(node, op::Squeeze{axes[i]}, {value.tensor}, value.type, dims)
                               : node.importer().with_dims(value, dims);
  }
  return value;
}

Value unsqueezed(OnnxNode &node, const Value &given, const std::vector<int64_t> &axes) {
  Value value = given;
  if (value.rank() + axes.size() > kMaxRank) {
    node.unsupported("its result has {} dimensions; at most {} are supported", value.rank() + axes.size(), kMaxRank);
  }
  for (int64_t axis : axes) {
    Dims dims = value.dims;
    dims.insert(dims.begin() + axis, Dim(1));
    value = value.is_runtime() ? node.importer().emit(node, op::Unsqueeze{axis}, {value.tensor}, value.type, dims)
                               : node.importer().with_dims(value, dims);
  }
  return value;
}

Value joined(OnnxNode &node, const std::vector<Value> &values, int64_t axis) {
  const Parts parts = checked_parts(node, values, axis);
  Importer &importer = node.importer();
  if (values.size() == 1) return values[0];
  if (same_fill(parts)) return importer.fill(*parts.values[0]->constant, parts.dims);
  if (all_of_kind(parts, {Value::Kind::Constant})) {
    if (*literal_product(parts.dims) == 0) {
      return importer.constant(make_constant(parts.values[0]->type, *literals(parts.dims)));
    }
    return join_constants(node, parts);
  }
  if (all_of_kind(parts, {Value::Kind::Constant, Value::Kind::Symbolic})) {
    if (auto list = join_lists(node, parts)) return *list;
  }
  return join_runtime(node, parts);
}

void import_transpose(OnnxNode &node) {
  const Value &value = node.input(0, "data");
  const size_t rank = value.rank();
  std::vector<int64_t> permutation(rank);
  for (size_t i = 0; i < rank; ++i) permutation[i] = static_cast<int64_t>(rank - 1 - i);
  if (const auto perm = node.integers("perm")) permutation = *perm;
  std::vector<int64_t> sorted = permutation, identity(rank);
  std::sort(sorted.begin(), sorted.end());
  std::iota(identity.begin(), identity.end(), 0);
  if (sorted != identity) {
    node.fail("attribute 'perm' is [{}]; it must be a permutation of the input's {} axes", fmt::join(permutation, ", "),
              rank);
  }
  node.set_output(0, transposed(node, value, permutation));
}

void import_slice(OnnxNode &node) {
  Value value = node.input(0, "data");
  const SliceList list = read_slices(node);
  node.axes(list.axes, value.rank());  // in range, none twice
  for (size_t i = 0; i < list.axes.size(); ++i) {
    const int64_t axis = node.axis(list.axes[i], value.rank());
    if (list.steps[i] == 0) node.fail("steps has 0 at {}; a step must not be zero", i);
    const int64_t start = node.position(list.starts[i], value.dims[axis]);
    const int64_t stop = node.position(list.stops[i], value.dims[axis]);
    value = sliced(node, value, axis, start, stop, list.steps[i]);
  }
  node.set_output(0, value);
}

// Indices T - 1, T - 2, ..., 0 of a dimension of T: a reversal. Nothing where it is another list.
std::optional<Value> gather_progression(OnnxNode &node, const Value &data, int64_t axis, const Value &picks) {
  const Dim &extent = data.dims[axis], &first = (*picks.elements)[0], &step = (*picks.elements)[1];
  const bool all = picks.dims[0] == extent;
  if (all && step.is(1) && first.is(0)) return data;
  if (all && step.is(-1) && first == extent - Dim(1)) {
    return sliced(node, data, axis, -1, std::numeric_limits<int64_t>::min(), -1);
  }
  return std::nullopt;
}

void import_gather(OnnxNode &node) {
  const Value &data = node.input(0, "data"), &picks = node.input(1, "indices");
  if (data.rank() == 0) node.fail("input data ('{}') is a scalar, which has no axis to pick from", node.input_name(0));
  const int64_t axis = node.axis(node.integer("axis", 0), data.rank());
  if (picks.type != DataType::Int64 && picks.type != DataType::Int32) {
    node.fail("input indices ('{}') is {}; it must be int32 or int64", node.input_name(1), type_name(picks.type));
  }
  if (picks.kind == Value::Kind::Progression) {
    if (const auto view = gather_progression(node, data, axis, picks)) return node.set_output(0, *view);
  }
  Dims dims(data.dims.begin(), data.dims.begin() + axis);
  dims.insert(dims.end(), picks.dims.begin(), picks.dims.end());
  dims.insert(dims.end(), data.dims.begin() + axis + 1, data.dims.end());
  const auto known = known_integers(picks);
  if (!known) return node.set_output(0, runtime_gather(node, data, axis, picks, dims));
  std::vector<int64_t> indices;
  for (const Dim &index : *known) indices.push_back(node.position(index, data.dims[axis]));
  check_indices(node, indices, data.dims[axis]);
  std::vector<Dim> resolved(indices.begin(), indices.end());
  const Value numbers = node.importer().integers(DataType::Int64, *literals(picks.dims), std::move(resolved));
  if (!data.is_runtime()) return node.set_output(0, known_gather(node, data, axis, numbers, dims));
  if (picks.rank() == 0) {
    return node.set_output(
        0, node.importer().emit(node, op::Select{axis, indices[0]}, {data.tensor}, data.type, dims));
  }
  if (picks.rank() == 1 && indices.size() == 1) {
    Dims picked(data.dims);
    picked.erase(picked.begin() + axis);
    const Value one = node.importer().emit(node, op::Select{axis, indices[0]}, {data.tensor}, data.type, picked);
    return node.set_output(0, unsqueezed(node, one, {axis}));
  }
  if (picks.rank() == 1 && !indices.empty()) {
    if (const auto slice = gather_slice(node, data, axis, indices)) return node.set_output(0, *slice);
  }
  node.set_output(0, runtime_gather(node, data, axis, numbers, dims));
}

void import_split(OnnxNode &node) {
  const Value value = node.input(0, "input");
  const int64_t axis = node.axis(node.integer("axis", 0), value.rank());
  const int64_t outputs = static_cast<int64_t>(node.output_count());
  std::vector<int64_t> sizes;
  if (node.opset() < 13) {
    sizes = node.integers("split").value_or(std::vector<int64_t>{});
    if (node.input_count() > 1) node.fail("has {} inputs; Split takes 1 before opset 13", node.input_count());
  } else if (node.has_input(1)) {
    sizes = node.ints_input(1, "split");
  }
  const int64_t parts = node.opset() >= 18 ? node.integer("num_outputs", outputs) : outputs;
  if (parts != outputs) node.fail("attribute 'num_outputs' is {}, it has {} outputs", parts, outputs);
  const auto extent = value.dims[axis].literal();
  if (sizes.empty()) {
    if (!extent) node.unsupported("splits a dynamic dimension into {} parts without naming their sizes", outputs);
    const int64_t size = (*extent + outputs - 1) / outputs;
    if (node.opset() < 18 && size * outputs != *extent) {
      node.fail("splits a dimension of {} into {} equal parts, which is not possible", *extent, outputs);
    }
    for (int64_t i = 0; i < outputs; ++i) sizes.push_back(std::clamp<int64_t>(*extent - i * size, 0, size));
  }
  int64_t total = 0;
  for (int64_t size : sizes) {
    if (size < 0 || size > (int64_t{1} << 56)) node.fail("a part of it has size {}", size);
    total += size;
  }
  if (static_cast<int64_t>(sizes.size()) != outputs || (extent && total != *extent)) {
    node.fail("splits a dimension of {} into {} parts of sizes [{}] in {} outputs",
              value.dims[axis].text(node.importer().graph().symbols), sizes.size(), fmt::join(sizes, ", "), outputs);
  }
  int64_t start = 0;
  for (size_t i = 0; i < sizes.size(); start += sizes[i++]) {
    if (node.has_output(i)) node.set_output(i, sliced(node, value, axis, start, start + sizes[i], 1));
  }
}

// The reversal of whole sequences, which is what Keras' go_backwards becomes, is a view.
void import_reverse_sequence(OnnxNode &node) {
  const Value &value = node.input(0, "input"), &lengths = node.input(1, "sequence_lens");
  const int64_t time = node.integer("time_axis", 0), batch = node.integer("batch_axis", 1);
  if (value.rank() < 2 || (time != 0 && time != 1) || batch != 1 - time) {
    node.fail("has time_axis {} and batch_axis {} of a tensor of {} dimensions; one must be 0 and the other 1", time,
              batch, value.rank());
  }
  const Dim &steps = value.dims[time];
  bool whole = false;
  if (lengths.kind == Value::Kind::Progression) {
    whole = (*lengths.elements)[0] == steps && (*lengths.elements)[1].is(0);
  } else if (const auto known = known_integers(lengths)) {
    whole = std::all_of(known->begin(), known->end(), [&](const Dim &length) { return length == steps; });
  }
  if (!whole) return node.set_output(0, reversed_by_lengths(node, value, time, lengths));
  node.set_output(0, sliced(node, value, time, -1, std::numeric_limits<int64_t>::min(), -1));
}

void import_squeeze(OnnxNode &node) {
  const Value &value = node.input(0, "data");
  node.set_output(0, squeezed(node, value, squeezed_axes(node, value)));
}

void import_unsqueeze(OnnxNode &node) {
  const Value &value = node.input(0, "data");
  const auto named = read_axes(node);
  if (!named) node.fail("axes is missing; Unsqueeze requires it");
  if (value.rank() + named->size() > kMaxRank) {
    node.unsupported("its result has {} dimensions; at most {} are supported", value.rank() + named->size(), kMaxRank);
  }
  node.set_output(0, unsqueezed(node, value, node.axes(*named, value.rank() + named->size())));
}

void import_reshape(OnnxNode &node) {
  const Value &value = node.input(0, "data");
  const bool allow_zero = node.opset() >= 14 && node.integer("allowzero", 0) != 0;
  const std::vector<Dim> target = node.shape_input(1, "shape");
  if (target.size() > kMaxRank) {
    node.unsupported("reshapes to {} dimensions; at most {} are supported", target.size(), kMaxRank);
  }
  const Dims dims = reshape_dims(node, value.dims, target, allow_zero);
  const auto before = literal_product(value.dims), after = literal_product(dims);
  if (before && after && *before != *after) {
    node.fail("reshapes {} ({} elements) to {} ({} elements)", node.importer().dims_text(value.dims), *before,
              node.importer().dims_text(dims), *after);
  }
  node.set_output(0, reshaped(node, value, dims));
}

void import_flatten(OnnxNode &node) {
  const Value &value = node.input(0, "input");
  const int64_t rank = static_cast<int64_t>(value.rank());
  int64_t axis = node.integer("axis", 1);
  if (axis < -rank || axis > rank) node.fail("attribute 'axis' is {}; it must be {} to {}", axis, -rank, rank);
  if (axis < 0) axis += rank;
  const Dims outer(value.dims.begin(), value.dims.begin() + axis), inner(value.dims.begin() + axis, value.dims.end());
  node.set_output(0, reshaped(node, value, {product(outer), product(inner)}));
}

void import_expand(OnnxNode &node) {
  const Value &value = node.input(0, "input");
  const Dims dims = expand_dims(node, value.dims, node.shape_input(1, "shape"));
  const auto integer = known_integers(value);
  if (dims != value.dims && integer && integer->size() == 1 && dims.size() == 1 && !dims[0].literal()) {
    return node.set_output(0, node.importer().progression(value.type, (*integer)[0], Dim(0), dims[0]));
  }
  node.set_output(0, expanded(node, value, dims));
}

void import_concat(OnnxNode &node) {
  std::vector<Value> values;
  for (size_t i = 0; i < node.input_count(); ++i) values.push_back(node.input(i, "inputs"));
  const auto axis = node.integer("axis");
  if (!axis) node.fail("attribute 'axis' is missing; Concat requires it");
  if (values[0].rank() == 0) {
    node.fail("input 0 ('{}') is a scalar, which has no axis to join along", node.input_name(0));
  }
  node.set_output(0, joined(node, values, node.axis(*axis, values[0].rank())));
}

// Every axis is repeated as a new axis before it, and joined with that.
void import_tile(OnnxNode &node) {
  Value value = node.input(0, "input");
  const std::vector<Dim> repeats = node.shape_input(1, "repeats");
  if (repeats.size() != value.rank()) {
    node.fail("has {} repeats for {} dimensions; they must be as many", repeats.size(), value.rank());
  }
  for (size_t i = 0; i < repeats.size(); ++i) {
    const int64_t axis = static_cast<int64_t>(i);
    if (repeats[i].is(1)) continue;
    if (repeats[i].literal() && *repeats[i].literal() < 0) node.fail("repeats has {}", *repeats[i].literal());
    Dims joined_dims = value.dims;
    joined_dims[i] = joined_dims[i] * repeats[i];
    Value repeated = unsqueezed(node, value, {axis});
    Dims dims = repeated.dims;
    dims[i] = repeats[i];
    value = reshaped(node, expanded(node, repeated, dims), joined_dims);
  }
  node.set_output(0, value);
}

// ---- Pad ----

namespace {

// The constants Pad fills with, as a number a program can hold.
double pad_value(OnnxNode &node, const Value &data, const std::string &mode) {
  if (node.opset() < 11) return static_cast<double>(node.real("value", 0));
  if (!node.has_input(2)) return 0;
  const Value &value = node.input(2, "constant_value");
  if (mode != "constant") return 0;
  check_same_type(node, data, value);
  if (!value.is_constant()) node.unsupported("constant_value is computed when the model runs; it must be a constant");
  if (value.constant->elements() != 1) {
    node.fail("constant_value has {} elements; it must have 1", value.constant->elements());
  }
  const double number = value.constant->real(0);
  if (!is_float(value.type) && std::fabs(number) > 0x1p53) {
    node.unsupported("constant_value is {}; integers above 2^53 are not supported", value.constant->integer(0));
  }
  return number;
}

// One axis, by joining parts of it.
Value padded_by_parts(OnnxNode &node, const Value &value, int64_t axis, int64_t before, int64_t after,
                      const std::string &mode) {
  const Dim &extent = value.dims[axis];
  if (!extent.literal()) {
    node.unsupported("mode '{}' of a dynamic dimension ('{}'); only mode 'constant' is supported for one", mode,
                     extent.text(node.importer().graph().symbols));
  }
  const int64_t size = *extent.literal(), most = mode == "reflect" ? size - 1 : size;
  if (mode == "edge" ? size == 0 : std::max(before, after) > most) {
    node.unsupported("adds {} and {} elements to a dimension of {} in mode '{}'; at most {} are supported", before,
                     after, size, mode, most);
  }
  constexpr int64_t kFront = std::numeric_limits<int64_t>::min();
  const auto part = [&](int64_t start, int64_t stop, int64_t step) { return sliced(node, value, axis, start, stop, step); };
  const auto repeat = [&](const Value &edge, int64_t count) {
    Dims dims = value.dims;
    dims[axis] = Dim(count);
    return expanded(node, edge, dims);
  };
  std::vector<Value> parts;
  if (before > 0) {
    parts.push_back(mode == "edge"      ? repeat(part(0, 1, 1), before)
                    : mode == "reflect" ? part(before, 0, -1)
                                        : part(size - before, size, 1));
  }
  parts.push_back(value);
  if (after > 0) {
    parts.push_back(mode == "edge" ? repeat(part(size - 1, size, 1), after)
                    : mode == "reflect"
                        ? part(size - 2, size - 2 - after < 0 ? kFront : size - 2 - after, -1)
                        : part(0, after, 1));
  }
  return joined(node, parts, axis);
}

}  // namespace

Value padded(const OnnxNode &node, const Value &value, const std::vector<int64_t> &before,
             const std::vector<int64_t> &after, double with) {
  Dims dims = value.dims;
  bool any = false;
  for (size_t i = 0; i < dims.size(); ++i) {
    dims[i] = dims[i] + Dim(before[i]) + Dim(after[i]);
    any = any || before[i] > 0 || after[i] > 0;
    for (int64_t count : {before[i], after[i]}) {
      if (count > kMaxPadding) node.unsupported("adds {} elements to a dimension; at most {}", count, kMaxPadding);
    }
  }
  if (!any) return value;
  return node.importer().emit(node, op::Pad{before, after, with}, {node.importer().tensor(node, value)}, value.type, dims);
}

void import_pad(OnnxNode &node) {
  Value value = node.input(0, "data");
  const std::string mode = node.string("mode").value_or("constant");
  if (mode != "constant" && mode != "reflect" && mode != "edge" && (mode != "wrap" || node.opset() < 19)) {
    node.fail("attribute 'mode' is '{}'; it must be constant, reflect or edge, or wrap from opset 19 on", mode);
  }
  std::vector<int64_t> pads;
  if (node.opset() < 11) {
    const auto attribute = node.integers("pads");
    if (!attribute) node.fail("attribute 'pads' is missing; Pad requires it");
    pads = *attribute;
  } else {
    pads = node.ints_input(1, "pads");
  }
  std::vector<int64_t> axes(value.rank());
  std::iota(axes.begin(), axes.end(), 0);
  if (node.has_input(3)) axes = node.ints_input(3, "axes");
  if (pads.size() != 2 * axes.size()) {
    node.fail("has {} pads for {} axes; two an axis are needed", pads.size(), axes.size());
  }
  node.axes(axes, value.rank());  // in range, none twice
  std::vector<int64_t> before(value.rank(), 0), after(value.rank(), 0);
  for (size_t i = 0; i < axes.size(); ++i) {
    const int64_t axis = node.axis(axes[i], value.rank());
    before[axis] = pads[i];
    after[axis] = pads[i + axes.size()];
  }
  const double with = pad_value(node, value, mode);
  constexpr int64_t kEnd = std::numeric_limits<int64_t>::max();
  for (size_t i = 0; i < before.size(); ++i) {  // negative ones cut off
    const int64_t axis = static_cast<int64_t>(i);
    if (before[i] < 0) value = sliced(node, value, axis, -std::max(before[i], -kMaxPadding), kEnd, 1);
    if (after[i] < 0) value = sliced(node, value, axis, 0, std::max(after[i], -kMaxPadding), 1);
    before[i] = std::max<int64_t>(before[i], 0);
    after[i] = std::max<int64_t>(after[i], 0);
    if (mode != "constant" && (before[i] > 0 || after[i] > 0)) {
      value = padded_by_parts(node, value, axis, before[i], after[i], mode);
    }
  }
  node.set_output(0, mode == "constant" ? padded(node, value, before, after, with) : value);
}

}  // namespace hrnn
