// SPDX-License-Identifier: Apache-2.0
//
// Threads that compute the parts of a run together. Between two time steps they wait for each other at a flag, which costs
// about 0.1 us; between runs they stay awake for some 20 us, then sleep.
#pragma once
#include "hrnn/hrnn.h"

namespace hrnn {

// Where `count` threads meet; each passes when all have arrived, and sees what the others wrote before.
class Barrier {
 public:
  void init(uint32_t count) { count_ = count; }
  void wait();

 private:
  uint32_t count_ = 1, arrived_ = 0, turn_ = 0;
};

// Multiply-adds in the time that passes until a thread that slept is awake, some 40 us.
constexpr double kWakeWork = 2e6;

uint32_t team_threads(const hrnn_team *team);

// True: `count` (at most team_threads) threads of the team are this caller's until team_release. False: another run has them,
// or waking them would take longer than they can save. `saved`: multiply-adds that the caller is spared if they come at once.
bool team_acquire(hrnn_team *team, uint32_t count, double saved);
void team_release(hrnn_team *team);

// Calls task(argument, index) for every index below `count` at the same time, for 0 on this thread, and returns when all have
// returned. The others come late, or never: task(argument, 0) must get along without them, and those that have not begun
// when it returns are not waited for.
void team_run(hrnn_team *team, uint32_t count, void (*task)(void *argument, uint32_t index), void *argument);

// One look of a thread that waits: `*looks` counts them, from 0. After some 20 us others may run between two looks.
void relax(int *looks);

}  // namespace hrnn
