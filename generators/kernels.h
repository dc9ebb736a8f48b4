// SPDX-License-Identifier: Apache-2.0
//
// The kernels as Halide generators, "projection" and "step", and what identifies one kernel.
//
// Both compute products of packed weights (runtime/src/pack.h: lane, gate, k, panel) with rows of an operand:
//   projection: out(lane, gate, panel, row) = bias + sum_k weights(lane, gate, k, panel) x(k, row)
//   step:       one phase of a cell (cells.h) for one time step:
//               out_i(lane, panel, row) from input(lane, gate, panel, row), operand(k, row), state(lane, panel, row)
// Columns are asked for in panels, rows in batch rows: the output buffer's extents say which part is computed.
#pragma once
#include <string>
#include <vector>

#include "Halide.h"
#include "cells.h"
#include "hrnn/hrnn.h"
#include "schedules.h"
#include "targets.h"

namespace hrnn {

// Everything that distinguishes one kernel from another on a target.
struct KernelSpec {
  hrnn_kernel_kind kind;
  std::string cell;                      // step
  int phase = 0;                         // step
  int gates = 1;                         // projection
  std::vector<std::string> activations;  // step: compiled in; empty = any, given at run time
  hrnn_dtype dtype = HRNN_F32;
  Tile tile{1, 1, false, 1, 1, 0};
  int inner = 0;  // length of the product compiled in, 0 = any
};

// The function's name: prefix_step_gru_sigmoid_tanh_f32_p4r1_avx512.
std::string kernel_symbol(const std::string &prefix, const KernelSpec &spec, const TargetRow &target);

// Lowers one kernel through its generator.
Halide::Module build_kernel(const KernelSpec &spec, const TargetRow &target, const std::string &symbol);

// The kernel's row in the variant table; what is a pointer in it is left to the emitter.
hrnn_kernel kernel_row(const KernelSpec &spec);

// The Halide target of kernels: no runtime inside, no checks (the runtime checks once), no bounds queries.
Halide::Target kernel_target(const TargetRow &target);

}  // namespace hrnn
