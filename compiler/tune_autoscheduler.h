// SPDX-License-Identifier: Apache-2.0
//
// What Halide's own autoscheduler Adams2019 makes of a step, to compare with: the call of the kernel alone, since its
// schedule is for one whole shape and cannot be cropped to tiles.
#pragma once
#include <string>

#include "problem.h"
#include "targets.h"

namespace hrnn {

struct AutoscheduledStep {
  std::string problem, today;   // the kernel it is compared with
  double today_us, its_us;      // of a call
  std::string unusable;         // why there are no times
};

AutoscheduledStep measure_autoscheduled(const Problem &problem, const TargetRow &target, const hrnn_machine &machine);

}  // namespace hrnn
