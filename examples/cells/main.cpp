// SPDX-License-Identifier: Apache-2.0
//
// Cells of one's own run as the library's do: whole sequences of different lengths in both directions, then live input.
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "hrnn/hrnn.hpp"
#include "my_kernels.h"

namespace {

constexpr int64_t kTime = 20, kInput = 8, kHidden = 64;

// Weights of some kind, small enough for a lively state that does not grow.
std::vector<float> some_values(size_t count, float phase) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; i++) values[i] = 0.1f * std::sin(phase + 1.7f * float(i));
  return values;
}

hrnn::Plan make_plan(const char *cell, int64_t gates, hrnn_direction direction) {
  const int64_t directions = direction == HRNN_BIDIRECTIONAL ? 2 : 1;
  auto problem = hrnn::make<hrnn_problem>();
  problem.dtype = HRNN_F32;
  problem.cell = cell;
  problem.direction = direction;
  problem.input_size = kInput;
  problem.hidden_size = kHidden;
  const auto w = some_values(size_t(directions * gates * kHidden * kInput), 0);
  const auto r = some_values(size_t(directions * gates * kHidden * kHidden), 1);
  auto weights = hrnn::make<hrnn_weights>();
  weights.w = w.data();
  weights.r = r.data();
  const hrnn_kernel_table *const tables[] = {&my_kernels_kernels};
  auto options = hrnn::make<hrnn_options>();
  options.tables = tables;
  options.table_count = 1;
  return hrnn::Plan(problem, weights, &options);
}

// Two sequences, the second one shorter, in both directions.
void run_whole(const char *cell, int64_t gates) {
  const hrnn::Plan plan = make_plan(cell, gates, HRNN_BIDIRECTIONAL);
  hrnn::State state(plan, 2);
  const auto x = some_values(size_t(kTime * 2 * kInput), 2);
  const int32_t lengths[] = {kTime, kTime / 2};
  std::vector<float> last(2 * 2 * kHidden);  // [direction, sequence, unit]
  auto args = hrnn::make<hrnn_run_args>();
  args.time = kTime;
  args.batch = 2;
  args.x = x.data();
  args.lengths = lengths;
  args.h_n = last.data();
  state.run(args).check();
  std::printf("%-12s %-24s forward h = %8.5f %8.5f, backward h = %8.5f %8.5f\n", cell, plan.selection().variant,
              last[0], last[kHidden], last[2 * kHidden], last[3 * kHidden]);
}

// The largest difference between one run and the same input as it comes in.
float run_live(const char *cell, int64_t gates) {
  const hrnn::Plan plan = make_plan(cell, gates, HRNN_FORWARD);
  hrnn::State state(plan);
  const auto x = some_values(size_t(kTime * kInput), 2);
  std::vector<float> last(kHidden), live(kHidden);
  auto args = hrnn::make<hrnn_run_args>();
  args.time = kTime;
  args.batch = 1;
  args.x = x.data();
  args.h_n = last.data();
  state.run(args).check();
  state.reset();
  args.time = 1;
  args.h_n = live.data();
  for (int64_t t = 0; t < kTime; t++) {
    args.x = &x[size_t(t * kInput)];
    state.stream(args).check();
  }
  float difference = 0;
  for (size_t i = 0; i < live.size(); i++) difference = std::fmax(difference, std::fabs(live[i] - last[i]));
  return difference;
}

}  // namespace

int main() try {
  const struct {
    const char *cell;
    int64_t gates;
  } cells[] = {{"mgu", 2}, {"ligru", 2}, {"minimal_rnn", 1}, {"gru", 3}};
  bool good = true;
  for (const auto &[cell, gates] : cells) {
    run_whole(cell, gates);
    const float difference = run_live(cell, gates);
    std::printf("%-12s live and whole differ by %g\n", cell, difference);
    good = good && difference < 1e-5f;
  }
  return good ? 0 : 1;
} catch (const hrnn::Error &error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
