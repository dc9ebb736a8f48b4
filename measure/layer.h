// SPDX-License-Identifier: Apache-2.0
//
// A problem's layer, with random weights and input, as it is run through the public C interface.
#pragma once
#include <string>
#include <vector>

#include "hrnn/compiler.h"
#include "hrnn/device.h"
#include "hrnn/hrnn.h"
#include "measurement.h"
#include "problem.h"

namespace hrnn {

// What a problem's layers are run with: weights as PyTorch initialises them, and input.
struct LayerArrays {
  explicit LayerArrays(const Problem &problem);
  std::vector<float> w, r, b, x;
  std::vector<int32_t> lengths;  // empty: all as long as they can be
};

// Memory that a GPU copies from and to by itself, while this exists; does nothing without one.
class PinnedMemory {
 public:
  PinnedMemory(const hrnn_device *device, const std::vector<float> &values);
  ~PinnedMemory();
  PinnedMemory(const PinnedMemory &) = delete;
  PinnedMemory &operator=(const PinnedMemory &) = delete;

 private:
  const hrnn_device *device_ = nullptr;  // that did it
  void *memory_;
};

class Layer : public Workload {
 public:
  // With this build's kernels. `variant`: force one, "" = choose. Throws std::runtime_error with the runtime's message.
  Layer(const Problem &problem, const std::string &variant, uint32_t threads);
  // With the kernels of `tables`.
  Layer(const Problem &problem, std::shared_ptr<const LayerArrays> arrays, const std::vector<const hrnn_kernel_table *> &tables,
        const std::string &variant, uint32_t threads);

  void run() override;
  void reset() override;

  // The arrays as files of plain floats, for other programs to do the same with: w, r and b (of one layer after the
  // other), x, y (of the last run).
  void write(const std::string &directory) const;

  void set_time(int64_t time) { args_.time = time; }  // of one layer's runs from here on

  const Problem &problem() const { return problem_; }
  const std::vector<int32_t> &lengths() const { return arrays_->lengths; }

 private:
  void check(hrnn_status status) const;
  // What was chosen for the layer, or for the first of several, one over the other.
  hrnn_selection make_plan(const hrnn_options &options);
  hrnn_selection make_session(const hrnn_options &options);

  struct Deleter {
    void operator()(hrnn_team *team) const { hrnn_team_destroy(team); }
    void operator()(hrnn_plan *plan) const { hrnn_plan_destroy(plan); }
    void operator()(hrnn_state *state) const { hrnn_state_destroy(state); }
    void operator()(hrnn_session *session) const { hrnn_session_destroy(session); }
  };

  Problem problem_;
  std::shared_ptr<const LayerArrays> arrays_;
  std::vector<float> y_;
  std::unique_ptr<const PinnedMemory> pinned_x_, pinned_y_;
  hrnn_error error_ = {};
  std::unique_ptr<hrnn_team, Deleter> team_;
  std::unique_ptr<hrnn_plan, Deleter> plan_;
  std::unique_ptr<hrnn_state, Deleter> state_;
  hrnn_run_args args_ = {};
  CompiledModel model_;
  std::unique_ptr<hrnn_session, Deleter> session_;
  hrnn_tensor input_ = {}, output_ = {};
};

// Nanoseconds of a call of hrnn_stream that has no step to do.
double measure_call_ns();

}  // namespace hrnn
