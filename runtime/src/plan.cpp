// SPDX-License-Identifier: Apache-2.0
#include "plan.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "plan_internal.h"
#include "status.h"

namespace hrnn {
namespace {

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

// ---- Plans and states ---------------------------------------------------------------------------------------------

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
  if (plan->carried > HRNN_MAX_CARRIED)
    return fail(error, HRNN_UNSUPPORTED, "cell '%s' carries %lld values between its phases; the limit is %d", p.cell,
                static_cast<long long>(plan->carried), HRNN_MAX_CARRIED);
  plan->caches = cache_sizes(r.machine);
  plan->team = options != nullptr ? options->team : nullptr;
  plan->layout = packed_layer(p.dtype, plan->cell, plan->directions, plan->input, plan->hidden);
  for (int d = 0; d < 2; d++) plan->activations[d] = activation_arguments(p, d);
  return HRNN_OK;
}

// The calls of each direction: of all panels, and of shares for the threads of a team. False: no memory.
bool init_calls(hrnn_state *state) {
  const hrnn_plan &plan = *state->plan;
  const int64_t threads = plan.team == nullptr ? 1 : team_threads(plan.team) / plan.directions;
  const int64_t count = threads < plan.panels ? threads : plan.panels;
  state->share_count = count > 1 ? uint32_t(count) : 0;
  for (int64_t d = 0; d < plan.directions; d++) {
    DirectionState &s = state->directions[d];
    s.whole.init(plan, d, state->max_batch, 0, 1);
    for (int64_t i = 0; i < plan.cell.phases; i++) s.fused[i].init(plan, d, i);
    if (state->share_count == 0) continue;
    s.shares = static_cast<Share *>(malloc(sizeof(Share) * size_t(count)));
    if (s.shares == nullptr) return false;
    for (int64_t i = 0; i < count; i++)
      (::new (&s.shares[i]) Share)->init(plan, d, state->max_batch, i, count);
  }
  return true;
}

// Between what two threads write: processors fetch cache lines in pairs, or several ahead.
constexpr int64_t kApartBytes = 256;

// Where everything of a state lies from `base` on; returns how many bytes there are.
int64_t lay_out(hrnn_state *state, uint8_t *base) {
  const hrnn_plan &plan = *state->plan;
  int64_t bytes = 0;
  auto add = [&](int64_t size) {
    uint8_t *at = base == nullptr ? nullptr : base + bytes;
    bytes += round_up(size, kRowBytes);
    return at;
  };
  const int64_t h_bytes = state->max_batch * plan.padded() * plan.element;
  for (int64_t i = 0; i < plan.directions; i++) {
    DirectionState &d = state->directions[i];
    if (plan.team != nullptr) add(kApartBytes);
    for (uint8_t *&half : d.h) half = add(h_bytes);
    if (plan.cell.phases > 1) d.operand = add(h_bytes);
    for (int64_t c = 0; plan.cell.phases > 1 && c < plan.carried; c++) d.carried[c] = add(h_bytes);
  }
  for (int64_t i = 0; i < plan.directions; i++) {
    DirectionState &d = state->directions[i];
    const bool own = i == 0 || plan.team != nullptr;  // directions that run at the same time need one each
    if (plan.team != nullptr) add(kApartBytes);
    d.projected = own ? add(state->chunk_rows * plan.row_values() * plan.element) : state->directions[0].projected;
    d.gathered = state->directions[0].gathered;
    if (own && state->max_batch > 1) d.gathered = add(state->chunk_rows * plan.input * plan.element);
  }
  return bytes;
}

}  // namespace

void Share::init(const hrnn_plan &plan, int64_t direction, int64_t max_batch, int64_t number, int64_t count) {
  index = number, begin = plan.panels * number / count, end = plan.panels * (number + 1) / count;
  projection.init(plan.choice.directions[direction].projection, plan.problem.dtype, plan.cell.gates, plan.panels, plan.input,
                  plan.projection(direction), plan.layout.projection, begin, end);
  for (int64_t i = 0; i < plan.cell.phases; i++) phases[i].init(plan, direction, i, max_batch, begin, end);
}

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
  if (max_batch < 1 || max_batch > INT32_MAX / plan->row_values())
    return fail(error, HRNN_INVALID_ARGUMENT, "max_batch is %lld; it must be between 1 and %lld for this layer",
                static_cast<long long>(max_batch), static_cast<long long>(INT32_MAX / plan->row_values()));
  hrnn_state *state = create_object<hrnn_state>();
  if (state == nullptr) return fail(error, HRNN_OUT_OF_MEMORY, "no memory for a state");
  state->plan = plan;
  state->max_batch = max_batch;
  state->chunk_rows = std::max(kChunkRows, max_batch);

  const int64_t bytes = lay_out(state, nullptr);
  if (!state->memory.allocate(size_t(bytes)) || !state->lanes.allocate(max_batch)) {
    hrnn_state_destroy(state);
    return fail(error, HRNN_OUT_OF_MEMORY, "no memory for a state of %lld bytes", static_cast<long long>(bytes));
  }
  uint8_t *base = reinterpret_cast<uint8_t *>(state->memory.data());
  lay_out(state, base);
  memset(base, 0, size_t(bytes));
  if (plan->choice.device == nullptr && !init_calls(state)) {
    hrnn_state_destroy(state);
    return fail(error, HRNN_OUT_OF_MEMORY, "no memory for the calls of a team");
  }
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
  for (DirectionState &direction : state->directions) free(direction.shares);  // nothing in them to destroy
  device_state_destroy(state);
  destroy_object(state);
}

size_t hrnn_state_bytes(const hrnn_state *state) {
  return sizeof *state + state->memory.size() + state->lanes.bytes() +
         size_t(state->plan->directions * state->share_count) * sizeof(Share);
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

}  // extern "C"
