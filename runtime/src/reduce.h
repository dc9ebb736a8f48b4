// SPDX-License-Identifier: Apache-2.0
//
// Reductions: many elements to one, in plain C++.
#pragma once
#include "tensor_view.h"

namespace hrnn {

// Numbers of programs: they never change.
enum class Reduction : int32_t {
  Sum = 0,
  Mean = 1,
  Max = 2,
  Min = 3,
  Prod = 4,
  SumSquare = 5,
  L1 = 6,
  L2 = 7,
  LogSum = 8,
  LogSumExp = 9,
  ArgMax = 10,  // of one axis: the first of equal ones
  ArgMin = 11,
  ArgMaxLast = 12,  // the last of equal ones
  ArgMinLast = 13,
};
constexpr int kReductions = 14;

inline bool gives_index(Reduction reduction) { return reduction >= Reduction::ArgMax; }
// Types as bits of elementwise.h.
uint32_t reduction_types(Reduction reduction);

// `outer`: over what stays, with the input and the result; `inner`: over what is reduced, with the input only, of `count`
// elements (0: the loop is not looked at). Sums are taken in double precision, or in 64-bit integers.
void reduce_elements(Reduction reduction, int32_t dtype, const StridedLoop &outer, const StridedLoop &inner,
                     int64_t count, const void *from, void *to);

}  // namespace hrnn
