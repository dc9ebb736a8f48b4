// SPDX-License-Identifier: Apache-2.0
//
// f_t = sigmoid(W_f [h_t-1, x_t] + b_f); h~_t = tanh(W_h [f_t . h_t-1, x_t] + b_h); h_t = (1 - f_t) . h_t-1 + f_t . h~_t
#include "hrnn/cell_reference.h"

HRNN_CELL_REFERENCE(mgu, 2, {"sigmoid", "tanh"}, [](const auto &in) {
  auto f = in.state, kept = in.state, next = in.state;  // one value per unit
  for (int j = 0; j < in.hidden; j++) {
    f[j] = in.activation(0, in.input(0, j) + in.product(0, j, in.state));
    kept[j] = f[j] * in.state[j];
  }
  for (int j = 0; j < in.hidden; j++) {
    const auto candidate = in.activation(1, in.input(1, j) + in.product(1, j, kept));
    next[j] = (1 - f[j]) * in.state[j] + f[j] * candidate;
  }
  return next;
});
