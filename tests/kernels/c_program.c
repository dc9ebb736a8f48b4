/* SPDX-License-Identifier: Apache-2.0
 *
 * The runtime and a kernel library in a C program, linked by the C compiler: a GRU against its equations.
 */
#include <math.h>
#include <stdio.h>

#include "hrnn_test_sized.h"

enum { I = 3, H = 19, T = 4 };

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static double dot(const float *weights, const double *values, int count) {
  double sum = 0;
  for (int k = 0; k < count; k++) sum += weights[k] * values[k];
  return sum;
}

/* z, r = sigmoid(x W^T + h R^T); n = tanh(x Wn^T + r (h Rn^T)); h = (1 - z) n + z h */
static void gru_step(const float *w, const float *r, const double *x, double *h) {
  double next[H];
  for (int j = 0; j < H; j++) {
    const double z = sigmoid(dot(w + j * I, x, I) + dot(r + j * H, h, H));
    const double reset = sigmoid(dot(w + (H + j) * I, x, I) + dot(r + (H + j) * H, h, H));
    const double n = tanh(dot(w + (2 * H + j) * I, x, I) + reset * dot(r + (2 * H + j) * H, h, H));
    next[j] = (1 - z) * n + z * h[j];
  }
  for (int j = 0; j < H; j++) h[j] = next[j];
}

int main(void) {
  static float w[3 * H * I], r[3 * H * H], x[T * I], y[T * H];
  for (int i = 0; i < 3 * H * I; i++) w[i] = (float)sin(1 + i);
  for (int i = 0; i < 3 * H * H; i++) r[i] = (float)sin(2 + 3 * i) / 3;
  for (int i = 0; i < T * I; i++) x[i] = (float)cos(i);

  const hrnn_kernel_table *const tables[] = {&hrnn_test_sized_kernels};
  hrnn_problem problem = {0};
  problem.struct_size = sizeof problem;
  problem.dtype = HRNN_F32;
  problem.cell = "gru";
  problem.input_size = I;
  problem.hidden_size = H;
  hrnn_weights weights = {0};
  weights.struct_size = sizeof weights;
  weights.w = w;
  weights.r = r;
  hrnn_options options = {0};
  options.struct_size = sizeof options;
  options.tables = tables;
  options.table_count = 1;
  hrnn_run_args args = {0};
  args.struct_size = sizeof args;
  args.time = T;
  args.batch = 1;
  args.x = x;
  args.y = y;
  hrnn_plan *plan = NULL;
  hrnn_state *state = NULL;
  hrnn_error error;
  if (hrnn_plan_create(&problem, &weights, &options, &plan, &error) != HRNN_OK ||
      hrnn_state_create(plan, 1, &state, &error) != HRNN_OK || hrnn_plan_run(plan, state, &args, &error) != HRNN_OK) {
    fprintf(stderr, "%s\n", error.message);
    return 1;
  }
  hrnn_state_destroy(state);
  hrnn_plan_destroy(plan);

  double h[H] = {0}, worst = 0;
  for (int t = 0; t < T; t++) {
    double input[I];
    for (int i = 0; i < I; i++) input[i] = x[t * I + i];
    gru_step(w, r, input, h);
    for (int j = 0; j < H; j++) worst = fmax(worst, fabs(y[t * H + j] - h[j]));
  }
  printf("largest difference from the equations: %.3g\n", worst);
  return worst < 2e-6 ? 0 : 1;
}
