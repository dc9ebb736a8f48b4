// SPDX-License-Identifier: Apache-2.0
//
// The calls of one layer's kernels on a CPU: buffer descriptors that are filled in once, when a state is created, so that
// a time step changes only addresses.
#pragma once
#include "kernel_call.h"
#include "pack.h"

struct hrnn_plan;

namespace hrnn {

constexpr int kMostActivationArguments = 3 * HRNN_MAX_ACTIVATIONS + 1;  // kind, alpha, beta of each; clip

// Packed weights and biases as kernels take them.
struct WeightTensors {
  Tensor<4> weights;
  Tensor<3> bias;

  void init(int32_t dtype, int64_t gates, int64_t panels, int64_t inner, const void *packed, const PackedProduct &product);
  // Moves on by that many panels, or back.
  void move(int64_t panels);
};

// Rows of x to rows of projections: out = x W' + b.
class ProjectionCall {
 public:
  // Of `panels` panels, those in [begin, end) are computed.
  void init(const KernelSet &kernels, int32_t dtype, int64_t gates, int64_t panels, int64_t inner, const void *packed,
            const PackedProduct &product, int64_t begin, int64_t end);

  // `rows` rows of x, x_stride values apart, to rows of `out` (of all panels), out_stride values apart. Returns what a
  // kernel returned.
  int run(int64_t rows, const void *x, int64_t x_stride, void *out, int64_t out_stride);

 private:
  int run_rows(int64_t rows, const uint8_t *x, int64_t x_stride, uint8_t *out, int64_t out_stride);

  WeightTensors weights_;
  Tensor<2> x_;
  Tensor<4> out_;
  const KernelSet *kernels_;
  int64_t begin_, panels_, panel_values_, element_;
};

// One phase of a time step.
class StepCall {
 public:
  // The panels [begin, end) are computed.
  void init(const hrnn_plan &plan, int64_t direction, int64_t phase, int64_t max_batch, int64_t begin, int64_t end);

  struct Addresses {
    const uint8_t *input, *operand, *state;
    uint8_t *const *carried;
    uint8_t *const *outputs;
  };
  // Computes the panels of the first `rows` rows. Walking the panels back on every other step finds the weights used
  // last still in the cache, where all of them together do not fit.
  int run(int64_t rows, const Addresses &at, bool backward);

 private:
  int run_panels(const Cover &cover, int64_t first_panel, uint8_t *const *outputs);

  WeightTensors weights_;
  Tensor<4> input_;
  Tensor<2> operand_;
  Tensor<3> state_, carried_[HRNN_MAX_CARRIED], out_[1 + HRNN_MAX_CARRIED];
  void *args_[5 + HRNN_MAX_CARRIED + kMostActivationArguments + 1 + HRNN_MAX_CARRIED];
  const KernelSet *kernels_;
  int64_t outputs_, carried_in_, lanes_, row_values_, element_;
  int64_t begin_, panels_;
  int64_t stretch_;            // panels of a stretch: as many as are computed between two turns
  int64_t covered_rows_ = -1;  // for which the covers were made
  Cover stretch_cover_, last_cover_;
};

// One phase of a time step of one row, products with the input included.
class FusedCall {
 public:
  // Does nothing where the plan has no fused kernels.
  void init(const hrnn_plan &plan, int64_t direction, int64_t phase);
  bool usable() const { return !cover_.empty(); }

  // As StepCall::run(), with the input itself instead of its projections.
  int run(const StepCall::Addresses &at, bool backward);

 private:
  int run_tile(const hrnn_kernel &kernel, int64_t panel, const StepCall::Addresses &at);

  WeightTensors x_weights_, weights_;
  int64_t panel_ = 0;  // of the weights
  Tensor<2> x_, operand_;
  Tensor<3> state_, carried_[HRNN_MAX_CARRIED], out_[1 + HRNN_MAX_CARRIED];
  void *args_[7 + HRNN_MAX_CARRIED + kMostActivationArguments + 1 + HRNN_MAX_CARRIED];
  int64_t outputs_, carried_in_, panel_bytes_;
  Cover cover_;
};

}  // namespace hrnn
