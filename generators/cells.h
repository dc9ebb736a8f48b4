// SPDX-License-Identifier: Apache-2.0
//
// A cell is an expression. It is written once here and used by every target, on CPU and GPU, in every precision.
//
// A cell has `gates`: affine products of the input (x W_g^T + Wb_g) and of the state (s R_g^T + Rb_g), in the order the
// weight matrices stack them. It is computed in one or more phases. A phase multiplies some gates' R with an operand
// vector, which must be complete for all units before the phase starts: the previous state in phase 0, the first output
// of the phase before in the next one. The last phase yields the new state.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "Halide.h"

namespace hrnn {

// What a phase may read, each for the one hidden unit and batch row being computed.
struct PhaseInputs {
  std::vector<Halide::Expr> input;    // x W_g^T + Wb_g, one per gate of the cell
  std::vector<Halide::Expr> product;  // operand R_g^T + Rb_g, one per gate of the phase, in the phase's order
  std::vector<Halide::Expr> carried;  // outputs 1.. of the phase before
  Halide::Expr state;                 // the previous state of this unit
  std::function<Halide::Expr(int, Halide::Expr)> activation;  // the cell's activation 0, 1, ..., clipped if asked
};

struct Phase {
  std::vector<int> gates;  // which gates' R this phase multiplies with its operand
  int outputs;             // how many values compute() yields: the operand of the next phase, then what is carried
  std::function<std::vector<Halide::Expr>(const PhaseInputs &)> compute;
};

struct Cell {
  std::string name;
  int gates;
  std::vector<std::string> default_activations;  // one per activation, names as in activations.h
  std::vector<Phase> phases;
};

// The cell of that name; throws std::invalid_argument naming the known ones.
const Cell &cell_by_name(const std::string &name);
std::vector<std::string> cell_names();

// Adds a cell: a user's own, from a static initialiser (HRNN_REGISTER_CELL) before any kernel is generated.
bool register_cell(Cell cell);

}  // namespace hrnn

#define HRNN_REGISTER_CELL(identifier, ...) \
  static const bool hrnn_registered_cell_##identifier = ::hrnn::register_cell(__VA_ARGS__)
