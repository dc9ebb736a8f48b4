// SPDX-License-Identifier: Apache-2.0
//
// check_accuracy (kernel_checks.h).
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "kernel_checks.h"

namespace hrnn_test {
namespace {

// Inputs from -25 to 25, denser towards 0.
std::vector<double> grid(hrnn_dtype dtype) {
  std::vector<double> values;
  for (int i = -2500; i <= 2500; i++) {
    const double x = 25.0 * std::pow(i / 2500.0, 3);
    values.push_back(dtype == HRNN_F32 ? double(float(x)) : x);
  }
  return values;
}

// One step of one unit whose pre-activations of gate 0 are the inputs, and a whole number everywhere else.
LayerRun one_unit(const std::string &cell, hrnn_dtype dtype) {
  LayerRun run;
  run.layer.cell = cell;
  run.dtype = dtype;
  run.default_activations = false;
  run.layer.activations = run.layer.default_activations();
  const size_t gates = size_t(run.layer.gates());
  run.layer.w.assign(gates, 0);
  run.layer.w[0] = 1;
  run.layer.r.assign(gates, 0);
  run.layer.b.assign(2 * gates, 0);
  run.sequences.x = grid(dtype);
  run.sequences.time = 1;
  run.sequences.batch = int(run.sequences.x.size());
  run.want_y_h = false;
  return run;
}

}  // namespace

Report check_accuracy(const Kernels &kernels) {
  Report report;
  const bool f64 = kernels.dtype == HRNN_F64;
  const double limit = f64 ? 1.5 : 3;  // units; in float, tanh and sigmoid are quotients of two rounded polynomials
  const double unit = f64 ? std::numeric_limits<double>::epsilon() : double(std::numeric_limits<float>::epsilon());
  auto check = [&](const LayerRun &run, auto expected) {
    const LayerResult result = run_layer(run, kernels.choice());
    report.runs++;
    report.add(run.describe(), result.error);
    double worst = 0, at = 0;
    for (size_t i = 0; i < result.y.size() && result.error.empty(); i++) {
      const long double y = expected(static_cast<long double>(run.sequences.x[i]));
      const double units = double(std::abs(result.y[i] - y)) / unit / std::max(1.0, double(std::abs(y)));
      if (!(units <= worst)) worst = units, at = run.sequences.x[i];
    }
    char text[100];
    snprintf(text, sizeof text, "%.2f units off at %.17g", worst, at);
    report.add(run.describe(), worst <= limit ? "" : text);
  };
  for (const std::string &cell : kernels.cells()) {  // the activations of a user's cell are those of these three
    LayerRun run = one_unit(cell, kernels.dtype);
    if (cell == "rnn") {
      for (const std::string &name : reference::activation_names()) {
        const reference::Activation f = run.layer.activations[0] = with_parameters(name);
        for (double clip : {HUGE_VAL, 1000.0}) {  // kernels with this activation compiled in, where there are; general ones
          run.layer.clip = clip;
          check(run, [&](long double x) { return reference::activate(f, x); });
        }
      }
    } else if (cell == "gru" || cell == "gru_reset_before") {
      run.layer.b[2] = 50;  // the candidate is 1, the state 0: what is left is 1 - z
      for (double clip : {HUGE_VAL, 1000.0}) {
        run.layer.clip = clip;
        check(run, [](long double x) { return 1 - reference::activate(reference::Activation{"Sigmoid"}, x); });
      }
    }
  }
  return report;
}

}  // namespace hrnn_test
