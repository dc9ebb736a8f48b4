// SPDX-License-Identifier: Apache-2.0
#include "tune_layer.h"

#include <algorithm>
#include <random>

#include "layer_run.h"

namespace hrnn {
namespace {

// At least this many rows of input are checked, so that tiles of many rows are among what is run.
constexpr int kCheckedRows = 32;

hrnn_test::LayerRun run_to_check(const Problem &p, const hrnn_machine &machine) {
  hrnn_test::LayerRun run;
  run.layer.cell = p.cell;
  run.layer.direction = p.direction == HRNN_FORWARD ? "forward" : p.direction == HRNN_REVERSE ? "reverse" : "bidirectional";
  run.layer.activations = run.layer.default_activations();
  run.l1 = int64_t(machine.cache_bytes[0]);
  run.l2 = int64_t(machine.cache_bytes[1]);
  const int steps = std::max(3, (kCheckedRows + p.batch - 1) / p.batch);
  std::mt19937 random(1);
  hrnn_test::randomize(&run, {p.input, p.hidden, p.streaming() ? 3 : std::min(p.time, steps), p.batch},
                       {true, !p.streaming(), p.ragged}, 0.5, &random);
  return run;
}

}  // namespace

TuneLayer::TuneLayer(const Problem &problem, const std::string &target, const hrnn_machine &machine)
    : problem_(problem),
      target_(target),
      arrays_(std::make_shared<LayerArrays>(problem)),
      checked_(std::make_unique<hrnn_test::LayerRun>(run_to_check(problem, machine))) {}

TuneLayer::~TuneLayer() = default;

std::string TuneLayer::check(const hrnn_kernel_table *table) {
  if (!judge_) judge_ = std::make_unique<hrnn_test::Judge>(*checked_);
  const hrnn_test::KernelChoice kernels{{table}, target_};
  return judge_->compare(*checked_, problem_.streaming() ? stream_layer(*checked_, kernels, {1, 1, 1})
                                                         : run_layer(*checked_, kernels));
}

double TuneLayer::time(const hrnn_kernel_table *table) const {
  Layer layer = planned(table);
  return burst(Clock::kThread, [&] { layer.run(); }) / problem_.steps();
}

}  // namespace hrnn
