// SPDX-License-Identifier: Apache-2.0
//
// Which kernels compute a problem: one table, a pure function of (problem, machine).
#pragma once
#include "hrnn/device.h"
#include "hrnn/hrnn.h"
#include "pack.h"

namespace hrnn {

// The kernels of one product, by preference: more rows first, then more panels. Together they cover any shape: the last
// has one row and one panel.
constexpr int kMaxTiles = 24;
struct KernelSet {
  const hrnn_kernel *kernels[kMaxTiles];
  int count;
};

// What is chosen for one direction of a layer.
struct LayerKernels {
  KernelSet projection;
  KernelSet phases[HRNN_MAX_PHASES];
  KernelSet fused[HRNN_MAX_PHASES];  // for calls of one step of one row; all may be empty
  bool any_activation;  // the phases take kinds, alpha, beta and clip as arguments
};

struct LayerChoice {
  const hrnn_target *target;
  const hrnn_device *device;  // null on a CPU
  LayerKernels directions[2];
};

struct KernelSource {
  const hrnn_kernel_table *const *tables;
  size_t table_count;
};

// The shape of this library's own cells, or what the kernels' rows say of a user's. False when neither knows it.
bool find_cell(const char *name, const KernelSource &source, CellShape *cell);

// Fills in the defaults of a problem and checks every field. `cell` gets the cell's shape, from the kernels' rows for
// cells this library does not know.
hrnn_status check_problem(const hrnn_problem *problem, const KernelSource &source, hrnn_problem *checked,
                          CellShape *cell, hrnn_error *error);

hrnn_status select_layer(const hrnn_problem &problem, const hrnn_machine &machine, const KernelSource &source,
                         const char *force, LayerChoice *choice, hrnn_selection *selection, hrnn_error *error);

// A dense product (a projection with one gate), on the best CPU variant.
hrnn_status select_dense(int32_t dtype, int64_t in_features, int64_t out_features, const hrnn_machine &machine,
                         const KernelSource &source, const char *force, KernelSet *kernels, hrnn_error *error);

}  // namespace hrnn
