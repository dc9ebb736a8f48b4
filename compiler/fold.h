// SPDX-License-Identifier: Apache-2.0
//
// Computes operations whose inputs are all known, with the runtime's own code: folding and running cannot differ.
#pragma once
#include "graph.h"

namespace hrnn {

// Whether evaluate() takes such an operation: it computes, and needs no kernels.
bool can_evaluate(const Op &op);
// The output of an operation on constants, which has this type and these dimensions. Throws ModelError where the
// operation has no result (an index out of range, a division by zero).
Constant evaluate(const Op &op, const std::vector<const Tensor *> &inputs, DataType type,
                  const std::vector<int64_t> &dims);

}  // namespace hrnn
