// SPDX-License-Identifier: Apache-2.0
//
// Fetching weights that no cache of the core holds while others are computed with. Func::prefetch() will not do: Halide 21 has
// non-temporal prefetches only, which a second-level cache does not keep, in loops of their own, on whose account LLVM
// leaves sums in memory.
#pragma once
#include <string>

#include "Halide.h"

namespace hrnn {

// Where a product's loops read weights: the loop over tiles of panels, in which, perhaps in loops over rows and gates, the one over
// k, which takes `turn` values of k at a time from each of `panels` panels.
struct WeightLoops {
  std::string weights, panel_loop, element_loop;  // loops by the ends of their names
  int panels, turn;
};

// Adds prefetches into the second-level cache to each turn of the loop over k, one for each value of k. Where a tile's weights are
// read several times, they ask for the next tile's, evenly over all turns, so that its first rows do not wait; where they are read
// once, for those a little ahead, of its panels in turn.
void prefetch_weights(Halide::Pipeline pipeline, const WeightLoops &loops);

}  // namespace hrnn
