// SPDX-License-Identifier: Apache-2.0
//
// Rows of x and y further apart than the 32 bits that kernels count with.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cmath>

#include "hrnn/prebuilt.h"

namespace {

struct Distance {
  int64_t time, batch;
};

class FarRows : public testing::TestWithParam<Distance> {};

// h' = tanh(x + h / 2) of two steps of three sequences, in memory that is mapped but hardly touched.
TEST_P(FarRows, AreFound) {
  constexpr int64_t kTime = 2, kBatch = 3;
  const Distance stride = GetParam();
  const size_t bytes = size_t(stride.time * (kTime - 1) + stride.batch * (kBatch - 1) + 1) * sizeof(float);
  auto map = [&] {
    void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? nullptr : static_cast<float *>(memory);
  };
  float *x = map(), *y = map();
  if (x == nullptr || y == nullptr) GTEST_SKIP() << "cannot map " << bytes << " bytes";

  const float one = 1, half = 0.5;
  hrnn_problem problem = {};
  problem.struct_size = sizeof problem;
  problem.dtype = HRNN_F32;
  problem.cell = "rnn";
  problem.input_size = problem.hidden_size = 1;
  hrnn_weights weights = {};
  weights.struct_size = sizeof weights;
  weights.w = &one;
  weights.r = &half;
  hrnn_options options = {};
  options.struct_size = sizeof options;
  options.tables = hrnn_prebuilt_tables;
  options.table_count = uint32_t(hrnn_prebuilt_table_count);
  for (int direction : {HRNN_FORWARD, HRNN_REVERSE}) {
    problem.direction = direction;
    hrnn_plan *plan = nullptr;
    hrnn_state *state = nullptr;
    hrnn_error error;
    ASSERT_EQ(hrnn_plan_create(&problem, &weights, &options, &plan, &error), HRNN_OK) << error.message;
    ASSERT_EQ(hrnn_state_create(plan, kBatch, &state, &error), HRNN_OK) << error.message;
    hrnn_run_args args = {};
    args.struct_size = sizeof args;
    args.time = kTime;
    args.batch = kBatch;
    args.x = x;
    args.y = y;
    args.x_time_stride = args.y_time_stride = stride.time;
    args.x_batch_stride = args.y_batch_stride = stride.batch;
    auto at = [&](int64_t t, int64_t n) { return t * stride.time + n * stride.batch; };
    for (int64_t t = 0; t < kTime; t++)
      for (int64_t n = 0; n < kBatch; n++) x[at(t, n)] = 0.25f * float(1 + t + 2 * n);
    ASSERT_EQ(hrnn_plan_run(plan, state, &args, &error), HRNN_OK) << error.message;
    for (int64_t n = 0; n < kBatch; n++) {
      const int64_t first = direction == HRNN_FORWARD ? 0 : 1;
      const double h = std::tanh(x[at(first, n)]);
      EXPECT_NEAR(y[at(first, n)], h, 1e-6) << n;
      EXPECT_NEAR(y[at(1 - first, n)], std::tanh(x[at(1 - first, n)] + h / 2), 1e-6) << n;
    }
    hrnn_state_destroy(state);
    hrnn_plan_destroy(plan);
  }
  munmap(x, bytes);
  munmap(y, bytes);
}

constexpr int64_t kTwo31 = int64_t(1) << 31;
INSTANTIATE_TEST_SUITE_P(All, FarRows,
                         testing::Values(Distance{3, 1}, Distance{1, 2}, Distance{kTwo31 + 5, 1}, Distance{1, kTwo31 + 5},
                                         Distance{kTwo31 / 2 + 1, kTwo31 / 4 + 1}, Distance{2 * kTwo31, 4 * kTwo31}));

}  // namespace
