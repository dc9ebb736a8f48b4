// SPDX-License-Identifier: Apache-2.0
#include "tune_layer.h"

#include <time.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <stdexcept>

#include "layer_run.h"

namespace hrnn {
namespace {

// Of one measurement: long against the clock, short against what disturbs a machine.
constexpr double kSeconds = 0.002, kLookSeconds = 0.00005;

// At least this many rows of input are checked, so that tiles of many rows are among what is run.
constexpr int kCheckedRows = 32;

double thread_seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return double(t.tv_sec) + double(t.tv_nsec) * 1e-9;
}

template <class Struct>
Struct descriptor() {
  Struct s{};
  s.struct_size = sizeof s;
  return s;
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

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

struct Destroy {
  void operator()(hrnn_plan *plan) const { hrnn_plan_destroy(plan); }
  void operator()(hrnn_state *state) const { hrnn_state_destroy(state); }
};

}  // namespace

TuneLayer::TuneLayer(const Problem &problem, const std::string &target, const hrnn_machine &machine)
    : problem_(problem), target_(target), checked_(std::make_unique<hrnn_test::LayerRun>(run_to_check(problem, machine))) {
  std::mt19937 random(1);
  auto fill = [&](std::vector<float> *values, size_t count, float range) {
    std::uniform_real_distribution<float> uniform(-range, range);
    values->resize(count);
    for (float &value : *values) value = uniform(random);
  };
  const float range = 1.0f / std::sqrt(float(problem.hidden));
  fill(&w_, problem.w_values(), range);
  fill(&r_, problem.r_values(), range);
  fill(&b_, problem.b_values(), range);
  fill(&x_, problem.x_values(), 1.0f);
  for (int row = 0; row < problem.batch && problem.ragged; row++) lengths_.push_back(problem.length(row));
}

TuneLayer::~TuneLayer() = default;

std::string TuneLayer::check(const hrnn_kernel_table *table) {
  if (!judge_) judge_ = std::make_unique<hrnn_test::Judge>(*checked_);
  const hrnn_test::KernelChoice kernels{{table}, target_};
  return judge_->compare(*checked_, problem_.streaming() ? stream_layer(*checked_, kernels, {1, 1, 1})
                                                         : run_layer(*checked_, kernels));
}

double TuneLayer::time(const hrnn_kernel_table *table) const {
  hrnn_error error{};
  auto check = [&](hrnn_status status) {
    if (status != HRNN_OK) throw std::runtime_error(problem_.text + ": " + error.message);
  };
  auto p = descriptor<hrnn_problem>();
  p.dtype = HRNN_F32;
  p.cell = problem_.cell;
  p.direction = problem_.direction;
  p.input_size = problem_.input;
  p.hidden_size = problem_.hidden;
  p.batch_hint = problem_.batch;
  auto weights = descriptor<hrnn_weights>();
  weights.w = w_.data(), weights.r = r_.data(), weights.b = b_.data();
  auto options = descriptor<hrnn_options>();
  options.tables = &table;
  options.table_count = 1;
  options.force_variant = target_.c_str();
  hrnn_plan *made_plan = nullptr;
  check(hrnn_plan_create(&p, &weights, &options, &made_plan, &error));
  const std::unique_ptr<hrnn_plan, Destroy> plan(made_plan);
  hrnn_state *made_state = nullptr;
  check(hrnn_state_create(plan.get(), problem_.batch, &made_state, &error));
  const std::unique_ptr<hrnn_state, Destroy> state(made_state);

  std::vector<float> y(problem_.y_values());
  auto args = descriptor<hrnn_run_args>();
  args.time = problem_.time;
  args.batch = problem_.batch;
  args.x = x_.data();
  args.y = y.data();
  if (!lengths_.empty()) args.lengths = lengths_.data();
  auto run = [&] {
    check(problem_.streaming() ? hrnn_stream(plan.get(), state.get(), &args, &error)
                               : hrnn_plan_run(plan.get(), state.get(), &args, &error));
  };
  const double steps = problem_.steps(), begin = thread_seconds();
  run();  // the caches fill, and it shows how many runs there may be between two looks at the clock
  double last = thread_seconds();
  const int runs = 1 + int(kLookSeconds / (last - begin));
  std::vector<double> times;
  for (const double end = last + kSeconds; last < end;) {
    for (int i = 0; i < runs; i++) run();
    const double at = thread_seconds();
    times.push_back((at - last) / (runs * steps) * 1e6);
    last = at;
  }
  return median(times);
}

}  // namespace hrnn
