// SPDX-License-Identifier: Apache-2.0
//
// output = inputs @ kernel + previous_output @ recurrent_kernel
#include "hrnn/cell_reference.h"

HRNN_CELL_REFERENCE(minimal_rnn, 1, {}, [](const auto &in) {
  auto next = in.state;
  for (int j = 0; j < in.hidden; j++) next[j] = in.input(0, j) + in.product(0, j, in.state);
  return next;
});
