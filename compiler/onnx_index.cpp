// SPDX-License-Identifier: Apache-2.0
//
// Operators that choose elements by numbers computed when the model runs.
#include <algorithm>

#include "onnx_importer.h"

namespace hrnn {
namespace {

void check_index_type(const OnnxNode &node, const Value &indices) {
  if (indices.type == DataType::Int32 || indices.type == DataType::Int64) return;
  node.fail("input indices ('{}') is {}; it must be int32 or int64", node.input_name(1), type_name(indices.type));
}

// Indices that are known, element by element; `extent(i)` is the dimension the i-th points into.
template <class Extent>
void check_known(const OnnxNode &node, const Value &indices, const Extent &extent) {
  if (!indices.is_constant()) return;
  for (int64_t i = 0; i < indices.constant->elements(); ++i) {
    const int64_t index = indices.constant->integer(i);
    const std::optional<int64_t> size = extent(i).literal();
    if (size && (index < -*size || index >= *size)) node.fail("index {} is out of range for a dimension of {}", index, *size);
  }
}

// Data and indices of GatherElements and ScatterElements; the axis.
int64_t read_axis_and_indices(OnnxNode &node) {
  const Value &data = node.input(0, "data"), &indices = node.input(1, "indices");
  check_index_type(node, indices);
  const int64_t axis = node.axis(node.integer("axis", 0), data.rank());
  if (indices.rank() != data.rank()) {
    node.fail("input indices ('{}') has {} dimensions and data {}; they must have as many", node.input_name(1),
              indices.rank(), data.rank());
  }
  for (size_t i = 0; i < data.rank(); ++i) {
    const auto most = data.dims[i].literal(), given = indices.dims[i].literal();
    if (static_cast<int64_t>(i) == axis || !most || !given || *given <= *most) continue;
    node.fail("dimension {} of indices ('{}') is {}; it must be at most {}, that of data", i, node.input_name(1), *given,
              *most);
  }
  check_known(node, indices, [&](int64_t) { return data.dims[axis]; });
  return axis;
}

// How long the tuples of indices of GatherND and ScatterND are.
int64_t read_tuples(OnnxNode &node, int64_t batch) {
  const Value &data = node.input(0, "data"), &indices = node.input(1, "indices");
  check_index_type(node, indices);
  const int64_t rank = static_cast<int64_t>(data.rank()), index_rank = static_cast<int64_t>(indices.rank());
  if (batch < 0 || batch >= std::min(rank, index_rank)) {
    node.fail("attribute 'batch_dims' is {}; data has {} dimensions and indices {}, so it must be at least 0 and below {}",
              batch, rank, index_rank, std::min(rank, index_rank));
  }
  for (int64_t i = 0; i < batch; ++i) {
    if (!data.dims[i].conflicts(indices.dims[i])) continue;
    node.fail("batch dimension {} is {} in data and {} in indices; they must be equal", i, *data.dims[i].literal(),
              *indices.dims[i].literal());
  }
  const auto size = indices.dims.back().literal();
  if (!size) node.unsupported("the last dimension of indices ('{}') is dynamic; it must be known", node.input_name(1));
  if (*size < 1 || *size > rank - batch) {
    node.fail("indices ('{}') are tuples of {}; data has {} dimensions to pick from, so 1 to {} are possible",
              node.input_name(1), *size, rank - batch, rank - batch);
  }
  check_known(node, indices, [&](int64_t i) { return data.dims[batch + i % *size]; });
  return *size;
}

Dims picked_dims(const Value &data, const Value &indices, int64_t batch, int64_t size) {
  Dims dims(indices.dims.begin(), indices.dims.end() - 1);
  dims.insert(dims.end(), data.dims.begin() + batch + size, data.dims.end());
  return dims;
}

std::optional<Function> read_reduction(OnnxNode &node) {
  if (node.opset() < 16) return std::nullopt;
  const std::string name = node.string("reduction").value_or("none");
  const bool later = node.opset() >= 18;
  if (name == "none") return std::nullopt;
  if (name == "add") return Function::Add;
  if (name == "mul") return Function::Mul;
  if (name == "min" && later) return Function::Min;
  if (name == "max" && later) return Function::Max;
  node.fail("attribute 'reduction' is '{}'; in opset {} it must be none, add{} mul{}", name, node.opset(),
            later ? "," : " or", later ? ", min or max" : "");
}

// Updates must have the type of the data and the shape of what the indices pick.
void check_updates(const OnnxNode &node, const Dims &picked, const std::optional<Function> &reduction) {
  const Value &data = node.input(0, "data"), &updates = node.input(2, "updates");
  check_same_type(node, data, updates);
  if (reduction && data.type == DataType::Bool) node.fail("combines bools by a reduction; they can only be replaced");
  bool fits = updates.rank() == picked.size();
  for (size_t i = 0; fits && i < picked.size(); ++i) fits = !updates.dims[i].conflicts(picked[i]);
  if (fits) return;
  node.fail("updates ('{}') has shape {}; the indices pick {}", node.input_name(2),
            node.importer().dims_text(updates.dims), node.importer().dims_text(picked));
}

void emit_scatter(OnnxNode &node, Op op) {
  Importer &importer = node.importer();
  const Value &data = node.input(0, "data");
  std::vector<TensorId> ids;
  for (size_t i = 0; i < 3; ++i) ids.push_back(importer.tensor(node, node.input(i, "")));
  node.set_output(0, importer.emit(node, std::move(op), ids, data.type, data.dims));
}

// The number of elements to find: an attribute before opset 10, an input from then on.
Dim read_k(OnnxNode &node) {
  if (node.opset() < 10) {
    if (node.input_count() > 1) node.fail("has {} inputs; TopK takes 1 before opset 10", node.input_count());
    const auto k = node.integer("k");
    if (!k) node.fail("attribute 'k' is missing; TopK requires it");
    return Dim(*k);
  }
  const std::vector<Dim> k = node.shape_input(1, "K");
  if (k.size() != 1) node.fail("input K ('{}') has {} elements; it must have 1", node.input_name(1), k.size());
  return k[0];
}

Value gathered(const OnnxNode &node, const Value &data, int64_t axis, const Value &indices) {
  Importer &importer = node.importer();
  return importer.emit(node, op::GatherElements{axis}, {importer.tensor(node, data), importer.tensor(node, indices)},
                       data.type, indices.dims);
}

}  // namespace

void import_gather_elements(OnnxNode &node) {
  const int64_t axis = read_axis_and_indices(node);
  node.set_output(0, gathered(node, node.input(0, "data"), axis, node.input(1, "indices")));
}

void import_gather_nd(OnnxNode &node) {
  const Value &data = node.input(0, "data"), &indices = node.input(1, "indices");
  const int64_t batch = node.opset() >= 12 ? node.integer("batch_dims", 0) : 0, size = read_tuples(node, batch);
  Importer &importer = node.importer();
  node.set_output(0, importer.emit(node, op::GatherND{size, batch},
                                   {importer.tensor(node, data), importer.tensor(node, indices)}, data.type,
                                   picked_dims(data, indices, batch, size)));
}

void import_scatter_elements(OnnxNode &node) {
  const int64_t axis = read_axis_and_indices(node);
  const auto reduction = read_reduction(node);
  check_updates(node, node.input(1, "indices").dims, reduction);
  emit_scatter(node, op::ScatterElements{axis, reduction});
}

void import_scatter_nd(OnnxNode &node) {
  const int64_t size = read_tuples(node, 0);
  const auto reduction = read_reduction(node);
  check_updates(node, picked_dims(node.input(0, "data"), node.input(1, "indices"), 0, size), reduction);
  emit_scatter(node, op::ScatterND{size, reduction});
}

// The indices; the values are gathered by them. `sorted` = 0 leaves the order open, so a sorted one will do.
void import_top_k(OnnxNode &node) {
  const Value &x = node.input(0, "X");
  if (x.type == DataType::Bool) node.fail("its input is bool, which TopK does not take");
  const int64_t axis = node.axis(node.integer("axis", -1), x.rank());
  const bool largest = node.opset() < 11 || node.integer("largest", 1) != 0;
  if (node.opset() >= 11) node.integer("sorted");
  const Dim k = read_k(node);
  const auto count = k.literal(), size = x.dims[axis].literal();
  if ((count && *count < 0) || (count && size && *count > *size)) {
    node.fail("picks {} of {} elements along axis {}", *count, x.dims[axis].text(node.importer().graph().symbols), axis);
  }
  Dims dims = x.dims;
  dims[axis] = k;
  const Value indices =
      node.importer().emit(node, op::TopK{axis, largest}, {node.importer().tensor(node, x)}, DataType::Int64, dims);
  if (node.has_output(0)) node.set_output(0, gathered(node, x, axis, indices));
  node.set_output(1, indices);
}

// Step t of sequence n is picked from length - 1 - t where that is not negative, else from t.
Value reversed_by_lengths(OnnxNode &node, const Value &value, int64_t time, const Value &lengths) {
  if (lengths.type != DataType::Int64 && lengths.type != DataType::Int32) {
    node.fail("input sequence_lens ('{}') is {}; it must be int64", node.input_name(1), type_name(lengths.type));
  }
  if (lengths.rank() != 1 || lengths.dims[0].conflicts(value.dims[1 - time])) {
    node.fail("input sequence_lens ('{}') has shape {}; it must have one length for each of {} sequences",
              node.input_name(1), node.importer().dims_text(lengths.dims),
              value.dims[1 - time].text(node.importer().graph().symbols));
  }
  Importer &importer = node.importer();
  const Value steps = importer.progression(lengths.type, Dim(0), Dim(1), value.dims[time]);
  const Value zero = scalar(node, lengths.type, 0), one = scalar(node, lengths.type, 1);
  const Value last = unsqueezed(node, apply(node, Function::Sub, {lengths, one}), {1});  // [batch, 1]
  const Value mirrored = apply(node, Function::Sub, {last, steps});                      // [batch, time]
  const Value outside = apply(node, Function::Less, {mirrored, zero});
  Value picks = apply(node, Function::Where, {outside, steps, mirrored});
  if (picks.is_runtime()) picks.dims = {value.dims[1 - time], value.dims[time]};
  const Value tuples = unsqueezed(node, picks, {2});
  std::vector<int64_t> batch_first(value.rank());
  for (size_t i = 0; i < batch_first.size(); ++i) batch_first[i] = static_cast<int64_t>(i);
  if (time == 0) std::swap(batch_first[0], batch_first[1]);
  const Value data = transposed(node, value, batch_first);
  const TensorId from = importer.tensor(node, data), at = importer.tensor(node, tuples);
  return transposed(node, importer.emit(node, op::GatherND{1, 1}, {from, at}, value.type, data.dims), batch_first);
}

}  // namespace hrnn
