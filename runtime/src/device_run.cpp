// SPDX-License-Identifier: Apache-2.0
//
// Runs a direction on a GPU. Steps of a stretch of time are launched one after another without waiting; their states
// are kept in a history on the device and fetched once a stretch.
#include <cstring>
#include <initializer_list>

#include "hrnn/device.h"
#include "plan_internal.h"
#include "status.h"

namespace hrnn {

struct DeviceWeights {
  hrnn_device_memory *memory;
  uint64_t projection[2][2], phases[2][HRNN_MAX_PHASES][2];  // handles of weights and bias per direction
};

struct DeviceState {
  hrnn_device_memory *x, *projected, *history, *between[1 + HRNN_MAX_CARRIED];
  int64_t chunk_steps;  // of max_batch rows
  AlignedBuffer staging;
};

namespace {

constexpr int64_t kDeviceChunkBytes = 16 << 20;  // of projections on the device

// Views into device memory begin at multiples of this: the largest base alignment that OpenCL devices ask for.
constexpr int64_t kViewAlignment = 512;

int64_t aligned(int64_t bytes) { return (bytes + kViewAlignment - 1) / kViewAlignment * kViewAlignment; }

// One step's states in the history.
int64_t slot_bytes(const hrnn_plan &plan, int64_t batch) { return aligned(batch * plan.padded() * plan.element); }

hrnn_status failed(hrnn_error *error, const hrnn_plan &plan, const char *what, int code) {
  return fail(error, HRNN_DEVICE_ERROR, "%s: %s failed with error %d", plan.choice.target->name, what, code);
}

// A buffer on the device. A view into memory is given back with the scope.
template <int N>
struct DeviceTensor : Tensor<N> {
  const hrnn_device *device = nullptr;
  hrnn_device_memory *viewed = nullptr;

  void init(const hrnn_plan &plan) {
    Tensor<N>::init(plan.problem.dtype);
    device = plan.choice.device;
    this->buffer.device_interface = device->buffer_interface();
  }
  int view(hrnn_device_memory *memory, uint64_t offset) {
    release();
    viewed = memory;
    return device->view(memory, offset, &this->buffer.device);
  }
  void release() {
    if (viewed != nullptr) device->release_view(viewed, this->buffer.device);
    viewed = nullptr;
  }
  ~DeviceTensor() { release(); }
};

void set_weights(const hrnn_plan &plan, DeviceTensor<4> *weights, DeviceTensor<3> *bias, int64_t gates, int64_t inner,
                 const uint64_t (&handles)[2]) {
  weights->init(plan);
  weights->set(0, plan.lanes, 1);
  weights->set(1, gates, plan.lanes);
  weights->set(2, inner, plan.lanes * gates);
  weights->set(3, plan.panels, plan.lanes * gates * inner);
  weights->buffer.device = handles[0];
  bias->init(plan);
  bias->set(0, plan.lanes, 1);
  bias->set(1, gates, plan.lanes);
  bias->set(2, plan.panels, plan.lanes * gates);
  bias->buffer.device = handles[1];
}

template <class T>
void set_panels(const hrnn_plan &plan, T *tensor, int64_t rows) {
  tensor->set(0, plan.lanes, 1);
  tensor->set(1, plan.panels, plan.lanes);
  tensor->set(2, rows, plan.padded());
}

// Input rows of steps [begin, end) as [step, row, I] into the staging memory.
void gather_input(const Pass &pass, int64_t begin, int64_t end, uint8_t *to) {
  const hrnn_run_args &a = *pass.args;
  const size_t bytes = size_t(pass.plan->input * pass.plan->element);
  for (int64_t s = begin; s < end; s++) {
    const int64_t active = pass.active(s);
    for (int64_t b = 0; b < a.batch; b++, to += bytes) {
      const Point point = b < active ? pass.at(s, b) : Point{0, 0};
      const int64_t at = point.time * a.x_time_stride + point.sequence * a.x_batch_stride;
      if (b < active)
        memcpy(to, static_cast<const uint8_t *>(a.x) + at * pass.plan->element, bytes);
      else
        memset(to, 0, bytes);
    }
  }
}

hrnn_status project(const Pass &pass, DeviceState *d, int64_t rows, hrnn_error *error) {
  const hrnn_plan &plan = *pass.plan;
  DeviceTensor<4> weights, out;
  DeviceTensor<3> bias;
  DeviceTensor<2> x;
  set_weights(plan, &weights, &bias, plan.cell.gates, plan.input, plan.device_weights->projection[pass.direction]);
  x.init(plan);
  x.set(0, plan.input, 1);
  x.set(1, rows, plan.input);
  out.init(plan);
  out.set(0, plan.lanes, 1);
  out.set(1, plan.cell.gates, plan.lanes);
  out.set(2, plan.panels, plan.lanes * plan.cell.gates);
  out.set(3, rows, plan.row_values());
  int code = x.view(d->x, 0);
  if (code == 0) code = out.view(d->projected, 0);
  void *args[] = {weights.arg(), bias.arg(), x.arg(), out.arg()};
  const KernelSet &kernels = plan.choice.directions[pass.direction].projection;
  if (code == 0) code = kernels.kernels[kernels.count - 1]->entry(args);
  return code == 0 ? HRNN_OK : failed(error, plan, "the input projection", code);
}

// Step `index` of a stretch: history[index] -> history[index + 1], on the first `rows` rows.
int launch_step(const Pass &pass, DeviceState *d, int64_t index, int64_t rows) {
  const hrnn_plan &plan = *pass.plan;
  const int64_t batch = pass.args->batch, slot = slot_bytes(plan, batch);
  const LayerKernels &chosen = plan.choice.directions[pass.direction];
  for (int64_t phase = 0; phase < plan.cell.phases; phase++) {
    const bool last = phase + 1 == plan.cell.phases;
    DeviceTensor<4> weights, input;
    DeviceTensor<3> bias, state, carried[HRNN_MAX_CARRIED], out[1 + HRNN_MAX_CARRIED];
    DeviceTensor<2> operand;
    set_weights(plan, &weights, &bias, plan.cell.gates_of_phase(phase), plan.hidden, plan.device_weights->phases[pass.direction][phase]);

    input.init(plan);
    input.set(0, plan.lanes, 1);
    input.set(1, plan.cell.gates, plan.lanes);
    input.set(2, plan.panels, plan.lanes * plan.cell.gates);
    input.set(3, batch, plan.row_values(), -index * batch);  // row 0 of this step is row index * batch of the stretch
    state.init(plan);
    set_panels(plan, &state, batch);
    operand.init(plan);
    operand.set(0, plan.hidden, 1);
    operand.set(1, batch, plan.padded());
    int code = input.view(d->projected, 0);
    if (code == 0) code = state.view(d->history, uint64_t(index * slot));
    if (code == 0) code = phase == 0 ? operand.view(d->history, uint64_t(index * slot)) : operand.view(d->between[0], 0);

    void *args[5 + HRNN_MAX_CARRIED + 3 * HRNN_MAX_ACTIVATIONS + 1 + 1 + HRNN_MAX_CARRIED];
    int n = 0;
    for (void *arg : {weights.arg(), bias.arg(), input.arg(), operand.arg(), state.arg()}) args[n++] = arg;
    for (int64_t i = 0; phase > 0 && i < plan.carried && code == 0; i++) {
      carried[i].init(plan);
      set_panels(plan, &carried[i], batch);
      code = carried[i].view(d->between[1 + i], 0);
      args[n++] = carried[i].arg();
    }
    if (chosen.any_activation) append_activation_arguments(plan, pass.direction, args, &n);
    for (int64_t i = 0; i < (last ? 1 : 1 + plan.carried) && code == 0; i++) {
      out[i].init(plan);
      set_panels(plan, &out[i], rows);
      code = last ? out[i].view(d->history, uint64_t((index + 1) * slot)) : out[i].view(d->between[i], 0);
      args[n++] = out[i].arg();
    }
    const KernelSet &kernels = chosen.phases[phase];
    if (code == 0) code = kernels.kernels[kernels.count - 1]->entry(args);
    if (code != 0) return code;
  }
  return 0;
}

// States of steps [begin, end) from the fetched history to y; sequences that end here put theirs into the state.
void scatter_outputs(const Pass &pass, int64_t begin, int64_t end, const uint8_t *history) {
  const hrnn_plan &plan = *pass.plan;
  const hrnn_run_args &a = *pass.args;
  const int64_t row_bytes = plan.padded() * plan.element;
  const size_t bytes = size_t(plan.hidden * plan.element);
  uint8_t *final_state = pass.state->directions[pass.direction].h[0];
  for (int64_t s = begin; s < end; s++) {
    const uint8_t *states = history + (s + 1 - begin) * slot_bytes(plan, a.batch);
    for (int64_t b = 0; b < pass.active(s); b++) {
      const Point point = pass.at(s, b);
      const int64_t at = point.time * a.y_time_stride + pass.direction * a.y_dir_stride + point.sequence * a.y_batch_stride;
      if (a.y != nullptr) memcpy(static_cast<uint8_t *>(a.y) + at * plan.element, states + b * row_bytes, bytes);
      if (s + 1 == end || s + 1 == pass.steps(b)) memcpy(final_state + b * row_bytes, states + b * row_bytes, bytes);
    }
  }
}

hrnn_status run_stretch(const Pass &pass, int64_t begin, int64_t end, hrnn_error *error) {
  const hrnn_plan &plan = *pass.plan;
  const hrnn_device &device = *plan.choice.device;
  DeviceState *d = pass.state->device;
  DirectionState &host = pass.state->directions[pass.direction];
  const int64_t batch = pass.args->batch, steps = end - begin;
  const uint64_t state_bytes = uint64_t(batch * plan.padded() * plan.element);
  uint8_t *staging = reinterpret_cast<uint8_t *>(d->staging.data());

  gather_input(pass, begin, end, staging);
  int code = device.upload(d->x, 0, staging, uint64_t(steps * batch * plan.input * plan.element));
  if (code == 0) code = device.upload(d->history, 0, host.h[host.current], state_bytes);
  if (code != 0) return failed(error, plan, "copying the input", code);
  hrnn_status status = project(pass, d, steps * batch, error);
  if (status != HRNN_OK) return status;
  for (int64_t s = begin; s < end && code == 0; s++) code = launch_step(pass, d, s - begin, pass.active(s));
  if (code != 0) return failed(error, plan, "launching a step", code);
  code = device.download(d->history, 0, staging, uint64_t(slot_bytes(plan, batch) * (steps + 1)));
  if (code != 0) return failed(error, plan, "copying the states back", code);
  // The state lives in h[0] from here on.
  if (host.current == 1) memcpy(host.h[0], host.h[1], state_bytes);
  host.current = 0;
  scatter_outputs(pass, begin, end, staging);
  return HRNN_OK;
}

}  // namespace

hrnn_status device_plan_init(hrnn_plan *plan, hrnn_error *error) {
  const hrnn_device &device = *plan->choice.device;
  DeviceWeights *w = create_object<DeviceWeights>();
  if (w == nullptr) return fail(error, HRNN_OUT_OF_MEMORY, "no memory for a plan");
  *w = {};
  plan->device_weights = w;
  // Every block of weights and of biases gets an aligned place of its own.
  int64_t bytes = 0;
  int code = 0;
  auto place = [&](const uint8_t *from, int64_t size, uint64_t *handle) {
    if (code == 0 && from != nullptr) code = device.upload(w->memory, uint64_t(bytes), from, uint64_t(size));
    if (code == 0 && from != nullptr) code = device.view(w->memory, uint64_t(bytes), handle);
    bytes += aligned(size);
  };
  auto place_product = [&](const uint8_t *block, const PackedProduct &product, uint64_t (&handles)[2]) {
    const int64_t weights = product.bias_offset - product.weights_offset, bias = product.bytes - product.bias_offset;
    place(block == nullptr ? nullptr : block + product.weights_offset, weights, &handles[0]);
    place(block == nullptr ? nullptr : block + product.bias_offset, bias, &handles[1]);
  };
  for (bool measuring : {true, false}) {
    for (int64_t d = 0; d < plan->directions; d++) {
      place_product(measuring ? nullptr : plan->projection(d), plan->layout.projection, w->projection[d]);
      for (int64_t i = 0; i < plan->cell.phases; i++)
        place_product(measuring ? nullptr : plan->phase(d, i), plan->layout.phases[i], w->phases[d][i]);
    }
    if (measuring) code = device.allocate(uint64_t(bytes), &w->memory);
    bytes = 0;
  }
  return code == 0 ? HRNN_OK : failed(error, *plan, "copying the weights", code);
}

void device_plan_destroy(hrnn_plan *plan) {
  DeviceWeights *w = plan->device_weights;
  if (w == nullptr) return;
  const hrnn_device &device = *plan->choice.device;
  auto release = [&](uint64_t (&handles)[2]) {
    for (uint64_t handle : handles)
      if (handle != 0) device.release_view(w->memory, handle);
  };
  for (int d = 0; d < 2; d++) {
    release(w->projection[d]);
    for (auto &phase : w->phases[d]) release(phase);
  }
  if (w->memory != nullptr) device.release(w->memory);
  destroy_object(w);
  plan->device_weights = nullptr;
}

hrnn_status device_state_init(hrnn_state *state, hrnn_error *error) {
  const hrnn_plan &plan = *state->plan;
  const hrnn_device &device = *plan.choice.device;
  DeviceState *d = create_object<DeviceState>();
  if (d == nullptr) return fail(error, HRNN_OUT_OF_MEMORY, "no memory for a state");
  state->device = d;
  const int64_t step_bytes = state->max_batch * plan.row_values() * plan.element;
  d->chunk_steps = kDeviceChunkBytes / step_bytes > 1 ? kDeviceChunkBytes / step_bytes : 1;
  const int64_t x_bytes = d->chunk_steps * state->max_batch * plan.input * plan.element;
  const int64_t h_bytes = slot_bytes(plan, state->max_batch);
  const int64_t history_bytes = (d->chunk_steps + 1) * h_bytes;
  int code = device.allocate(uint64_t(x_bytes), &d->x);
  if (code == 0) code = device.allocate(uint64_t(d->chunk_steps * step_bytes), &d->projected);
  if (code == 0) code = device.allocate(uint64_t(history_bytes), &d->history);
  for (int64_t i = 0; plan.cell.phases > 1 && i < 1 + plan.carried && code == 0; i++)
    code = device.allocate(uint64_t(h_bytes), &d->between[i]);
  if (code != 0) return failed(error, plan, "allocating device memory", code);
  if (!d->staging.allocate(size_t(x_bytes > history_bytes ? x_bytes : history_bytes)))
    return fail(error, HRNN_OUT_OF_MEMORY, "no memory to stage %lld bytes", static_cast<long long>(x_bytes));
  return HRNN_OK;
}

void device_state_destroy(hrnn_state *state) {
  DeviceState *d = state->device;
  if (d == nullptr) return;
  const hrnn_device &device = *state->plan->choice.device;
  hrnn_device_memory *all[] = {d->x, d->projected, d->history, d->between[0], d->between[1], d->between[2], d->between[3]};
  for (hrnn_device_memory *memory : all)
    if (memory != nullptr) device.release(memory);
  destroy_object(d);
  state->device = nullptr;
}

hrnn_status device_run(const Pass &pass, hrnn_error *error) {
  const int64_t total = pass.steps();
  const int64_t steps = pass.state->device->chunk_steps;
  for (int64_t begin = 0; begin < total;) {
    const int64_t end = begin + steps < total ? begin + steps : total;
    hrnn_status status = run_stretch(pass, begin, end, error);
    if (status != HRNN_OK) return status;
    begin = end;
  }
  return HRNN_OK;
}

}  // namespace hrnn
