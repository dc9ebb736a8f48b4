// SPDX-License-Identifier: Apache-2.0
//
// Running a layer on a CPU: stretches of projections and steps. parallel.cpp: by several threads.
#include <algorithm>
#include <cstring>

#include "plan_internal.h"
#include "status.h"

namespace hrnn {
namespace {

const uint8_t *x_at(const Pass &pass, int64_t step, int64_t row) {
  const hrnn_run_args &a = *pass.args;
  const Point at = pass.at(step, row);
  return static_cast<const uint8_t *>(a.x) + (at.time * a.x_time_stride + at.sequence * a.x_batch_stride) * pass.plan->element;
}

uint8_t *y_at(const Pass &pass, const Point &at) {
  const hrnn_run_args &a = *pass.args;
  const int64_t values = at.time * a.y_time_stride + pass.direction * a.y_dir_stride + at.sequence * a.y_batch_stride;
  return static_cast<uint8_t *>(a.y) + values * pass.plan->element;
}

// Steps that are projected together: [begin, end), `rows` rows in the order of steps, then of rows.
struct Chunk {
  int64_t begin, end, rows;
};

Chunk next_chunk(const Pass &pass, int64_t begin, int64_t total) {
  int64_t active = pass.active(begin);
  Chunk chunk = {begin, begin, 0};
  do {
    chunk.rows += active;
    chunk.end++;
    if (chunk.end == total) break;
    active = pass.active(chunk.end, active);
  } while (chunk.rows + active <= kChunkRows);
  return chunk;
}

// True where the rows of a chunk lie at one distance in x: `*stride`.
bool evenly_spaced(const Pass &pass, const Chunk &chunk, int64_t *stride) {
  const hrnn_run_args &a = *pass.args;
  const int64_t step = pass.reverse ? -a.x_time_stride : a.x_time_stride;
  *stride = a.batch == 1 ? step : a.x_batch_stride;
  if (a.batch == 1) return true;
  return !pass.ragged && (chunk.end - chunk.begin == 1 || step == a.batch * a.x_batch_stride);
}

// Copies the part of the chunk's rows that is this share's of `shares`, so that one product can take all of them: with
// products of fewer rows the weights would be read more often.
void gather_rows(const Pass &pass, const Chunk &chunk, int64_t share, int64_t shares, uint8_t *to) {
  const size_t bytes = size_t(pass.plan->input * pass.plan->element);
  int64_t first = 0, next = share, active = pass.args->batch;  // the step's first row, this share's next one
  for (int64_t s = chunk.begin; s < chunk.end; s++, first += active) {
    active = pass.active(s, active);
    for (; next < first + active; next += shares) memcpy(to + size_t(next) * bytes, x_at(pass, s, next - first), bytes);
  }
}

// The projections of a chunk's rows.
int project_chunk(const Pass &pass, Share &share, const Chunk &chunk, Barrier *barrier) {
  const hrnn_plan &plan = *pass.plan;
  DirectionState &d = pass.state->directions[pass.direction];
  int64_t stride;
  if (evenly_spaced(pass, chunk, &stride))
    return share.projection.run(chunk.rows, x_at(pass, chunk.begin, 0), stride, d.projected, plan.row_values());
  gather_rows(pass, chunk, barrier == nullptr ? 0 : share.index, barrier == nullptr ? 1 : pass.state->share_count, d.gathered);
  if (barrier != nullptr) barrier->wait();
  return share.projection.run(chunk.rows, d.gathered, plan.input, d.projected, plan.row_values());
}

// The bytes of a row of states that a share of the panels covers, without the padding of the last one.
struct Columns {
  int64_t begin, size;
  Columns(const hrnn_plan &plan, const Share &share) : begin(share.begin * kRowBytes) {
    const int64_t end = share.end * kRowBytes, all = plan.hidden * plan.element;
    size = (end < all ? end : all) - begin;
  }
};

// The states after `step` to y.
void copy_outputs(const Pass &pass, const Columns &columns, int64_t step, int64_t rows, uint8_t *states) {
  if (pass.args->y == nullptr) return;
  for (int64_t b = 0; b < rows; b++)
    memcpy(y_at(pass, pass.at(step, b)) + columns.begin, state_row(*pass.plan, states, b) + columns.begin, size_t(columns.size));
}

// In the order that y lies in: rows of a step, or steps of a row, next to each other.
void zero_past_the_ends(const Pass &pass) {
  const hrnn_run_args &a = *pass.args;
  if (a.y == nullptr || !pass.ragged) return;
  const size_t bytes = size_t(pass.plan->hidden * pass.plan->element);
  if (a.y_time_stride < a.y_batch_stride) {
    for (int64_t b = 0; b < a.batch; b++)
      for (int64_t t = a.lengths[b]; t < a.time; t++) memset(y_at(pass, {b, t}), 0, bytes);
    return;
  }
  for (int64_t t = *std::min_element(a.lengths, a.lengths + a.batch); t < a.time; t++)
    for (int64_t b = 0; b < a.batch; b++)
      if (a.lengths[b] <= t) memset(y_at(pass, {b, t}), 0, bytes);
}

// Calls run(phase, addresses) for each phase of a step, whose input or its projections are at `input`, with where it reads and
// writes: from d.h[current] to the other half. Returns the first failure, but goes on.
template <class Run>
int run_phases(const hrnn_plan &plan, const DirectionState &d, int current, const uint8_t *input, Run run) {
  uint8_t *between[1 + HRNN_MAX_CARRIED] = {d.operand, d.carried[0], d.carried[1], d.carried[2]};
  uint8_t *from = d.h[current], *to = d.h[1 - current];
  int code = 0;
  for (int64_t phase = 0; phase < plan.cell.phases; phase++) {
    const bool last = phase + 1 == plan.cell.phases;
    const int failed = run(phase, StepCall::Addresses{input, phase == 0 ? from : d.operand, from, d.carried, last ? &to : between});
    if (code == 0) code = failed;
  }
  return code;
}

// A step of one row, of all panels; every other one backward: what the one before used last is still in the cache.
int run_fused(const hrnn_plan &plan, DirectionState &d, const uint8_t *x) {
  return run_phases(plan, d, d.current, x, [&](int64_t phase, const StepCall::Addresses &at) {
    return d.fused[phase].run(at, d.current == 1);
  });
}

// The columns of a row of states that a share writes, padding and all.
struct Span {
  int64_t begin, end;
  explicit Span(const Share &share) : begin(share.begin * kRowBytes), end(share.end * kRowBytes) {}
};

// Sequences that begin after `step` where another one has ended: the lane takes the initial state from the row where it waits,
// and leaves that of the other one there, in both halves. `*change`: the next of them.
void change_sequences(const Pass &pass, const Share &share, int current, int64_t step, int64_t *change) {
  const hrnn_plan &plan = *pass.plan;
  const Lanes &lanes = pass.state->lanes;
  DirectionState &d = pass.state->directions[pass.direction];
  const Span span(share);
  for (; pass.ragged && *change < lanes.changes() && lanes.change(*change).begin == step + 1; ++*change) {
    const LanePlace &place = lanes.change(*change);
    uint8_t *lane = state_row(plan, d.h[current], place.lane);
    uint8_t *waits = state_row(plan, d.h[current], lanes.waiting_row(place));
    std::swap_ranges(lane + span.begin, lane + span.end, waits + span.begin);
    memcpy(state_row(plan, d.h[1 - current], lanes.waiting_row(place)) + span.begin, waits + span.begin,
           size_t(span.end - span.begin));
  }
}

// One time step of a share: from d.h[current] to the other half, with the projections at `input`. Threads meet after each
// phase, since the next one reads what all have written.
int run_step(const Pass &pass, Share &share, int current, int64_t step, const uint8_t *input, int64_t rows, int64_t *change,
             Barrier *barrier) {
  const hrnn_plan &plan = *pass.plan;
  DirectionState &d = pass.state->directions[pass.direction];
  return run_phases(plan, d, current, input, [&](int64_t phase, const StepCall::Addresses &at) {
    const int failed = share.phases[phase].run(rows, at, step % 2 == 1);
    if (phase + 1 == plan.cell.phases) {
      copy_outputs(pass, Columns(plan, share), step, rows, d.h[1 - current]);
      change_sequences(pass, share, 1 - current, step, change);
    }
    if (barrier != nullptr) barrier->wait();
    return failed;
  });
}

// Lanes that have ended keep their state: puts rows [still, rows) into both halves, since later steps write neither.
void keep_ended(const Pass &pass, const Share &share, int current, int64_t still, int64_t rows) {
  const hrnn_plan &plan = *pass.plan;
  DirectionState &d = pass.state->directions[pass.direction];
  const Span span(share);
  for (int64_t b = still; b < rows; b++)
    memcpy(state_row(plan, d.h[1 - current], b) + span.begin, state_row(plan, d.h[current], b) + span.begin,
           size_t(span.end - span.begin));
}

hrnn_status kernel_failed(const hrnn_plan &plan, int code, hrnn_error *error) {
  return fail(error, HRNN_DEVICE_ERROR, "a kernel of %s returned error %d", plan.selection.variant, code);
}

}  // namespace

int run_steps(const Pass &pass, Share &share, int64_t begin, int64_t end, Barrier *barrier) {
  const hrnn_plan &plan = *pass.plan;
  DirectionState &d = pass.state->directions[pass.direction];
  const int64_t row_bytes = plan.row_values() * plan.element;
  int code = 0, current = int((d.current + begin) % 2);
  int64_t rows = begin == 0 ? pass.args->batch : pass.active(begin - 1);  // at first all, so that what waits is in both halves
  int64_t change = pass.ragged ? pass.state->lanes.first_change_after(begin) : 0;
  auto note = [&code](int failed) { code = code == 0 ? failed : code; };
  for (Chunk chunk = {begin, begin, 0}; chunk.end < end;) {
    chunk = next_chunk(pass, chunk.end, end);
    note(project_chunk(pass, share, chunk, barrier));
    const uint8_t *input = d.projected;
    for (int64_t s = chunk.begin; s < chunk.end; s++, current = 1 - current) {
      const int64_t still = pass.active(s, rows);
      keep_ended(pass, share, current, still, rows);
      rows = still;
      note(run_step(pass, share, current, s, input, rows, &change, barrier));
      input += rows * row_bytes;
    }
  }
  return code;
}

void fetch_inputs(const Pass &pass, int64_t begin, int64_t end) {
  constexpr int64_t kMostBytes = 16384;  // half of a small first-level cache
  const int64_t bytes = pass.plan->input * pass.plan->element;
  int64_t left = kMostBytes;
  for (int64_t s = begin, active = pass.args->batch; s < end; s++) {
    active = pass.active(s, active);
    for (int64_t b = 0; b < active && (left -= bytes) >= 0; b++)
      for (int64_t i = 0; i < bytes; i += kRowBytes) __builtin_prefetch(x_at(pass, s, b) + i);
  }
}

int run_alone(const Pass &pass, int64_t begin, int64_t end) {
  DirectionState &d = pass.state->directions[pass.direction];
  if (pass.args->batch > 1 || pass.steps() > 1 || !d.fused[0].usable()) return run_steps(pass, d.whole, begin, end, nullptr);
  uint8_t *to = d.h[1 - d.current];
  const int code = run_fused(*pass.plan, d, x_at(pass, 0, 0));
  copy_outputs(pass, Columns(*pass.plan, d.whole), 0, 1, to);
  return code;
}

hrnn_status finish_steps(const Pass &pass, int code, hrnn_error *error) {
  DirectionState &d = pass.state->directions[pass.direction];
  d.current = int((d.current + pass.steps()) % 2);
  return code == 0 ? HRNN_OK : kernel_failed(*pass.plan, code, error);
}

namespace {

// ---- Arguments ----------------------------------------------------------------------------------------------------

hrnn_status check_args(const hrnn_plan *plan, const hrnn_state *state, const hrnn_run_args *args, bool stream,
                       hrnn_run_args *full, hrnn_error *error) {
  const char *null = plan == nullptr ? "plan" : state == nullptr ? "state" : args == nullptr ? "args" : nullptr;
  if (null != nullptr) return fail(error, HRNN_INVALID_ARGUMENT, "%s is NULL", null);
  if (args->struct_size != sizeof(hrnn_run_args))
    return fail(error, HRNN_INVALID_ARGUMENT, "args.struct_size is %u; this library expects %u", args->struct_size,
                unsigned(sizeof(hrnn_run_args)));
  if (state->plan != plan)
    return fail(error, HRNN_INVALID_ARGUMENT, "the state was created for another plan");
  if (args->time < 0 || args->batch < 0)
    return fail(error, HRNN_INVALID_ARGUMENT, "args.%s is %lld; it must be at least 0", args->time < 0 ? "time" : "batch",
                static_cast<long long>(args->time < 0 ? args->time : args->batch));
  if (args->batch > state->max_batch)
    return fail(error, HRNN_CAPACITY, "args.batch is %lld; the state was created for max_batch %lld",
                static_cast<long long>(args->batch), static_cast<long long>(state->max_batch));
  if (args->x == nullptr && args->time * args->batch > 0) return fail(error, HRNN_INVALID_ARGUMENT, "args.x is NULL");
  if (stream && plan->problem.direction != HRNN_FORWARD)
    return fail(error, HRNN_INVALID_ARGUMENT, "streaming needs a forward layer; this one has direction %d",
                plan->problem.direction);
  if (stream && args->h0 != nullptr)
    return fail(error, HRNN_INVALID_ARGUMENT, "args.h0 must be NULL when streaming; use hrnn_state_set");
  for (int64_t b = 0; args->lengths != nullptr && b < args->batch; b++)
    if (args->lengths[b] < 0 || args->lengths[b] > args->time)
      return fail(error, HRNN_INVALID_ARGUMENT, "args.lengths[%lld] is %d; it must be between 0 and args.time, %lld",
                  static_cast<long long>(b), args->lengths[b], static_cast<long long>(args->time));

  *full = *args;
  const int64_t H = plan->hidden, D = plan->directions, N = args->batch;
  auto fill = [](int64_t &stride, int64_t dense) { if (stride == 0) stride = dense; };
  fill(full->x_batch_stride, plan->input);
  fill(full->x_time_stride, N * plan->input);
  fill(full->y_batch_stride, H);
  fill(full->y_dir_stride, N * H);
  fill(full->y_time_stride, D * N * H);
  fill(full->h0_batch_stride, H);
  fill(full->h0_dir_stride, N * H);
  fill(full->h_n_batch_stride, H);
  fill(full->h_n_dir_stride, N * H);
  return HRNN_OK;
}

// Calls f(sequence, length, initial row, final row): where its state is in the first step, and where after the last one.
template <class F>
void for_each_sequence(const Pass &pass, F f) {
  const Lanes &lanes = pass.state->lanes;
  if (pass.ragged)
    for (const LanePlace &place : lanes) f(place.sequence, place.length, lanes.initial_row(place), lanes.final_row(place));
  else
    for (int64_t b = 0; b < pass.args->batch; b++) f(b, pass.args->time, b, b);
}

void load_initial_state(const Pass &pass) {
  const hrnn_plan &plan = *pass.plan;
  const hrnn_run_args &a = *pass.args;
  DirectionState &d = pass.state->directions[pass.direction];
  const size_t bytes = size_t(plan.hidden * plan.element);
  d.current = 0;
  for_each_sequence(pass, [&](int64_t sequence, int64_t length, int64_t row, int64_t) {
    uint8_t *to = state_row(plan, d.h[0], row);
    const int64_t at = pass.direction * a.h0_dir_stride + sequence * a.h0_batch_stride;
    // A sequence of length 0 gives zeros whatever the initial state, as ONNX Runtime has it.
    if (a.h0 != nullptr && !(pass.ragged && length == 0))
      memcpy(to, static_cast<const uint8_t *>(a.h0) + at * plan.element, bytes);
    else
      memset(to, 0, bytes);
  });
}

void store_final_state(const Pass &pass) {
  const hrnn_plan &plan = *pass.plan;
  const hrnn_run_args &a = *pass.args;
  const DirectionState &d = pass.state->directions[pass.direction];
  if (a.h_n == nullptr) return;
  for_each_sequence(pass, [&](int64_t sequence, int64_t, int64_t, int64_t row) {
    const int64_t at = pass.direction * a.h_n_dir_stride + sequence * a.h_n_batch_stride;
    memcpy(static_cast<uint8_t *>(a.h_n) + at * plan.element, state_row(plan, d.h[d.current], row),
           size_t(plan.hidden * plan.element));
  });
}

// Rows of the state from the order of sequences to where they are in the first step, through its other half.
void sort_state(const Pass &pass) {
  const hrnn_plan &plan = *pass.plan;
  DirectionState &d = pass.state->directions[pass.direction];
  for_each_sequence(pass, [&](int64_t sequence, int64_t, int64_t row, int64_t) {
    memcpy(state_row(plan, d.h[1 - d.current], row), state_row(plan, d.h[d.current], sequence), size_t(plan.padded() * plan.element));
  });
  d.current = 1 - d.current;
}

// And back, from where they are after the last step.
void unsort_state(const Pass &pass) {
  const hrnn_plan &plan = *pass.plan;
  DirectionState &d = pass.state->directions[pass.direction];
  for_each_sequence(pass, [&](int64_t sequence, int64_t, int64_t, int64_t row) {
    memcpy(state_row(plan, d.h[1 - d.current], sequence), state_row(plan, d.h[d.current], row), size_t(plan.padded() * plan.element));
  });
  d.current = 1 - d.current;
}

// Sequences of the state that took no part in a streaming call keep theirs; `before`: the half they are in.
void keep_other_rows(const Pass &pass, int before) {
  const hrnn_plan &plan = *pass.plan;
  DirectionState &d = pass.state->directions[pass.direction];
  const int64_t batch = pass.args->batch;
  if (d.current == before) return;
  memcpy(state_row(plan, d.h[d.current], batch), state_row(plan, d.h[before], batch),
         size_t((pass.state->max_batch - batch) * plan.padded() * plan.element));
}

// ---- One step of live input ---------------------------------------------------------------------------------------

// The call that live input makes, all in order: then everything that run() does besides the kernel is left out, since in a
// small layer it would take as long.
bool is_single_step(const hrnn_plan *plan, const hrnn_state *state, const hrnn_run_args *args) {
  return plan != nullptr && state != nullptr && args != nullptr && args->struct_size == sizeof(hrnn_run_args) &&
         state->plan == plan && args->time == 1 && args->batch == 1 && state->max_batch == 1 && args->x != nullptr &&
         args->lengths == nullptr && args->h0 == nullptr && plan->problem.direction == HRNN_FORWARD &&
         state->directions[0].fused[0].usable();
}

// memcpy() for a few rows of 16 bytes and a rest, without a call.
void copy_row(void *to, const uint8_t *from, size_t bytes) {
  size_t at = 0;
  for (; at + 16 <= bytes; at += 16) memcpy(static_cast<uint8_t *>(to) + at, from + at, 16);
  for (; at < bytes; at += 4) memcpy(static_cast<uint8_t *>(to) + at, from + at, 4);
}

hrnn_status single_step(const hrnn_plan &plan, hrnn_state &state, const hrnn_run_args &args, hrnn_error *error) {
  DirectionState &d = state.directions[0];
  const size_t bytes = size_t(plan.hidden * plan.element);
  const uint8_t *h = d.h[1 - d.current];
  const int code = run_fused(plan, d, static_cast<const uint8_t *>(args.x));
  d.current = 1 - d.current;
  if (args.y != nullptr) copy_row(args.y, h, bytes);
  if (args.h_n != nullptr) copy_row(args.h_n, h, bytes);
  return code == 0 ? HRNN_OK : kernel_failed(plan, code, error);
}

}  // namespace

hrnn_status LayerRun::check(const LayerCall &call, bool is_stream, hrnn_error *error) {
  const hrnn_status status = check_args(call.plan, call.state, call.args, is_stream, &args, error);
  if (status != HRNN_OK) return status;
  stream = is_stream;
  for (int64_t d = 0; d < 2; d++)
    passes[d] = {call.plan, call.state, &args, d, d == 1 || call.plan->problem.direction == HRNN_REVERSE, false};
  return HRNN_OK;
}

void LayerRun::begin() {
  hrnn_state *state = passes[0].state;
  const bool together = plan().choice.device == nullptr;
  const bool ragged = args.lengths != nullptr && state->lanes.arrange(args.lengths, args.batch, args.time, together, tile());
  before = state->directions[0].current;
  for (int64_t d = 0; d < directions(); d++) {
    passes[d].ragged = ragged;
    if (!stream)
      load_initial_state(passes[d]);
    else if (ragged)
      sort_state(passes[d]);
  }
}

hrnn_status LayerRun::run_alone(hrnn_error *error) {
  hrnn_status status = HRNN_OK;
  for (int64_t d = 0; d < directions() && status == HRNN_OK; d++) {
    if (plan().choice.device != nullptr)
      status = device_run(passes[d], error);
    else if (passes[d].steps() > 0)
      status = finish_steps(passes[d], hrnn::run_alone(passes[d], 0, passes[d].steps()), error);
  }
  return status;
}

void LayerRun::end() {
  for (int64_t d = 0; d < directions(); d++) {
    zero_past_the_ends(passes[d]);
    store_final_state(passes[d]);
    if (passes[d].ragged) unsort_state(passes[d]);
    if (stream) keep_other_rows(passes[d], before);
  }
}

int64_t Pass::active(int64_t step, int64_t most) const {
  int64_t rows = ragged ? std::min(most, state->lanes.count()) : most;
  while (ragged && rows > 0 && state->lanes.steps(rows - 1) <= step) rows--;
  return rows;
}

}  // namespace hrnn

using namespace hrnn;

extern "C" {

hrnn_status hrnn_plan_run(const hrnn_plan *plan, hrnn_state *state, const hrnn_run_args *args, hrnn_error *error) {
  const LayerCall call = {plan, state, args};
  int done;
  return run_layers(&call, 1, &done, error);
}

hrnn_status hrnn_stream(const hrnn_plan *plan, hrnn_state *state, const hrnn_run_args *args, hrnn_error *error) {
  if (is_single_step(plan, state, args)) return single_step(*plan, *state, *args, error);
  LayerRun run;
  hrnn_status status = run.check({plan, state, args}, true, error);
  if (status != HRNN_OK) return status;
  run.begin();
  status = run.run_alone(error);
  if (status == HRNN_OK) run.end();
  return status;
}

}  // extern "C"
