// SPDX-License-Identifier: Apache-2.0
//
// A measurement is a series of bursts, and every burst of the work has a burst of the limits it is compared with right
// before it, so that whatever slows the core slows both; the medians of the bursts count.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "burst.h"
#include "core_limits.h"
#include "hrnn/hrnn.h"

namespace hrnn {

// What one thread has to do at least, `times` over: it streams weights from the cache that holds them while it computes
// with them, and computes something apart from that (the input products of a whole sequence are one matrix product).
struct Cost {
  double times;
  size_t bytes;            // read each time
  double streaming_flops;  // meanwhile
  double flops;            // apart

  double total_flops(uint32_t threads) const { return times * (streaming_flops + flops) * threads; }
};

// The steps of a recurrent layer on `threads` threads that share the work evenly: directions first, then hidden units.
// `step_by_step`: each step is a call of its own, so the input's weights are read in each as well.
struct LayerSize {
  int64_t gates, input, hidden, batch, directions;
  double steps;
  bool step_by_step;
};
Cost layer_cost(const LayerSize &size, uint32_t threads);

// Something to be timed.
class Workload {
 public:
  virtual ~Workload() = default;
  virtual void run() = 0;
  virtual void reset() {}  // state back to zeros

  const std::vector<Cost> &costs() const { return costs_; }
  const std::string &variant() const { return variant_; }  // of the first layer: it says which instructions count
  double steps() const { return steps_; }                  // of a run: times are told for one
  uint32_t threads() const { return threads_; }
  Clock clock() const { return clock_; }

 protected:
  // Says what `selection` is: on a GPU the time that counts is on the wall, and what cores can do is no limit.
  void runs(const hrnn_selection &selection, const std::vector<const hrnn_kernel_table *> &tables, uint32_t threads);

  std::vector<Cost> costs_;
  std::string variant_;
  const struct hrnn_device *device_ = nullptr;  // the GPU it runs on
  double steps_ = 1;
  uint32_t threads_ = 1;

 private:
  Clock clock_ = Clock::kThread;
};

struct Figures {
  double us;          // of a step
  double gflops;      // of multiply-adds with the variant's instructions, of all threads
  double gbs;         // of reading as many bytes as the first cost says, of one thread
  double floor;       // us that a step takes at the limits
  double fast, slow;  // what a tenth of the bursts were faster, and a tenth slower than
};

class Measurement {
 public:
  explicit Measurement(Workload &work);

  Figures burst();
  Figures bursts(int count);  // medians

 private:
  Workload &work_;
  const LimitKernels &kernels_;
  std::vector<std::unique_ptr<ReadBuffer>> weights_;  // one of each size, as the costs name them
};

}  // namespace hrnn
