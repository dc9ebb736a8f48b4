// SPDX-License-Identifier: Apache-2.0
//
// The ONNX operators RNN and GRU, written from the equations of their documentation in plain loops: what every kernel is
// compared with. Shares nothing with the generators or the runtime. Names and layouts are ONNX's, layout = 0. Cells of a
// user's own are registered beside those (hrnn/cell_reference.h).
#pragma once
#include <limits>
#include <string>
#include <vector>

#include "hrnn/cell_reference.h"

namespace reference {

struct Activation {
  std::string name;  // "Tanh", "HardSigmoid", ...
  double alpha = 0, beta = 0;
};

// The reference of that cell; throws std::invalid_argument naming the known ones.
const hrnn::CellReference &cell(const std::string &name);

// D = directions, G = gates (RNN 1; GRU 3: z, r, h), H = hidden_size, I = input_size.
struct Layer {
  std::string cell = "gru";  // linear_before_reset = 1; "gru_reset_before": = 0; "rnn", "rnn_masked"; a user's
  std::string direction = "forward";  // "reverse", "bidirectional"
  int input_size = 1, hidden_size = 1;
  double clip = std::numeric_limits<double>::infinity();
  std::vector<Activation> activations;  // per direction: RNN f; GRU f, g
  std::vector<double> w, r, b;          // [D, G*H, I], [D, G*H, H], [D, 2*G*H] or empty

  int directions() const { return direction == "bidirectional" ? 2 : 1; }
  int gates() const { return reference::cell(cell).gates; }
  int activations_per_direction() const { return int(reference::cell(cell).activations.size()); }
  std::vector<Activation> default_activations() const;  // of the cell, for all directions
};

struct Sequences {
  int time = 0, batch = 0;
  std::vector<double> x;          // [T, N, I]
  std::vector<int> lengths;       // [N], or empty: all T
  std::vector<double> initial_h;  // [D, N, H], or empty: zeros
};

template <typename Real>
struct Outputs {
  std::vector<Real> y;    // [T, D, N, H], zero past a sequence's end
  std::vector<Real> y_h;  // [D, N, H], zero for a sequence of length 0
  // The smallest distance of a ThresholdedRelu's input from its threshold, where it jumps: a result computed with other
  // roundings may differ wildly when this is tiny.
  Real jump_distance = std::numeric_limits<Real>::infinity();
};

// Every operation is done in Real: float, double or long double.
template <typename Real>
Outputs<Real> run(const Layer &layer, const Sequences &sequences);

template <typename Real>
Real activate(const Activation &f, Real x);

// All of them, in the order of hrnn_activation_kind.
const std::vector<std::string> &activation_names();

}  // namespace reference
