// SPDX-License-Identifier: Apache-2.0
//
// A cell once more, as plain C++: what its kernels are compared with (hrnn_add_cell(NAME ... REFERENCE file.cpp)).
//
//   // Minimal gated unit: f = s(x Wf + h Rf); n = t(x Wn + (f h) Rn); h' = (1 - f) h + f n
//   HRNN_CELL_REFERENCE(mgu, 2, {"sigmoid", "tanh"}, [](const auto &in) {
//     auto f = in.state, kept = in.state, next = in.state;  // one value per unit
//     for (int j = 0; j < in.hidden; j++) {
//       f[j] = in.activation(0, in.input(0, j) + in.product(0, j, in.state));
//       kept[j] = f[j] * in.state[j];
//     }
//     for (int j = 0; j < in.hidden; j++) {
//       auto n = in.activation(1, in.input(1, j) + in.product(1, j, kept));
//       next[j] = (1 - f[j]) * in.state[j] + f[j] * n;
//     }
//     return next;
//   });
//
// Write it from the paper's or the framework's equations, not from the cell's expressions. The function must take any
// Real (`auto`, no `double`): it is computed in a type with more digits than the kernels have, for the results, and once
// more in the kernels' own type, for how much of a difference roundings alone may make.
#pragma once
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace hrnn {

// What one time step of one sequence may read. Weights have ONNX's layout: gates stacked in the order of the cell.
template <class Real>
class ReferenceStep {
 public:
  int hidden;               // units
  std::vector<Real> state;  // before the step, [hidden]

  // x W_g^T + Wb_g of one unit.
  Real input(int gate, int unit) const {
    return affine(gate, gate, unit, w, x, inputs);
  }
  // operand R_g^T + Rb_g of one unit, for an operand of [hidden].
  Real product(int gate, int unit, const std::vector<Real> &operand) const {
    return affine(gate, gates + gate, unit, r, operand.data(), hidden);
  }
  // The cell's i-th activation, of a value that clip bounds where the layer has one.
  std::function<Real(int, Real)> activation;

  // What they are made of: for who fills this in.
  int gates, inputs;
  const Real *x;
  const double *w, *r, *b;  // of this direction: [gates * hidden, inputs], [gates * hidden, hidden], [2 * gates * hidden] or null

 private:
  Real affine(int gate, int bias_block, int unit, const double *weights, const Real *values, int count) const {
    const double *row = weights + (static_cast<long>(gate) * hidden + unit) * count;
    Real sum = 0;
    for (int k = 0; k < count; k++) sum += static_cast<Real>(row[k]) * values[k];
    return sum + (b == nullptr ? Real(0) : static_cast<Real>(b[static_cast<long>(bias_block) * hidden + unit]));
  }
};

struct CellReference {
  template <class Real>
  using Step = std::function<std::vector<Real>(const ReferenceStep<Real> &)>;  // the state after the step

  std::string name;
  int gates;
  std::vector<std::string> activations;  // the cell's defaults, named as in hrnn/cell.h
  Step<float> in_float;
  Step<double> in_double;
  Step<long double> in_long_double;
};

bool register_cell_reference(CellReference reference);

}  // namespace hrnn

// HRNN_CELL_REFERENCE(name, gates, {"activation", ...}, function)
#define HRNN_CELL_REFERENCE(name, ...)                          \
  static const bool hrnn_registered_reference_##name = [] {     \
    auto make = [](int gates, std::vector<std::string> activations, auto step) { \
      return ::hrnn::CellReference{#name, gates, std::move(activations), step, step, step}; \
    };                                                          \
    return ::hrnn::register_cell_reference(make(__VA_ARGS__));  \
  }()
