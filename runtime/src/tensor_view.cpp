// SPDX-License-Identifier: Apache-2.0
#include "tensor_view.h"

#include <cstring>

#include "pack.h"
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

int64_t window_count(int64_t dim, int64_t size, int64_t stride, int64_t dilation) {
  // In steps that cannot overflow: (size - 1) * dilation < dim is checked as a quotient.
  if (dim < 1 || (dim - 1) / dilation < size - 1) return 0;
  return (dim - 1 - (size - 1) * dilation) / stride + 1;
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
    case OpKind::Window:
      memcpy(view.strides, in.strides, sizeof(view.strides));
      // A stride or dilation may be as large as it likes when it is never taken.
      view.strides[out_rank - 1] = op.ints[kWindowSize] > 1 ? in.strides[axis] * op.ints[kWindowDilation] : 0;
      if (out_dims[axis] > 1) view.strides[axis] *= op.ints[kWindowStride];
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
    case OpKind::Window: return false;  // windows share elements
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

StridedLoop strided_loop(const TensorView *const *views, int operands) {
  StridedLoop loop = {};
  loop.operands = operands;
  const TensorView &last_view = *views[operands - 1];
  const auto move = [&](int32_t to, int32_t from) {
    loop.dims[to] = loop.dims[from];
    for (int k = 0; k < operands; ++k) loop.strides[k][to] = loop.strides[k][from];
  };
  // Axes by falling stride of the last view (stably, by insertion), without those of 1.
  for (int32_t i = 0; i < last_view.rank; ++i) {
    if (last_view.dims[i] == 1) continue;
    const int64_t size = last_view.strides[i] < 0 ? -last_view.strides[i] : last_view.strides[i];
    int32_t at = loop.rank++;
    for (; at > 0; --at) {
      const int64_t stride = loop.strides[operands - 1][at - 1], above = stride < 0 ? -stride : stride;
      if (above >= size) break;
      move(at, at - 1);
    }
    loop.dims[at] = last_view.dims[i];
    for (int k = 0; k < operands; ++k) loop.strides[k][at] = views[k]->strides[i];
  }
  if (loop.rank == 0) {  // a single element
    loop.rank = 1;
    loop.dims[0] = 1;
    for (int k = 0; k < operands; ++k) loop.strides[k][0] = 1;
    return loop;
  }
  // Merge an axis into the one outside it where all walk on in equal steps.
  int32_t last = 0;
  for (int32_t i = 1; i < loop.rank; ++i) {
    bool merges = true;
    for (int k = 0; k < operands; ++k) {
      merges = merges && loop.strides[k][last] == loop.strides[k][i] * loop.dims[i];
    }
    const int64_t outer = merges ? loop.dims[last] : 1;
    if (!merges) ++last;
    move(last, i);
    loop.dims[last] *= outer;
  }
  loop.rank = last + 1;
  return loop;
}

namespace {

template <int64_t kSize>
void copy_values(const StridedLoop &loop, const char *a, char *b) {
  const int32_t inner = loop.rank - 1;
  const int64_t count = loop.dims[inner], a_stride = loop.strides[0][inner], b_stride = loop.strides[1][inner];
  for_each_run(loop, [&](const int64_t *offsets) {
    const char *from = a + offsets[0] * kSize;
    char *to = b + offsets[1] * kSize;
    if (a_stride == 1 && b_stride == 1) {
      memcpy(to, from, static_cast<size_t>(count * kSize));
    } else {
      for (int64_t i = 0; i < count; ++i) memcpy(to + i * b_stride * kSize, from + i * a_stride * kSize, kSize);
    }
  });
}

template <int64_t kSize>
void fill_values(const StridedLoop &loop, const char *value, char *to) {
  for_each_element(loop, [&](const int64_t *offsets) { memcpy(to + offsets[0] * kSize, value, kSize); });
}

}  // namespace

// Only the size of a type matters here.
void copy_elements(const StridedLoop &loop, int32_t dtype, const void *a, void *b) {
  const char *from = static_cast<const char *>(a);
  char *to = static_cast<char *>(b);
  switch (dtype_bytes(dtype)) {
    case 1: copy_values<1>(loop, from, to); break;
    case 2: copy_values<2>(loop, from, to); break;
    case 4: copy_values<4>(loop, from, to); break;
    default: copy_values<8>(loop, from, to); break;
  }
}

void fill_elements(const StridedLoop &loop, int32_t dtype, const void *value, void *to) {
  const char *element = static_cast<const char *>(value);
  char *first = static_cast<char *>(to);
  switch (dtype_bytes(dtype)) {
    case 1: fill_values<1>(loop, element, first); break;
    case 2: fill_values<2>(loop, element, first); break;
    case 4: fill_values<4>(loop, element, first); break;
    default: fill_values<8>(loop, element, first); break;
  }
}

}  // namespace hrnn
