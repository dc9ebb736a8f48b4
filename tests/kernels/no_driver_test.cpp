// SPDX-License-Identifier: Apache-2.0
//
// CUDA kernels in a program on a machine without a GPU: the CPU is used, and the selection says why.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "hrnn/device.h"
#include "hrnn/prebuilt.h"
#include "hrnn_test_cuda.h"

namespace {

class NoDriver : public testing::Test {
 protected:
  void SetUp() override {
    char reason[200];
    if (hrnn_test_cuda_cuda_kernels.device->probe(reason, sizeof reason)) GTEST_SKIP() << "this machine has a CUDA device";
    tables.assign(hrnn_prebuilt_tables, hrnn_prebuilt_tables + hrnn_prebuilt_table_count);
    tables.push_back(&hrnn_test_cuda_cuda_kernels);
    // Large enough for a GPU to be worth it.
    problem.struct_size = sizeof problem;
    problem.dtype = HRNN_F32;
    problem.cell = "gru";
    problem.input_size = 1;
    problem.hidden_size = 256;
    problem.batch_hint = 64;
    zeros.assign(3 * 256 * 256, 0.0f);
    weights.struct_size = sizeof weights;
    weights.w = weights.r = zeros.data();
    options.struct_size = sizeof options;
    options.tables = tables.data();
    options.table_count = uint32_t(tables.size());
  }
  void TearDown() override { hrnn_plan_destroy(plan); }

  std::vector<const hrnn_kernel_table *> tables;
  std::vector<float> zeros;
  hrnn_problem problem = {};
  hrnn_weights weights = {};
  hrnn_options options = {};
  hrnn_plan *plan = nullptr;
  hrnn_error error = {};
};

TEST_F(NoDriver, UsesTheCpuAndSaysWhy) {
  std::vector<std::string> log;
  options.log = [](void *user, const char *line) { static_cast<std::vector<std::string> *>(user)->push_back(line); };
  options.log_user = &log;
  ASSERT_EQ(hrnn_plan_create(&problem, &weights, &options, &plan, &error), HRNN_OK) << error.message;
  hrnn_selection selection;
  hrnn_plan_selection(plan, &selection);
  EXPECT_STRNE(selection.target, "cuda");
  const std::string reason = selection.reason;
  EXPECT_EQ(reason.find("cuda refused: this machine lacks a CUDA device (cuda: "), 0u) << reason;
  EXPECT_NE(reason.find("driver"), std::string::npos) << reason;
  ASSERT_GE(log.size(), 2u);
  EXPECT_EQ(reason.find(log[0]), 0u) << log[0];
}

TEST_F(NoDriver, RefusesToBeForced) {
  options.force_variant = "cuda";
  EXPECT_EQ(hrnn_plan_create(&problem, &weights, &options, &plan, &error), HRNN_UNSUPPORTED);
  EXPECT_EQ(plan, nullptr);
  EXPECT_NE(std::string(error.message).find("driver"), std::string::npos) << error.message;
}

}  // namespace
