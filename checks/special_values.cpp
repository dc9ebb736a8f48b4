// SPDX-License-Identifier: Apache-2.0
//
// check_special_values (kernel_checks.h).
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "kernel_checks.h"

namespace hrnn_test {
namespace {

bool same_bits(double a, double b) { return memcmp(&a, &b, sizeof a) == 0; }

// What is to be spoilt by a NaN: one value of x at a step, or of the initial state (step 0).
struct Spoilt {
  int sample, step;
  bool in_state;
};

// The NaN must be seen in every unit of its sample from its step on, in processing order, and nowhere else.
void check_nan(const LayerRun &run, const LayerResult &clean, const Spoilt &nan, const KernelChoice &kernels, Report *report) {
  const int time = run.sequences.time, batch = run.sequences.batch, hidden = run.layer.hidden_size;
  const int inputs = run.layer.input_size;
  LayerRun spoilt = run;
  if (nan.in_state)
    spoilt.sequences.initial_h[size_t(nan.sample) * hidden + hidden / 2] = NAN;
  else
    spoilt.sequences.x[(size_t(nan.step) * batch + nan.sample) * inputs + inputs / 2] = NAN;
  const LayerResult result = run_layer(spoilt, kernels);
  report->runs++;
  const std::string where = run.describe() + (nan.in_state ? " NaN in h0" : " NaN in x at step " + std::to_string(nan.step)) +
                            " of sample " + std::to_string(nan.sample);
  if (!clean.error.empty() || !result.error.empty()) return report->add(where, clean.error + result.error);

  const bool reverse = run.layer.direction == "reverse";
  const int length = run.sequences.lengths.empty() ? time : run.sequences.lengths[nan.sample];
  size_t at = 0;
  for (int t = 0; t < time; t++) {
    const bool later = nan.in_state || (reverse ? t <= nan.step : t >= nan.step);
    for (int n = 0; n < batch; n++) {
      const bool reached = n == nan.sample && later && t < length && nan.step < length;
      for (int j = 0; j < hidden; j++, at++) {
        if (reached ? std::isnan(result.y[at]) : same_bits(result.y[at], clean.y[at])) continue;
        return report->add(where, "y[t=" + std::to_string(t) + ", n=" + std::to_string(n) + ", j=" + std::to_string(j) + "]" +
                                      (reached ? " is no NaN" : " has changed"));
      }
    }
  }
}

struct Setting {
  LayerRun run;  // cell, type, activations and clip
  KernelChoice kernels;
};

void check_nans(const Setting &setting, bool lengths, std::mt19937 *random, Report *report) {
  for (const char *direction : {"forward", "reverse"}) {
    LayerRun run = setting.run;
    run.layer.direction = direction;
    randomize(&run, {3, 18, 4, 9}, {}, 1, random);
    if (lengths) run.sequences.lengths = {4, 0, 3, 1, 4, 2, 3, 4, 1};
    const LayerResult clean = run_layer(run, setting.kernels);
    // Step 3 lies past the end of sample 2: it must not be read.
    for (const Spoilt &nan : {Spoilt{2, 1, false}, {7, 1, false}, {2, 3, false}, {4, 0, true}})
      check_nan(run, clean, nan, setting.kernels, report);
    lengths = !lengths;
  }
}

// The largest value of an activation for inputs up to `size`.
double largest_of(const reference::Activation &f, double size) {
  return std::max(std::abs(reference::activate(f, size)), std::abs(reference::activate(f, -size)));
}

// A cell that is nothing but an activation.
bool is_rnn(const std::string &cell) { return cell == "rnn" || cell == "rnn_masked"; }
// Its formula is this library's, so it is known what becomes of an infinity.
bool is_known(const std::string &cell) { return is_rnn(cell) || cell == "gru" || cell == "gru_reset_before"; }

// One step from inputs of any size. They reach the pre-activations with weight 1 or -1, so that these are what they are.
void check_extremes(const Setting &setting, Report *report) {
  const bool f64 = setting.run.dtype == HRNN_F64;
  const std::string &cell = setting.run.layer.cell;
  const double huge = f64 ? 1e300 : double(1e35f), denormal = f64 ? 1e-310 : double(1e-40f);
  const double clip = setting.run.layer.clip;
  // Around where exponentials of floats and of doubles overflow and vanish, too.
  for (double size : {0.0, denormal, 16.0, 88.0, 104.0, 709.0, 746.0, 1e4, huge, HUGE_VAL}) {
    if (size > 1e4 && !is_known(cell)) continue;
    // A GRU's candidate leaves its roundings in the state; one that is as large as numbers get makes no state.
    double largest = is_known(cell) ? 1 : size + 4;
    for (const reference::Activation &f : setting.run.layer.activations)
      if (!is_rnn(cell)) largest = std::max(largest, largest_of(f, std::min(size + 4, clip)));
    if (largest > 1e30) continue;
    for (double value : {size, -size}) {
      LayerRun run = setting.run;
      std::mt19937 random(5);
      randomize(&run, {1, 9, 1, 3}, {}, 1, &random);
      for (size_t i = 0; i < run.layer.w.size(); i++) run.layer.w[i] = i % 2 ? 1 : -1;
      run.sequences.x = {value, 0.5, value};
      Judge judge(run, largest);
      const LayerResult result = run_layer(run, setting.kernels);
      report->runs++;
      char where[32];
      snprintf(where, sizeof where, " x=%g", value);
      report->add(run.describe() + where, judge.compare(run, result));
      report->worst = std::max(report->worst, judge.worst());
    }
  }
}

}  // namespace

Report check_special_values(const Kernels &kernels) {
  Report report;
  std::mt19937 random(6);
  int turn = 0;
  for (const std::string &cell : kernels.cells()) {
    Setting setting;
    setting.kernels = kernels.choice();
    setting.run.layer.cell = cell;
    setting.run.dtype = kernels.dtype;
    setting.run.default_activations = false;
    for (double clip : {HUGE_VAL, 50.0}) {
      setting.run.layer.clip = clip;
      for (const std::string &name : reference::activation_names()) {
        std::vector<reference::Activation> &activations = setting.run.layer.activations;
        activations = setting.run.layer.default_activations();
        if (!activations.empty()) activations.back() = with_parameters(name);
        check_nans(setting, turn++ % 2 == 1, &random, &report);
        check_extremes(setting, &report);
        if (activations.empty()) break;  // nothing to choose
      }
    }
  }
  return report;
}

}  // namespace hrnn_test
