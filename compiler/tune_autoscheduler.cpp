// SPDX-License-Identifier: Apache-2.0
#include "tune_autoscheduler.h"

#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <random>

#include "jit_kernel.h"
#include "variants.h"

namespace hrnn {
namespace {

constexpr int kLanes = 16;
constexpr int kRounds = 25;
constexpr double kSeconds = 0.002;

// The plug-in lies beside libHalide.so.
void load_autoscheduler() {
  static bool loaded = false;
  if (loaded) return;
  Dl_info info{};
  if (dladdr(reinterpret_cast<void *>(&Halide::load_plugin), &info) == 0) throw std::runtime_error("libHalide.so is not found");
  const std::string library = info.dli_fname;
  Halide::load_plugin(library.substr(0, library.rfind('/') + 1) + "libautoschedule_adams2019.so");
  loaded = true;
}

// The arguments of a step on one shape.
class StepData {
 public:
  StepData(int gates, const StepShape &s)
      : weights_(kLanes, gates, s.inner, s.panels), bias_(kLanes, gates, s.panels), input_(kLanes, gates, s.panels, s.rows),
        operand_(s.inner, s.rows), state_(kLanes, s.panels, s.rows), out_(kLanes, s.panels, s.rows) {
    std::mt19937 random(1);
    const float range = 1.0f / std::sqrt(float(s.inner));
    for (Halide::Buffer<float> *buffer : {&weights_, &bias_, &input_, &operand_, &state_}) {
      std::uniform_real_distribution<float> uniform(-range, range);
      std::generate(buffer->begin(), buffer->end(), [&] { return uniform(random); });
    }
  }

  std::vector<float> run(hrnn_kernel_entry entry) {
    call(entry);
    return {out_.begin(), out_.end()};
  }

  double microseconds(hrnn_kernel_entry entry) {
    using Clock = std::chrono::steady_clock;
    auto since = [](Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); };
    const auto begin = Clock::now();
    int calls = 0;
    double seconds = 0;
    do {
      for (int i = 0; i < 16; i++) call(entry);
      calls += 16;
    } while ((seconds = since(begin)) < kSeconds);
    return seconds / calls * 1e6;
  }

 private:
  void call(hrnn_kernel_entry entry) {
    void *args[] = {weights_.raw_buffer(), bias_.raw_buffer(),  input_.raw_buffer(),
                    operand_.raw_buffer(), state_.raw_buffer(), out_.raw_buffer()};
    if (const int error = entry(args)) throw std::runtime_error("a kernel returned " + std::to_string(error));
  }

  Halide::Buffer<float> weights_, bias_, input_, operand_, state_, out_;
};

// Today's tile for this shape: the first whose whole number it is. One row: weights beyond a tile's cache are not for it.
KernelSpec todays_step(KernelSpec spec, const TargetRow &target, int gates, const StepShape &shape, const hrnn_machine &machine) {
  const uint64_t bytes = uint64_t(gates) * uint64_t(shape.panels) * uint64_t(shape.inner) * 64;
  std::vector<Tile> all = tiles({target.name, HRNN_STEP, gates, HRNN_F32});
  std::sort(all.begin(), all.end(), [](const Tile &a, const Tile &b) {
    return a.rows != b.rows ? a.rows > b.rows : a.panels > b.panels;
  });
  for (const Tile &tile : all) {
    if (tile.cache_level == kBeyondSecondLevel) continue;  // shapes are small
    const bool cached = tile.cache_level == 0 || bytes <= machine.cache_bytes[tile.cache_level - 1];
    if (!cached || shape.rows % tile.rows != 0 || shape.panels % tile.panels != 0) continue;
    spec.tile = tile;
    break;
  }
  return spec;
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

}  // namespace

AutoscheduledStep measure_autoscheduled(const Problem &problem, const TargetRow &target, const hrnn_machine &machine) {
  AutoscheduledStep result{problem.text, "", 0, 0, ""};
  const Cell &cell = cell_by_name(problem.cell);
  KernelSpec spec;
  spec.kind = HRNN_STEP;
  spec.cell = problem.cell;
  spec.activations = cell.default_activations;
  const StepShape shape{(problem.hidden + kLanes - 1) / kLanes, problem.batch, problem.hidden};
  try {
    if (cell.phases.size() > 1) throw std::runtime_error("the cell has more than one phase");
    load_autoscheduler();
    spec = todays_step(spec, target, cell.gates, shape, machine);
    const std::shared_ptr<const JitKernel> today = jit_kernel(spec, target);
    const std::shared_ptr<const JitKernel> its = jit_module(autoscheduled_step(spec, target, "adams2019_step", "Adams2019", shape), "adams2019_step");
    result.today = today->symbol;
    StepData data(cell.gates, shape);
    const std::vector<float> expected = data.run(today->entry), actual = data.run(its->entry);
    for (size_t i = 0; i < expected.size(); i++)
      if (!(std::abs(expected[i] - actual[i]) < 1e-5f))
        throw std::runtime_error("its result " + std::to_string(actual[i]) + " differs from " + std::to_string(expected[i]));
    std::vector<double> today_us, its_us;
    for (int round = 0; round < kRounds; round++) {
      today_us.push_back(data.microseconds(today->entry));
      its_us.push_back(data.microseconds(its->entry));
    }
    result.today_us = median(today_us);
    result.its_us = median(its_us);
  } catch (const std::exception &error) {
    result.unusable = error.what();
  }
  return result;
}

}  // namespace hrnn
