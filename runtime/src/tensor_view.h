// SPDX-License-Identifier: Apache-2.0
//
// Tensors as strided views: what lets a session move axes about without moving values.
#pragma once
#include <cstdint>

#include "hrnn/hrnn.h"
#include "program.h"

namespace hrnn {

// Strides and offset in elements; an offset counts from wherever the values' memory starts. Strides may be negative
// (reversed) or 0 (broadcast).
struct TensorView {
  int32_t rank;
  int64_t dims[HRNN_MAX_RANK];
  int64_t strides[HRNN_MAX_RANK];
  int64_t offset;
};

TensorView dense_view(int32_t rank, const int64_t *dims);
bool is_dense(const TensorView &view);
bool is_empty(const TensorView &view);
// Both show the same elements of the same memory in the same order. The dims are taken to be equal.
bool same_elements(const TensorView &a, const TensorView &b);

// The elements of one axis a Slice takes, after ONNX's clamping.
struct SliceRange {
  int64_t first, count, step;
};
SliceRange slice_range(int64_t dim, int64_t start, int64_t stop, int64_t step);

// `view` with other dims of the same element count, in the same (row-major) order. False when no strides can say it.
bool reshape_view(const TensorView &view, int32_t rank, const int64_t *dims, TensorView *reshaped);

// The view a view operation makes of `in`; `out_dims` are its inferred dims. False for a Reshape that must copy.
bool apply_view(const OpRecord &op, const TensorView &in, int32_t out_rank, const int64_t *out_dims, TensorView *out);
// The reverse: where `in` must lie for `out` to come out of apply_view. False when `out` does not show all of `in`
// exactly once, or no strides can say it.
bool invert_view(const OpRecord &op, const TensorView &out, int32_t in_rank, const int64_t *in_dims, TensorView *in);

// Two views of equal dims walked together, in as few and as long loops as the strides allow. dims[rank - 1] is the
// innermost loop, over the axis where b's stride is smallest.
struct StridedLoop {
  int32_t rank;  // >= 1
  int64_t dims[HRNN_MAX_RANK], a_strides[HRNN_MAX_RANK], b_strides[HRNN_MAX_RANK];
};
StridedLoop strided_loop(const TensorView &a, const TensorView &b);

// Calls body(a_offset, b_offset) with the offsets of each innermost loop's first elements.
template <typename Body>
inline void for_each_run(const StridedLoop &loop, const Body &body) {
  int64_t index[HRNN_MAX_RANK] = {};
  int64_t a = 0, b = 0;
  for (;;) {
    body(a, b);
    int32_t axis = loop.rank - 2;
    for (; axis >= 0; --axis) {
      a += loop.a_strides[axis];
      b += loop.b_strides[axis];
      if (++index[axis] < loop.dims[axis]) break;
      a -= loop.a_strides[axis] * loop.dims[axis];
      b -= loop.b_strides[axis] * loop.dims[axis];
      index[axis] = 0;
    }
    if (axis < 0) return;
  }
}

// Copies a loop's elements of an hrnn_dtype from a to b. No dimension is 0, and the memory does not overlap.
void copy_elements(const StridedLoop &loop, int32_t dtype, const void *a, void *b);

}  // namespace hrnn
