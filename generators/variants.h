// SPDX-License-Identifier: Apache-2.0
//
// The variant table: one row a family of kernels. A family, a target and the tiles its schedule asks for make the
// kernels; each becomes one hrnn_kernel row of the emitted table, which dispatch, tests and benchmarks read.
#pragma once
#include <string>
#include <vector>

#include "kernels.h"

namespace hrnn {

struct KernelFamily {
  hrnn_kernel_kind kind;
  std::string cell;                      // steps: the cell; projection: ""
  std::vector<std::string> activations;  // steps: compiled in; empty = any, given at run time
  int gates;                             // projection: gates of the product
  hrnn_dtype dtype;
  int inner;                             // length of the product compiled in, 0 = any
};

// What a library for `cells` needs: steps with the activations the field uses most and with any, projections for the
// cells and for dense layers (one gate). `hidden`: sizes that get kernels of their own beside the general ones.
std::vector<KernelFamily> library_families(const std::vector<std::string> &cells, const std::vector<hrnn_dtype> &dtypes,
                                           const std::vector<int> &hidden);

// The steps of a cell, fused ones too.
void add_steps(std::vector<KernelFamily> *families, KernelFamily steps);

// The kernels of a family on a target: its phases times the tiles.
std::vector<KernelSpec> expand(const KernelFamily &family, const TargetRow &target,
                               const std::vector<TunedTile> &tuned = shipped_tiles());

}  // namespace hrnn
