// SPDX-License-Identifier: Apache-2.0
//
// Threads that compute the parts of a run together. Between two time steps they wait for each other at a flag, which costs
// about 0.1 us; between runs they sleep.
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

// True: the team is this caller's until team_release. False: another run has it.
bool team_acquire(hrnn_team *team);
void team_release(hrnn_team *team);

uint32_t team_threads(const hrnn_team *team);

// Calls task(argument, index) for every index below `count` (at most team_threads), all at the same time, the calling
// thread being one of them. Returns when all have returned.
void team_run(hrnn_team *team, uint32_t count, void (*task)(void *argument, uint32_t index), void *argument);

}  // namespace hrnn
