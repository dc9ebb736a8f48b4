// SPDX-License-Identifier: Apache-2.0
#include "tensor_view.h"

#include <cstring>

#include "program_reader.h"

namespace hrnn {

TensorView dense_view(int32_t rank, const int64_t *dims) {
  TensorView view = {};
  view.rank = rank;
  int64_t stride = 1;
  for (int32_t i = rank - 1; i >= 0; --i) {
    view.dims[i] = dims[i];
    view.strides[i] = stride;
    stride *= dims[i] > 0 ? dims[i] : 1;
  }
  return view;
}

bool is_empty(const TensorView &view) {
  for (int32_t i = 0; i < view.rank; ++i) {
    if (view.dims[i] == 0) return true;
  }
  return false;
}

bool is_dense(const TensorView &view) {
  if (is_empty(view)) return true;
  int64_t stride = 1;
  for (int32_t i = view.rank - 1; i >= 0; --i) {
    if (view.dims[i] != 1 && view.strides[i] != stride) return false;
    stride *= view.dims[i];
  }
  return true;
}

bool same_elements(const TensorView &a, const TensorView &b) {
  if (is_empty(a)) return true;
  if (a.offset != b.offset) return false;
  for (int32_t i = 0; i < a.rank; ++i) {
    if (a.dims[i] != 1 && a.strides[i] != b.strides[i]) return false;
  }
  return true;
}

SliceRange slice_range(int64_t dim, int64_t start, int64_t stop, int64_t step) {
  if (dim == 0) return {0, 0, step};
  // ONNX: a negative position counts from the end; then start is clamped to [0, dim] and stop to [0, dim], or to
  // [0, dim - 1] and [-1, dim - 1] when walking down. Adding dim to a negative number cannot overflow.
  if (start < 0) start += dim;
  if (stop < 0) stop += dim;
  const int64_t start_most = step > 0 ? dim : dim - 1;
  const int64_t stop_least = step > 0 ? 0 : -1;
  if (start < 0) start = 0;
  if (start > start_most) start = start_most;
  if (stop < stop_least) stop = stop_least;
  if (stop > start_most) stop = start_most;
  const int64_t distance = step > 0 ? stop - start : start - stop;
  if (distance <= 0) return {0, 0, step};
  const uint64_t stride = step > 0 ? static_cast<uint64_t>(step) : 0 - static_cast<uint64_t>(step);
  return {start, 1 + static_cast<int64_t>(static_cast<uint64_t>(distance - 1) / stride), step};
}

bool reshape_view(const TensorView &view, int32_t rank, const int64_t *dims, TensorView *reshaped) {
  TensorView out = dense_view(rank, dims);
  out.offset = view.offset;
  if (is_empty(view)) {
    *reshaped = out;
    return true;
  }
  // Dimensions of 1 are at no one's disposal: leave them out of the matching.
  int64_t in_dims[HRNN_MAX_RANK], in_strides[HRNN_MAX_RANK];
  int32_t in_rank = 0;
  for (int32_t i = 0; i < view.rank; ++i) {
    if (view.dims[i] == 1) continue;
    in_dims[in_rank] = view.dims[i];
    in_strides[in_rank++] = view.strides[i];
  }
  // Match the shortest groups of axes with equal products; within a group of the input the axes must be mergeable, and
  // then the group of the output splits the merged axis.
  int32_t in = 0, next = 0;
  while (next < rank) {
    if (dims[next] == 1) {
      ++next;
      continue;
    }
    if (in == in_rank) return false;
    int32_t in_end = in + 1, out_end = next + 1;
    int64_t in_product = in_dims[in], out_product = dims[next];
    while (in_product != out_product) {
      if (in_product < out_product) {
        if (in_end == in_rank) return false;
        if (in_strides[in_end - 1] != in_strides[in_end] * in_dims[in_end]) return false;
        in_product *= in_dims[in_end++];
      } else {
        if (out_end == rank) return false;
        out_product *= dims[out_end++];
      }
    }
    int64_t stride = in_strides[in_end - 1];
    for (int32_t i = out_end - 1; i >= next; --i) {
      out.strides[i] = stride;
      stride *= dims[i];
    }
    in = in_end;
    next = out_end;
  }
  if (in != in_rank) return false;
  *reshaped = out;
  return true;
}

bool apply_view(const OpRecord &op, const TensorView &in, int32_t out_rank, const int64_t *out_dims, TensorView *out) {
  if (is_kind(op, OpKind::Reshape)) return reshape_view(in, out_rank, out_dims, out);
  TensorView view = {};
  view.rank = out_rank;
  view.offset = in.offset;
  memcpy(view.dims, out_dims, sizeof(int64_t) * static_cast<size_t>(out_rank));
  const int32_t axis = static_cast<int32_t>(op.ints[0]);
  switch (static_cast<OpKind>(op.kind)) {
    case OpKind::Transpose:
      for (int32_t i = 0; i < out_rank; ++i) view.strides[i] = in.strides[op.ints[i]];
      break;
    case OpKind::Slice: {
      memcpy(view.strides, in.strides, sizeof(view.strides));
      const SliceRange range = slice_range(in.dims[axis], op.ints[1], op.ints[2], op.ints[3]);
      view.offset += range.first * in.strides[axis];
      // A step may be as large as it likes when it is never taken.
      if (range.count > 1) view.strides[axis] *= range.step;
      break;
    }
    case OpKind::Select:
    case OpKind::Squeeze: {
      if (is_kind(op, OpKind::Select)) {
        const int64_t index = op.ints[1] < 0 ? op.ints[1] + in.dims[axis] : op.ints[1];
        view.offset += index * in.strides[axis];
      }
      for (int32_t i = 0; i < out_rank; ++i) view.strides[i] = in.strides[i < axis ? i : i + 1];
      break;
    }
    case OpKind::Unsqueeze:
      for (int32_t i = 0; i < out_rank; ++i) view.strides[i] = i == axis ? 0 : in.strides[i < axis ? i : i - 1];
      break;
    default:  // Expand: axes line up at the end
      for (int32_t i = 0; i < out_rank; ++i) {
        const int32_t from = i - (out_rank - in.rank);
        view.strides[i] = from < 0 || in.dims[from] != out_dims[i] ? 0 : in.strides[from];
      }
      break;
  }
  *out = view;
  return true;
}

bool invert_view(const OpRecord &op, const TensorView &out, int32_t in_rank, const int64_t *in_dims, TensorView *in) {
  if (is_kind(op, OpKind::Reshape)) return reshape_view(out, in_rank, in_dims, in);
  TensorView view = {};
  view.rank = in_rank;
  view.offset = out.offset;
  memcpy(view.dims, in_dims, sizeof(int64_t) * static_cast<size_t>(in_rank));
  const int32_t axis = static_cast<int32_t>(op.ints[0]);
  switch (static_cast<OpKind>(op.kind)) {
    case OpKind::Transpose:
      for (int32_t i = 0; i < in_rank; ++i) view.strides[op.ints[i]] = out.strides[i];
      break;
    case OpKind::Slice:
      memcpy(view.strides, out.strides, sizeof(view.strides));
      if (out.dims[axis] != in_dims[axis]) return false;
      if (in_dims[axis] > 1 && op.ints[3] < 0) {  // all of the axis, backwards
        view.offset += out.strides[axis] * (in_dims[axis] - 1);
        view.strides[axis] = -out.strides[axis];
      }
      break;
    case OpKind::Select:
    case OpKind::Squeeze:
      if (in_dims[axis] != 1) return false;
      for (int32_t i = 0; i < in_rank; ++i) view.strides[i] = i == axis ? 0 : out.strides[i < axis ? i : i - 1];
      break;
    case OpKind::Unsqueeze:
      for (int32_t i = 0; i < in_rank; ++i) view.strides[i] = out.strides[i < axis ? i : i + 1];
      break;
    default:  // Expand: only one that repeats nothing
      for (int32_t i = 0; i < out.rank; ++i) {
        const int32_t from = i - (out.rank - in_rank);
        if (out.dims[i] != (from < 0 ? 1 : in_dims[from])) return false;
        if (from >= 0) view.strides[from] = out.strides[i];
      }
      break;
  }
  *in = view;
  return true;
}

StridedLoop strided_loop(const TensorView &a, const TensorView &b) {
  StridedLoop loop = {};
  // Axes by falling stride of b (stably, by insertion), without those of 1.
  for (int32_t i = 0; i < b.rank; ++i) {
    if (b.dims[i] == 1) continue;
    const int64_t size = b.strides[i] < 0 ? -b.strides[i] : b.strides[i];
    int32_t at = loop.rank++;
    for (; at > 0; --at) {
      const int64_t above = loop.b_strides[at - 1] < 0 ? -loop.b_strides[at - 1] : loop.b_strides[at - 1];
      if (above >= size) break;
      loop.dims[at] = loop.dims[at - 1];
      loop.a_strides[at] = loop.a_strides[at - 1];
      loop.b_strides[at] = loop.b_strides[at - 1];
    }
    loop.dims[at] = b.dims[i];
    loop.a_strides[at] = a.strides[i];
    loop.b_strides[at] = b.strides[i];
  }
  if (loop.rank == 0) {  // a single element
    loop.rank = 1;
    loop.dims[0] = loop.a_strides[0] = loop.b_strides[0] = 1;
    return loop;
  }
  // Merge an axis into the one outside it where both walk on in equal steps.
  int32_t last = 0;
  for (int32_t i = 1; i < loop.rank; ++i) {
    if (loop.a_strides[last] == loop.a_strides[i] * loop.dims[i] &&
        loop.b_strides[last] == loop.b_strides[i] * loop.dims[i]) {
      loop.dims[last] *= loop.dims[i];
    } else {
      loop.dims[++last] = loop.dims[i];
    }
    loop.a_strides[last] = loop.a_strides[i];
    loop.b_strides[last] = loop.b_strides[i];
  }
  loop.rank = last + 1;
  return loop;
}

namespace {

template <typename Value>
void copy_values(const StridedLoop &loop, const Value *a, Value *b) {
  const int64_t count = loop.dims[loop.rank - 1];
  const int64_t a_stride = loop.a_strides[loop.rank - 1], b_stride = loop.b_strides[loop.rank - 1];
  for_each_run(loop, [&](int64_t a_offset, int64_t b_offset) {
    const Value *from = a + a_offset;
    Value *to = b + b_offset;
    if (a_stride == 1 && b_stride == 1) {
      memcpy(to, from, static_cast<size_t>(count) * sizeof(Value));
    } else {
      for (int64_t i = 0; i < count; ++i) to[i * b_stride] = from[i * a_stride];
    }
  });
}

}  // namespace

void copy_elements(const StridedLoop &loop, int32_t dtype, const void *a, void *b) {
  switch (dtype) {
    case HRNN_F32: copy_values(loop, static_cast<const float *>(a), static_cast<float *>(b)); break;
    case HRNN_F64: copy_values(loop, static_cast<const double *>(a), static_cast<double *>(b)); break;
    case HRNN_I32: copy_values(loop, static_cast<const int32_t *>(a), static_cast<int32_t *>(b)); break;
    default: copy_values(loop, static_cast<const int64_t *>(a), static_cast<int64_t *>(b)); break;
  }
}

}  // namespace hrnn
