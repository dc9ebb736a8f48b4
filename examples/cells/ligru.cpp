// SPDX-License-Identifier: Apache-2.0
//
// Light GRU (Ravanelli, Brakel, Omologo, Bengio: Light Gated Recurrent Units for Speech Recognition, 2018): no reset gate,
// relu for the candidate. Gates z, n:
//   z = sigmoid(BN(x Wz) + h Rz); n = relu(BN(x Wn) + h Rn); h' = z h + (1 - z) n
// Batch normalisation with the statistics of the training is affine: for inference, W and b hold it already, each row of W
// times gamma / sqrt(variance + epsilon), and b = beta - mean gamma / sqrt(variance + epsilon).
#include "hrnn/cell.h"

using namespace hrnn;

static Cell light_gru() {
  Phase phase{{0, 1}, 1, [](const PhaseInputs &in) -> std::vector<Expr> {
                Expr z = in.activation(0, in.input[0] + in.product[0]);
                Expr n = in.activation(1, in.input[1] + in.product[1]);
                return {n + z * (in.state - n)};
              }};
  return {"ligru", 2, {"sigmoid", "relu"}, {phase}};
}
HRNN_REGISTER_CELL(ligru, light_gru());
