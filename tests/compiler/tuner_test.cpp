// SPDX-License-Identifier: Apache-2.0
//
// The search of `hrnn tune`, with kernels made wrong or slow on purpose.
#include "tuner.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "schedules.h"

namespace hrnn {
namespace {

// Of one gate: the plainest target has registers for more than one tile of its fused step.
constexpr const char *kProblem = "rnn:tanh:i16h32:b1:t1:fwd:f32";

hrnn_machine this_machine() {
  hrnn_machine machine{};
  machine.struct_size = sizeof machine;
  hrnn_machine_detect(nullptr, 0, &machine);
  return machine;
}

class Tuner : public testing::Test {
 protected:
  // The plainest target of x86 runs on every such machine.
  void SetUp() override {
#if !defined(__x86_64__)
    GTEST_SKIP() << "the injected kernels are of an x86-64 target";
#endif
    file_ = testing::TempDir() + "tuner_test." + std::to_string(getpid()) + ".db";
    request_.problems = {parse_problem(kProblem)};
    request_.target = targets_by_name({"sse41"})[0];
    request_.seconds = 300;
  }
  void TearDown() override {
    for (const char *suffix : {"", "-wal", "-shm"}) unlink((file_ + suffix).c_str());
  }

  TuneResult tune_it() {
    SampleStore store(file_, "here");
    return tune(request_, this_machine(), &store);
  }

  std::string file_;
  TuneRequest request_;
};

int nothing(void **) { return 0; }

// Today's kernels of one row, and the same several times over: right, since a step reads no output, and slow.
hrnn_kernel_entry right_one[8];
template <int N>
int slowly(void **args) {
  for (int i = 0; i < 9; i++)
    if (const int error = right_one[N](args)) return error;
  return 0;
}
constexpr hrnn_kernel_entry kSlow[] = {slowly<0>, slowly<1>, slowly<2>, slowly<3>, slowly<4>, slowly<5>, slowly<6>, slowly<7>};

std::shared_ptr<const JitKernel> with_entry(const JitKernel &kernel, hrnn_kernel_entry entry, const std::string &identity) {
  auto changed = std::make_shared<JitKernel>(kernel);
  changed->entry = entry;
  changed->identity = identity;
  return changed;
}

bool is_today(hrnn_kernel_kind kind, const Tile &wanted) {
  const std::vector<Tile> today = tiles({"sse41", kind, 1, HRNN_F32});
  return std::any_of(today.begin(), today.end(), [&](Tile tile) {
    tile.cache_level = wanted.cache_level;
    return tile == wanted;
  });
}

// A kernel that does nothing is very fast.
TEST_F(Tuner, NeverTimesOrChoosesAWrongCandidate) {
  std::set<std::string> broken;
  request_.compile = [&](const KernelSpec &spec, const TargetRow &target) {
    std::shared_ptr<const JitKernel> kernel = jit_kernel(spec, target);
    if (spec.kind != HRNN_FUSED_STEP || is_today(spec.kind, spec.tile)) return kernel;
    broken.insert(describe(spec.tile));
    return with_entry(*kernel, nothing, "broken " + kernel->identity);
  };
  const TuneResult result = tune_it();
  ASSERT_FALSE(broken.empty());
  int wrong = 0;
  for (const Trial &trial : result.trials) {
    if (trial.product.kind != HRNN_FUSED_STEP || is_today(trial.product.kind, trial.tile)) continue;
    EXPECT_NE(trial.verdict, Verdict::Faster) << describe(trial.tile);
    if (trial.verdict != Verdict::Wrong) continue;  // others of its table, which are right, are called instead
    EXPECT_TRUE(trial.gains.empty());
    EXPECT_NE(trial.wrong.find(kProblem), std::string::npos) << trial.wrong;
    EXPECT_NE(trial.wrong.find("expected"), std::string::npos) << trial.wrong;
    wrong++;
  }
  EXPECT_GT(wrong, 0);
  for (const TunedTile &change : result.changes)
    EXPECT_TRUE(change.product.kind != HRNN_FUSED_STEP || is_today(change.product.kind, change.tile)) << describe(change.tile);
}

TEST_F(Tuner, ChoosesWhatIsFaster) {
  int slots = 0;
  request_.compile = [&](const KernelSpec &spec, const TargetRow &target) {
    std::shared_ptr<const JitKernel> kernel = jit_kernel(spec, target);
    if (spec.kind != HRNN_FUSED_STEP || !is_today(spec.kind, spec.tile) || slots == int(std::size(kSlow))) return kernel;
    right_one[slots] = kernel->entry;
    return with_entry(*kernel, kSlow[slots++], "slow " + kernel->identity);
  };
  const TuneResult result = tune_it();
  ASSERT_GT(slots, 0);
  EXPECT_TRUE(result.finished);
  const auto change = std::find_if(result.changes.begin(), result.changes.end(),
                                   [](const TunedTile &tile) { return tile.product.kind == HRNN_FUSED_STEP; });
  ASSERT_NE(change, result.changes.end());
  EXPECT_GT(change->gain.at(kProblem), 1.5);
}

// The samples of an earlier run are taken as they are: a run that was cut off loses nothing.
TEST_F(Tuner, GoesOnFromTheSamplesThereAre) {
  const TuneResult first = tune_it(), second = tune_it();
  ASSERT_TRUE(first.finished);
  ASSERT_EQ(first.trials.size(), second.trials.size());
  ASSERT_GT(first.trials.size(), 0u);
  for (size_t i = 0; i < first.trials.size(); i++) {
    EXPECT_EQ(first.trials[i].verdict, second.trials[i].verdict);
    ASSERT_EQ(first.trials[i].gains.size(), second.trials[i].gains.size());
    for (const auto &[problem, gain] : first.trials[i].gains) {
      EXPECT_EQ(gain.median, second.trials[i].gains.at(problem).median) << describe(first.trials[i].tile);
      EXPECT_EQ(gain.samples, second.trials[i].gains.at(problem).samples);
    }
  }
}

TEST_F(Tuner, StopsWhenItsTimeIsUp) {
  request_.seconds = 0.2;
  const TuneResult result = tune_it();
  EXPECT_FALSE(result.finished);
  for (const Trial &trial : result.trials) EXPECT_NE(trial.verdict, Verdict::Faster);
}

TEST(Samples, BelongToAMachineAndAKey) {
  const std::string file = testing::TempDir() + "samples_test." + std::to_string(getpid()) + ".db";
  {
    SampleStore store(file, "here"), elsewhere(file, "there");
    store.add({"race", "p", "a", "b"}, 3, {1.5, 2.5});
    ASSERT_TRUE(store.find({"race", "p", "a", "b"}, 3).has_value());
    EXPECT_EQ(store.find({"race", "p", "a", "b"}, 3)->candidate, 1.5);
    EXPECT_EQ(store.find({"race", "p", "a", "b"}, 3)->today, 2.5);
    EXPECT_FALSE(store.find({"race", "p", "a", "b"}, 4).has_value());
    EXPECT_FALSE(store.find({"confirm", "p", "a", "b"}, 3).has_value());
    EXPECT_FALSE(store.find({"race", "p", "a", "c"}, 3).has_value());
    EXPECT_FALSE(elsewhere.find({"race", "p", "a", "b"}, 3).has_value());
  }
  for (const char *suffix : {"", "-wal", "-shm"}) unlink((file + suffix).c_str());
}

TEST(Gain, IsAMedianWithItsConfidence) {
  std::vector<Sample> samples;
  for (int i = 0; i < 25; i++) samples.push_back({1, 1 + i * 0.01});
  const Gain gain = gain_of(samples);
  EXPECT_DOUBLE_EQ(gain.median, 1.12);
  EXPECT_DOUBLE_EQ(gain.low, 1.06);  // the 7th and the 19th
  EXPECT_DOUBLE_EQ(gain.high, 1.18);
  EXPECT_EQ(gain.samples, 25);
}

// The identity of a kernel is of its code, not of when it was made.
TEST(JitKernel, IdentityIsOfTheCode) {
  const TargetRow &target = *targets_by_name({"sse41"})[0];
  KernelSpec spec;
  spec.kind = HRNN_PROJECTION;
  spec.gates = 3;
  spec.tile = {1, 1, false, 1, 1, 0};
  const std::string identity = jit_kernel(spec, target)->identity;
  EXPECT_EQ(jit_kernel(spec, target)->identity, identity);
  spec.tile.gate_by_gate = true;
  EXPECT_NE(jit_kernel(spec, target)->identity, identity);
}

}  // namespace
}  // namespace hrnn
