// SPDX-License-Identifier: Apache-2.0
//
// What plan.cpp, run.cpp and parallel.cpp (CPU) and device_run.cpp (GPU) share.
#pragma once
#include "array.h"
#include "lanes.h"
#include "machine.h"
#include "pack.h"
#include "plan.h"
#include "product_call.h"
#include "team.h"

// Activation arguments of general kernels, in the problem's type.
struct ActivationArguments {
  int32_t kinds[HRNN_MAX_ACTIVATIONS];
  union Number {
    float f32;
    double f64;
  } alpha[HRNN_MAX_ACTIVATIONS], beta[HRNN_MAX_ACTIVATIONS], clip;
};

namespace hrnn {
struct DeviceWeights;  // device_run.cpp
struct DeviceState;

// hrnn_options with every default filled in.
struct ResolvedOptions {
  KernelSource source;
  hrnn_machine machine;
  const char *force;
};
hrnn_status resolve_options(const hrnn_options *options, ResolvedOptions *resolved, hrnn_error *error);
}  // namespace hrnn

struct hrnn_plan {
  hrnn_problem problem;
  char cell_name[64];
  hrnn::CellShape cell;
  hrnn::PackedLayer layout;
  hrnn::LayerChoice choice;
  hrnn_selection selection;
  hrnn::CacheSizes caches;
  const uint8_t *packed;      // embedded, or `owned`
  hrnn::AlignedBuffer owned;
  ActivationArguments activations[2];
  int64_t directions, input, hidden, lanes, panels, element;  // element: bytes of a value
  int64_t carried;
  hrnn_team *team;                      // or null
  hrnn::DeviceWeights *device_weights;  // GPU plans: the packed weights' copy

  int64_t padded() const { return panels * lanes; }
  int64_t row_values() const { return cell.gates * padded(); }  // one row of a projection
  const uint8_t *projection(int64_t d) const { return packed + d * layout.direction_bytes + layout.projection_offset; }
  const uint8_t *phase(int64_t d, int64_t i) const { return packed + d * layout.direction_bytes + layout.phase_offsets[i]; }
};

namespace hrnn {

// Rows that are projected at once (those of a step, if they are more): as few as make up for reading all of W, so that
// projections, W and R share the second-level cache.
constexpr int64_t kChunkRows = 128;

// What one thread computes: some panels.
struct Share {
  int64_t index, begin, end;
  ProjectionCall projection;
  StepCall phases[HRNN_MAX_PHASES];
  uint8_t apart[kRowBytes];  // no cache line holds what two threads write

  // Share `number` of `count`.
  void init(const hrnn_plan &plan, int64_t direction, int64_t max_batch, int64_t number, int64_t count);
};

// Per direction: the state, twice (kernels never write what they read), the operand between two phases and what is
// carried along; then the projections of a stretch of time steps.
struct DirectionState {
  uint8_t *h[2];
  uint8_t *operand, *carried[HRNN_MAX_CARRIED];
  int current;         // which of h is the state
  uint8_t *projected;  // [chunk_rows, panels, gates, lanes]
  uint8_t *gathered;   // [chunk_rows, input]: rows of x that do not lie at one distance
  Share whole;
  Share *shares;  // of a team's threads, where they divide the panels
  FusedCall fused[HRNN_MAX_PHASES];
};

inline uint8_t *state_row(const hrnn_plan &plan, uint8_t *base, int64_t row) {
  return base + row * plan.padded() * plan.element;
}

}  // namespace hrnn

struct hrnn_state {
  const hrnn_plan *plan;
  int64_t max_batch, chunk_rows;
  hrnn::AlignedBuffer memory;
  hrnn::DirectionState directions[2];
  uint32_t share_count;          // of each direction; 0: none
  hrnn::Lanes lanes;             // of the sequences of a ragged call
  hrnn::DeviceState *device;
};

namespace hrnn {

// A row of x or y.
struct Point {
  int64_t sequence, time;
};

// One direction's pass over the sequences, in processing order. The rows of a step are sequences or, where their lengths
// differ, lanes of them (lanes.h).
struct Pass {
  const hrnn_plan *plan;
  hrnn_state *state;
  const hrnn_run_args *args;  // with every stride filled in
  int64_t direction;
  bool reverse;
  bool ragged;  // lengths differ: rows are lanes

  // What `row` of a step is computed of, and where it goes.
  Point at(int64_t step, int64_t row) const {
    if (!ragged) return {row, reverse ? args->time - 1 - step : step};
    const LanePlace &place = state->lanes.at(step, row);
    const int64_t past = step - place.begin;
    return {place.sequence, reverse ? place.length - 1 - past : past};
  }
  int64_t steps(int64_t row) const { return ragged ? state->lanes.steps(row) : args->time; }
  int64_t steps() const { return args->batch == 0 ? 0 : steps(0); }  // of the longest row
  // Rows with more steps; at most `most`.
  int64_t active(int64_t step, int64_t most) const;
  int64_t active(int64_t step) const { return active(step, args->batch); }
};

// Steps [begin, end) of a share's panels. Goes on when a kernel fails, since other threads would wait for this one; returns
// the first failure. Whoever has run all steps finishes them, which turns DirectionState::current.
int run_steps(const Pass &pass, Share &share, int64_t begin, int64_t end, Barrier *barrier);
// The same of all panels, in the way that one thread does it.
int run_alone(const Pass &pass, int64_t begin, int64_t end);
// Asks for the inputs of these steps, which another thread has just written: one after the other they would be waited for.
void fetch_inputs(const Pass &pass, int64_t begin, int64_t end);
hrnn_status finish_steps(const Pass &pass, int code, hrnn_error *error);

// A run of a layer, from the check of its arguments on.
struct LayerRun {
  hrnn_run_args args;  // with every stride filled in
  Pass passes[2];      // point at `args`
  bool stream;
  int before;  // which half the state was in

  LayerRun() = default;
  LayerRun(const LayerRun &) = delete;
  LayerRun &operator=(const LayerRun &) = delete;

  hrnn_status check(const LayerCall &call, bool is_stream, hrnn_error *error);
  void begin();  // reads lengths and initial states
  hrnn_status run_alone(hrnn_error *error);
  void end();  // writes what is left: final states, and zeros past the ends of sequences

  const hrnn_plan &plan() const { return *passes[0].plan; }
  const hrnn_state &state() const { return *passes[0].state; }
  int64_t directions() const { return plan().directions; }
  // How many rows of a step are computed jointly; 1 on a device, where no sequence follows another one.
  int64_t tile() const {
    const LayerChoice &choice = plan().choice;
    return choice.device != nullptr ? 1 : choice.directions[0].phases[0].kernels[0]->rows;
  }
};

void append_activation_arguments(const hrnn_plan &plan, int64_t direction, void **args, int *count);

// GPU: implemented over the device interface. All report failures in `error`.
hrnn_status device_plan_init(hrnn_plan *plan, hrnn_error *error);
void device_plan_destroy(hrnn_plan *plan);
hrnn_status device_state_init(hrnn_state *state, hrnn_error *error);
void device_state_destroy(hrnn_state *state);
hrnn_status device_run(const Pass &pass, hrnn_error *error);

}  // namespace hrnn
