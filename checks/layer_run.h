// SPDX-License-Identifier: Apache-2.0
//
// A recurrent layer with data, run through the public C interface and compared with the reference.
#pragma once
#include <random>
#include <string>
#include <vector>

#include "hrnn/hrnn.h"
#include "reference.h"

namespace hrnn_test {

struct LayerRun {
  hrnn_dtype dtype = HRNN_F32;
  bool default_activations = true;  // leave problem.activations_set at 0
  reference::Layer layer;
  reference::Sequences sequences;

  // How it is asked for.
  bool want_y = true, want_y_h = true;
  bool batch_major = false;  // x [N, T, I], y [N, T, D, H], both with gaps between rows; else dense as ONNX has it
  int spare_batch = 0;       // the state is made for this many sequences more
  int64_t l1 = 32 << 10, l2 = 1 << 20;  // bytes of the caches it is planned for

  std::string describe() const;
};

// Kernels to run it on.
struct KernelChoice {
  std::vector<const hrnn_kernel_table *> tables;
  std::string target;  // forced
  hrnn_team *team = nullptr;
};

struct LayerResult {
  std::string error;            // the message of the call that failed
  std::vector<double> y, y_h;   // dense, as reference::Outputs
  std::string variant;
};

struct Shape {
  int input, hidden, time, batch;
};

// Fills in weights, inputs and, where asked, initial state, lengths (among them 0 and T) and, for rnn_masked, masks at
// random. Values of an f32 run are exact floats. `gain` is about the norm of the weights.
struct RandomParts {
  bool bias = true, initial_h = true, lengths = false, masks = false;
};
void randomize(LayerRun *run, const Shape &shape, const RandomParts &parts, double gain, std::mt19937 *random);

// With parameters that differ from every default and are exact in float, where it takes any.
reference::Activation with_parameters(const std::string &name);

LayerResult run_layer(const LayerRun &run, const KernelChoice &kernels);

// As run_layer, forward only, in several calls of hrnn_stream; `calls` are the numbers of steps.
LayerResult stream_layer(const LayerRun &run, const KernelChoice &kernels, const std::vector<int> &calls);

// What rounding may make of a result, from what it makes of the reference when that is computed in the run's own type.
class Judge {
 public:
  // `largest` bounds the values that results are made of, where that is more than the results and 1.
  explicit Judge(const LayerRun &run, double largest = 1);
  // "" or what differs most. Infinities and NaNs must be equal.
  std::string compare(const LayerRun &run, const LayerResult &result);
  double worst() const { return worst_; }      // largest difference seen, in tolerances
  double largest() const { return difference_; }  // and as it is
  // The result hangs on roundings, since an input lies where a function jumps or since values grow: choose other data.
  bool ill_conditioned() const;

 private:
  std::string compare(const char *what, const std::vector<long double> &expected, const std::vector<double> &actual);

  reference::Outputs<long double> expected_;
  double largest_;
  double tolerance_ = 0, unit_ = 0, worst_ = 0, difference_ = 0;
};

}  // namespace hrnn_test
