// SPDX-License-Identifier: Apache-2.0
//
// Selection as a pure function: invented machines, invented kernel tables.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <deque>
#include <fstream>
#include <string>
#include <vector>

#include "hrnn/device.h"
#include "hrnn/hrnn.h"
#include "machine.h"

namespace {

template <class... Features>
constexpr uint64_t bits(Features... features) {
  return (uint64_t(0) | ... | (uint64_t(1) << features));
}

constexpr uint64_t kSse41 = bits(HRNN_FEATURE_SSE41);
constexpr uint64_t kAvx2 = kSse41 | bits(HRNN_FEATURE_AVX, HRNN_FEATURE_FMA, HRNN_FEATURE_F16C, HRNN_FEATURE_AVX2);
constexpr uint64_t kAvx512 = kAvx2 | bits(HRNN_FEATURE_AVX512F, HRNN_FEATURE_AVX512DQ, HRNN_FEATURE_AVX512CD,
                                          HRNN_FEATURE_AVX512BW, HRNN_FEATURE_AVX512VL);
constexpr uint64_t kNeon = bits(HRNN_FEATURE_NEON), kCuda = bits(HRNN_FEATURE_CUDA), kOpenCl = bits(HRNN_FEATURE_OPENCL);

const hrnn_target kSse41Target = {"sse41", kSse41, 10, HRNN_USE_CPU};
const hrnn_target kAvx2Target = {"avx2", kAvx2, 20, HRNN_USE_CPU};
const hrnn_target kAvx512Target = {"avx512", kAvx512, 30, HRNN_USE_CPU};
const hrnn_target kNeonTarget = {"neon", kNeon, 10, HRNN_USE_CPU};
const hrnn_target kCudaTarget = {"cuda", kCuda, 100, HRNN_USE_GPU};
const hrnn_target kOpenClTarget = {"opencl", kOpenCl, 5, HRNN_USE_FORCED};

const hrnn_device kCudaDevice = {HRNN_ABI_VERSION, HRNN_FEATURE_CUDA, "cuda", nullptr, nullptr, nullptr,
                                 nullptr,          nullptr,           nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};

// A kernel table under construction.
class Table {
 public:
  hrnn_kernel &add(hrnn_kernel kernel, const std::string &symbol) {
    names_.push_back(symbol);
    kernel.symbol = names_.back().c_str();
    kernels_.push_back(kernel);
    return kernels_.back();
  }
  hrnn_kernel &projection(const hrnn_target &target, uint32_t gates, const std::string &symbol, hrnn_dtype dtype = HRNN_F32) {
    hrnn_kernel kernel = {};
    kernel.cell = "";
    kernel.target = &target;
    kernel.kind = HRNN_PROJECTION;
    kernel.dtype = dtype;
    kernel.gates = gates;
    kernel.panels = kernel.rows = 1;
    return add(kernel, symbol);
  }
  // `activations`: as of the cell's places; empty = any.
  hrnn_kernel &step(const hrnn_target &target, const char *cell, const std::vector<int> &activations, const std::string &symbol,
                    hrnn_dtype dtype = HRNN_F32, uint32_t phase = 0) {
    hrnn_kernel kernel = {};
    kernel.cell = cell;
    kernel.target = &target;
    kernel.kind = HRNN_STEP;
    kernel.dtype = dtype;
    kernel.panels = kernel.rows = 1;
    kernel.gates = strcmp(cell, "rnn") == 0 ? 1 : 3;
    kernel.phase = phase;
    kernel.phases = strcmp(cell, "gru_reset_before") == 0 ? 2 : 1;
    kernel.activation_count = strcmp(cell, "rnn") == 0 ? 1 : 2;
    for (int i = 0; i < HRNN_MAX_ACTIVATIONS; i++) kernel.activations[i] = size_t(i) < activations.size() ? activations[i] : -1;
    return add(kernel, symbol);
  }
  // All that a GRU with its default activations needs.
  Table &gru(const hrnn_target &target, hrnn_dtype dtype = HRNN_F32) {
    const std::string name = target.name;
    projection(target, 3, "projection_" + name, dtype);
    step(target, "gru", {HRNN_SIGMOID, HRNN_TANH}, "step_" + name, dtype);
    return *this;
  }

  const hrnn_kernel_table *get(uint32_t abi = HRNN_ABI_VERSION, const hrnn_device *device = nullptr) {
    all_.assign(kernels_.begin(), kernels_.end());
    table_ = {abi, uint32_t(all_.size()), all_.data(), device};
    return &table_;
  }

 private:
  std::deque<std::string> names_;
  std::deque<hrnn_kernel> kernels_;
  std::vector<hrnn_kernel> all_;
  hrnn_kernel_table table_;
};

hrnn_machine machine_with(uint64_t features, const char *device_refused = "") {
  hrnn_machine machine = {};
  machine.struct_size = sizeof machine;
  machine.features = features;
  snprintf(machine.device_refused, sizeof machine.device_refused, "%s", device_refused);
  return machine;
}

hrnn_problem gru_problem(int64_t hidden = 64, int64_t batch = 1) {
  hrnn_problem problem = {};
  problem.struct_size = sizeof problem;
  problem.dtype = HRNN_F32;
  problem.cell = "gru";
  problem.input_size = 8;
  problem.hidden_size = hidden;
  problem.batch_hint = batch;
  return problem;
}

struct Choice {
  hrnn_status status;
  hrnn_selection selection;
  hrnn_error error;

  std::string variant() const { return selection.variant; }
  std::string reason() const { return selection.reason; }
  std::string step() const { return selection.step; }
  std::string message() const { return error.message; }
};

Choice select(const std::vector<const hrnn_kernel_table *> &tables, const hrnn_machine &machine,
              const hrnn_problem &problem = gru_problem(), const char *force = nullptr) {
  Choice choice = {};
  choice.status = hrnn_select(&problem, &machine, tables.data(), tables.size(), force, &choice.selection, &choice.error);
  return choice;
}

#define EXPECT_SAYS(text, part) EXPECT_NE(std::string(text).find(part), std::string::npos) << "'" << text << "' lacks '" << part << "'"
#define EXPECT_SAYS_NOT(text, part) EXPECT_EQ(std::string(text).find(part), std::string::npos) << "'" << text << "' has '" << part << "'"

Table x86_table() {
  Table table;
  table.gru(kAvx2Target).gru(kSse41Target).gru(kAvx512Target);  // not by rank: the order of a table is no preference
  return table;
}

// ---- Machines ---------------------------------------------------------------------------------------------------

TEST(Select, TakesTheHighestRankOfTheMachine) {
  Table table = x86_table();
  const std::vector<const hrnn_kernel_table *> tables = {table.get()};
  const Choice old = select(tables, machine_with(kSse41));
  ASSERT_EQ(old.status, HRNN_OK) << old.message();
  EXPECT_EQ(old.variant(), "gru.f32.sse41");
  EXPECT_STREQ(old.selection.target, "sse41");
  EXPECT_EQ(old.step(), "step_sse41");
  EXPECT_STREQ(old.selection.projection, "projection_sse41");
  EXPECT_SAYS(old.reason(), "avx512 refused: this machine lacks");
  EXPECT_SAYS(old.reason(), "AVX512F");
  EXPECT_SAYS(old.reason(), "avx2 refused: this machine lacks");
  EXPECT_SAYS(old.reason(), "FMA");
  EXPECT_SAYS(old.reason(), "gru.f32.sse41 chosen");
  EXPECT_LT(old.reason().find("avx512 refused"), old.reason().find("avx2 refused"));
  EXPECT_LT(old.reason().find("avx2 refused"), old.reason().find("chosen"));

  const Choice middle = select(tables, machine_with(kAvx2));
  EXPECT_EQ(middle.variant(), "gru.f32.avx2");
  EXPECT_SAYS(middle.reason(), "avx512 refused");
  EXPECT_SAYS_NOT(middle.reason(), "avx2 refused");
  EXPECT_SAYS_NOT(middle.reason(), "sse41");  // worse than what was chosen

  const Choice recent = select(tables, machine_with(kAvx512));
  EXPECT_EQ(recent.variant(), "gru.f32.avx512");
  EXPECT_SAYS_NOT(recent.reason(), "refused");
}

TEST(Select, NeedsEveryFeatureOfATarget) {
  Table table = x86_table();
  for (uint32_t missing : {HRNN_FEATURE_AVX512F, HRNN_FEATURE_AVX512DQ, HRNN_FEATURE_AVX512CD, HRNN_FEATURE_AVX512BW,
                           HRNN_FEATURE_AVX512VL})
    EXPECT_EQ(select({table.get()}, machine_with(kAvx512 & ~bits(missing))).variant(), "gru.f32.avx2") << missing;
  for (uint32_t missing : {HRNN_FEATURE_AVX, HRNN_FEATURE_FMA, HRNN_FEATURE_F16C, HRNN_FEATURE_AVX2})
    EXPECT_EQ(select({table.get()}, machine_with(kAvx2 & ~bits(missing))).variant(), "gru.f32.sse41") << missing;
}

TEST(Select, SaysWhatTheOperatingSystemDoesNotSave) {
  Table table = x86_table();
  hrnn_machine machine = machine_with(kAvx2);
  machine.unsaved = kAvx512 & ~kAvx2;
  const Choice choice = select({table.get()}, machine);
  EXPECT_EQ(choice.variant(), "gru.f32.avx2");
  EXPECT_SAYS(choice.reason(), "avx512 refused: the operating system does not save the registers of AVX512F");
}

TEST(Select, RefusesAllOnAnotherArchitecture) {
  Table x86 = x86_table(), arm;
  arm.gru(kNeonTarget);
  const Choice none = select({x86.get()}, machine_with(kNeon));
  EXPECT_EQ(none.status, HRNN_UNSUPPORTED);
  EXPECT_EQ(none.error.status, HRNN_UNSUPPORTED);
  for (const char *target : {"avx512 refused", "avx2 refused", "sse41 refused"}) EXPECT_SAYS(none.message(), target);
  EXPECT_EQ(select({x86.get(), arm.get()}, machine_with(kNeon)).variant(), "gru.f32.neon");
  const Choice on_x86 = select({arm.get()}, machine_with(kAvx2));
  EXPECT_EQ(on_x86.status, HRNN_UNSUPPORTED);
  EXPECT_SAYS(on_x86.message(), "neon refused: this machine lacks NEON");
}

TEST(Select, RefusesAllOnAMachineWithNothing) {
  Table table = x86_table();
  const Choice choice = select({table.get()}, machine_with(0));
  EXPECT_EQ(choice.status, HRNN_UNSUPPORTED);
  EXPECT_SAYS(choice.message(), "sse41 refused: this machine lacks SSE4.1");
}

TEST(Select, SaysThatThereAreNoTables) {
  Table empty;
  EXPECT_SAYS(select({}, machine_with(kAvx512)).message(), "the kernel tables are empty");
  EXPECT_SAYS(select({empty.get(), nullptr}, machine_with(kAvx512)).message(), "the kernel tables are empty");
}

// ---- GPUs -------------------------------------------------------------------------------------------------------

TEST(Select, TakesAGpuForLargeStepsOnly) {
  Table cpu = x86_table(), gpu;
  gpu.gru(kCudaTarget);
  const std::vector<const hrnn_kernel_table *> tables = {cpu.get(), gpu.get(HRNN_ABI_VERSION, &kCudaDevice)};
  const hrnn_machine machine = machine_with(kAvx2 | kCuda);
  const Choice small = select(tables, machine, gru_problem(64, 1));
  EXPECT_EQ(small.variant(), "gru.f32.avx2");
  EXPECT_SAYS(small.reason(), "cuda refused: a step of");
  EXPECT_SAYS(small.reason(), "too small for a launch");
  const Choice large = select(tables, machine, gru_problem(1024, 64));
  EXPECT_EQ(large.variant(), "gru.f32.cuda");
  EXPECT_SAYS_NOT(large.reason(), "refused");
  EXPECT_EQ(select(tables, machine, gru_problem(64, 1), "cuda").variant(), "gru.f32.cuda");
}

TEST(Select, SaysWhyThereIsNoGpu) {
  Table cpu = x86_table(), gpu;
  gpu.gru(kCudaTarget);
  const std::vector<const hrnn_kernel_table *> tables = {cpu.get(), gpu.get(HRNN_ABI_VERSION, &kCudaDevice)};
  const hrnn_machine machine = machine_with(kAvx2, "cuda: no CUDA driver");
  const Choice choice = select(tables, machine, gru_problem(1024, 64));
  EXPECT_EQ(choice.variant(), "gru.f32.avx2");
  EXPECT_SAYS(choice.reason(), "cuda refused: this machine lacks a CUDA device (cuda: no CUDA driver)");
  const Choice forced = select(tables, machine, gru_problem(), "cuda");
  EXPECT_EQ(forced.status, HRNN_UNSUPPORTED);
  EXPECT_SAYS(forced.message(), "no CUDA driver");
}

TEST(Select, TakesATargetForTestsOnlyWhenForced) {
  Table cpu, opencl;
  cpu.gru(kSse41Target);
  opencl.gru(kOpenClTarget);
  const std::vector<const hrnn_kernel_table *> tables = {opencl.get(), cpu.get()};
  const hrnn_machine machine = machine_with(kSse41 | kOpenCl);
  EXPECT_EQ(select(tables, machine, gru_problem(4096, 512)).variant(), "gru.f32.sse41");
  EXPECT_EQ(select(tables, machine, gru_problem(), "opencl").variant(), "gru.f32.opencl");
  const Choice alone = select({opencl.get()}, machine);
  EXPECT_EQ(alone.status, HRNN_UNSUPPORTED);
  EXPECT_SAYS(alone.message(), "opencl refused: used only when forced");
}

// ---- Forcing ----------------------------------------------------------------------------------------------------

TEST(Select, ForcesATargetOrAVariant) {
  Table table = x86_table();
  const hrnn_machine machine = machine_with(kAvx512);
  for (const char *force : {"avx2", "gru.f32.avx2"}) {
    const Choice choice = select({table.get()}, machine, gru_problem(), force);
    ASSERT_EQ(choice.status, HRNN_OK) << choice.message();
    EXPECT_EQ(choice.variant(), "gru.f32.avx2");
    EXPECT_SAYS(choice.reason(), "chosen: forced");
    EXPECT_SAYS_NOT(choice.reason(), "avx512");
  }
  EXPECT_EQ(select({table.get()}, machine, gru_problem(), "").variant(), "gru.f32.avx512");
}

TEST(Select, NamesAnUnknownForcedVariant) {
  Table table = x86_table();
  for (const char *force : {"avx3", "gru.f64.avx2", "rnn.f32.avx2", "AVX2", "avx"}) {
    const Choice choice = select({table.get()}, machine_with(kAvx512), gru_problem(), force);
    EXPECT_EQ(choice.status, HRNN_INVALID_ARGUMENT) << force;
    EXPECT_SAYS(choice.message(), std::string("'") + force + "'");
    EXPECT_SAYS(choice.message(), "avx512, avx2, sse41");
  }
}

TEST(Select, SaysWhyAForcedVariantCannotBe) {
  Table table = x86_table(), partial;
  const Choice unusable = select({table.get()}, machine_with(kAvx2), gru_problem(), "avx512");
  EXPECT_EQ(unusable.status, HRNN_UNSUPPORTED);
  EXPECT_SAYS(unusable.message(), "forced: avx512");
  EXPECT_SAYS(unusable.message(), "avx512 refused: this machine lacks");
  EXPECT_SAYS_NOT(unusable.message(), "avx2 refused");
  partial.gru(kAvx2Target).projection(kAvx512Target, 3, "projection_avx512");
  const Choice incomplete = select({partial.get()}, machine_with(kAvx512), gru_problem(), "avx512");
  EXPECT_EQ(incomplete.status, HRNN_UNSUPPORTED);
  EXPECT_SAYS(incomplete.message(), "avx512 refused: no f32 step kernel for cell 'gru'");
}

// ---- What a layer needs -----------------------------------------------------------------------------------------

TEST(Select, NeedsAProjectionForTheCellsGates) {
  Table table;
  table.step(kAvx2Target, "gru", {HRNN_SIGMOID, HRNN_TANH}, "step_avx2");
  table.projection(kAvx2Target, 1, "dense");
  table.projection(kAvx2Target, 3, "f64", HRNN_F64);
  table.gru(kSse41Target);
  const Choice choice = select({table.get()}, machine_with(kAvx2));
  EXPECT_EQ(choice.variant(), "gru.f32.sse41");
  EXPECT_SAYS(choice.reason(), "avx2 refused: no f32 projection kernel for 3 gates");
}

TEST(Select, NeedsKernelsOfTheType) {
  Table table;
  table.gru(kAvx512Target, HRNN_F32).gru(kAvx2Target, HRNN_F64);
  hrnn_problem problem = gru_problem();
  problem.dtype = HRNN_F64;
  const Choice choice = select({table.get()}, machine_with(kAvx512), problem);
  EXPECT_EQ(choice.variant(), "gru.f64.avx2");
  EXPECT_SAYS(choice.reason(), "avx512 refused: no f64 projection");
}

TEST(Select, NeedsEveryPhase) {
  hrnn_problem problem = gru_problem();
  problem.cell = "gru_reset_before";
  Table table;
  table.projection(kAvx2Target, 3, "projection");
  table.step(kAvx2Target, "gru_reset_before", {HRNN_SIGMOID, HRNN_TANH}, "phase0");
  const Choice half = select({table.get()}, machine_with(kAvx2), problem);
  EXPECT_EQ(half.status, HRNN_UNSUPPORTED);
  EXPECT_SAYS(half.message(), "no f32 step kernel for cell 'gru_reset_before'");
  // The second phase in general form only: both phases are taken in that form, which there is none of for the first.
  table.step(kAvx2Target, "gru_reset_before", {}, "phase1_any", HRNN_F32, 1);
  EXPECT_EQ(select({table.get()}, machine_with(kAvx2), problem).status, HRNN_UNSUPPORTED);
  table.step(kAvx2Target, "gru_reset_before", {}, "phase0_any");
  EXPECT_EQ(select({table.get()}, machine_with(kAvx2), problem).step(), "phase0_any");
  table.step(kAvx2Target, "gru_reset_before", {HRNN_SIGMOID, HRNN_TANH}, "phase1", HRNN_F32, 1);
  EXPECT_EQ(select({table.get()}, machine_with(kAvx2), problem).step(), "phase0");
}

TEST(Select, NeedsAKernelForRemainders) {
  Table table;
  table.projection(kAvx2Target, 3, "projection");
  table.step(kAvx2Target, "gru", {HRNN_SIGMOID, HRNN_TANH}, "wide").panels = 4;
  EXPECT_EQ(select({table.get()}, machine_with(kAvx2)).status, HRNN_UNSUPPORTED);
  table.step(kAvx2Target, "gru", {HRNN_SIGMOID, HRNN_TANH}, "tall").rows = 4;
  EXPECT_EQ(select({table.get()}, machine_with(kAvx2)).status, HRNN_UNSUPPORTED);
  table.step(kAvx2Target, "gru", {HRNN_SIGMOID, HRNN_TANH}, "one");
  EXPECT_EQ(select({table.get()}, machine_with(kAvx2)).step(), "tall wide one");  // more rows first, then more panels
}

TEST(Select, JoinsTheKernelsOfATargetFromAllTables) {
  Table projections, steps;
  projections.projection(kAvx2Target, 3, "projection");
  const hrnn_target same = kAvx2Target;  // every table has its own copy
  steps.step(same, "gru", {HRNN_SIGMOID, HRNN_TANH}, "step");
  EXPECT_EQ(select({projections.get(), steps.get()}, machine_with(kAvx2)).variant(), "gru.f32.avx2");
}

// ---- Sizes ------------------------------------------------------------------------------------------------------

TEST(Select, PrefersKernelsForTheVerySize) {
  for (bool general_first : {true, false}) {
    Table table;
    table.projection(kAvx2Target, 3, "projection");
    auto general = [&] { table.step(kAvx2Target, "gru", {HRNN_SIGMOID, HRNN_TANH}, "general"); };
    if (general_first) general();
    table.step(kAvx2Target, "gru", {HRNN_SIGMOID, HRNN_TANH}, "for_64").inner = 64;
    table.step(kAvx2Target, "gru", {HRNN_SIGMOID, HRNN_TANH}, "for_65").inner = 65;
    if (!general_first) general();
    EXPECT_EQ(select({table.get()}, machine_with(kAvx2), gru_problem(64)).step(), "for_64");
    EXPECT_EQ(select({table.get()}, machine_with(kAvx2), gru_problem(65)).step(), "for_65");
    EXPECT_EQ(select({table.get()}, machine_with(kAvx2), gru_problem(66)).step(), "general");
  }
}

TEST(Select, TakesSizedProjectionsByInputSize) {
  Table table;
  table.gru(kAvx2Target);
  table.projection(kAvx2Target, 3, "for_8").inner = 8;
  table.projection(kAvx2Target, 3, "for_64").inner = 64;
  EXPECT_STREQ(select({table.get()}, machine_with(kAvx2), gru_problem(64)).selection.projection, "for_8");
}

// ---- Activations ------------------------------------------------------------------------------------------------

class SelectActivations : public testing::Test {
 protected:
  void SetUp() override {
    table.projection(kAvx2Target, 1, "projection");
    table.step(kAvx2Target, "rnn", {HRNN_TANH}, "tanh");
    table.step(kAvx2Target, "rnn", {HRNN_RELU}, "relu");
    table.step(kAvx2Target, "rnn", {}, "any");
    problem = gru_problem();
    problem.cell = "rnn";
  }
  std::string step() { return select({table.get()}, machine_with(kAvx2), problem).step(); }

  Table table;
  hrnn_problem problem;
};

TEST_F(SelectActivations, MatchesThoseCompiledIn) {
  EXPECT_EQ(step(), "tanh");
  problem.activations_set = 1;
  problem.activations[0][0] = {HRNN_RELU, 0, 0};
  EXPECT_EQ(step(), "relu");
  problem.activations[0][0] = {HRNN_TANH, 3, 4};  // takes no parameters
  EXPECT_EQ(step(), "tanh");
}

TEST_F(SelectActivations, TakesGeneralKernelsForTheRest) {
  problem.activations_set = 1;
  for (int kind = 0; kind < HRNN_ACTIVATION_COUNT; kind++) {
    problem.activations[0][0] = {hrnn_activation_kind(kind), 0.5, 0.5};
    EXPECT_EQ(step(), kind == HRNN_TANH ? "tanh" : kind == HRNN_RELU ? "relu" : "any") << kind;
  }
  const Choice choice = select({table.get()}, machine_with(kAvx2), problem);
  EXPECT_SAYS(choice.reason(), "general kernels");
}

TEST_F(SelectActivations, TakesGeneralKernelsForClip) {
  problem.clip_set = 1;
  problem.clip = 3;
  EXPECT_EQ(step(), "any");
}

TEST_F(SelectActivations, LooksAtBothDirections) {
  Table without_any;
  without_any.projection(kAvx2Target, 1, "projection");
  without_any.step(kAvx2Target, "rnn", {HRNN_TANH}, "tanh");
  problem.direction = HRNN_BIDIRECTIONAL;
  problem.activations_set = 1;
  problem.activations[0][0] = {HRNN_TANH, 0, 0};
  problem.activations[1][0] = {HRNN_SIGMOID, 0, 0};
  EXPECT_EQ(step(), "tanh");
  EXPECT_EQ(select({without_any.get()}, machine_with(kAvx2), problem).status, HRNN_UNSUPPORTED);
  problem.direction = HRNN_FORWARD;  // the second direction's activations are not used
  EXPECT_EQ(select({without_any.get()}, machine_with(kAvx2), problem).status, HRNN_OK);
}

TEST_F(SelectActivations, NamesAnUnknownKind) {
  problem.activations_set = 1;
  problem.activations[0][0].kind = hrnn_activation_kind(11);
  const Choice choice = select({table.get()}, machine_with(kAvx2), problem);
  EXPECT_EQ(choice.status, HRNN_INVALID_ARGUMENT);
  EXPECT_SAYS(choice.message(), "problem.activations[0][0].kind is 11");
}

// ---- Wrong arguments --------------------------------------------------------------------------------------------

TEST(Select, NamesTheFieldAndBothValues) {
  Table table = x86_table();
  auto message = [&](auto change) {
    hrnn_problem problem = gru_problem();
    change(problem);
    const Choice choice = select({table.get()}, machine_with(kAvx512), problem);
    EXPECT_NE(choice.status, HRNN_OK);
    EXPECT_EQ(choice.status, choice.error.status);
    return choice.message();
  };
  EXPECT_SAYS(message([](hrnn_problem &p) { p.struct_size = 8; }), "problem.struct_size is 8");
  EXPECT_SAYS(message([](hrnn_problem &p) { p.dtype = HRNN_I32; }), "problem.dtype is 3");
  EXPECT_SAYS(message([](hrnn_problem &p) { p.cell = "lstm"; }), "problem.cell is 'lstm'");
  EXPECT_SAYS(message([](hrnn_problem &p) { p.cell = nullptr; }), "problem.cell is NULL");
  EXPECT_SAYS(message([](hrnn_problem &p) { p.direction = 3; }), "problem.direction is 3");
  EXPECT_SAYS(message([](hrnn_problem &p) { p.input_size = 0; }), "problem.input_size is 0");
  EXPECT_SAYS(message([](hrnn_problem &p) { p.hidden_size = -1; }), "problem.hidden_size is -1");
  EXPECT_SAYS(message([](hrnn_problem &p) { p.hidden_size = int64_t(1) << 40; }), "problem.hidden_size 1099511627776");
  EXPECT_SAYS(message([](hrnn_problem &p) { p.clip_set = 1, p.clip = -1; }), "problem.clip is -1");
  EXPECT_SAYS(message([](hrnn_problem &p) { p.clip_set = 1, p.clip = NAN; }), "problem.clip is nan");
}

TEST(Select, TakesNoNull) {
  Table table = x86_table();
  const hrnn_kernel_table *tables[] = {table.get()};
  const hrnn_problem problem = gru_problem();
  const hrnn_machine machine = machine_with(kAvx512);
  hrnn_selection selection;
  hrnn_error error;
  EXPECT_EQ(hrnn_select(nullptr, &machine, tables, 1, nullptr, &selection, &error), HRNN_INVALID_ARGUMENT);
  EXPECT_SAYS(error.message, "problem is NULL");
  EXPECT_EQ(hrnn_select(&problem, nullptr, tables, 1, nullptr, &selection, &error), HRNN_INVALID_ARGUMENT);
  EXPECT_SAYS(error.message, "machine is NULL");
  EXPECT_EQ(hrnn_select(&problem, &machine, tables, 1, nullptr, nullptr, &error), HRNN_INVALID_ARGUMENT);
  EXPECT_SAYS(error.message, "selection is NULL");
  EXPECT_EQ(hrnn_select(&problem, &machine, tables, 1, "nothing", &selection, nullptr), HRNN_INVALID_ARGUMENT);
}

TEST(Select, TakesATableOfAnotherAbiVersionForNothing) {
  Table good, bad = x86_table();
  good.gru(kSse41Target);
  const std::vector<const hrnn_kernel_table *> tables = {bad.get(HRNN_ABI_VERSION + 1), good.get()};
  EXPECT_EQ(select(tables, machine_with(kAvx512)).variant(), "gru.f32.sse41");
  EXPECT_EQ(select({bad.get(HRNN_ABI_VERSION + 1)}, machine_with(kAvx512)).status, HRNN_UNSUPPORTED);
  // A plan over it is refused, by the table's number.
  const hrnn_problem problem = gru_problem(1);
  const std::vector<float> zeros(1000);
  hrnn_weights weights = {sizeof weights, 0, zeros.data(), zeros.data(), nullptr};
  hrnn_options options = {};
  options.struct_size = sizeof options;
  options.tables = tables.data();
  options.table_count = uint32_t(tables.size());
  hrnn_plan *plan = nullptr;
  hrnn_error error;
  EXPECT_EQ(hrnn_plan_create(&problem, &weights, &options, &plan, &error), HRNN_CORRUPT_MODEL);
  EXPECT_EQ(plan, nullptr);
  const std::string made = std::to_string(HRNN_ABI_VERSION + 1), has = std::to_string(HRNN_ABI_VERSION);
  EXPECT_SAYS(error.message, ("kernel table 0 was made for ABI version " + made + "; this library has " + has).c_str());
}

TEST(Select, WritesNoMoreThanItsTextsHold) {
  Table table;
  std::deque<hrnn_target> targets;
  std::deque<std::string> names;
  for (int i = 0; i < 31; i++) {
    names.push_back("a_target_with_a_very_long_name_to_fill_the_reason_" + std::to_string(i));
    targets.push_back({names.back().c_str(), ~uint64_t(0), uint32_t(100 + i), HRNN_USE_CPU});
    table.gru(targets.back());
  }
  const std::string long_symbol(200, 's');
  table.projection(kSse41Target, 3, long_symbol);
  table.step(kSse41Target, "gru", {HRNN_SIGMOID, HRNN_TANH}, long_symbol);
  struct {
    hrnn_selection selection;
    char canary[64];
  } guarded;
  memset(&guarded, 7, sizeof guarded);
  const hrnn_problem problem = gru_problem();
  const hrnn_machine machine = machine_with(kSse41);
  const hrnn_kernel_table *tables[] = {table.get()};
  hrnn_error error;
  hrnn_select(&problem, &machine, tables, 1, nullptr, &guarded.selection, &error);
  for (char c : guarded.canary) EXPECT_EQ(c, 7);
  EXPECT_EQ(guarded.selection.reason[sizeof guarded.selection.reason - 1], 0);
  // However many better targets are refused, the one that can do it is found.
  EXPECT_EQ(hrnn_select(&problem, &machine, tables, 1, "sse41", &guarded.selection, &error), HRNN_OK) << error.message;
  EXPECT_EQ(hrnn_select(&problem, &machine, tables, 1, nullptr, &guarded.selection, &error), HRNN_OK) << error.message;
}

// Kernels for any weights, and beside them a step and a projection for those that lie in some cache, or do not.
struct KernelsOfACache {
  KernelsOfACache(const std::string &name, uint32_t level)
      : step(table.gru(kAvx512Target).step(kAvx512Target, "gru", {HRNN_SIGMOID, HRNN_TANH}, name + "_step")),
        projection(table.projection(kAvx512Target, 3, name + "_projection")) {
    step.cache_level = projection.cache_level = level;
  }
  // Where the cache of `level` has so many bytes.
  hrnn_selection selected(int level, uint64_t bytes, int64_t hidden) {
    machine.cache_bytes[level - 1] = bytes;
    return select({table.get()}, machine, gru_problem(hidden)).selection;
  }

  Table table;
  hrnn_machine machine = machine_with(kAvx512);
  hrnn_kernel &step, &projection;
};

TEST(Select, TakesKernelsForTheFirstLevelCacheWhereTheWeightsFit) {
  KernelsOfACache kernels("wide", 1);
  kernels.step.panels = kernels.projection.panels = 4;
  auto selected = [&](uint64_t l1, int64_t hidden) { return kernels.selected(1, l1, hidden); };
  // R: 3 gates of 64 x 64 floats; W: 3 gates of 64 x 8.
  EXPECT_STREQ(selected(3 * 64 * 64 * 4, 64).step, "wide_step step_avx512");
  EXPECT_STREQ(selected(3 * 64 * 64 * 4 - 1, 64).step, "step_avx512");
  EXPECT_STREQ(selected(3 * 64 * 64 * 4 - 1, 64).projection, "wide_projection projection_avx512");
  EXPECT_STREQ(selected(3 * 64 * 8 * 4 - 1, 64).projection, "projection_avx512");
  // Packed: 65 units are 5 panels of 16.
  EXPECT_STREQ(selected(3 * 80 * 65 * 4, 65).step, "wide_step step_avx512");
  EXPECT_STREQ(selected(3 * 80 * 65 * 4 - 1, 65).step, "step_avx512");
  // Unknown: 32 KiB.
  EXPECT_STREQ(selected(0, 32).step, "wide_step step_avx512");
  EXPECT_STREQ(selected(0, 64).step, "step_avx512");
  kernels.step.cache_level = 2;
  kernels.machine.cache_bytes[1] = 3 * 64 * 64 * 4;
  EXPECT_STREQ(selected(1, 64).step, "wide_step step_avx512");
  EXPECT_STREQ(selected(1, 65).step, "step_avx512");
}

TEST(Select, TakesKernelsThatPrefetchWhereTheSecondLevelCacheDoesNotKeepTheWeights) {
  KernelsOfACache kernels("prefetching", 3);
  kernels.step.rows = kernels.projection.rows = 8;
  auto selected = [&](uint64_t l2, int64_t hidden) { return kernels.selected(2, l2, hidden); };
  // R: 3 gates of 64 x 64 floats; W: 3 gates of 64 x 8. Half of the cache holds them, or does not.
  EXPECT_STREQ(selected(2 * 3 * 64 * 64 * 4, 64).step, "step_avx512");
  EXPECT_STREQ(selected(2 * 3 * 64 * 64 * 4 - 2, 64).step, "prefetching_step step_avx512");
  EXPECT_STREQ(selected(2 * 3 * 64 * 8 * 4, 64).projection, "projection_avx512");
  EXPECT_STREQ(selected(2 * 3 * 64 * 8 * 4 - 2, 64).projection, "prefetching_projection projection_avx512");
}

TEST(Select, TakesKernelsOfPartOfAPanelForLayersThatHaveNoMore) {
  Table table;
  table.gru(kAvx512Target);
  hrnn_kernel &half = table.step(kAvx512Target, "gru", {HRNN_SIGMOID, HRNN_TANH}, "half_step");
  half.lanes = 8;
  auto selected = [&](int64_t hidden) {
    return std::string(select({table.get()}, machine_with(kAvx512), gru_problem(hidden)).selection.step);
  };
  EXPECT_EQ(selected(1), "half_step");
  EXPECT_EQ(selected(8), "half_step");
  EXPECT_EQ(selected(9), "step_avx512");
  EXPECT_EQ(selected(24), "step_avx512");
  // Before a kernel for the very size, which computes the rest of the panel too.
  table.step(kAvx512Target, "gru", {HRNN_SIGMOID, HRNN_TANH}, "sized_step").inner = 8;
  EXPECT_EQ(selected(8), "half_step");
  half.inner = 7;
  EXPECT_EQ(selected(8), "sized_step");
}

// ---- Machines detected ------------------------------------------------------------------------------------------

TEST(Machine, AsksTheDevicesOfTables) {
  hrnn_device absent = kCudaDevice, present = kCudaDevice;
  absent.probe = [](char *reason, size_t size) { return snprintf(reason, size, "no driver today"), 0; };
  present.probe = [](char *, size_t) { return 1; };
  Table table;
  table.gru(kCudaTarget);
  hrnn_machine machine = {};
  machine.struct_size = sizeof machine;
  const hrnn_kernel_table *tables[] = {table.get(HRNN_ABI_VERSION, &absent), nullptr};
  ASSERT_EQ(hrnn_machine_detect(tables, 2, &machine), HRNN_OK);
  EXPECT_EQ(machine.features & kCuda, 0u);
  EXPECT_STREQ(machine.device_refused, "cuda: no driver today");
  tables[0] = table.get(HRNN_ABI_VERSION, &present);
  ASSERT_EQ(hrnn_machine_detect(tables, 2, &machine), HRNN_OK);
  EXPECT_EQ(machine.features & kCuda, kCuda);
  EXPECT_STREQ(machine.device_refused, "");
  ASSERT_EQ(hrnn_machine_detect(nullptr, 0, &machine), HRNN_OK);
  EXPECT_EQ(machine.features & kCuda, 0u);
  EXPECT_STRNE(machine.cpu, "");
  EXPECT_EQ(hrnn_machine_detect(nullptr, 0, nullptr), HRNN_INVALID_ARGUMENT);
}

TEST(Machine, KnowsItsCaches) {
  hrnn_machine machine = {};
  machine.struct_size = sizeof machine;
  ASSERT_EQ(hrnn_machine_detect(nullptr, 0, &machine), HRNN_OK);
  // What Linux says, in its own words: "32K".
  for (int index = 0; index < 4; index++) {
    const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/";
    int level = 0;
    uint64_t kilobytes = 0;
    std::string type;
    if (!(std::ifstream(folder + "level") >> level) || !(std::ifstream(folder + "type") >> type) || type == "Instruction" ||
        !(std::ifstream(folder + "size") >> kilobytes) || level > 3)
      continue;
    EXPECT_EQ(machine.cache_bytes[level - 1], kilobytes * 1024) << "level " << level;
  }
}

TEST(Machine, AssumesTheSmallestCachesWhereTheyAreUnknown) {
  hrnn_machine machine = {};
  EXPECT_EQ(hrnn::cache_sizes(machine).l1, 32 << 10);
  EXPECT_EQ(hrnn::cache_sizes(machine).l2, 256 << 10);
  machine.cache_bytes[0] = 48 << 10;
  machine.cache_bytes[1] = 2 << 20;
  EXPECT_EQ(hrnn::cache_sizes(machine).l1, 48 << 10);
  EXPECT_EQ(hrnn::cache_sizes(machine).l2, 2 << 20);
  machine.cache_bytes[0] = machine.cache_bytes[1] = ~uint64_t(0);
  EXPECT_EQ(hrnn::cache_sizes(machine).l1, 32 << 10);
  EXPECT_EQ(hrnn::cache_sizes(machine).l2, 256 << 10);
}

#if defined(__x86_64__)
TEST(Machine, AgreesWithTheCompilerAboutThisOne) {
  hrnn_machine machine = {};
  machine.struct_size = sizeof machine;
  ASSERT_EQ(hrnn_machine_detect(nullptr, 0, &machine), HRNN_OK);
  auto has = [&](uint64_t features) { return (machine.features & features) == features; };
  EXPECT_EQ(has(kSse41), __builtin_cpu_supports("sse4.1") != 0);
  EXPECT_EQ(has(kAvx2), __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
  EXPECT_EQ(has(kAvx512), __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                              __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512bw") &&
                              __builtin_cpu_supports("avx512vl"));
}
#endif

// Words of CPUID as in the manuals: leaf 1 ECX, leaf 7.0 EBX and ECX, leaf 7.1 EAX.
constexpr uint32_t kEcxSse41 = 1u << 19, kEcxAvx = 1u << 28, kEcxFma = 1u << 12, kEcxF16c = 1u << 29;
constexpr uint32_t kEbxAvx2 = 1u << 5, kEbxAvx512 = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31;
constexpr uint32_t kEcx7Vnni = 1u << 11, kEax71Bf16 = 1u << 5;
constexpr uint64_t kXcr0Nothing = 0, kXcr0Sse = 0x3, kXcr0Avx = 0x7, kXcr0All = 0xe7;

hrnn_machine x86_machine(uint32_t ecx1, uint32_t ebx7, uint32_t ecx7, uint32_t eax71, uint64_t xcr0) {
  hrnn_machine machine = {};
  hrnn::set_x86_features({{ecx1, ebx7, ecx7, eax71}, xcr0}, &machine);
  return machine;
}

TEST(X86, ReadsEveryFeature) {
  const uint32_t ecx1 = kEcxSse41 | kEcxAvx | kEcxFma | kEcxF16c, ebx7 = kEbxAvx2 | kEbxAvx512;
  const hrnn_machine full = x86_machine(ecx1, ebx7, kEcx7Vnni, kEax71Bf16, kXcr0All);
  EXPECT_EQ(full.features, kAvx512 | bits(HRNN_FEATURE_AVX512VNNI, HRNN_FEATURE_AVX512BF16));
  EXPECT_EQ(full.unsaved, 0u);
  EXPECT_EQ(x86_machine(ecx1, kEbxAvx2, 0, 0, kXcr0All).features, kAvx2);
  EXPECT_EQ(x86_machine(kEcxSse41, 0, 0, 0, kXcr0Nothing).features, kSse41);
  EXPECT_EQ(x86_machine(0, 0, 0, 0, kXcr0All).features, 0u);
  // Each bit alone says its own feature and no other.
  EXPECT_EQ(x86_machine(kEcxFma, 0, 0, 0, kXcr0All).features, bits(HRNN_FEATURE_FMA));
  EXPECT_EQ(x86_machine(kEcxAvx, 0, 0, 0, kXcr0All).features, bits(HRNN_FEATURE_AVX));
  EXPECT_EQ(x86_machine(kEcxF16c, 0, 0, 0, kXcr0All).features, bits(HRNN_FEATURE_F16C));
  EXPECT_EQ(x86_machine(0, 1u << 16, 0, 0, kXcr0All).features, bits(HRNN_FEATURE_AVX512F));
  EXPECT_EQ(x86_machine(0, 1u << 17, 0, 0, kXcr0All).features, bits(HRNN_FEATURE_AVX512DQ));
  EXPECT_EQ(x86_machine(0, 1u << 28, 0, 0, kXcr0All).features, bits(HRNN_FEATURE_AVX512CD));
  EXPECT_EQ(x86_machine(0, 1u << 30, 0, 0, kXcr0All).features, bits(HRNN_FEATURE_AVX512BW));
  EXPECT_EQ(x86_machine(0, 1u << 31, 0, 0, kXcr0All).features, bits(HRNN_FEATURE_AVX512VL));
}

TEST(X86, CountsOnlyWhatTheOperatingSystemSaves) {
  const uint32_t ecx1 = kEcxSse41 | kEcxAvx | kEcxFma | kEcxF16c, ebx7 = kEbxAvx2 | kEbxAvx512;
  const hrnn_machine no_zmm = x86_machine(ecx1, ebx7, 0, 0, kXcr0Avx);
  EXPECT_EQ(no_zmm.features, kAvx2);
  EXPECT_EQ(no_zmm.unsaved, kAvx512 & ~kAvx2);
  for (uint64_t xcr0 : {kXcr0Sse, kXcr0Nothing, uint64_t(0x5)}) {  // no AVX state; no OSXSAVE; AVX without SSE
    const hrnn_machine no_ymm = x86_machine(ecx1, ebx7, 0, 0, xcr0);
    EXPECT_EQ(no_ymm.features, kSse41) << xcr0;
    EXPECT_EQ(no_ymm.unsaved, kAvx512 & ~kSse41) << xcr0;
  }
  // ZMM needs its three parts: opmask, the high halves, and ZMM16 to 31.
  for (uint64_t part : {0x20, 0x40, 0x80})
    EXPECT_EQ(x86_machine(ecx1, ebx7, 0, 0, kXcr0All & ~part).features, kAvx2) << part;
}

TEST(TargetUsable, SaysWhatIsMissing) {
  char why[512];
  const hrnn_machine machine = machine_with(kSse41);
  EXPECT_EQ(hrnn_target_usable(&kSse41Target, &machine, why, sizeof why), 1);
  EXPECT_STREQ(why, "");
  EXPECT_EQ(hrnn_target_usable(&kAvx2Target, &machine, why, sizeof why), 0);
  EXPECT_STREQ(why, "this machine lacks AVX, FMA, F16C, AVX2");
  EXPECT_EQ(hrnn_target_usable(&kAvx2Target, &machine, nullptr, 0), 0);
  char little[8];
  EXPECT_EQ(hrnn_target_usable(&kAvx2Target, &machine, little, sizeof little), 0);
  EXPECT_STREQ(little, "this ma");
}

}  // namespace
