// SPDX-License-Identifier: Apache-2.0
//
// The ONNX operators RNN and GRU, written from the equations of their documentation in plain loops: what every kernel is
// compared with. Shares nothing with the generators or the runtime. Names and layouts are ONNX's, layout = 0.
#pragma once
#include <limits>
#include <string>
#include <vector>

namespace reference {

struct Activation {
  std::string name;  // "Tanh", "HardSigmoid", ...
  double alpha = 0, beta = 0;
};

// D = directions, G = gates (RNN 1; GRU 3: z, r, h), H = hidden_size, I = input_size.
struct Layer {
  std::string op_type = "GRU";  // or "RNN"
  bool linear_before_reset = false;
  std::string direction = "forward";  // "reverse", "bidirectional"
  int input_size = 1, hidden_size = 1;
  double clip = std::numeric_limits<double>::infinity();
  std::vector<Activation> activations;  // per direction: RNN f; GRU f, g
  std::vector<double> w, r, b;          // [D, G*H, I], [D, G*H, H], [D, 2*G*H] or empty

  int directions() const { return direction == "bidirectional" ? 2 : 1; }
  int gates() const { return op_type == "RNN" ? 1 : 3; }
  int activations_per_direction() const { return op_type == "RNN" ? 1 : 2; }
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

}  // namespace reference
