// SPDX-License-Identifier: Apache-2.0
#include "measurement.h"

#include <algorithm>

namespace hrnn {

Cost layer_cost(const LayerSize &size, uint32_t threads) {
  const int64_t at_once = std::min<int64_t>(size.directions, threads),
                shares = std::max<int64_t>(threads / size.directions, 1);
  const double input = double(size.gates * size.hidden) * double(size.input) / double(shares);
  const double state = double(size.gates * size.hidden) * double(size.hidden) / double(shares);
  Cost cost{};
  cost.times = size.steps * double(size.directions) / double(at_once);
  cost.bytes = sizeof(float) * size_t(size.step_by_step ? input + state : state);
  cost.streaming_flops = 2 * double(size.batch) * (size.step_by_step ? input + state : state);
  cost.flops = 2 * double(size.batch) * (size.step_by_step ? 0 : input);
  return cost;
}

void Workload::runs(const hrnn_selection &selection, const std::vector<const hrnn_kernel_table *> &tables, uint32_t threads) {
  variant_ = selection.variant;
  threads_ = threads;
  for (const hrnn_kernel_table *table : tables)
    for (uint32_t i = 0; i < table->count; i++)
      if (selection.target == std::string(table->kernels[i].target->name)) device_ = table->device;
  if (device_ != nullptr) costs_.clear();
  clock_ = device_ != nullptr || threads > 1 ? Clock::kWall : Clock::kThread;
}

Measurement::Measurement(Workload &work) : work_(work), kernels_(limit_kernels_for(work.variant())) {
  for (const Cost &cost : work.costs()) {
    const bool known =
        std::any_of(weights_.begin(), weights_.end(), [&](const auto &buffer) { return buffer->holds(cost.bytes); });
    if (!known) weights_.push_back(std::make_unique<ReadBuffer>(cost.bytes));
  }
  work.run();
  work.reset();
  work.run();
}

Figures Measurement::burst() {
  constexpr double kArithmeticSeconds = 0.001, kReadSeconds = 0.003;
  Figures f{};
  f.gflops = measure_gflops(kernels_, kArithmeticSeconds);
  std::vector<double> gbs;
  for (const auto &buffer : weights_) gbs.push_back(buffer->measure_gbs(kernels_, kReadSeconds));
  for (const Cost &cost : work_.costs()) {
    size_t i = 0;
    while (!weights_[i]->holds(cost.bytes)) i++;
    const double reading = double(cost.bytes) / (gbs[i] * 1e3), computing = cost.streaming_flops / (f.gflops * 1e3);
    f.floor += cost.times * (std::max(reading, computing) + cost.flops / (f.gflops * 1e3)) / work_.steps();
  }
  f.gbs = gbs.empty() ? 0 : gbs.front();
  f.us = f.fast = f.slow = hrnn::burst(work_.clock(), [&] { work_.run(); }) / work_.steps();
  f.gflops *= work_.threads();
  return f;
}

Figures Measurement::bursts(int count) {
  std::vector<Figures> all;
  for (int i = 0; i < count; i++) all.push_back(burst());
  auto at = [&](double Figures::*member, double share) {
    std::vector<double> values;
    for (const Figures &f : all) values.push_back(f.*member);
    return quantile(std::move(values), share);
  };
  return {at(&Figures::us, 0.5),    at(&Figures::gflops, 0.5), at(&Figures::gbs, 0.5),
          at(&Figures::floor, 0.5), at(&Figures::us, 0.1),     at(&Figures::us, 0.9)};
}

}  // namespace hrnn
