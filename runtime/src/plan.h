// SPDX-License-Identifier: Apache-2.0
//
// Plans over packed weights: what a session needs beside the public hrnn_plan_* functions.
#pragma once
#include "hrnn/hrnn.h"

namespace hrnn {

// As hrnn_plan_create, over weights already packed (pack.h: packed_layer(...) bytes, 64-byte aligned). The memory must
// outlive the plan; it may be refilled between runs (weights that arrive at run time).
hrnn_status plan_create_packed(const hrnn_problem *problem, const void *packed, const hrnn_options *options,
                               hrnn_plan **plan, hrnn_error *error);

// Arguments of hrnn_plan_run.
struct LayerCall {
  const hrnn_plan *plan;
  hrnn_state *state;
  const hrnn_run_args *args;
};

constexpr int kMostLayers = 8;  // that are given at once

// Runs one layer or more of those given (`count`, at least one), which would be run one after the other: with a team, some
// that do not wait for each other, or that follow each other step by step, at the same time. `*done`: how many; those that
// succeeded, if one failed.
hrnn_status run_layers(const LayerCall *calls, int count, int *done, hrnn_error *error);

// One dense product y = x wT + b on projection kernels.
struct DensePlan;
hrnn_status dense_plan_create(int32_t dtype, int64_t in_features, int64_t out_features, const void *packed,
                              const hrnn_options *options, DensePlan **plan, hrnn_error *error);
void dense_plan_destroy(DensePlan *plan);

// Bytes of scratch (64-byte aligned) that dense_run needs.
size_t dense_scratch_bytes(const DensePlan *plan);

// x: `rows` rows of in_features values, y: of out_features; strides in elements, innermost stride 1.
hrnn_status dense_run(const DensePlan *plan, void *scratch, int64_t rows, const void *x, int64_t x_row_stride, void *y,
                      int64_t y_row_stride, hrnn_error *error);

}  // namespace hrnn
