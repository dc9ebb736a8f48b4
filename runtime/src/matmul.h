// SPDX-License-Identifier: Apache-2.0
//
// Products of two matrices that both arrive at run time, in plain C++. (Products with weights run on generated kernels.)
#pragma once
#include <cstdint>

namespace hrnn {

// Strides in elements; the columns of b and y are next to each other.
struct MatMulShape {
  int64_t m, n, k;
  int64_t a_row_stride, a_k_stride, b_k_stride, y_row_stride;
};
// y [m, n] = a [m, k] b [k, n], of HRNN_F32 or HRNN_F64.
void multiply_matrices(int32_t dtype, const MatMulShape &shape, const void *a, const void *b, void *y);

}  // namespace hrnn
