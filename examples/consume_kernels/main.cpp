// SPDX-License-Identifier: Apache-2.0
//
// One GRU layer with weights that are known only at run time: whole sequences, then live input one step at a time.
#include <cmath>
#include <cstdio>
#include <vector>

#include "hrnn/hrnn.h"
#include "my_kernels.h"

namespace {

constexpr int64_t kTime = 20, kInput = 8, kHidden = 64;

// Weights of some kind, small enough for a lively state.
std::vector<float> some_values(size_t count, float phase) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; i++) values[i] = 0.3f * std::sin(phase + 1.7f * float(i));
  return values;
}

int fail(const hrnn_error &error) {
  std::fprintf(stderr, "%s\n", error.message);
  return 1;
}

}  // namespace

int main() {
  hrnn_error error;

  hrnn_problem problem = {};
  problem.struct_size = sizeof problem;
  problem.dtype = HRNN_F32;
  problem.cell = "gru";
  problem.input_size = kInput;
  problem.hidden_size = kHidden;

  const auto w = some_values(3 * kHidden * kInput, 0), r = some_values(3 * kHidden * kHidden, 1);
  hrnn_weights weights = {};
  weights.struct_size = sizeof weights;
  weights.w = w.data();
  weights.r = r.data();

  const hrnn_kernel_table *const tables[] = {&my_kernels_kernels};
  hrnn_options options = {};
  options.struct_size = sizeof options;
  options.tables = tables;
  options.table_count = 1;

  hrnn_plan *plan;
  if (hrnn_plan_create(&problem, &weights, &options, &plan, &error) != HRNN_OK) return fail(error);
  hrnn_state *state;
  if (hrnn_state_create(plan, 1, &state, &error) != HRNN_OK) return fail(error);
  hrnn_selection selection = {};
  selection.struct_size = sizeof selection;
  hrnn_plan_selection(plan, &selection);
  std::printf("kernels: %s (%s)\n", selection.variant, selection.step);

  // A whole sequence.
  const auto x = some_values(kTime * kInput, 2);
  std::vector<float> last(kHidden), live(kHidden);
  hrnn_run_args args = {};
  args.struct_size = sizeof args;
  args.time = kTime;
  args.batch = 1;
  args.x = x.data();
  args.h_n = last.data();
  if (hrnn_plan_run(plan, state, &args, &error) != HRNN_OK) return fail(error);

  // The same, as it comes in.
  hrnn_state_reset(state);
  args.time = 1;
  args.h_n = live.data();
  for (int64_t t = 0; t < kTime; t++) {
    args.x = &x[size_t(t * kInput)];
    if (hrnn_stream(plan, state, &args, &error) != HRNN_OK) return fail(error);
  }

  float difference = 0;
  for (size_t i = 0; i < live.size(); i++) difference = std::fmax(difference, std::fabs(live[i] - last[i]));
  std::printf("h[0..2] = %g %g %g; live and whole differ by %g\n", last[0], last[1], last[2], difference);
  hrnn_state_destroy(state);
  hrnn_plan_destroy(plan);
  return difference < 1e-5f ? 0 : 1;
}
