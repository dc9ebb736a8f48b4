// SPDX-License-Identifier: Apache-2.0
#include "plan.h"

#include <climits>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "plan_internal.h"
#include "status.h"

namespace hrnn {
namespace {

// The projections of a stretch of time are kept in this much memory, so that they are still in the cache when the
// steps read them, whatever the length of the sequence; but no fewer rows than make up for reading all of W once.
constexpr int64_t kChunkBytes = 256 * 1024, kChunkRows = 128;

constexpr int64_t kDenseChunkRows = 64;

// Weights up to kCachedBytes stay in a core's second-level cache from step to step; larger ones are walked there and back
// in stretches of kSerpentineBytes.
constexpr int64_t kCachedBytes = 512 * 1024, kSerpentineBytes = 128 * 1024;
constexpr int64_t kLargestTile = 8;  // panels of the widest kernels

int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

ActivationArguments::Number number(int32_t dtype, double value) {
  ActivationArguments::Number n;
  if (dtype == HRNN_F64)
    n.f64 = value;
  else
    n.f32 = float(value);
  return n;
}

ActivationArguments activation_arguments(const hrnn_problem &p, int direction) {
  ActivationArguments a = {};
  for (int i = 0; i < HRNN_MAX_ACTIVATIONS; i++) {
    const hrnn_activation &from = p.activations[direction][i];
    a.kinds[i] = int32_t(from.kind);
    a.alpha[i] = number(p.dtype, from.alpha);
    a.beta[i] = number(p.dtype, from.beta);
  }
  a.clip = number(p.dtype, p.clip_set ? p.clip : HUGE_VAL);
  return a;
}

// The buffers of one projection call site; only hosts and row counts change between calls.
struct ProjectionCall {
  Tensor<4> weights, out;
  Tensor<3> bias;
  Tensor<2> x;

  void init(int32_t dtype, int64_t gates, int64_t lanes, int64_t panels, int64_t inner, const void *packed,
            const PackedProduct &product) {
    weights.init(dtype);
    bias.init(dtype);
    x.init(dtype);
    out.init(dtype);
    set_weights(&weights, &bias, gates, lanes, panels, inner, packed, product);
    out.set(0, lanes, 1);
    out.set(1, gates, lanes);
    x.set(0, inner, 1);
  }

  static void set_weights(Tensor<4> *weights, Tensor<3> *bias, int64_t gates, int64_t lanes, int64_t panels,
                          int64_t inner, const void *packed, const PackedProduct &product) {
    uint8_t *base = static_cast<uint8_t *>(const_cast<void *>(packed));
    weights->set(0, lanes, 1);
    weights->set(1, gates, lanes);
    weights->set(2, inner, lanes * gates);
    weights->set(3, panels, lanes * gates * inner);
    weights->host() = base + product.weights_offset;
    bias->set(0, lanes, 1);
    bias->set(1, gates, lanes);
    bias->set(2, panels, lanes * gates);
    bias->host() = base + product.bias_offset;
  }

  // rows rows of x, row_stride apart, to rows of `to`, out_row_stride apart (in values).
  int run(const KernelSet &kernels, int64_t panels, int64_t rows, const void *from, int64_t row_stride, void *to,
          int64_t out_row_stride) {
    const int64_t gates = out.dims[1].extent, lanes = out.dims[0].extent, element = x.buffer.type_bits / 8;
    return cover(kernels, 0, panels, rows, [&](const hrnn_kernel &k, int64_t p, int64_t pn, int64_t r, int64_t rn) {
      x.set(1, rn, row_stride, r);
      x.host() = static_cast<uint8_t *>(const_cast<void *>(from)) + r * row_stride * element;
      out.set(2, pn, lanes * gates, p);
      out.set(3, rn, out_row_stride, r);
      out.host() = static_cast<uint8_t *>(to) + (r * out_row_stride + p * lanes * gates) * element;
      void *args[] = {weights.arg(), bias.arg(), x.arg(), out.arg()};
      return k.entry(args);
    });
  }
};

// The buffers of one phase of the step.
struct StepCall {
  Tensor<4> weights, input;
  Tensor<3> bias, state, carried[kMaxCarried], out[1 + kMaxCarried];
  Tensor<2> operand;
  void *args[5 + kMaxCarried + 3 * HRNN_MAX_ACTIVATIONS + 1 + 1 + kMaxCarried];
  int64_t outputs, panels, lanes, row, element, chunk_panels;
  const KernelSet *kernels;

  void init(const hrnn_plan &plan, int64_t direction, int64_t phase, int64_t batch) {
    const int32_t dtype = plan.problem.dtype;
    const LayerKernels &chosen = plan.choice.directions[direction];
    kernels = &chosen.phases[phase];
    panels = plan.panels, lanes = plan.lanes, row = plan.padded(), element = plan.element;
    const bool last = phase + 1 == plan.cell.phases;
    outputs = last ? 1 : 1 + plan.carried;

    int64_t gates = 0;
    for (uint32_t bits = plan.cell.phase_gates[phase]; bits; bits &= bits - 1) gates++;
    weights.init(dtype);
    bias.init(dtype);
    ProjectionCall::set_weights(&weights, &bias, gates, lanes, panels, plan.hidden, plan.phase(direction, phase),
                                plan.layout.phases[phase]);
    const int64_t panel_bytes = gates * plan.hidden * kRowBytes;
    chunk_panels = panels * panel_bytes <= kCachedBytes ? panels : serpentine_panels(panel_bytes);

    input.init(dtype);
    input.set(0, lanes, 1);
    input.set(1, plan.cell.gates, lanes);
    input.set(2, panels, lanes * plan.cell.gates);
    input.set(3, batch, plan.row_values());
    operand.init(dtype);
    operand.set(0, plan.hidden, 1);
    operand.set(1, batch, row);
    init_panels(&state, dtype, batch);

    int n = 0;
    for (void *arg : {weights.arg(), bias.arg(), input.arg(), operand.arg(), state.arg()}) args[n++] = arg;
    for (int64_t i = 0; phase > 0 && i < plan.carried; i++) {
      init_panels(&carried[i], dtype, batch);
      args[n++] = carried[i].arg();
    }
    if (chosen.any_activation) append_activation_arguments(plan, direction, args, &n);
    for (int64_t i = 0; i < outputs; i++) {
      init_panels(&out[i], dtype, batch);
      args[n++] = out[i].arg();
    }
  }

  // Panels of one call: a stretch of weights large enough that the call costs nothing, in whole tiles.
  static int64_t serpentine_panels(int64_t panel_bytes) {
    const int64_t fit = kSerpentineBytes / panel_bytes;
    return fit < kLargestTile ? kLargestTile : fit / kLargestTile * kLargestTile;
  }

  void init_panels(Tensor<3> *t, int32_t dtype, int64_t batch) {
    t->init(dtype);
    t->set(0, lanes, 1);
    t->set(1, panels, lanes);
    t->set(2, batch, row);
  }

  // Computes all panels of `rows` rows; `to` holds the bases of the outputs. Walking the panels back on every other step
  // finds the weights used last still in the cache, where all of them together do not fit.
  int run(int64_t rows, uint8_t *const *to, bool backward) {
    const int64_t chunks = (panels + chunk_panels - 1) / chunk_panels;
    for (int64_t i = 0; i < chunks; i++) {
      const int64_t begin = (backward ? chunks - 1 - i : i) * chunk_panels;
      const int64_t end = begin + chunk_panels < panels ? begin + chunk_panels : panels;
      if (int error = run_panels(begin, end, rows, to)) return error;
    }
    return 0;
  }

  int run_panels(int64_t begin, int64_t end, int64_t rows, uint8_t *const *to) {
    return cover(*kernels, begin, end, rows, [&](const hrnn_kernel &k, int64_t p, int64_t pn, int64_t r, int64_t rn) {
      for (int64_t i = 0; i < outputs; i++) {
        out[i].set(1, pn, lanes, p);
        out[i].set(2, rn, row, r);
        out[i].host() = to[i] + (r * row + p * lanes) * element;
      }
      return k.entry(args);
    });
  }
};

const uint8_t *x_at(const Pass &pass, int64_t time, int64_t row) {
  const hrnn_run_args &a = *pass.args;
  return static_cast<const uint8_t *>(a.x) + (time * a.x_time_stride + row * a.x_batch_stride) * pass.plan->element;
}

// Rows of one call whose offsets stay within the 32 bits that kernels index with.
int64_t rows_within_index(int64_t rows, int64_t stride) {
  const int64_t magnitude = stride < 0 ? -stride : stride;
  const int64_t limit = magnitude == 0 ? rows : INT32_MAX / magnitude;
  return rows < limit ? rows : limit > 0 ? limit : 1;
}

// xp rows of steps [begin, end): row (step - begin) * batch + b.
int project_chunk(const Pass &pass, ProjectionCall *call, int64_t begin, int64_t end) {
  const hrnn_plan &plan = *pass.plan;
  const hrnn_run_args &a = *pass.args;
  const KernelSet &kernels = plan.choice.directions[pass.direction].projection;
  const int64_t batch = a.batch, values = plan.row_values(), row_bytes = values * plan.element;
  uint8_t *out = pass.state->projected;
  const int64_t step_stride = pass.reverse ? -a.x_time_stride : a.x_time_stride;

  auto run = [&](int64_t rows, const uint8_t *from, int64_t stride, uint8_t *to, int64_t to_stride) {
    for (int64_t done = 0; done < rows;) {
      const int64_t n = rows_within_index(rows - done, stride);
      int error = call->run(kernels, plan.panels, n, from + done * stride * plan.element, stride,
                            to + done * to_stride * plan.element, to_stride);
      if (error) return error;
      done += n;
    }
    return 0;
  };

  if (!pass.ragged) {
    // All rows lie at one distance: a single product. Else one product a step or a sequence, whichever are fewer.
    if (batch == 1 || step_stride == batch * a.x_batch_stride)
      return run((end - begin) * batch, x_at(pass, pass.time_of(begin, 0), 0),
                 batch == 1 ? step_stride : a.x_batch_stride, out, values);
    if (end - begin <= batch) {
      for (int64_t s = begin; s < end; s++)
        if (int e = run(batch, x_at(pass, pass.time_of(s, 0), 0), a.x_batch_stride, out + (s - begin) * batch * row_bytes,
                        values))
          return e;
      return 0;
    }
  }
  for (int64_t b = 0; b < batch; b++) {
    const int64_t stop = pass.length(b) < end ? pass.length(b) : end;
    if (stop <= begin) break;  // rows are in order of falling length
    if (int e = run(stop - begin, x_at(pass, pass.time_of(begin, b), pass.row_of(b)), step_stride, out + b * row_bytes,
                    batch * values))
      return e;
  }
  return 0;
}

uint8_t *state_row(const hrnn_plan &plan, uint8_t *base, int64_t row) {
  return base + row * plan.padded() * plan.element;
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
int run_chunk(const Pass &pass, StepCall *calls, int64_t begin, int64_t end) {
  const hrnn_plan &plan = *pass.plan;
  DirectionState &d = pass.state->directions[pass.direction];
  const int64_t batch = pass.args->batch, step_bytes = batch * plan.row_values() * plan.element;
  int64_t rows = begin == 0 ? batch : pass.active(begin - 1);
  for (int64_t s = begin; s < end; s++) {
    const int64_t still = pass.ragged ? pass.active(s) : batch;
    // Sequences that have ended keep their state: put it into both halves, since later steps write neither.
    for (int64_t b = still; b < rows; b++)
      memcpy(state_row(plan, d.h[1 - d.current], b), state_row(plan, d.h[d.current], b),
             size_t(plan.padded() * plan.element));
    rows = still;
    uint8_t *from = d.h[d.current], *to = d.h[1 - d.current];
    for (int64_t phase = 0; phase < plan.cell.phases; phase++) {
      StepCall &call = calls[phase];
      call.input.host() = pass.state->projected + (s - begin) * step_bytes;
      call.operand.host() = phase == 0 ? from : d.operand;
      call.state.host() = from;
      for (int i = 0; i < kMaxCarried; i++) call.carried[i].host() = d.carried[i];
      uint8_t *between[1 + kMaxCarried] = {d.operand, d.carried[0], d.carried[1], d.carried[2]};
      uint8_t *result[1] = {to};
      if (int error = call.run(rows, phase + 1 == plan.cell.phases ? result : between, s % 2 == 1)) return error;
    }
    d.current = 1 - d.current;
    copy_outputs(pass, s, rows);
  }
  return 0;
}

hrnn_status run_direction(const Pass &pass, hrnn_error *error) {
  const hrnn_plan &plan = *pass.plan;
  const int64_t batch = pass.args->batch;
  ProjectionCall projection;
  projection.init(plan.problem.dtype, plan.cell.gates, plan.lanes, plan.panels, plan.input,
                  plan.projection(pass.direction), plan.layout.projection);
  StepCall steps[HRNN_MAX_PHASES];
  for (int64_t i = 0; i < plan.cell.phases; i++) steps[i].init(plan, pass.direction, i, batch);

  const int64_t total = batch == 0 ? 0 : pass.length(0);  // the longest
  const int64_t chunk = batch == 0 ? 1 : pass.state->chunk_rows / batch;
  for (int64_t begin = 0; begin < total; begin += chunk) {
    const int64_t end = begin + chunk < total ? begin + chunk : total;
    int code = project_chunk(pass, &projection, begin, end);
    if (code == 0) code = run_chunk(pass, steps, begin, end);
    if (code != 0)
      return fail(error, HRNN_DEVICE_ERROR, "a kernel of %s returned error %d at step %lld", plan.selection.variant, code,
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

// Sorts rows by falling length (insertion keeps equal ones in order and needs no memory).
bool sort_rows(hrnn_state *state, const hrnn_run_args &args) {
  bool ragged = false;
  for (int64_t b = 0; b < args.batch; b++) {
    const int32_t length = args.lengths == nullptr ? int32_t(args.time) : args.lengths[b];
    ragged |= length != args.time || length == 0;
    int64_t at = b;
    for (; at > 0 && state->lengths[at - 1] < length; at--) {
      state->lengths[at] = state->lengths[at - 1];
      state->order[at] = state->order[at - 1];
    }
    state->lengths[at] = length;
    state->order[at] = int32_t(b);
  }
  return ragged;
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

// ---- Plans and states ---------------------------------------------------------------------------------------------

struct ResolvedOptions {
  hrnn_machine machine;
  KernelSource source;
  const char *force;
};

hrnn_status resolve_options(const hrnn_options *options, ResolvedOptions *r, hrnn_error *error) {
  *r = {};
  if (options != nullptr && options->struct_size != sizeof(hrnn_options))
    return fail(error, HRNN_INVALID_ARGUMENT, "options.struct_size is %u; this library expects %u", options->struct_size,
                unsigned(sizeof(hrnn_options)));
  if (options != nullptr) r->source = {options->tables, options->table_count};
  for (size_t i = 0; i < r->source.table_count; i++)
    if (r->source.tables[i] != nullptr && r->source.tables[i]->abi_version != HRNN_ABI_VERSION)
      return fail(error, HRNN_CORRUPT_MODEL, "kernel table %zu was made for ABI version %u; this library has %u", i,
                  r->source.tables[i]->abi_version, HRNN_ABI_VERSION);
  r->machine.struct_size = sizeof(hrnn_machine);
  if (options != nullptr && options->machine != nullptr)
    r->machine = *options->machine;
  else
    hrnn_machine_detect(r->source.tables, r->source.table_count, &r->machine);
  r->force = options != nullptr && options->force_variant != nullptr ? options->force_variant : getenv("HRNN_FORCE_VARIANT");
  return HRNN_OK;
}

void log_selection(const hrnn_options *options, const hrnn_selection &selection) {
  if (options == nullptr || options->log == nullptr) return;
  char line[512];
  for (const char *begin = selection.reason; *begin;) {
    const char *end = strchr(begin, '\n');
    const size_t length = end ? size_t(end - begin) : strlen(begin);
    snprintf(line, sizeof line, "%.*s", int(length < sizeof line ? length : sizeof line - 1), begin);
    options->log(options->log_user, line);
    begin += length + (end ? 1 : 0);
  }
}

uint32_t carried_values(const LayerChoice &choice) { return choice.directions[0].phases[0].kernels[0]->carried; }

hrnn_status init_plan(hrnn_plan *plan, const hrnn_problem *problem, const hrnn_options *options, hrnn_error *error) {
  ResolvedOptions r;
  hrnn_status status = resolve_options(options, &r, error);
  if (status == HRNN_OK) status = check_problem(problem, r.source, &plan->problem, &plan->cell, error);
  if (status == HRNN_OK)
    status = select_layer(plan->problem, r.machine, r.source, r.force, &plan->choice, &plan->selection, error);
  if (status != HRNN_OK) return status;
  log_selection(options, plan->selection);
  hrnn_problem &p = plan->problem;
  if (strlen(p.cell) >= sizeof plan->cell_name)
    return fail(error, HRNN_INVALID_ARGUMENT, "problem.cell has %zu characters; the limit is %zu", strlen(p.cell),
                sizeof plan->cell_name - 1);
  memcpy(plan->cell_name, p.cell, strlen(p.cell) + 1);
  p.cell = plan->cell_name;
  plan->directions = p.direction == HRNN_BIDIRECTIONAL ? 2 : 1;
  plan->input = p.input_size;
  plan->hidden = p.hidden_size;
  plan->lanes = lanes_of(p.dtype);
  plan->panels = panels_of(p.dtype, p.hidden_size);
  plan->element = dtype_bytes(p.dtype);
  plan->carried = plan->cell.phases > 1 ? carried_values(plan->choice) : 0;
  if (plan->carried > kMaxCarried)
    return fail(error, HRNN_UNSUPPORTED, "cell '%s' carries %lld values between its phases; the limit is %d", p.cell,
                static_cast<long long>(plan->carried), kMaxCarried);
  plan->layout = packed_layer(p.dtype, plan->cell, plan->directions, plan->input, plan->hidden);
  for (int d = 0; d < 2; d++) plan->activations[d] = activation_arguments(p, d);
  return HRNN_OK;
}

struct StateLayout {
  int64_t bytes = 0;
  int64_t add(int64_t size) {
    const int64_t at = bytes;
    bytes += round_up(size, kRowBytes);
    return at;
  }
};

}  // namespace

int64_t Pass::active(int64_t step) const {
  if (!ragged) return args->batch;
  int64_t rows = args->batch;
  while (rows > 0 && state->lengths[rows - 1] <= step) rows--;
  return rows;
}

void append_activation_arguments(const hrnn_plan &plan, int64_t direction, void **args, int *count) {
  ActivationArguments &a = const_cast<ActivationArguments &>(plan.activations[direction]);
  const uint32_t n = plan.choice.directions[direction].phases[0].kernels[0]->activation_count;
  for (uint32_t i = 0; i < n && i < HRNN_MAX_ACTIVATIONS; i++) {
    args[(*count)++] = &a.kinds[i];
    args[(*count)++] = &a.alpha[i];
    args[(*count)++] = &a.beta[i];
  }
  args[(*count)++] = &a.clip;
}

hrnn_status plan_create_packed(const hrnn_problem *problem, const void *packed, const hrnn_options *options,
                               hrnn_plan **out, hrnn_error *error) {
  if (out == nullptr) return fail(error, HRNN_INVALID_ARGUMENT, "plan is NULL");
  *out = nullptr;
  if (uintptr_t(packed) % kRowBytes != 0)
    return fail(error, HRNN_INVALID_ARGUMENT, "packed weights lie at %p; they must be aligned to %d bytes", packed,
                int(kRowBytes));
  hrnn_plan *plan = create_object<hrnn_plan>();
  if (plan == nullptr) return fail(error, HRNN_OUT_OF_MEMORY, "no memory for a plan");
  hrnn_status status = init_plan(plan, problem, options, error);
  plan->packed = static_cast<const uint8_t *>(packed);
  if (status == HRNN_OK && packed != nullptr && plan->choice.device != nullptr) status = device_plan_init(plan, error);
  if (status != HRNN_OK) {
    hrnn_plan_destroy(plan);
    return status;
  }
  *out = plan;
  return HRNN_OK;
}

// ---- Dense --------------------------------------------------------------------------------------------------------

struct DensePlan {
  KernelSet kernels;
  PackedProduct layout;
  const uint8_t *packed;
  int32_t dtype;
  int64_t in, out, lanes, panels, element;
};

hrnn_status dense_plan_create(int32_t dtype, int64_t in_features, int64_t out_features, const void *packed,
                              const hrnn_options *options, DensePlan **out, hrnn_error *error) {
  *out = nullptr;
  if ((dtype != HRNN_F32 && dtype != HRNN_F64) || in_features < 1 || out_features < 1)
    return fail(error, HRNN_INVALID_ARGUMENT, "a dense layer of type %d with %lld inputs and %lld outputs cannot be planned",
                dtype, static_cast<long long>(in_features), static_cast<long long>(out_features));
  if (double(panels_of(dtype, out_features) * lanes_of(dtype)) * double(in_features) >= double(INT_MAX))
    return fail(error, HRNN_UNSUPPORTED, "a dense layer of %lld inputs and %lld outputs has more than %d weights",
                static_cast<long long>(in_features), static_cast<long long>(out_features), INT_MAX);
  ResolvedOptions r;
  hrnn_status status = resolve_options(options, &r, error);
  if (status != HRNN_OK) return status;
  DensePlan *plan = create_object<DensePlan>();
  if (plan == nullptr) return fail(error, HRNN_OUT_OF_MEMORY, "no memory for a plan");
  *plan = {{}, packed_product(dtype, 1, out_features, in_features), static_cast<const uint8_t *>(packed), dtype,
           in_features, out_features, lanes_of(dtype), panels_of(dtype, out_features), dtype_bytes(dtype)};
  status = select_dense(dtype, in_features, r.machine, r.source, r.force, &plan->kernels, error);
  if (status != HRNN_OK) {
    dense_plan_destroy(plan);
    return status;
  }
  *out = plan;
  return HRNN_OK;
}

void dense_plan_destroy(DensePlan *plan) { destroy_object(plan); }

size_t dense_scratch_bytes(const DensePlan *plan) {
  return size_t(kDenseChunkRows * plan->panels * kRowBytes);
}

hrnn_status dense_run(const DensePlan *plan, void *scratch, int64_t rows, const void *x, int64_t x_row_stride, void *y,
                      int64_t y_row_stride, hrnn_error *error) {
  ProjectionCall call;
  call.init(plan->dtype, 1, plan->lanes, plan->panels, plan->in, plan->packed, plan->layout);
  const int64_t padded = plan->panels * plan->lanes;
  const uint8_t *from = static_cast<const uint8_t *>(x);
  uint8_t *to = static_cast<uint8_t *>(y);
  for (int64_t begin = 0; begin < rows;) {
    int64_t n = rows - begin < kDenseChunkRows ? rows - begin : kDenseChunkRows;
    n = rows_within_index(n, x_row_stride);
    int code = call.run(plan->kernels, plan->panels, n, from + begin * x_row_stride * plan->element, x_row_stride, scratch,
                        padded);
    if (code != 0) return fail(error, HRNN_DEVICE_ERROR, "a dense kernel returned error %d", code);
    for (int64_t i = 0; i < n; i++)
      memcpy(to + (begin + i) * y_row_stride * plan->element, static_cast<uint8_t *>(scratch) + i * padded * plan->element,
             size_t(plan->out * plan->element));
    begin += n;
  }
  return HRNN_OK;
}

}  // namespace hrnn

// ---- The C interface ------------------------------------------------------------------------------------------------

using namespace hrnn;

extern "C" {

hrnn_status hrnn_plan_create(const hrnn_problem *problem, const hrnn_weights *weights, const hrnn_options *options,
                             hrnn_plan **out, hrnn_error *error) {
  if (weights == nullptr || weights->struct_size != sizeof(hrnn_weights))
    return fail(error, HRNN_INVALID_ARGUMENT, "weights.struct_size is %u; this library expects %u",
                weights == nullptr ? 0 : weights->struct_size, unsigned(sizeof(hrnn_weights)));
  if (weights->w == nullptr || weights->r == nullptr)
    return fail(error, HRNN_INVALID_ARGUMENT, "weights.%s is NULL", weights->w == nullptr ? "w" : "r");
  hrnn_plan *plan = nullptr;
  hrnn_status status = plan_create_packed(problem, nullptr, options, &plan, error);
  if (status != HRNN_OK) return status;
  const hrnn_problem &p = plan->problem;
  if (!plan->owned.allocate(size_t(plan->layout.bytes))) {
    status = fail(error, HRNN_OUT_OF_MEMORY, "no memory for %lld bytes of packed weights",
                  static_cast<long long>(plan->layout.bytes));
  } else {
    pack_layer(p.dtype, plan->cell, plan->directions, plan->input, plan->hidden, weights->w, weights->r, weights->b,
               plan->owned.data());
    plan->packed = reinterpret_cast<const uint8_t *>(plan->owned.data());
    if (plan->choice.device != nullptr) status = device_plan_init(plan, error);
  }
  if (status != HRNN_OK) {
    hrnn_plan_destroy(plan);
    return status;
  }
  *out = plan;
  return HRNN_OK;
}

void hrnn_plan_destroy(hrnn_plan *plan) {
  if (plan == nullptr) return;
  device_plan_destroy(plan);
  destroy_object(plan);
}

void hrnn_plan_selection(const hrnn_plan *plan, hrnn_selection *selection) { *selection = plan->selection; }

size_t hrnn_plan_bytes(const hrnn_plan *plan) { return sizeof *plan + plan->owned.size(); }

hrnn_status hrnn_state_create(const hrnn_plan *plan, int64_t max_batch, hrnn_state **out, hrnn_error *error) {
  if (plan == nullptr || out == nullptr)
    return fail(error, HRNN_INVALID_ARGUMENT, "%s is NULL", plan == nullptr ? "plan" : "state");
  *out = nullptr;
  const int64_t projection_row = plan->row_values() * plan->element;
  if (max_batch < 1 || max_batch > INT32_MAX / plan->row_values())
    return fail(error, HRNN_INVALID_ARGUMENT, "max_batch is %lld; it must be between 1 and %lld for this layer",
                static_cast<long long>(max_batch), static_cast<long long>(INT32_MAX / plan->row_values()));
  hrnn_state *state = create_object<hrnn_state>();
  if (state == nullptr) return fail(error, HRNN_OUT_OF_MEMORY, "no memory for a state");
  state->plan = plan;
  state->max_batch = max_batch;
  state->chunk_rows = kChunkBytes / projection_row > kChunkRows ? kChunkBytes / projection_row : kChunkRows;
  if (state->chunk_rows < max_batch) state->chunk_rows = max_batch;

  StateLayout layout;
  const int64_t h_bytes = max_batch * plan->padded() * plan->element;
  int64_t offsets[2][3 + kMaxCarried];
  for (int64_t d = 0; d < plan->directions; d++)
    for (int64_t i = 0; i < 2 + (plan->cell.phases > 1 ? 1 + plan->carried : 0); i++) offsets[d][i] = layout.add(h_bytes);
  const int64_t projected = layout.add(state->chunk_rows * projection_row);
  if (!state->memory.allocate(size_t(layout.bytes)) || !state->order.resize(size_t(max_batch)) ||
      !state->lengths.resize(size_t(max_batch))) {
    hrnn_state_destroy(state);
    return fail(error, HRNN_OUT_OF_MEMORY, "no memory for a state of %lld bytes", static_cast<long long>(layout.bytes));
  }
  uint8_t *base = reinterpret_cast<uint8_t *>(state->memory.data());
  for (int64_t d = 0; d < plan->directions; d++) {
    DirectionState &s = state->directions[d];
    s.h[0] = base + offsets[d][0];
    s.h[1] = base + offsets[d][1];
    if (plan->cell.phases > 1) s.operand = base + offsets[d][2];
    for (int64_t i = 0; plan->cell.phases > 1 && i < plan->carried; i++) s.carried[i] = base + offsets[d][3 + i];
  }
  state->projected = base + projected;
  memset(base, 0, size_t(layout.bytes));
  if (plan->choice.device != nullptr) {
    hrnn_status status = device_state_init(state, error);
    if (status != HRNN_OK) {
      hrnn_state_destroy(state);
      return status;
    }
  }
  *out = state;
  return HRNN_OK;
}

void hrnn_state_destroy(hrnn_state *state) {
  if (state == nullptr) return;
  device_state_destroy(state);
  destroy_object(state);
}

size_t hrnn_state_bytes(const hrnn_state *state) {
  return sizeof *state + state->memory.size() + state->order.bytes() + state->lengths.bytes();
}

void hrnn_state_reset(hrnn_state *state) {
  const size_t bytes = size_t(state->max_batch * state->plan->padded() * state->plan->element);
  for (int64_t d = 0; d < state->plan->directions; d++)
    for (uint8_t *half : state->directions[d].h) memset(half, 0, bytes);
}

static hrnn_status check_state_batch(const hrnn_state *state, int64_t batch, const void *h, hrnn_error *error) {
  if (state == nullptr || h == nullptr)
    return fail(error, HRNN_INVALID_ARGUMENT, "%s is NULL", state == nullptr ? "state" : "h");
  if (batch >= 0 && batch <= state->max_batch) return HRNN_OK;
  return fail(error, HRNN_CAPACITY, "batch is %lld; the state was created for max_batch %lld",
              static_cast<long long>(batch), static_cast<long long>(state->max_batch));
}

hrnn_status hrnn_state_set(hrnn_state *state, int64_t batch, const void *h, hrnn_error *error) {
  hrnn_status status = check_state_batch(state, batch, h, error);
  if (status != HRNN_OK) return status;
  const size_t bytes = size_t(state->plan->hidden * state->plan->element);
  const uint8_t *from = static_cast<const uint8_t *>(h);
  for (int64_t d = 0; d < state->plan->directions; d++) {
    DirectionState &s = state->directions[d];
    for (int64_t b = 0; b < batch; b++, from += bytes) memcpy(state_row(*state->plan, s.h[s.current], b), from, bytes);
  }
  return HRNN_OK;
}

hrnn_status hrnn_state_get(const hrnn_state *state, int64_t batch, void *h, hrnn_error *error) {
  hrnn_status status = check_state_batch(state, batch, h, error);
  if (status != HRNN_OK) return status;
  const size_t bytes = size_t(state->plan->hidden * state->plan->element);
  uint8_t *to = static_cast<uint8_t *>(h);
  for (int64_t d = 0; d < state->plan->directions; d++) {
    const DirectionState &s = state->directions[d];
    for (int64_t b = 0; b < batch; b++, to += bytes) memcpy(to, state_row(*state->plan, s.h[s.current], b), bytes);
  }
  return HRNN_OK;
}

hrnn_status hrnn_plan_run(const hrnn_plan *plan, hrnn_state *state, const hrnn_run_args *args, hrnn_error *error) {
  return run(plan, state, args, false, error);
}

hrnn_status hrnn_stream(const hrnn_plan *plan, hrnn_state *state, const hrnn_run_args *args, hrnn_error *error) {
  return run(plan, state, args, true, error);
}

}  // extern "C"
