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

// How many windows of `size` elements `dilation` apart fit an axis, each `stride` after the one before; all three >= 1.
int64_t window_count(int64_t dim, int64_t size, int64_t stride, int64_t dilation);

// `view` with other dims of the same element count, in the same (row-major) order. False when no strides can say it.
bool reshape_view(const TensorView &view, int32_t rank, const int64_t *dims, TensorView *reshaped);

// The view a view operation makes of `in`; `out_dims` are its inferred dims. False for a Reshape that must copy.
bool apply_view(const OpRecord &op, const TensorView &in, int32_t out_rank, const int64_t *out_dims, TensorView *out);
// The reverse: where `in` must lie for `out` to come out of apply_view. False when `out` does not show all of `in`
// exactly once, or no strides can say it.
bool invert_view(const OpRecord &op, const TensorView &out, int32_t in_rank, const int64_t *in_dims, TensorView *in);

// Views of equal dims walked together, in as few and as long loops as the strides allow. dims[rank - 1] is the innermost
// loop, over the axis where the last view's stride is smallest.
constexpr int kMaxLoopOperands = 4;
struct StridedLoop {
  int32_t rank;  // >= 1
  int32_t operands;
  int64_t dims[HRNN_MAX_RANK];
  int64_t strides[kMaxLoopOperands][HRNN_MAX_RANK];
};
StridedLoop strided_loop(const TensorView *const *views, int operands);
inline StridedLoop strided_loop(const TensorView &a, const TensorView &b) {
  const TensorView *views[] = {&a, &b};
  return strided_loop(views, 2);
}

// Calls body(offsets) with the offsets, of each operand, of each innermost loop's first elements.
template <typename Body>
inline void for_each_run(const StridedLoop &loop, const Body &body) {
  int64_t index[HRNN_MAX_RANK] = {}, offsets[kMaxLoopOperands] = {};
  for (;;) {
    body(static_cast<const int64_t *>(offsets));
    int32_t axis = loop.rank - 2;
    for (; axis >= 0; --axis) {
      const bool more = ++index[axis] < loop.dims[axis];
      const int64_t steps = more ? 1 : 1 - loop.dims[axis];
      for (int32_t k = 0; k < loop.operands; ++k) offsets[k] += loop.strides[k][axis] * steps;
      if (more) break;
      index[axis] = 0;
    }
    if (axis < 0) return;
  }
}

// Calls body(offsets) for every element.
template <typename Body>
inline void for_each_element(const StridedLoop &loop, const Body &body) {
  const int32_t inner = loop.rank - 1;
  for_each_run(loop, [&](const int64_t *run) {
    int64_t offsets[kMaxLoopOperands];
    for (int64_t i = 0; i < loop.dims[inner]; ++i) {
      for (int32_t k = 0; k < loop.operands; ++k) offsets[k] = run[k] + i * loop.strides[k][inner];
      body(static_cast<const int64_t *>(offsets));
    }
  });
}

// Copies a loop's elements of an hrnn_dtype from a to b. No dimension is 0, and the memory does not overlap.
void copy_elements(const StridedLoop &loop, int32_t dtype, const void *a, void *b);
// Sets a loop's elements (its only operand) to the one value of an hrnn_dtype at `value`.
void fill_elements(const StridedLoop &loop, int32_t dtype, const void *value, void *to);

}  // namespace hrnn
