// SPDX-License-Identifier: Apache-2.0
//
// Time of one step of recurrent layers through the C interface, on one thread, as a share of what the core can do.
//
// Made for machines that are not quiet: a measurement is a series of short bursts, and every burst of the layer has a
// burst of the limits it is compared with right before it, so that whatever slows the core slows both; the time is
// that of the thread, so that another process on the core does not count; and the medians of the bursts count. With
// --serve another program (compare.py) decides when a burst runs and puts its own in between.
#include <fmt/format.h>
#include <sched.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "hrnn/prebuilt.h"
#include "limits.h"
#include "problem.h"

namespace hrnn::bench {
namespace {

// Of a burst.
constexpr double kArithmeticSeconds = 0.001;
constexpr double kReadSeconds = 0.003;
constexpr double kLayerSeconds = 0.003;   // at least one run
constexpr double kLookSeconds = 0.00005;  // between two looks at the clock, which take part of a microsecond

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

template <class Struct>
Struct descriptor() {
  Struct s{};
  s.struct_size = sizeof s;
  return s;
}

void pin(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) throw std::runtime_error(fmt::format("cannot pin to core {}", core));
}

struct PlanDeleter {
  void operator()(hrnn_plan *plan) const { hrnn_plan_destroy(plan); }
  void operator()(hrnn_state *state) const { hrnn_state_destroy(state); }
};

// One layer with random weights and input.
class Layer {
 public:
  Layer(const Problem &problem, const std::string &variant) : problem_(problem) {
    std::mt19937 random(1);
    auto fill = [&](std::vector<float> *values, size_t count, float range) {
      std::uniform_real_distribution<float> uniform(-range, range);
      values->resize(count);
      for (float &value : *values) value = uniform(random);
    };
    const float range = 1.0f / std::sqrt(float(problem.hidden));  // as PyTorch initialises
    fill(&w_, problem.w_values(), range);
    fill(&r_, problem.r_values(), range);
    fill(&b_, problem.b_values(), range);
    fill(&x_, problem.x_values(), 1.0f);
    y_.resize(problem.y_values());

    auto p = descriptor<hrnn_problem>();
    p.dtype = HRNN_F32;
    p.cell = problem.cell;
    p.direction = problem.direction;
    p.input_size = problem.input;
    p.hidden_size = problem.hidden;
    p.batch_hint = problem.batch;
    auto weights = descriptor<hrnn_weights>();
    weights.w = w_.data(), weights.r = r_.data(), weights.b = b_.data();
    auto options = descriptor<hrnn_options>();
    options.tables = hrnn_prebuilt_tables;
    options.table_count = uint32_t(hrnn_prebuilt_table_count);
    if (!variant.empty()) options.force_variant = variant.c_str();
    hrnn_plan *plan = nullptr;
    hrnn_state *state = nullptr;
    check(hrnn_plan_create(&p, &weights, &options, &plan, &error_));
    plan_.reset(plan);
    check(hrnn_state_create(plan, problem.batch, &state, &error_));
    state_.reset(state);
    hrnn_plan_selection(plan, &selection_);
    args_.time = problem.time;
    args_.batch = problem.batch;
    args_.x = x_.data();
    args_.y = y_.data();
    for (int row = 0; row < problem.batch && problem.ragged; row++) lengths_.push_back(problem.length(row));
    if (problem.ragged) args_.lengths = lengths_.data();
    steps_ = problem.steps();
  }

  void run() {
    const hrnn_status status = problem_.streaming() ? hrnn_stream(plan_.get(), state_.get(), &args_, &error_)
                                                    : hrnn_plan_run(plan_.get(), state_.get(), &args_, &error_);
    check(status);
  }
  void reset() { hrnn_state_reset(state_.get()); }

  // Microseconds a step: the median of some runs.
  double burst(double seconds) {
    const double begin = thread_seconds();
    run();  // warm again after whatever ran before, unless a run is so long that it does not matter
    double last = thread_seconds();
    if (last - begin > 4 * seconds) return (last - begin) / steps_ * 1e6;
    const int runs = 1 + int(kLookSeconds / (last - begin));
    std::vector<double> times;
    for (const double end = last + seconds; last < end;) {
      for (int i = 0; i < runs; i++) run();
      const double at = thread_seconds();
      times.push_back((at - last) / (runs * steps_) * 1e6);
      last = at;
    }
    return median(times);
  }

  // The arrays as files of plain floats, for another program to do the same with.
  void write(const std::string &directory) const {
    auto write = [&](const char *name, const std::vector<float> &values) {
      std::ofstream file(directory + "/" + name, std::ios::binary);
      file.write(reinterpret_cast<const char *>(values.data()), std::streamsize(values.size() * sizeof(float)));
      if (!file.flush()) throw std::runtime_error("cannot write " + directory + "/" + name);
    };
    write("w", w_), write("r", r_), write("b", b_), write("x", x_), write("y", y_);
  }

  const Problem &problem() const { return problem_; }
  const std::vector<int32_t> &lengths() const { return lengths_; }  // empty: all as long as they can be
  const char *variant() const { return selection_.variant; }

 private:
  void check(hrnn_status status) const {
    if (status != HRNN_OK) throw std::runtime_error(problem_.text + ": " + error_.message);
  }

  Problem problem_;
  double steps_;
  std::vector<float> w_, r_, b_, x_, y_;
  std::vector<int32_t> lengths_;
  std::unique_ptr<hrnn_plan, PlanDeleter> plan_;
  std::unique_ptr<hrnn_state, PlanDeleter> state_;
  hrnn_selection selection_ = descriptor<hrnn_selection>();
  hrnn_run_args args_ = descriptor<hrnn_run_args>();
  hrnn_error error_ = {};
};

struct Figures {
  double us;      // of a step
  double gflops;  // of the instruction set's multiply-adds
  double gbs;     // of reading as many bytes as the weights that a step streams
  double floor;   // us that a step takes at these limits
};

// A layer and the limits that bound it. A step reads the recurrent weights and multiplies them with every row; the
// input product of a whole sequence is a matrix product of many rows, so only arithmetic bounds it, but when streaming
// the input weights are read in every step too.
class Measurement {
 public:
  Measurement(const Problem &problem, const std::string &variant)
      : layer(problem, variant), kernels_(limit_kernels_for(layer.variant())), weights_(step_bytes(problem)) {
    layer.run();
    layer.reset();
    layer.run();
  }

  Figures burst() {
    Figures f{};
    f.gflops = measure_gflops(kernels_, kArithmeticSeconds);
    f.gbs = weights_.measure_gbs(kernels_, kReadSeconds);
    f.us = layer.burst(kLayerSeconds);
    f.floor = floor_us(f);
    return f;
  }

  Figures bursts(int count) {
    std::vector<double> us, gflops, gbs;
    for (int i = 0; i < count; i++) {
      const Figures f = burst();
      us.push_back(f.us), gflops.push_back(f.gflops), gbs.push_back(f.gbs);
    }
    Figures f{median(us), median(gflops), median(gbs), 0};
    f.floor = floor_us(f);
    return f;
  }

  Layer layer;

 private:
  static size_t step_bytes(const Problem &p) {
    return sizeof(float) * (p.streaming() ? p.w_values() + p.r_values() : p.r_values());
  }

  double floor_us(const Figures &f) const {
    const Problem &p = layer.problem();
    const double reading = double(step_bytes(p)) / (f.gbs * 1e3);
    const double input = p.input_flops() / (f.gflops * 1e3), state = p.state_flops() / (f.gflops * 1e3);
    return p.streaming() ? std::max(reading, input + state) : std::max(reading, state) + input;
  }

  const LimitKernels &kernels_;
  ReadBuffer weights_;
};

nlohmann::json limits() {
  nlohmann::json all;
  for (const LimitKernels &kernels : limit_kernels()) {
    std::vector<double> gflops;
    for (int i = 0; i < 30; i++) gflops.push_back(measure_gflops(kernels, kArithmeticSeconds));
    all["gflops"][kernels.isa] = median(gflops);
  }
  const size_t l1 = cache_bytes(1), l2 = cache_bytes(2), l3 = cache_bytes(3);
  auto read = [&](const char *level, size_t cache, size_t bytes) {
    const ReadBuffer buffer(bytes);
    std::vector<double> gbs;
    for (int i = 0; i < 15; i++) gbs.push_back(buffer.measure_gbs(limit_kernels()[0], kReadSeconds));
    all["read"].push_back({{"level", level}, {"cache", cache}, {"bytes", buffer.bytes()}, {"gbs", median(gbs)}});
  };
  if (l1 > 0) read("L1", l1, l1 / 2);
  if (l2 > l1) read("L2", l2, l2 / 2);
  if (l3 > l2) read("L3", l3, std::min(l3 / 2, 4 * l2));
  // Far more than any cache, yet not a gigabyte where hundreds of megabytes of cache are shared by many cores.
  read("DRAM", 0, std::min<size_t>(std::max<size_t>(4 * l3, 64 << 20), 512 << 20));
  return all;
}

void print_limits() {
  const nlohmann::json all = limits();
  for (const auto &[isa, gflops] : all["gflops"].items())
    fmt::print("{:7} multiply-add {:8.1f} GFLOP/s\n", isa, gflops.get<double>());
  for (const auto &level : all["read"])
    fmt::print("{:7} read         {:8.1f} GB/s   ({} KiB)\n", level["level"].get<std::string>(),
               level["gbs"].get<double>(), level["bytes"].get<size_t>() / 1024);
}

void print_table(const std::vector<Problem> &problems, const std::string &variant, int rounds) {
  fmt::print(
      "\n| problem | variant | us/step | GFLOP/s | peak GFLOP/s | R from | GB/s | floor us | share of limit |\n"
      "|---|---|--:|--:|--:|---|--:|--:|--:|\n");
  for (const Problem &p : problems) {
    Measurement measurement(p, variant);
    const Figures f = measurement.bursts(rounds);
    fmt::print("| {} | {} | {:.3f} | {:.1f} | {:.1f} | {} | {:.1f} | {:.3f} | {:.0f} % |\n", p.text,
               measurement.layer.variant(), f.us, (p.input_flops() + p.state_flops()) / f.us / 1e3, f.gflops,
               cache_holding(sizeof(float) * p.r_values()), f.gbs, f.floor, 100 * f.floor / f.us);
    std::fflush(stdout);
  }
}

// One line of JSON for each line of input:
//   limits                        the core's limits
//   problem DESCRIPTOR DIRECTORY  makes a layer, runs it from zeros, writes w, r, b, x and y
//   burst                         measures it and its limits once
void serve(const std::string &variant) {
  std::unique_ptr<Measurement> measurement;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command, descriptor, directory;
    words >> command >> descriptor >> directory;
    nlohmann::json answer;
    if (command == "limits") {
      answer = limits();
    } else if (command == "problem" && !directory.empty()) {
      measurement.reset();
      measurement = std::make_unique<Measurement>(parse_problem(descriptor), variant);
      measurement->layer.write(directory);
      const Problem &p = measurement->layer.problem();
      answer = {{"variant", measurement->layer.variant()},
                {"cell", p.cell},
                {"directions", p.directions()},
                {"input", p.input},
                {"hidden", p.hidden},
                {"batch", p.batch},
                {"time", p.time},
                {"steps", p.steps()},
                {"lengths", measurement->layer.lengths()},
                {"reverse", p.direction == HRNN_REVERSE},
                {"streaming", p.streaming()},
                {"flops", p.input_flops() + p.state_flops()}};
    } else if (command == "burst" && measurement) {
      const Figures f = measurement->burst();
      answer = {{"us", f.us}, {"floor", f.floor}};
    } else {
      throw std::invalid_argument("not understood: '" + line + "'");
    }
    std::cout << answer.dump() << std::endl;
  }
}

int run(int argc, char **argv) {
  CLI::App app("Measures recurrent layers as a share of what this core can do.", "bench_gru");
  std::vector<std::string> arguments;
  std::string variant;
  int core = -1, rounds = 25;
  bool only_limits = false, serving = false;
  app.add_option("problems", arguments, "descriptors such as gru:lbr:i64h64:b1:t100:fwd:f32, or files of them");
  app.add_option("--variant", variant, "an instruction set (avx2) or variant (gru.f32.avx2) instead of the best one");
  app.add_option("--core", core, "pin to this core");
  app.add_option("--rounds", rounds, "bursts of each problem")->check(CLI::Range(1, 100000));
  app.add_flag("--limits", only_limits, "print only the core's limits");
  app.add_flag("--serve", serving, "take commands from the standard input, answer in JSON (for compare.py)");
  CLI11_PARSE(app, argc, argv);
  const std::vector<Problem> problems = read_problems(arguments);
  if (core >= 0) pin(core);
  if (serving) {
    serve(variant);
    return 0;
  }
  print_limits();
  if (!only_limits) print_table(problems, variant, rounds);
  return 0;
}

}  // namespace
}  // namespace hrnn::bench

int main(int argc, char **argv) {
  try {
    return hrnn::bench::run(argc, argv);
  } catch (const std::exception &error) {
    fmt::print(stderr, "bench_gru: error: {}\n", error.what());
    return 1;
  }
}
