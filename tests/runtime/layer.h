// SPDX-License-Identifier: Apache-2.0
//
// A recurrent layer in the runtime's terms, and what the reference says it computes.
#pragma once
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "hrnn/hrnn.h"
#include "reference.h"

namespace hrnn_test {

inline reference::Activation reference_activation(const hrnn_activation &f) {
  return {reference::activation_names()[f.kind], f.alpha, f.beta};
}
inline double activate(const hrnn_activation &f, double x) { return reference::activate(reference_activation(f), x); }

// Weights in ONNX layout and order (GRU: z, r, h).
struct Layer {
  std::string cell;  // "rnn", "gru" (linear_before_reset = 1), "gru_reset_before" (= 0)
  int64_t input = 1, hidden = 1;
  hrnn_direction direction = HRNN_FORWARD;
  double clip = HUGE_VAL;
  hrnn_activation activations[2][2] = {};  // per direction: f, g
  std::vector<double> w, r, b;             // b may be empty

  int64_t gates() const { return cell == "rnn" ? 1 : 3; }
  int64_t directions() const { return direction == HRNN_BIDIRECTIONAL ? 2 : 1; }
};

struct Sequence {
  std::vector<double> y, h;  // [T, D, N, H], [D, N, H]
};

// x [T, N, I]; lengths [N] or empty; h0 [D, N, H] or empty.
inline Sequence expected_sequence(const Layer &layer, int64_t time, int64_t batch, const std::vector<double> &x,
                                  const std::vector<int32_t> &lengths = {}, const std::vector<double> &h0 = {}) {
  const char *const directions[] = {"forward", "reverse", "bidirectional"};
  reference::Layer l;
  l.cell = layer.cell;
  l.direction = directions[layer.direction];
  l.input_size = static_cast<int>(layer.input);
  l.hidden_size = static_cast<int>(layer.hidden);
  l.clip = layer.clip;
  for (int d = 0; d < l.directions(); ++d) {
    for (int a = 0; a < l.activations_per_direction(); ++a) {
      l.activations.push_back(reference_activation(layer.activations[d][a]));
    }
  }
  l.w = layer.w;
  l.r = layer.r;
  l.b = layer.b;
  const reference::Outputs<double> out = reference::run<double>(
      l, {static_cast<int>(time), static_cast<int>(batch), x, {lengths.begin(), lengths.end()}, h0});
  return {out.y, out.y_h};
}

}  // namespace hrnn_test
