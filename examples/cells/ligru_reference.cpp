// SPDX-License-Identifier: Apache-2.0
//
// z_t = sigmoid(W_z x_t + U_z h_t-1 + b_z); h~_t = relu(W_h x_t + U_h h_t-1 + b_h); h_t = z_t . h_t-1 + (1 - z_t) . h~_t
#include "hrnn/cell_reference.h"

HRNN_CELL_REFERENCE(ligru, 2, {"sigmoid", "relu"}, [](const auto &in) {
  auto next = in.state;
  for (int j = 0; j < in.hidden; j++) {
    const auto z = in.activation(0, in.input(0, j) + in.product(0, j, in.state));
    const auto candidate = in.activation(1, in.input(1, j) + in.product(1, j, in.state));
    next[j] = z * in.state[j] + (1 - z) * candidate;
  }
  return next;
});
