// SPDX-License-Identifier: Apache-2.0
#include "cells.h"

#include <algorithm>
#include <limits>
#include <map>
#include <stdexcept>

#include "activations.h"
#include "hrnn/hrnn.h"

namespace hrnn {
namespace {

// The blend of every GRU: z keeps the old state. In this form one multiply-add follows the candidate.
Expr blend(const Expr &z, const Expr &candidate, const Expr &state) { return z * state + (1 - z) * candidate; }

// H' = f(x W^T + Wb + H R^T + Rb)   (ONNX RNN)
Cell rnn() {
  Phase phase{{0}, 1, [](const PhaseInputs &in) -> std::vector<Expr> {
                return {in.activation(0, in.input[0] + in.product[0])};
              }};
  return {"rnn", 1, {"tanh"}, {phase}};
}

// HRNN_MASKED <= argument <= infinity, by the bits: of floats, a comparison may swallow a NaN (activations.cpp).
Expr is_masked(const Expr &argument) {
  const Halide::Type bits = Halide::UInt(argument.type().bits());
  auto bits_of = [&](double bound) { return reinterpret(bits, Halide::Internal::make_const(argument.type(), bound)); };
  const Expr least = bits_of(HRNN_MASKED), most = bits_of(std::numeric_limits<double>::infinity());
  return reinterpret(bits, argument) - least <= most - least;
}

// As rnn, but masked steps keep the state: H' = H where x W^T + Wb + H R^T + Rb >= HRNN_MASKED.
Cell rnn_masked() {
  Phase phase{{0}, 1, [](const PhaseInputs &in) -> std::vector<Expr> {
                Expr argument = in.input[0] + in.product[0];
                return {select(is_masked(argument), in.state, in.activation(0, argument))};
              }};
  return {"rnn_masked", 1, {"tanh"}, {phase}};
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

struct Registered {
  Cell cell;
  std::string where;
};

struct Registry {
  std::map<std::string, Registered> cells;
  std::string faults;  // a line each
};

// Registrations happen before main(), where an exception would end the program without a word.
void add(Registry *registry, const Cell &cell, const std::string &where) {
  std::string fault = cell_fault(cell);
  const auto known = registry->cells.find(cell.name);
  if (fault.empty() && known != registry->cells.end())
    fault = "cell '" + cell.name + "' is defined twice: in " + known->second.where + " (" +
            std::to_string(known->second.cell.gates) + " gates) and in " + where + " (" + std::to_string(cell.gates) + " gates)";
  if (!fault.empty())
    registry->faults += (registry->faults.empty() ? "" : "\n") + fault;
  else
    registry->cells.emplace(cell.name, Registered{cell, where});
}

Registry &registry() {
  static Registry all = [] {
    Registry builtin;
    for (const Cell &cell : {rnn(), rnn_masked(), gru(), gru_reset_before()}) add(&builtin, cell, "hrnn itself");
    return builtin;
  }();
  return all;
}

const std::map<std::string, Registered> &checked_cells() {
  if (!registry().faults.empty()) throw std::invalid_argument(registry().faults);
  return registry().cells;
}

bool is_identifier(const std::string &text) {
  bool ok = !text.empty() && !(text[0] >= '0' && text[0] <= '9');
  for (char c : text) ok &= (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  return ok;
}

constexpr size_t kMaxName = 30;  // hrnn_selection.variant has room for it

// `what` of the cell is `value`, which must lie in [least, most].
std::string out_of_range(const std::string &what, size_t value, size_t least, size_t most) {
  if (value >= least && value <= most) return "";
  return what + ": " + std::to_string(value) + "; it must be " + std::to_string(least) +
         (least == most ? "" : " to " + std::to_string(most));
}

std::string phase_fault(const Cell &cell, size_t index) {
  const Phase &phase = cell.phases[index];
  const std::string name = "phase " + std::to_string(index);
  if (phase.gates.empty()) return name + " multiplies no gate's R; it must multiply at least one";
  for (size_t i = 0; i < phase.gates.size(); i++) {
    const std::string gate = std::to_string(phase.gates[i]);
    if (phase.gates[i] < 0 || phase.gates[i] >= cell.gates)
      return name + " multiplies gate " + gate + "; the cell has gates 0 to " + std::to_string(cell.gates - 1);
    if (i > 0 && phase.gates[i] <= phase.gates[i - 1])
      return name + " lists gate " + gate + " after gate " + std::to_string(phase.gates[i - 1]) + "; they must ascend";
  }
  const bool last = index + 1 == cell.phases.size();
  const std::string outputs = "outputs of " + name + (last ? ", which yields the new state and nothing else" : "");
  std::string fault = out_of_range(outputs, size_t(std::max(phase.outputs, 0)), 1, last ? 1 : 1 + HRNN_MAX_CARRIED);
  if (fault.empty() && !phase.compute) fault = name + " has no compute function";
  return fault;
}

std::string first_fault(const Cell &cell) {
  if (!is_identifier(cell.name)) return "the name must be a C identifier (letters, digits, _)";
  std::string fault = out_of_range("characters of the name", cell.name.size(), 1, kMaxName);
  if (fault.empty()) fault = out_of_range("gates", size_t(std::max(cell.gates, 0)), 1, HRNN_MAX_GATES);
  if (fault.empty()) fault = out_of_range("phases", cell.phases.size(), 1, HRNN_MAX_PHASES);
  if (fault.empty()) fault = out_of_range("activations", cell.default_activations.size(), 0, HRNN_MAX_ACTIVATIONS);
  for (size_t i = 0; i < cell.phases.size() && fault.empty(); i++) fault = phase_fault(cell, i);
  try {
    for (const std::string &name : cell.default_activations) activation_by_name(name);
  } catch (const std::invalid_argument &unknown) {
    if (fault.empty()) fault = unknown.what();
  }
  return fault;
}

}  // namespace

std::string cell_fault(const Cell &cell) {
  const std::string fault = first_fault(cell);
  return fault.empty() ? "" : "cell '" + cell.name + "': " + fault;
}

bool register_cell(Cell cell, const char *where) {
  add(&registry(), cell, where);
  return true;
}

std::vector<std::string> cell_names() {
  std::vector<std::string> names;
  for (const auto &entry : checked_cells()) names.push_back(entry.first);
  return names;
}

const Cell &cell_by_name(const std::string &name) {
  const auto found = checked_cells().find(name);
  if (found != checked_cells().end()) return found->second.cell;
  std::string known;
  for (const std::string &other : cell_names()) known += (known.empty() ? "" : ", ") + other;
  throw std::invalid_argument("no cell is called '" + name + "'; known: " + known);
}

}  // namespace hrnn
