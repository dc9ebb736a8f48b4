// SPDX-License-Identifier: Apache-2.0
#include "product_call.h"

#include <algorithm>

#include "plan_internal.h"

namespace hrnn {
namespace {

constexpr int64_t kLargestTile = 8;  // panels of the widest kernels

// Weights that stay in the second-level cache from step to step are walked at once; larger ones there and back, in stretches that cost a call each, of whole tiles.
int64_t stretch_panels(const CacheSizes &caches, int64_t panels, int64_t panel_bytes) {
  if (panels * panel_bytes <= caches.kept_by_l2()) return panels;
  const int64_t fit = caches.l2 / 8 / panel_bytes;
  return fit < kLargestTile ? kLargestTile : fit / kLargestTile * kLargestTile;
}

// Rows of one call whose offsets stay within the 32 bits that kernels index with.
int64_t rows_within_index(int64_t rows, int64_t x_stride, int64_t out_stride) {
  const int64_t stride = std::max(std::max(x_stride, -x_stride), out_stride);
  return std::max<int64_t>(1, std::min(rows, INT32_MAX / std::max<int64_t>(1, stride)));
}

uint8_t *bytes_at(const void *base, int64_t offset) {
  return static_cast<uint8_t *>(const_cast<void *>(base)) + offset;
}

}  // namespace

void WeightTensors::init(int32_t dtype, int64_t gates, int64_t panels, int64_t inner, const void *packed,
                         const PackedProduct &product) {
  const int64_t lanes = lanes_of(dtype);
  weights.init(dtype);
  weights.set(0, lanes, 1);
  weights.set(1, gates, lanes);
  weights.set(2, inner, lanes * gates);
  weights.set(3, panels, lanes * gates * inner);
  weights.host() = bytes_at(packed, product.weights_offset);
  bias.init(dtype);
  bias.set(0, lanes, 1);
  bias.set(1, gates, lanes);
  bias.set(2, panels, lanes * gates);
  bias.host() = bytes_at(packed, product.bias_offset);
}

void WeightTensors::move(int64_t panels) {
  const int64_t bytes = weights.buffer.type_bits / 8;
  weights.host() += panels * weights.dims[3].stride * bytes;
  bias.host() += panels * bias.dims[2].stride * bytes;
}

void ProjectionCall::init(const KernelSet &kernels, int32_t dtype, int64_t gates, int64_t panels, int64_t inner,
                          const void *packed, const PackedProduct &product, int64_t begin, int64_t end) {
  kernels_ = &kernels;
  begin_ = begin;
  panels_ = end - begin;
  panel_values_ = lanes_of(dtype) * gates;
  element_ = dtype_bytes(dtype);
  weights_.init(dtype, gates, panels, inner, packed, product);
  x_.init(dtype);
  x_.set(0, inner, 1);
  out_.init(dtype);
  out_.set(0, lanes_of(dtype), 1);
  out_.set(1, gates, lanes_of(dtype));
}

int ProjectionCall::run(int64_t rows, const void *x, int64_t x_stride, void *out, int64_t out_stride) {
  for (int64_t done = 0; done < rows;) {
    const int64_t n = rows_within_index(rows - done, x_stride, out_stride);
    if (int error = run_rows(n, bytes_at(x, done * x_stride * element_), x_stride,
                             bytes_at(out, done * out_stride * element_), out_stride))
      return error;
    done += n;
  }
  return 0;
}

int ProjectionCall::run_rows(int64_t rows, const uint8_t *x, int64_t x_stride, uint8_t *out, int64_t out_stride) {
  const Cover cover(*kernels_, panels_, rows);
  for (const Rectangle &r : cover) {
    x_.set(1, r.rows, x_stride, r.row);
    x_.host() = bytes_at(x, r.row * x_stride * element_);
    const int64_t panel = begin_ + r.panel;
    out_.set(2, r.panels, panel_values_, panel);
    out_.set(3, r.rows, out_stride, r.row);
    out_.host() = bytes_at(out, (r.row * out_stride + panel * panel_values_) * element_);
    void *args[] = {weights_.weights.arg(), weights_.bias.arg(), x_.arg(), out_.arg()};
    if (int error = r.kernel->entry(args)) return error;
  }
  return 0;
}

void StepCall::init(const hrnn_plan &plan, int64_t direction, int64_t phase, int64_t max_batch, int64_t begin,
                    int64_t end) {
  const int32_t dtype = plan.problem.dtype;
  const LayerKernels &chosen = plan.choice.directions[direction];
  kernels_ = &chosen.phases[phase];
  begin_ = begin, panels_ = end - begin;
  lanes_ = plan.lanes, row_values_ = plan.padded(), element_ = plan.element;
  outputs_ = phase + 1 == plan.cell.phases ? 1 : 1 + plan.carried;
  carried_in_ = phase > 0 ? plan.carried : 0;

  const int64_t gates = plan.cell.gates_of_phase(phase);
  weights_.init(dtype, gates, plan.panels, plan.hidden, plan.phase(direction, phase), plan.layout.phases[phase]);
  stretch_ = stretch_panels(plan.caches, panels_, gates * plan.hidden * kRowBytes);

  input_.init(dtype);
  input_.set(0, lanes_, 1);
  input_.set(1, plan.cell.gates, lanes_);
  input_.set(2, plan.panels, lanes_ * plan.cell.gates);
  input_.set(3, max_batch, plan.row_values());
  operand_.init(dtype);
  operand_.set(0, plan.hidden, 1);
  operand_.set(1, max_batch, row_values_);
  auto init_panels = [&](Tensor<3> *t) {
    t->init(dtype);
    t->set(0, lanes_, 1);
    t->set(1, plan.panels, lanes_);
    t->set(2, max_batch, row_values_);
    return t->arg();
  };

  int n = 0;
  for (void *arg : {weights_.weights.arg(), weights_.bias.arg(), input_.arg(), operand_.arg()}) args_[n++] = arg;
  args_[n++] = init_panels(&state_);
  for (int64_t i = 0; i < carried_in_; i++) args_[n++] = init_panels(&carried_[i]);
  if (chosen.any_activation) append_activation_arguments(plan, direction, args_, &n);
  for (int64_t i = 0; i < outputs_; i++) args_[n++] = init_panels(&out_[i]);
}

int StepCall::run(int64_t rows, const Addresses &at, bool backward) {
  const int64_t stretches = (panels_ + stretch_ - 1) / stretch_;
  if (rows != covered_rows_) {
    stretch_cover_ = Cover(*kernels_, stretch_, rows);
    last_cover_ = Cover(*kernels_, panels_ - (stretches - 1) * stretch_, rows);
    covered_rows_ = rows;
  }
  input_.host() = const_cast<uint8_t *>(at.input);
  operand_.host() = const_cast<uint8_t *>(at.operand);
  state_.host() = const_cast<uint8_t *>(at.state);
  for (int64_t i = 0; i < carried_in_; i++) carried_[i].host() = at.carried[i];
  for (int64_t i = 0; i < stretches; i++) {
    const int64_t stretch = backward ? stretches - 1 - i : i;
    const Cover &cover = stretch + 1 == stretches ? last_cover_ : stretch_cover_;
    if (int error = run_panels(cover, begin_ + stretch * stretch_, at.outputs)) return error;
  }
  return 0;
}

int StepCall::run_panels(const Cover &cover, int64_t first_panel, uint8_t *const *outputs) {
  for (const Rectangle &r : cover) {
    const int64_t panel = first_panel + r.panel;
    for (int64_t i = 0; i < outputs_; i++) {
      out_[i].set(1, r.panels, lanes_, panel);
      out_[i].set(2, r.rows, row_values_, r.row);
      out_[i].host() = outputs[i] + (r.row * row_values_ + panel * lanes_) * element_;
    }
    if (int error = r.kernel->entry(args_)) return error;
  }
  return 0;
}

void FusedCall::init(const hrnn_plan &plan, int64_t direction, int64_t phase) {
  const LayerKernels &chosen = plan.choice.directions[direction];
  cover_ = Cover(chosen.fused[phase], plan.panels, 1);
  if (cover_.empty()) return;
  const int32_t dtype = plan.problem.dtype;
  panel_bytes_ = plan.lanes * plan.element;
  outputs_ = phase + 1 == plan.cell.phases ? 1 : 1 + plan.carried;
  carried_in_ = phase > 0 ? plan.carried : 0;
  x_weights_.init(dtype, plan.cell.gates, plan.panels, plan.input, plan.projection(direction), plan.layout.projection);
  weights_.init(dtype, plan.cell.gates_of_phase(phase), plan.panels, plan.hidden, plan.phase(direction, phase),
                plan.layout.phases[phase]);
  auto init_row = [&](Tensor<2> *t, int64_t extent) {
    t->init(dtype);
    t->set(0, extent, 1);
    t->set(1, 1, extent);
    return t->arg();
  };
  auto init_panels = [&](Tensor<3> *t) {
    t->init(dtype);
    t->set(0, plan.lanes, 1);
    t->set(1, plan.panels, plan.lanes);
    t->set(2, 1, plan.padded());
    return t->arg();
  };
  int n = 0;
  for (void *arg : {x_weights_.weights.arg(), x_weights_.bias.arg(), init_row(&x_, plan.input), weights_.weights.arg(),
                    weights_.bias.arg(), init_row(&operand_, plan.hidden), init_panels(&state_)})
    args_[n++] = arg;
  for (int64_t i = 0; i < carried_in_; i++) args_[n++] = init_panels(&carried_[i]);
  if (chosen.any_activation) append_activation_arguments(plan, direction, args_, &n);
  for (int64_t i = 0; i < outputs_; i++) args_[n++] = init_panels(&out_[i]);
}

int FusedCall::run(const StepCall::Addresses &at, bool backward) {
  x_.host() = const_cast<uint8_t *>(at.input);
  operand_.host() = const_cast<uint8_t *>(at.operand);
  const int64_t rectangles = cover_.end() - cover_.begin();
  for (int64_t i = 0; i < rectangles; i++) {
    const Rectangle &r = cover_.begin()[backward ? rectangles - 1 - i : i];
    const int64_t tiles = r.panels / r.kernel->panels;
    for (int64_t t = 0; t < tiles; t++)
      if (int error = run_tile(*r.kernel, r.panel + (backward ? tiles - 1 - t : t) * r.kernel->panels, at)) return error;
  }
  return 0;
}

// Fused kernels compute the first tile of what they are given.
int FusedCall::run_tile(const hrnn_kernel &kernel, int64_t panel, const StepCall::Addresses &at) {
  if (panel != panel_) {
    x_weights_.move(panel - panel_);
    weights_.move(panel - panel_);
    panel_ = panel;
  }
  const int64_t offset = panel * panel_bytes_;
  state_.host() = bytes_at(at.state, offset);
  for (int64_t i = 0; i < carried_in_; i++) carried_[i].host() = at.carried[i] + offset;
  for (int64_t i = 0; i < outputs_; i++) out_[i].host() = at.outputs[i] + offset;
  return kernel.entry(args_);
}

}  // namespace hrnn
