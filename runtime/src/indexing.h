// SPDX-License-Identifier: Apache-2.0
//
// Elements chosen by numbers that a tensor holds: gathering, scattering, the k largest. In plain C++.
#pragma once
#include "elementwise.h"
#include "tensor_view.h"

namespace hrnn {

// What a tuple of indices points at: its element e picks along axis axes[e] of the data, of dims[e] elements strides[e]
// apart. Negative indices count from the end.
struct IndexTuple {
  int32_t count;         // of indices; 0: every tuple points at the same place
  int32_t index_dtype;   // HRNN_I32 or HRNN_I64
  int64_t index_stride;  // between the indices of a tuple
  int32_t axes[HRNN_MAX_RANK];
  int64_t dims[HRNN_MAX_RANK], strides[HRNN_MAX_RANK];
};

struct BadIndex {
  int64_t index, dim;
  int32_t axis;
};

// Calls body(offset of the data, offsets of the loop) for every tuple; the loop's first operand is the indices. False: an
// index is out of range.
template <typename Body>
bool for_each_tuple(const IndexTuple &tuple, const StridedLoop &loop, const void *indices, BadIndex *bad,
                    const Body &body) {
  bool good = true;
  for_each_element(loop, [&](const int64_t *offsets) {
    int64_t data = 0;
    for (int32_t e = 0; good && e < tuple.count; ++e) {
      const int64_t at = offsets[0] + e * tuple.index_stride;
      const int64_t given = tuple.index_dtype == HRNN_I64 ? static_cast<const int64_t *>(indices)[at]
                                                          : static_cast<const int32_t *>(indices)[at];
      const int64_t index = given < 0 ? given + tuple.dims[e] : given;
      good = index >= 0 && index < tuple.dims[e];
      if (!good) *bad = {given, tuple.dims[e], tuple.axes[e]};
      data += good ? index * tuple.strides[e] : 0;
    }
    if (good) body(data, offsets);
  });
  return good;
}

// outer: indices, data, result; inner: data, result, over what one tuple picks.
bool gather_elements(int32_t dtype, const IndexTuple &tuple, const StridedLoop &outer, const StridedLoop &inner,
                     const void *data, const void *indices, void *to, BadIndex *bad);

// How an update meets what is there: replaces it (kReplace), or a Function of elementwise.h of both.
constexpr int64_t kReplace = 0;
inline bool is_scatter_reduction(int64_t reduction) {
  return reduction == kReplace || reduction == static_cast<int64_t>(Function::Add) ||
         reduction == static_cast<int64_t>(Function::Mul) || reduction == static_cast<int64_t>(Function::Min) ||
         reduction == static_cast<int64_t>(Function::Max);
}

// outer: indices, updates, result; inner: result, updates, result, over what one tuple picks. The result holds the data.
bool scatter_elements(int32_t dtype, int64_t reduction, const IndexTuple &tuple, const StridedLoop &outer,
                      const StridedLoop &inner, const void *updates, const void *indices, void *to, BadIndex *bad);

// The indices of the k <= count largest or smallest of elements `stride` apart, in their order, to `to`, k int64 that are
// `to_stride` apart. Of equal ones the first comes first; NaN is larger than all.
void top_k(int32_t dtype, bool largest, const void *from, int64_t count, int64_t stride, int64_t *to, int64_t k,
           int64_t to_stride);

}  // namespace hrnn
