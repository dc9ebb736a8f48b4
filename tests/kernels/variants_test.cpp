// SPDX-License-Identifier: Apache-2.0
//
// Every row of every kernel table, on every instruction set and device of this machine. Programs of their own for CUDA
// (HRNN_TEST_CUDA; each GPU backend brings a Halide runtime) and for arm-64 under an emulator (HRNN_TEST_ARM).
#include <gtest/gtest.h>

#include "kernel_checks.h"

#if defined(HRNN_TEST_CUDA)
#include "hrnn_test_cuda.h"
#elif defined(HRNN_TEST_ARM)
#include "hrnn_test_arm.h"
#else
#include "hrnn/prebuilt.h"
#include "hrnn_test_opencl.h"
#include "hrnn_test_sized.h"
#endif

namespace hrnn_test {
namespace {

#if defined(HRNN_TEST_ARM)
constexpr bool kEmulated = true;
#else
constexpr bool kEmulated = false;
#endif

struct Library {
  const char *name;
  CountedTables tables;
};

// Where two libraries have the same kernel only one is chosen, so each is checked on its own.
const std::vector<std::unique_ptr<Library>> &libraries() {
  static const auto *all = [] {
    auto *made = new std::vector<std::unique_ptr<Library>>;
    auto add = [&](const char *name, const std::vector<const hrnn_kernel_table *> &tables) {
      made->push_back(std::make_unique<Library>(Library{name, CountedTables(tables)}));
    };
#if defined(HRNN_TEST_CUDA)
    add("gpu", {&hrnn_test_cuda_cuda_kernels});
#elif defined(HRNN_TEST_ARM)
    add("cross", {&hrnn_test_arm_kernels});
#else
    add("prebuilt", {hrnn_prebuilt_tables, hrnn_prebuilt_tables + hrnn_prebuilt_table_count});
    add("sized", {&hrnn_test_sized_kernels});
    add("gpu", {&hrnn_test_opencl_opencl_kernels});
#endif
    return made;
  }();
  return *all;
}

struct Param {
  std::string name;
  Kernels kernels;
};

std::ostream &operator<<(std::ostream &out, const Param &param) { return out << param.name; }

std::vector<Param> all_params() {
  std::vector<Param> params;
  for (const auto &library : libraries())
    for (const Kernels &kernels : kernels_in(library->tables))
      params.push_back({std::string(library->name) + "_" + kernels.name(), kernels});
  return params;
}

const hrnn_machine &machine() {
  static const hrnn_machine detected = [] {
    hrnn_machine machine = {};
    machine.struct_size = sizeof machine;
    std::vector<const hrnn_kernel_table *> tables;
    for (const auto &library : libraries())
      tables.insert(tables.end(), library->tables.tables().begin(), library->tables.tables().end());
    hrnn_machine_detect(tables.data(), tables.size(), &machine);
    return machine;
  }();
  return detected;
}

class Variants : public testing::TestWithParam<Param> {
 protected:
  void SetUp() override {
    char why[512];
    if (!hrnn_target_usable(kernels().target, &machine(), why, sizeof why)) GTEST_SKIP() << kernels().name() << ": " << why;
  }

  const Kernels &kernels() const { return GetParam().kernels; }

  void expect_none(const Report &report) {
    EXPECT_GT(report.runs, 0);
    EXPECT_TRUE(report.failures.empty()) << report.failures.size() << " of " << report.runs << " runs failed:";
    for (size_t i = 0; i < report.failures.size() && i < 10; i++) ADD_FAILURE() << report.failures[i];
    RecordProperty("runs", int(report.runs));
    RecordProperty("worst_thousandths_of_tolerance", int(report.worst * 1000));
  }
};

// Among the shapes are all that the rows' tiles ask for: afterwards every row has been called.
TEST_P(Variants, Shapes) {
  expect_none(check_shapes(kernels(), kEmulated ? 1 : kernels().gpu() ? 3 : 8));
  for (const std::string &symbol : kernels().never_called()) ADD_FAILURE() << symbol << " was never called";
}

TEST_P(Variants, Empty) { expect_none(check_empty(kernels())); }
TEST_P(Variants, Activations) { expect_none(check_activations(kernels())); }
TEST_P(Variants, Accuracy) { expect_none(check_accuracy(kernels())); }
TEST_P(Variants, Large) { expect_none(check_large(kernels(), kEmulated)); }
TEST_P(Variants, Streaming) { expect_none(check_streaming(kernels())); }
TEST_P(Variants, Cropping) { expect_none(check_cropping(kernels())); }
TEST_P(Variants, SpecialValues) { expect_none(check_special_values(kernels())); }

INSTANTIATE_TEST_SUITE_P(All, Variants, testing::ValuesIn(all_params()),
                         [](const testing::TestParamInfo<Param> &info) { return info.param.name; });

}  // namespace
}  // namespace hrnn_test
