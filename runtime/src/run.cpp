// SPDX-License-Identifier: Apache-2.0
//
// Running a layer on a CPU: stretches of projections and steps, rows by falling length.
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

// xp rows of steps [begin, end): row (step - begin) * batch + b.
int project_chunk(const Pass &pass, int64_t begin, int64_t end) {
  const hrnn_plan &plan = *pass.plan;
  const hrnn_run_args &a = *pass.args;
  ProjectionCall &call = pass.state->directions[pass.direction].projection;
  const int64_t batch = a.batch, values = plan.row_values(), row_bytes = values * plan.element;
  uint8_t *out = pass.state->projected;
  const int64_t step_stride = pass.reverse ? -a.x_time_stride : a.x_time_stride;

  if (!pass.ragged) {
    // All rows lie at one distance: a single product. Else one product a step or a sequence, whichever are fewer.
    if (batch == 1 || step_stride == batch * a.x_batch_stride)
      return call.run((end - begin) * batch, x_at(pass, pass.time_of(begin, 0), 0),
                      batch == 1 ? step_stride : a.x_batch_stride, out, values);
    if (end - begin <= batch) {
      for (int64_t s = begin; s < end; s++)
        if (int error = call.run(batch, x_at(pass, pass.time_of(s, 0), 0), a.x_batch_stride,
                                 out + (s - begin) * batch * row_bytes, values))
          return error;
      return 0;
    }
  }
  for (int64_t b = 0; b < batch; b++) {
    const int64_t stop = pass.length(b) < end ? pass.length(b) : end;
    if (stop <= begin) break;  // rows are in order of falling length
    if (int error = call.run(stop - begin, x_at(pass, pass.time_of(begin, b), pass.row_of(b)), step_stride,
                             out + b * row_bytes, batch * values))
      return error;
  }
  return 0;
}

void copy_outputs(const Pass &pass, int64_t step, int64_t rows) {
  const hrnn_run_args &a = *pass.args;
  const hrnn_plan &plan = *pass.plan;
  const DirectionState &d = pass.state->directions[pass.direction];
  if (a.y == nullptr) return;
  for (int64_t b = 0; b < rows; b++) {
    const int64_t at = pass.time_of(step, b) * a.y_time_stride + pass.direction * a.y_dir_stride +
                       pass.row_of(b) * a.y_batch_stride;
    memcpy(static_cast<uint8_t *>(a.y) + at * plan.element, state_row(plan, d.h[d.current], b),
           size_t(plan.hidden * plan.element));
  }
}

void zero_past_the_ends(const Pass &pass) {
  const hrnn_run_args &a = *pass.args;
  if (a.y == nullptr || !pass.ragged) return;
  for (int64_t b = 0; b < a.batch; b++) {
    for (int64_t t = pass.length(b); t < a.time; t++) {
      const int64_t at = t * a.y_time_stride + pass.direction * a.y_dir_stride + pass.row_of(b) * a.y_batch_stride;
      memset(static_cast<uint8_t *>(a.y) + at * pass.plan->element, 0, size_t(pass.plan->hidden * pass.plan->element));
    }
  }
}

// Steps [begin, end) over the projections in state->projected.
int run_chunk(const Pass &pass, int64_t begin, int64_t end) {
  const hrnn_plan &plan = *pass.plan;
  DirectionState &d = pass.state->directions[pass.direction];
  const int64_t batch = pass.args->batch, step_bytes = batch * plan.row_values() * plan.element;
  uint8_t *between[1 + HRNN_MAX_CARRIED] = {d.operand, d.carried[0], d.carried[1], d.carried[2]};
  int64_t rows = begin == 0 ? batch : pass.active(begin - 1, batch);
  for (int64_t s = begin; s < end; s++) {
    const int64_t still = pass.active(s, rows);
    // Sequences that have ended keep their state: put it into both halves, since later steps write neither.
    for (int64_t b = still; b < rows; b++)
      memcpy(state_row(plan, d.h[1 - d.current], b), state_row(plan, d.h[d.current], b),
             size_t(plan.padded() * plan.element));
    rows = still;
    uint8_t *from = d.h[d.current], *to = d.h[1 - d.current];
    for (int64_t phase = 0; phase < plan.cell.phases; phase++) {
      const bool last = phase + 1 == plan.cell.phases;
      const StepCall::Addresses at = {pass.state->projected + (s - begin) * step_bytes, phase == 0 ? from : d.operand, from,
                                      d.carried, last ? &to : between};
      if (int error = d.phases[phase].run(rows, at, s % 2 == 1)) return error;
    }
    d.current = 1 - d.current;
    copy_outputs(pass, s, rows);
  }
  return 0;
}

// The only step of the only row.
int run_fused(const Pass &pass) {
  DirectionState &d = pass.state->directions[pass.direction];
  if (int error = d.fused.run(x_at(pass, 0, 0), d.h[d.current], d.h[1 - d.current])) return error;
  d.current = 1 - d.current;
  copy_outputs(pass, 0, 1);
  return 0;
}

hrnn_status run_direction(const Pass &pass, hrnn_error *error) {
  const int64_t batch = pass.args->batch;
  const int64_t total = batch == 0 ? 0 : pass.length(0);  // the longest
  if (batch == 1 && total == 1 && pass.state->directions[pass.direction].fused.usable()) {
    if (int code = run_fused(pass))
      return fail(error, HRNN_DEVICE_ERROR, "a kernel of %s returned error %d", pass.plan->selection.variant, code);
    return HRNN_OK;
  }
  int64_t chunk = batch == 0 ? 1 : pass.state->chunk_rows / batch;
  if (pass.ragged) chunk -= chunk % kRaggedSteps;
  for (int64_t begin = 0; begin < total; begin += chunk) {
    const int64_t end = begin + chunk < total ? begin + chunk : total;
    int code = project_chunk(pass, begin, end);
    if (code == 0) code = run_chunk(pass, begin, end);
    if (code != 0)
      return fail(error, HRNN_DEVICE_ERROR, "a kernel of %s returned error %d at step %lld", pass.plan->selection.variant, code,
                  static_cast<long long>(begin));
  }
  return HRNN_OK;
}

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

hrnn_status run(const hrnn_plan *plan, hrnn_state *state, const hrnn_run_args *args, bool stream, hrnn_error *error) {
  hrnn_run_args full;
  hrnn_status status = check_args(plan, state, args, stream, &full, error);
  if (status != HRNN_OK) return status;
  const bool ragged = args->lengths != nullptr && sort_rows(state, full);
  for (int64_t d = 0; d < plan->directions; d++) {
    const bool reverse = plan->problem.direction == HRNN_REVERSE || d == 1;
    const Pass pass{plan, state, &full, d, reverse, ragged};
    const int before = state->directions[d].current;
    if (!stream)
      load_initial_state(pass);
    else if (ragged)
      sort_state(pass);
    status = plan->choice.device != nullptr ? device_run(pass, error) : run_direction(pass, error);
    if (status != HRNN_OK) return status;
    zero_past_the_ends(pass);
    store_final_state(pass);
    if (ragged) unsort_state(pass);
    if (stream) keep_other_rows(pass, before);
  }
  return HRNN_OK;
}

}  // namespace

int64_t Pass::active(int64_t step, int64_t most) const {
  int64_t rows = most;
  while (ragged && rows > 0 && state->lengths[rows - 1] <= step) rows--;
  return rows;
}

}  // namespace hrnn

using namespace hrnn;

extern "C" {

hrnn_status hrnn_plan_run(const hrnn_plan *plan, hrnn_state *state, const hrnn_run_args *args, hrnn_error *error) {
  return run(plan, state, args, false, error);
}

hrnn_status hrnn_stream(const hrnn_plan *plan, hrnn_state *state, const hrnn_run_args *args, hrnn_error *error) {
  return run(plan, state, args, true, error);
}

}  // extern "C"
