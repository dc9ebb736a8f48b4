// SPDX-License-Identifier: Apache-2.0
//
// The search of `hrnn tune`. Each tile that a product of a problem's layer could have is a candidate. It is compiled into
// this process, compared with the reference, and timed in the real runtime, in turns with today's kernels: all candidates
// for a use in a race from which the slower half drops out again and again, then the winner once more against today's, in
// measurements of their own. Only those decide, since the winner of a race is also the luckiest of it.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "jit_kernel.h"
#include "problem.h"
#include "tune_samples.h"
#include "tuned.h"

namespace hrnn {

// Today's time over the candidate's: the median of paired samples, and between what it lies at 99 % confidence.
struct Gain {
  double median, low, high;
  int samples;
};
Gain gain_of(const std::vector<Sample> &samples);

enum class Verdict { Faster, NoGain, Slower, Wrong, Unfinished };
const char *verdict_name(Verdict verdict);

// A candidate. Those that change nothing for the problems given are left out.
struct Trial {
  TiledProduct product;
  Tile tile, today;
  Verdict verdict;
  std::string wrong;                  // how its results differ
  std::map<std::string, Gain> gains;  // by problem
};

struct TuneRequest {
  std::vector<Problem> problems;
  const TargetRow *target;
  double seconds;
  CompileKernel compile = jit_kernel;
  std::function<void(const std::string &)> progress = [](const std::string &) {};
};

struct TuneResult {
  std::vector<Trial> trials;
  std::vector<TunedTile> changes;  // what is faster for some problem and slower for none
  bool finished;                   // within the time
};

TuneResult tune(const TuneRequest &request, const hrnn_machine &machine, SampleStore *store);

}  // namespace hrnn
