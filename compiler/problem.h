// SPDX-License-Identifier: Apache-2.0
//
// Problem descriptors: one line of text that says what is measured. Fields are separated by colons:
//
//   gru:lbr:i64h64:b1:t100:fwd:f32
//
//   gru:lbr | gru:rbl | rnn:tanh   cell; a GRU's reset gate acts after (linear_before_reset = 1) or before the product
//   i64h64                         input and hidden size
//   b1                             batch
//   t100                           time steps; t1 with fwd is streaming: the state stays from call to call
//   fwd | rev | bidi               direction
//   f32                            type of weights, state and input
//
// An eighth field `ragged`: the sequences have lengths from 1 to T, evenly spread. Its steps count as full ones: the sum of
// the lengths over the batch.
#pragma once
#include <string>
#include <vector>

#include "hrnn/hrnn.h"

namespace hrnn {

struct Problem {
  std::string text;
  const char *cell;  // as in hrnn_problem
  int gates;
  int input, hidden, batch, time;
  hrnn_direction direction;
  bool ragged;

  int32_t length(int row) const { return ragged && batch > 1 ? 1 + int32_t(int64_t(row) * (time - 1) / (batch - 1)) : time; }
  double steps() const;  // full ones
  bool streaming() const { return time == 1 && direction == HRNN_FORWARD; }
  int directions() const { return direction == HRNN_BIDIRECTIONAL ? 2 : 1; }
  size_t w_values() const { return size_t(directions()) * gates * hidden * input; }
  size_t r_values() const { return size_t(directions()) * gates * hidden * hidden; }
  size_t b_values() const { return size_t(directions()) * 2 * gates * hidden; }
  size_t x_values() const { return size_t(time) * batch * input; }
  size_t y_values() const { return size_t(time) * directions() * batch * hidden; }
  // Floating-point operations of one time step, activations not counted.
  double input_flops() const { return 2.0 * double(w_values()) * batch; }
  double state_flops() const { return 2.0 * double(r_values()) * batch; }
};

// Throws std::invalid_argument that names the descriptor and the field that is wrong.
Problem parse_problem(const std::string &descriptor);

// Descriptors from the command line: each one a descriptor, or a file with one a line (# begins a comment).
std::vector<Problem> read_problems(const std::vector<std::string> &arguments);

}  // namespace hrnn
