// SPDX-License-Identifier: Apache-2.0
//
// Runs by several threads give what one thread gives, bit by bit.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

#include "hrnn/prebuilt.h"
#include "layer_run.h"

namespace hrnn_test {
namespace {

struct TeamDeleter {
  void operator()(hrnn_team *team) const { hrnn_team_destroy(team); }
};
using Team = std::unique_ptr<hrnn_team, TeamDeleter>;

// The host's pool of the tests: starts its threads anew, and counts.
struct Pool {
  std::atomic<int> calls{0}, tasks{0};
  std::chrono::microseconds late{0};  // how much later than the first task others begin; kNever: after it has returned

  static constexpr std::chrono::microseconds kNever{-1};

  static void parallel(void *argument, uint32_t count, void (*task)(void *, uint32_t), void *task_argument) {
    Pool &pool = *static_cast<Pool *>(argument);
    pool.calls++;
    std::vector<std::thread> threads;
    std::atomic<bool> returned{false};
    for (uint32_t i = 0; i < count; i++) {
      pool.tasks++;
      threads.emplace_back([&, i] {
        while (i > 0 && pool.late == kNever && !returned) std::this_thread::yield();
        if (i > 0 && pool.late > std::chrono::microseconds{0}) std::this_thread::sleep_for(pool.late * i);
        task(task_argument, i);
        if (i == 0) returned = true;
      });
    }
    for (std::thread &thread : threads) thread.join();
  }
};

Team make_team(uint32_t threads, Pool *pool = nullptr) {
  hrnn_team_options options = {};
  options.struct_size = sizeof options;
  options.threads = threads;
  if (pool != nullptr) options.parallel = Pool::parallel, options.pool = pool;
  hrnn_team *team = nullptr;
  hrnn_error error = {};
  EXPECT_EQ(hrnn_team_create(&options, &team, &error), HRNN_OK) << error.message;
  return Team(team);
}

// The best target of this machine.
KernelChoice choice(hrnn_team *team) {
  static const std::string target = [] {
    hrnn_machine machine = {};
    machine.struct_size = sizeof machine;
    hrnn_machine_detect(nullptr, 0, &machine);
    hrnn_problem problem = {};
    problem.struct_size = sizeof problem;
    problem.dtype = HRNN_F32;
    problem.cell = "gru";
    problem.input_size = problem.hidden_size = 1;
    hrnn_selection selection = {};
    hrnn_select(&problem, &machine, hrnn_prebuilt_tables, hrnn_prebuilt_table_count, nullptr, &selection, nullptr);
    return std::string(selection.target);
  }();
  return {{hrnn_prebuilt_tables, hrnn_prebuilt_tables + hrnn_prebuilt_table_count}, target, team};
}

LayerRun make_run(const std::string &cell, hrnn_dtype dtype, const std::string &direction, const Shape &shape, bool lengths) {
  LayerRun run;
  run.layer.cell = cell;
  run.dtype = dtype;
  run.layer.direction = direction;
  run.layer.activations = run.layer.default_activations();
  run.batch_major = lengths;
  std::mt19937 random(11);
  randomize(&run, shape, {true, true, lengths}, 1.0, &random);
  return run;
}

// run_layer runs once before, to spoil the state; so does stream_layer.
constexpr int kRuns = 2;

// A step of 3 x 208 x 305 x 4 multiply-adds.
constexpr Shape kLarge = {105, 200, 40, 4};

TEST(Team, GivesWhatOneThreadGives) {
  for (uint32_t threads : {2u, 3u, 5u}) {
    Team own = make_team(threads);
    Pool pool;
    Team hosted = make_team(threads, &pool);
    for (const char *cell : {"rnn", "gru", "gru_reset_before"}) {
      for (hrnn_dtype dtype : {HRNN_F32, HRNN_F64}) {
        for (const char *direction : {"forward", "reverse", "bidirectional"}) {
          for (bool lengths : {false, true}) {
            Shape shape = kLarge;
            if (cell == std::string("rnn")) shape.batch *= 3;
            const LayerRun run = make_run(cell, dtype, direction, shape, lengths);
            const LayerResult alone = run_layer(run, choice(nullptr));
            ASSERT_EQ(alone.error, "");
            EXPECT_EQ(Judge(run).compare(run, alone), "") << run.describe();
            const int before = pool.calls;
            for (hrnn_team *team : {own.get(), hosted.get()}) {
              const LayerResult together = run_layer(run, choice(team));
              ASSERT_EQ(together.error, "") << run.describe();
              EXPECT_EQ(together.y, alone.y) << run.describe() << " threads=" << threads;
              EXPECT_EQ(together.y_h, alone.y_h) << run.describe() << " threads=" << threads;
            }
            EXPECT_EQ(pool.calls, before + kRuns) << run.describe() << ": the team was not used";
          }
        }
      }
    }
  }
}

// Steps too small to be divided among threads.
TEST(Team, GivesEachDirectionAThread) {
  Pool pool;
  Team own = make_team(2), hosted = make_team(5, &pool);
  for (const char *cell : {"rnn", "gru", "gru_reset_before"}) {
    for (bool lengths : {false, true}) {
      const LayerRun run = make_run(cell, HRNN_F32, "bidirectional", {7, 40, cell == std::string("rnn") ? 451 : 151, 3}, lengths);
      const LayerResult alone = run_layer(run, choice(nullptr));
      ASSERT_EQ(alone.error, "");
      EXPECT_EQ(Judge(run).compare(run, alone), "") << run.describe();
      const int calls = pool.calls, tasks = pool.tasks;
      for (hrnn_team *team : {own.get(), hosted.get()}) {
        const LayerResult together = run_layer(run, choice(team));
        ASSERT_EQ(together.error, "") << run.describe();
        EXPECT_EQ(together.y, alone.y) << run.describe();
        EXPECT_EQ(together.y_h, alone.y_h) << run.describe();
      }
      EXPECT_EQ(pool.calls, calls + kRuns) << run.describe();
      EXPECT_EQ(pool.tasks, tasks + 2 * kRuns) << run.describe();
    }
  }
}

// The caller begins alone, and goes on alone.
TEST(Team, MayComeLateOrNever) {
  Pool pool;
  Team team = make_team(4, &pool);
  for (const char *direction : {"reverse", "bidirectional"}) {
    const LayerRun run = make_run("gru", HRNN_F32, direction, {5, 200, 400, 4}, true);
    const LayerResult alone = run_layer(run, choice(nullptr));
    for (int late : {0, 20, 100, 300, 1000, 3000, -1}) {
      pool.late = std::chrono::microseconds(late);
      const LayerResult together = run_layer(run, choice(team.get()));
      EXPECT_EQ(together.y, alone.y) << run.describe() << " late=" << late;
      EXPECT_EQ(together.y_h, alone.y_h) << run.describe() << " late=" << late;
    }
  }
  EXPECT_EQ(pool.calls, 2 * 7 * kRuns);
}

TEST(Team, MayHaveMoreThreadsThanPanels) {
  Pool pool;
  Team team = make_team(16, &pool);
  const LayerRun run = make_run("gru", HRNN_F32, "forward", {600, 33, 90, 4}, false);  // 3 panels
  const LayerResult alone = run_layer(run, choice(nullptr)), together = run_layer(run, choice(team.get()));
  EXPECT_EQ(together.y, alone.y);
  EXPECT_EQ(pool.calls, kRuns);
  EXPECT_EQ(pool.tasks, 3 * kRuns);
}

TEST(Team, IsLeftAloneWhereItCannotHelp) {
  Pool pool;
  Team team = make_team(2, &pool);
  auto runs_alone = [&](const LayerRun &run) {
    const LayerResult alone = run_layer(run, choice(nullptr)), result = run_layer(run, choice(team.get()));
    EXPECT_EQ(result.error, "");
    EXPECT_EQ(result.y, alone.y);
    EXPECT_EQ(pool.calls, 0) << run.describe();
  };
  runs_alone(make_run("gru", HRNN_F32, "forward", {3, 16, 7, 2}, false));    // little to do
  runs_alone(make_run("gru", HRNN_F32, "forward", {3, 32, 900, 2}, false));  // little to do in a step
  runs_alone(make_run("gru", HRNN_F32, "forward", {3, 16, 0, 2}, false));
  const LayerRun run = make_run("gru", HRNN_F32, "forward", kLarge, false);
  const LayerResult streamed = stream_layer(run, choice(team.get()), {20, 20});
  EXPECT_EQ(streamed.error, "");
  EXPECT_EQ(pool.calls, kRuns - 1);
}

// Runs that meet a team at work go on alone.
TEST(Team, ServesOneRunAtATime) {
  Team team = make_team(2);
  const LayerRun run = make_run("gru", HRNN_F32, "bidirectional", kLarge, true);
  const LayerResult expected = run_layer(run, choice(nullptr));
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; i++)
    callers.emplace_back([&] {
      for (int j = 0; j < 20; j++) wrong += run_layer(run, choice(team.get())).y != expected.y;
    });
  for (std::thread &caller : callers) caller.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Team, ChecksItsOptions) {
  hrnn_team *team = nullptr;
  hrnn_error error = {};
  hrnn_team_options options = {};
  EXPECT_EQ(hrnn_team_create(&options, &team, &error), HRNN_INVALID_ARGUMENT);
  EXPECT_EQ(std::string(error.message), "options.struct_size is 0; this library expects " + std::to_string(sizeof options));
  options.struct_size = sizeof options;
  for (uint32_t threads : {0u, 257u}) {
    options.threads = threads;
    EXPECT_EQ(hrnn_team_create(&options, &team, &error), HRNN_INVALID_ARGUMENT);
    EXPECT_EQ(std::string(error.message), "options.threads is " + std::to_string(threads) + "; it must be between 1 and 256");
    EXPECT_EQ(team, nullptr);
  }
  EXPECT_EQ(hrnn_team_create(&options, nullptr, &error), HRNN_INVALID_ARGUMENT);
  hrnn_team_destroy(nullptr);
}

}  // namespace
}  // namespace hrnn_test
