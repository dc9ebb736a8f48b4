// SPDX-License-Identifier: Apache-2.0
//
// The layer of a problem with data, run through the C interface with kernels that the tuner gives it.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "layer.h"

namespace hrnn_test {
class Judge;
struct LayerRun;
}  // namespace hrnn_test

namespace hrnn {

class TuneLayer {
 public:
  TuneLayer(const Problem &problem, const std::string &target, const hrnn_machine &machine);
  ~TuneLayer();

  // Once, as the problem says.
  void run(const hrnn_kernel_table *table) const { planned(table).run(); }
  // Compares some steps with the reference: "" or what differs.
  std::string check(const hrnn_kernel_table *table);
  // Microseconds a step. Plans anew each time, so that where the memory lies is not always the same.
  double time(const hrnn_kernel_table *table) const;

 private:
  Layer planned(const hrnn_kernel_table *table) const { return {problem_, arrays_, {table}, target_, 1}; }

  Problem problem_;
  std::string target_;
  std::shared_ptr<const LayerArrays> arrays_;
  std::unique_ptr<hrnn_test::LayerRun> checked_;
  std::unique_ptr<hrnn_test::Judge> judge_;
};

}  // namespace hrnn
