// SPDX-License-Identifier: Apache-2.0
//
// A cell is an expression. It is written once and used by every target, on CPU and GPU, in every precision.
//
//   // Minimal gated unit: f = s(x Wf + h Rf); n = t(x Wn + (f h) Rn); h' = (1 - f) h + f n
//   hrnn::Cell minimal_gated_unit() {
//     using namespace hrnn;
//     Phase forget{{0}, 2, [](const PhaseInputs &in) -> std::vector<Expr> {
//                    Expr f = in.activation(0, in.input[0] + in.product[0]);
//                    return {f * in.state, f};              // operand of the next phase, then what is carried to it
//                  }};
//     Phase candidate{{1}, 1, [](const PhaseInputs &in) -> std::vector<Expr> {
//                       Expr n = in.activation(1, in.input[1] + in.product[0]);
//                       return {in.state + in.carried[0] * (n - in.state)};
//                     }};
//     return {"mgu", 2, {"sigmoid", "tanh"}, {forget, candidate}};
//   }
//   HRNN_REGISTER_CELL(mgu, minimal_gated_unit());
//
// A cell has `gates`: affine products of the input (x W_g^T + Wb_g) and of an operand (s R_g^T + Rb_g), in the order the
// weight matrices stack them. It is computed in one or more phases. A phase multiplies some gates' R with an operand
// vector, which must be complete for all units before the phase starts: the previous state in phase 0, the first output
// of the phase before in the next one. The last phase yields the new state.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "Halide.h"

namespace hrnn {

using Halide::Expr;

// What a phase may read, each for the one hidden unit and batch row being computed.
struct PhaseInputs {
  std::vector<Expr> input;    // x W_g^T + Wb_g, one per gate of the cell
  std::vector<Expr> product;  // operand R_g^T + Rb_g, one per gate of the phase, in the phase's order
  std::vector<Expr> carried;  // outputs 1.. of the phase before
  Expr state;                 // the previous state of this unit
  std::function<Expr(int, Expr)> activation;  // the cell's activation 0, 1, ..., clipped if asked
  // A number in the type being compiled. Whole ones can be written as they are: 1 - f.
  Expr constant(double value) const { return Halide::cast(state.type(), Expr(value)); }
};

struct Phase {
  std::vector<int> gates;  // which gates' R this phase multiplies with its operand, ascending
  int outputs;             // how many values compute() yields: the operand of the next phase, then what is carried
  std::function<std::vector<Expr>(const PhaseInputs &)> compute;
};

// At most HRNN_MAX_GATES gates, HRNN_MAX_PHASES phases, HRNN_MAX_ACTIVATIONS activations, and HRNN_MAX_CARRIED values
// carried between two phases (hrnn.h). A gate in no phase has no recurrent product: its block of R is not read.
struct Cell {
  std::string name;  // a C identifier, as kernels are called by it
  int gates;
  // Where a problem names none, with alpha = 1 and beta = 0: relu, tanh, sigmoid, affine, leakyrelu, thresholdedrelu,
  // scaledtanh, hardsigmoid, elu, softsign, softplus. Kernels with these compiled in are made beside general ones.
  std::vector<std::string> default_activations;
  std::vector<Phase> phases;
};

// Adds a cell, from a static initialiser (HRNN_REGISTER_CELL). A cell that is not well formed, or a second one of its
// name, is reported when the first cell is looked for. `where`: the file, for messages.
bool register_cell(Cell cell, const char *where);

}  // namespace hrnn

#define HRNN_REGISTER_CELL(identifier, ...) \
  static const bool hrnn_registered_cell_##identifier = ::hrnn::register_cell(__VA_ARGS__, __FILE__)
