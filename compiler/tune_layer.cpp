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

// The layer planned with some kernels.
class TuneLayer::Planned {
 public:
  Planned(const TuneLayer &layer, const hrnn_kernel_table *table) : problem_(layer.problem_), y_(layer.problem_.y_values()) {
    auto p = descriptor<hrnn_problem>();
    p.dtype = HRNN_F32;
    p.cell = problem_.cell;
    p.direction = problem_.direction;
    p.input_size = problem_.input;
    p.hidden_size = problem_.hidden;
    p.batch_hint = problem_.batch;
    auto weights = descriptor<hrnn_weights>();
    weights.w = layer.w_.data(), weights.r = layer.r_.data(), weights.b = layer.b_.data();
    auto options = descriptor<hrnn_options>();
    options.tables = &table;
    options.table_count = 1;
    options.force_variant = layer.target_.c_str();
    hrnn_plan *plan = nullptr;
    hrnn_state *state = nullptr;
    check(hrnn_plan_create(&p, &weights, &options, &plan, &error_));
    plan_.reset(plan);
    check(hrnn_state_create(plan, problem_.batch, &state, &error_));
    state_.reset(state);
    args_.time = problem_.time;
    args_.batch = problem_.batch;
    args_.x = layer.x_.data();
    args_.y = y_.data();
    if (!layer.lengths_.empty()) args_.lengths = layer.lengths_.data();
  }

  void run() {
    check(problem_.streaming() ? hrnn_stream(plan_.get(), state_.get(), &args_, &error_)
                               : hrnn_plan_run(plan_.get(), state_.get(), &args_, &error_));
  }

 private:
  void check(hrnn_status status) const {
    if (status != HRNN_OK) throw std::runtime_error(problem_.text + ": " + error_.message);
  }

  const Problem &problem_;
  std::vector<float> y_;
  std::unique_ptr<hrnn_plan, Destroy> plan_;
  std::unique_ptr<hrnn_state, Destroy> state_;
  hrnn_run_args args_ = descriptor<hrnn_run_args>();
  hrnn_error error_{};
};

void TuneLayer::run(const hrnn_kernel_table *table) const { Planned(*this, table).run(); }

double TuneLayer::time(const hrnn_kernel_table *table) const {
  Planned planned(*this, table);
  const double steps = problem_.steps(), begin = thread_seconds();
  planned.run();  // the caches fill, and it shows how many runs there may be between two looks at the clock
  double last = thread_seconds();
  const int runs = 1 + int(kLookSeconds / (last - begin));
  std::vector<double> times;
  for (const double end = last + kSeconds; last < end;) {
    for (int i = 0; i < runs; i++) planned.run();
    const double at = thread_seconds();
    times.push_back((at - last) / (runs * steps) * 1e6);
    last = at;
  }
  return median(times);
}

}  // namespace hrnn
