// SPDX-License-Identifier: Apache-2.0
//
// The cell that the page of keras.layers.RNN writes as its example (MinimalRNNCell), linear and without a bias:
//   h' = x kernel + h recurrent_kernel
// Keras keeps both as [inputs, units]; W [units, inputs] and R [units, units] are their transposes.
#include "hrnn/cell.h"

using namespace hrnn;

static Cell minimal_rnn() {
  Phase phase{{0}, 1, [](const PhaseInputs &in) -> std::vector<Expr> { return {in.input[0] + in.product[0]}; }};
  return {"minimal_rnn", 1, {}, {phase}};
}
HRNN_REGISTER_CELL(minimal_rnn, minimal_rnn());
