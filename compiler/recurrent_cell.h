// SPDX-License-Identifier: Apache-2.0
//
// Compares what a step computes with the equations of RNN and GRU, and finds the weights:
//   RNN  h' = f(x W + h R + b)
//   GRU  h' = (1 - z) n + z h, or with z and 1 - z exchanged
//        z, r = f(x W + h R + b)
//        n = g(x W + r (h R + Rb) + Wb)        reset after  ("gru")
//        n = g(x W + (r h) R + b)              reset before ("gru_reset_before")
#pragma once
#include <map>
#include <string>
#include <vector>

#include "step_expression.h"

namespace hrnn {

// One gate's weights as ONNX lays them out: a row is a hidden unit.
struct GateWeights {
  std::map<int, Matrix> w;     // by sequence: [hidden, width of the sequence]
  Matrix r;                    // [hidden, hidden]
  std::vector<double> wb, rb;  // [hidden]
};

struct RecurrentCell {
  std::string cell;  // as in op::Recurrent
  std::vector<hrnn_activation> activations;
  std::vector<GateWeights> gates;  // z, r, h or the one of RNN
};

// A layer in the same loop, already recognised: its new state is a sequence for the layers above it.
struct LayerBelow {
  Expression next;
  int sequence;
};

// Of state number `state`, which becomes `next`. Throws NoCell, saying which part did not fit.
RecurrentCell match_cell(StepAlgebra *algebra, int state, const Expression &next, const std::vector<LayerBelow> &below);

}  // namespace hrnn
