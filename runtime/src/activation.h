// SPDX-License-Identifier: Apache-2.0
//
// Elementwise activations between layers, in plain C++. (Those inside a cell are part of its kernels.)
#pragma once
#include "hrnn/hrnn.h"
#include "tensor_view.h"

namespace hrnn {

// b = activation(a) over a loop of HRNN_F32 or HRNN_F64 elements. No dimension is 0. a and b may be the same memory if
// their strides are the same.
void activate_elements(const StridedLoop &loop, int32_t dtype, const hrnn_activation &activation, const void *a,
                       void *b);

}  // namespace hrnn
