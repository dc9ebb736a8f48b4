// SPDX-License-Identifier: Apache-2.0
//
// Minimal gated unit (Zhou, Wu, Zhang, Zhou: Minimal Gated Unit for Recurrent Neural Networks, 2016). Gates f, n:
//   f = sigmoid(x Wf + h Rf + bf); n = tanh(x Wn + (f h) Rn + bn); h' = (1 - f) h + f n
// f h of all units comes before the candidate's product, hence two phases.
#include "hrnn/cell.h"

using namespace hrnn;

static Cell minimal_gated_unit() {
  Phase forget{{0}, 2, [](const PhaseInputs &in) -> std::vector<Expr> {
                 Expr f = in.activation(0, in.input[0] + in.product[0]);
                 return {f * in.state, f};  // operand of the next phase, then what is carried to it
               }};
  Phase candidate{{1}, 1, [](const PhaseInputs &in) -> std::vector<Expr> {
                    Expr n = in.activation(1, in.input[1] + in.product[0]);
                    return {in.state + in.carried[0] * (n - in.state)};
                  }};
  return {"mgu", 2, {"sigmoid", "tanh"}, {forget, candidate}};
}
HRNN_REGISTER_CELL(mgu, minimal_gated_unit());
