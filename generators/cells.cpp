// SPDX-License-Identifier: Apache-2.0
#include "cells.h"

#include <map>
#include <stdexcept>

namespace hrnn {
namespace {

using Halide::Expr;

// The blend of every GRU: z keeps the old state. In this form one multiply-add follows the candidate.
Expr blend(const Expr &z, const Expr &candidate, const Expr &state) { return z * state + (1 - z) * candidate; }

// H' = f(x W^T + Wb + H R^T + Rb)   (ONNX RNN)
Cell rnn() {
  Phase phase{{0}, 1, [](const PhaseInputs &in) -> std::vector<Expr> {
                return {in.activation(0, in.input[0] + in.product[0])};
              }};
  return {"rnn", 1, {"tanh"}, {phase}};
}

// Gates z, r, h. z, r = f(x W^T + Wb + H R^T + Rb); n = g(x Wh^T + Wbh + r (H Rh^T + Rbh)); H' = (1 - z) n + z H
// (ONNX GRU with linear_before_reset = 1; PyTorch; Keras reset_after=True)
Cell gru() {
  Phase phase{{0, 1, 2}, 1, [](const PhaseInputs &in) -> std::vector<Expr> {
                Expr z = in.activation(0, in.input[0] + in.product[0]);
                Expr r = in.activation(0, in.input[1] + in.product[1]);
                Expr n = in.activation(1, in.input[2] + r * in.product[2]);
                return {blend(z, n, in.state)};
              }};
  return {"gru", 3, {"sigmoid", "tanh"}, {phase}};
}

// As gru, but the reset comes before the product: n = g(x Wh^T + Wbh + (r H) Rh^T + Rbh), so r H of all units must be
// known first (ONNX GRU with linear_before_reset = 0; Keras reset_after=False).
Cell gru_reset_before() {
  Phase gates{{0, 1}, 2, [](const PhaseInputs &in) -> std::vector<Expr> {
                Expr z = in.activation(0, in.input[0] + in.product[0]);
                Expr r = in.activation(0, in.input[1] + in.product[1]);
                return {r * in.state, z};
              }};
  Phase candidate{{2}, 1, [](const PhaseInputs &in) -> std::vector<Expr> {
                    Expr n = in.activation(1, in.input[2] + in.product[0]);
                    return {blend(in.carried[0], n, in.state)};
                  }};
  return {"gru_reset_before", 3, {"sigmoid", "tanh"}, {gates, candidate}};
}

std::map<std::string, Cell> &registry() {
  static std::map<std::string, Cell> cells = [] {
    std::map<std::string, Cell> builtin;
    for (Cell cell : {rnn(), gru(), gru_reset_before()}) builtin[cell.name] = cell;
    return builtin;
  }();
  return cells;
}

}  // namespace

bool register_cell(Cell cell) {
  std::string name = cell.name;
  if (!registry().emplace(name, std::move(cell)).second) throw std::invalid_argument("cell '" + name + "' exists already");
  return true;
}

std::vector<std::string> cell_names() {
  std::vector<std::string> names;
  for (const auto &entry : registry()) names.push_back(entry.first);
  return names;
}

const Cell &cell_by_name(const std::string &name) {
  auto found = registry().find(name);
  if (found != registry().end()) return found->second;
  std::string known;
  for (const std::string &other : cell_names()) known += (known.empty() ? "" : ", ") + other;
  throw std::invalid_argument("no cell is called '" + name + "'; known: " + known);
}

}  // namespace hrnn
