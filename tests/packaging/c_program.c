/* SPDX-License-Identifier: Apache-2.0
 *
 * The runtime from its one source file in a C program: a layer whose answer is known by hand.
 */
#include <math.h>
#include <stdio.h>

#include "hrnn/hrnn.h"
#include "hrnn/prebuilt.h"

int main(void) {
  /* h' = tanh(0.5 x + 0.25 h), twice, from x = 1, -2. */
  const float w = 0.5f, r = 0.25f, x[2] = {1.0f, -2.0f};
  float y[2] = {0, 0};
  const double first = tanh(0.5), second = tanh(-1.0 + 0.25 * first);

  hrnn_problem problem = {0};
  problem.struct_size = sizeof problem;
  problem.dtype = HRNN_F32;
  problem.cell = "rnn";
  problem.input_size = 1;
  problem.hidden_size = 1;
  hrnn_weights weights = {0};
  weights.struct_size = sizeof weights;
  weights.w = &w;
  weights.r = &r;
  hrnn_options options = {0};
  options.struct_size = sizeof options;
  options.tables = hrnn_prebuilt_tables;
  options.table_count = (uint32_t)hrnn_prebuilt_table_count;
  hrnn_run_args args = {0};
  args.struct_size = sizeof args;
  args.time = 2;
  args.batch = 1;
  args.x = x;
  args.y = y;

  hrnn_error error;
  hrnn_plan *plan = NULL;
  hrnn_state *state = NULL;
  if (hrnn_plan_create(&problem, &weights, &options, &plan, &error) != HRNN_OK ||
      hrnn_state_create(plan, 1, &state, &error) != HRNN_OK || hrnn_plan_run(plan, state, &args, &error) != HRNN_OK) {
    fprintf(stderr, "%s\n", error.message);
    return 1;
  }
  hrnn_state_destroy(state);
  hrnn_plan_destroy(plan);
  printf("hrnn %s: %g %g, expected %g %g\n", hrnn_version(), y[0], y[1], first, second);
  return fabs(y[0] - first) < 1e-6 && fabs(y[1] - second) < 1e-6 ? 0 : 1;
}
