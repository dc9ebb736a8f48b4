// SPDX-License-Identifier: Apache-2.0
//
// Running a layer on a CPU: stretches of projections and steps, rows by falling length. parallel.cpp: by several threads.
#include <algorithm>
#include <climits>
#include <cstring>

#include "plan_internal.h"
#include "status.h"

namespace hrnn {
namespace {

const uint8_t *x_at(const Pass &pass, int64_t time, int64_t row) {
  const hrnn_run_args &a = *pass.args;
  return static_cast<const uint8_t *>(a.x) + (time * a.x_time_stride + row * a.x_batch_stride) * pass.plan->element;
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
  int64_t row = 0, active = pass.args->batch;
  for (int64_t s = chunk.begin; s < chunk.end; s++) {
    active = pass.active(s, active);
    for (int64_t b = 0; b < active; b++, row++)
      if (row % shares == share) memcpy(to + size_t(row) * bytes, x_at(pass, pass.time_of(s, b), pass.row_of(b)), bytes);
  }
}

// The projections of a chunk's rows.
int project_chunk(const Pass &pass, Share &share, const Chunk &chunk, Barrier *barrier) {
  const hrnn_plan &plan = *pass.plan;
  DirectionState &d = pass.state->directions[pass.direction];
  int64_t stride;
  if (evenly_spaced(pass, chunk, &stride))
    return share.projection.run(chunk.rows, x_at(pass, pass.time_of(chunk.begin, 0), 0), stride, d.projected, plan.row_values());
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
  const hrnn_run_args &a = *pass.args;
  const hrnn_plan &plan = *pass.plan;
  if (a.y == nullptr) return;
  for (int64_t b = 0; b < rows; b++) {
    const int64_t at = pass.time_of(step, b) * a.y_time_stride + pass.direction * a.y_dir_stride +
                       pass.row_of(b) * a.y_batch_stride;
    memcpy(static_cast<uint8_t *>(a.y) + at * plan.element + columns.begin, state_row(plan, states, b) + columns.begin,
           size_t(columns.size));
  }
}

// In the order that y lies in: rows of a step, or steps of a row, next to each other.
void zero_past_the_ends(const Pass &pass) {
  const hrnn_run_args &a = *pass.args;
  if (a.y == nullptr || !pass.ragged) return;
  const int64_t element = pass.plan->element;
  auto zero = [&](int64_t t, int64_t b) {
    const int64_t at = t * a.y_time_stride + pass.direction * a.y_dir_stride + pass.row_of(b) * a.y_batch_stride;
    memset(static_cast<uint8_t *>(a.y) + at * element, 0, size_t(pass.plan->hidden * element));
  };
  if (a.y_time_stride < a.y_batch_stride) {
    for (int64_t b = 0; b < a.batch; b++)
      for (int64_t t = pass.length(b); t < a.time; t++) zero(t, b);
    return;
  }
  for (int64_t t = 0, active = a.batch; t < a.time; t++) {
    active = pass.active(t, active);
    for (int64_t b = active; b < a.batch; b++) zero(t, b);
  }
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

// One time step of a share: from d.h[current] to the other half, with the projections at `input`. Threads meet after each
// phase, since the next one reads what all have written.
int run_step(const Pass &pass, Share &share, int current, int64_t step, const uint8_t *input, int64_t rows, Barrier *barrier) {
  const hrnn_plan &plan = *pass.plan;
  DirectionState &d = pass.state->directions[pass.direction];
  const int code = run_phases(plan, d, current, input, [&](int64_t phase, const StepCall::Addresses &at) {
    const int failed = share.phases[phase].run(rows, at, step % 2 == 1);
    if (barrier != nullptr) barrier->wait();
    return failed;
  });
  copy_outputs(pass, Columns(plan, share), step, rows, d.h[1 - current]);
  return code;
}

// Sequences that have ended keep their state: puts rows [still, rows) into both halves, since later steps write neither.
void keep_ended(const Pass &pass, const Share &share, int current, int64_t still, int64_t rows) {
  const hrnn_plan &plan = *pass.plan;
  DirectionState &d = pass.state->directions[pass.direction];
  for (int64_t b = still; b < rows; b++)
    memcpy(state_row(plan, d.h[1 - current], b) + share.begin * kRowBytes,
           state_row(plan, d.h[current], b) + share.begin * kRowBytes, size_t((share.end - share.begin) * kRowBytes));
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
  int64_t rows = begin == 0 ? pass.args->batch : pass.active(begin - 1);
  auto note = [&code](int failed) { code = code == 0 ? failed : code; };
  for (Chunk chunk = {begin, begin, 0}; chunk.end < end;) {
    chunk = next_chunk(pass, chunk.end, end);
    note(project_chunk(pass, share, chunk, barrier));
    const uint8_t *input = d.projected;
    for (int64_t s = chunk.begin; s < chunk.end; s++, current = 1 - current) {
      const int64_t still = pass.active(s, rows);
      keep_ended(pass, share, current, still, rows);
      rows = still;
      note(run_step(pass, share, current, s, input, rows, barrier));
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
      for (int64_t i = 0; i < bytes; i += kRowBytes) __builtin_prefetch(x_at(pass, pass.time_of(s, b), pass.row_of(b)) + i);
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

// Lets key `at` of a heap with the smallest on top sink to its place.
void sink(int64_t *keys, int64_t at, int64_t count) {
  const int64_t key = keys[at];
  for (int64_t child; (child = 2 * at + 1) < count; at = child) {
    if (child + 1 < count && keys[child + 1] < keys[child]) child++;
    if (keys[child] >= key) break;
    keys[at] = keys[child];
  }
  keys[at] = key;
}

// Rows by falling length, equal ones in their own order, by a heap sort: no memory, and never slow. False where all have
// all steps.
bool sort_rows(hrnn_state *state, const hrnn_run_args &args) {
  bool ragged = false;
  int64_t *keys = state->sort_keys.data();
  for (int64_t b = 0; b < args.batch; b++) {
    ragged |= args.lengths[b] != args.time || args.lengths[b] == 0;
    keys[b] = int64_t{args.lengths[b]} << 32 | (INT32_MAX - b);
  }
  if (!ragged) return false;
  for (int64_t b = args.batch / 2; b-- > 0;) sink(keys, b, args.batch);
  for (int64_t count = args.batch; count > 0; count--) {
    const int64_t smallest = keys[0];
    keys[0] = keys[count - 1];
    sink(keys, 0, count - 1);
    state->lengths[size_t(count - 1)] = int32_t(smallest >> 32);
    state->order[size_t(count - 1)] = int32_t(INT32_MAX - (smallest & INT32_MAX));
  }
  return true;
}

void load_initial_state(const Pass &pass) {
  const hrnn_plan &plan = *pass.plan;
  const hrnn_run_args &a = *pass.args;
  DirectionState &d = pass.state->directions[pass.direction];
  const size_t bytes = size_t(plan.hidden * plan.element);
  d.current = 0;
  for (int64_t b = 0; b < a.batch; b++) {
    uint8_t *to = state_row(plan, d.h[0], b);
    const int64_t at = pass.direction * a.h0_dir_stride + pass.row_of(b) * a.h0_batch_stride;
    // A sequence of length 0 gives zeros whatever the initial state, as ONNX Runtime has it.
    if (a.h0 != nullptr && !(pass.ragged && pass.length(b) == 0))
      memcpy(to, static_cast<const uint8_t *>(a.h0) + at * plan.element, bytes);
    else
      memset(to, 0, bytes);
  }
}

void store_final_state(const Pass &pass) {
  const hrnn_plan &plan = *pass.plan;
  const hrnn_run_args &a = *pass.args;
  const DirectionState &d = pass.state->directions[pass.direction];
  if (a.h_n == nullptr) return;
  for (int64_t b = 0; b < a.batch; b++) {
    const int64_t at = pass.direction * a.h_n_dir_stride + pass.row_of(b) * a.h_n_batch_stride;
    memcpy(static_cast<uint8_t *>(a.h_n) + at * plan.element, state_row(plan, d.h[d.current], b),
           size_t(plan.hidden * plan.element));
  }
}

// Rows back from order of length to the caller's order, through the other half of the state.
void unsort_state(const Pass &pass) {
  const hrnn_plan &plan = *pass.plan;
  DirectionState &d = pass.state->directions[pass.direction];
  for (int64_t b = 0; b < pass.args->batch; b++)
    memcpy(state_row(plan, d.h[1 - d.current], pass.row_of(b)), state_row(plan, d.h[d.current], b),
           size_t(plan.padded() * plan.element));
  d.current = 1 - d.current;
}

void sort_state(const Pass &pass) {
  const hrnn_plan &plan = *pass.plan;
  DirectionState &d = pass.state->directions[pass.direction];
  for (int64_t b = 0; b < pass.args->batch; b++)
    memcpy(state_row(plan, d.h[1 - d.current], b), state_row(plan, d.h[d.current], pass.row_of(b)),
           size_t(plan.padded() * plan.element));
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
  const bool ragged = args.lengths != nullptr && sort_rows(state, args);
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
  int64_t rows = most;
  while (ragged && rows > 0 && state->lengths[rows - 1] <= step) rows--;
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
