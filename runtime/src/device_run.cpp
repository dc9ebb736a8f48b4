// SPDX-License-Identifier: Apache-2.0
//
// Runs a direction on a GPU. Steps of a stretch of time are launched one after another without waiting; their states
// are kept in a history on the device and fetched once a stretch. While the device computes one stretch, the host copies the
// outputs of the one before to where they go, and the inputs of the next together; where the caller's arrays are pinned and lie
// as the device has them, it copies from and to them itself. Inputs and states lie in the order of time, whichever way the pass goes.
#include <algorithm>
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

// The history is a ring of chunk_steps + 1 slots, a state each. Inputs and states are copied from and to two parts of
// `staging`, which is pinned where the driver can do that: copies are several times as fast then.
struct DeviceState {
  hrnn_device_memory *x, *projected, *history, *between[1 + HRNN_MAX_CARRIED];
  int64_t chunk_steps, staged_steps;  // of a stretch of max_batch rows: at most, and where the host copies
  AlignedBuffer staging;
  uint8_t *x_staging, *history_staging;
  bool pinned;
};

namespace {

// Of a stretch: projections on the device, and what is copied from and to the host. Large enough that waiting once a stretch
// does not count, and, where the host copies too, small enough that the first inputs and the last outputs, whose copies nothing
// hides, do not either.
constexpr int64_t kProjectedBytes = 16 << 20, kCopiedBytes = 16 << 20, kStagedBytes = 4 << 20;

// Views into device memory begin at multiples of this: the largest base alignment that OpenCL devices ask for.
constexpr int64_t kViewAlignment = 512;

int64_t aligned(int64_t bytes) { return (bytes + kViewAlignment - 1) / kViewAlignment * kViewAlignment; }

// One step's states in the history.
int64_t slot_bytes(const hrnn_plan &plan, int64_t batch) { return aligned(batch * plan.padded() * plan.element); }

// Steps [begin, end) of a pass, from the state in slot `first` of the history. Those of a reverse one are later in time than what
// follows them.
struct Stretch {
  int64_t begin, end, first;
  bool reverse;

  int64_t steps() const { return end - begin; }
  // The place of its step `index` among those of the stretch.
  int64_t place(int64_t index) const { return reverse ? steps() - 1 - index : index; }
  // Where the state is after `done` of its steps.
  int64_t slot(const DeviceState &d, int64_t done) const {
    const int64_t slots = d.chunk_steps + 1;
    return reverse ? (first + slots - done) % slots : (first + done) % slots;
  }
};

// Which of the caller's arrays the device copies from and to.
struct Direct {
  bool x, y;
};

// Of arrays smaller than this, a copy on the host costs less than asking about them and copying lines.
constexpr int64_t kDirectBytes = 64 << 10;

Direct direct_copies(const Pass &pass) {
  const hrnn_plan &plan = *pass.plan;
  const hrnn_run_args &a = *pass.args;
  // Steps of `values` each, `apart` from one another.
  auto pinned = [&](const void *memory, int64_t values, int64_t apart) {
    const int64_t bytes = ((a.time - 1) * apart + values) * plan.element;
    return a.time * values * plan.element >= kDirectBytes && plan.choice.device->is_pinned(memory, uint64_t(bytes)) == 1;
  };
  const int64_t x_step = a.batch * plan.input, y_step = a.batch * plan.hidden;
  const bool x_as_there = !pass.ragged && (a.batch == 1 || a.x_batch_stride == plan.input) && (a.time == 1 || a.x_time_stride == x_step);
  const bool y_as_there = !pass.ragged && (a.batch == 1 || (a.y_batch_stride == plan.hidden && plan.padded() == plan.hidden)) &&
                          (a.time == 1 || a.y_time_stride >= y_step);
  const Direct direct = {x_as_there && pinned(a.x, x_step, x_step), false};
  if (a.y == nullptr || !y_as_there) return direct;
  const auto *y = static_cast<const uint8_t *>(a.y) + pass.direction * a.y_dir_stride * plan.element;
  return {direct.x, pinned(y, y_step, a.y_time_stride)};
}

hrnn_status failed(hrnn_error *error, const hrnn_plan &plan, const char *what, int code) {
  return fail(error, HRNN_DEVICE_ERROR, "%s: %s failed with error %d: %s", plan.choice.target->name, what, code,
              plan.choice.device->failure());
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

// Input rows of a stretch as [place, row, I] into the staging memory.
void gather_input(const Pass &pass, const Stretch &stretch) {
  const hrnn_run_args &a = *pass.args;
  const size_t bytes = size_t(pass.plan->input * pass.plan->element);
  for (int64_t s = stretch.begin; s < stretch.end; s++) {
    const int64_t active = pass.active(s);
    uint8_t *to = pass.state->device->x_staging + size_t(stretch.place(s - stretch.begin) * a.batch) * bytes;
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

// About as many blocks as there are multiprocessors in half a large GPU.
constexpr int64_t kEnoughBlocks = 64;

// The kernel for so many rows: one launch takes them all, and takes rows of a tile that goes beyond them twice. Of many rows
// a block where that leaves enough blocks.
const hrnn_kernel &kernel_for(const KernelSet &set, int64_t panels, int64_t rows) {
  int i = 0;
  while (i + 1 < set.count && (set.kernels[i]->rows > rows || panels * rows / set.kernels[i]->rows < kEnoughBlocks)) i++;
  return *set.kernels[i];
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
  if (code == 0) code = kernel_for(plan.choice.directions[pass.direction].projection, plan.panels, rows).entry(args);
  return code == 0 ? HRNN_OK : failed(error, plan, "the input projection", code);
}

// Step `index` of a stretch, from its slot of the history to the next, on the first `rows` rows.
int launch_step(const Pass &pass, DeviceState *d, const Stretch &stretch, int64_t index, int64_t rows) {
  const hrnn_plan &plan = *pass.plan;
  const int64_t batch = pass.args->batch, slot = slot_bytes(plan, batch);
  const uint64_t from = uint64_t(stretch.slot(*d, index) * slot), to = uint64_t(stretch.slot(*d, index + 1) * slot);
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
    const int64_t before = stretch.place(index) * batch;  // rows of the stretch
    input.set(3, before + batch, plan.row_values(), -before);
    state.init(plan);
    set_panels(plan, &state, batch);
    operand.init(plan);
    operand.set(0, plan.hidden, 1);
    operand.set(1, batch, plan.padded());
    int code = input.view(d->projected, 0);
    if (code == 0) code = state.view(d->history, from);
    if (code == 0) code = phase == 0 ? operand.view(d->history, from) : operand.view(d->between[0], 0);

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
      code = last ? out[i].view(d->history, to) : out[i].view(d->between[i], 0);
      args[n++] = out[i].arg();
    }
    if (code == 0) code = kernel_for(chosen.phases[phase], plan.panels, rows).entry(args);
    if (code != 0) return code;
  }
  return 0;
}

// Where the stretch's input lies, in the order of its places.
const void *input_of(const Pass &pass, const Stretch &stretch, const Direct &direct) {
  if (!direct.x) return pass.state->device->x_staging;
  const hrnn_run_args &a = *pass.args;
  const int64_t time = pass.reverse ? a.time - stretch.end : stretch.begin;
  return static_cast<const uint8_t *>(a.x) + time * a.batch * pass.plan->input * pass.plan->element;
}

// Copies the input to the device and launches everything.
hrnn_status start(const Pass &pass, const Stretch &stretch, const Direct &direct, hrnn_error *error) {
  const hrnn_plan &plan = *pass.plan;
  DeviceState *d = pass.state->device;
  const int64_t rows = stretch.steps() * pass.args->batch;
  int code = plan.choice.device->upload(d->x, 0, input_of(pass, stretch, direct), uint64_t(rows * plan.input * plan.element));
  if (code != 0) return failed(error, plan, "copying the input", code);
  const hrnn_status status = project(pass, d, rows, error);
  for (int64_t i = 0; i < stretch.steps() && status == HRNN_OK && code == 0; i++)
    code = launch_step(pass, d, stretch, i, pass.active(stretch.begin + i));
  return code == 0 ? status : failed(error, plan, "launching a step", code);
}

// The first step of a stretch whose states the host wants: where only the last ones are, and all sequences end there, that one.
int64_t first_wanted(const Pass &pass, const Stretch &stretch, const Direct &direct) {
  if (pass.ragged || (pass.args->y != nullptr && !direct.y)) return stretch.begin;
  return stretch.end == pass.steps() ? stretch.end - 1 : stretch.end;
}

// Calls copy(slot, done, slots) for the states after steps `from` and later of a stretch: `slots` of them, from `slot` on, the first
// computed of which is that after `done` steps. They are one piece of the ring, or two.
template <class Copy>
int for_each_piece(const DeviceState &d, const Stretch &stretch, int64_t from, Copy copy) {
  for (int64_t done = from; done < stretch.steps();) {
    const int64_t slot = stretch.slot(d, done + 1);
    const int64_t slots = std::min(stretch.steps() - done, stretch.reverse ? slot + 1 : d.chunk_steps + 1 - slot);
    if (const int code = copy(stretch.reverse ? slot - slots + 1 : slot, done, slots)) return code;
    done += slots;
  }
  return 0;
}

// Waits for the states of a stretch: to y where it takes them, and into the staging memory where they are wanted.
hrnn_status fetch(const Pass &pass, const Stretch &stretch, const Direct &direct, hrnn_error *error) {
  const hrnn_plan &plan = *pass.plan;
  const hrnn_device &device = *plan.choice.device;
  const hrnn_run_args &a = *pass.args;
  DeviceState *d = pass.state->device;
  const int64_t bytes = slot_bytes(plan, a.batch);
  int code = 0;
  if (direct.y) {
    code = for_each_piece(*d, stretch, 0, [&](int64_t slot, int64_t done, int64_t slots) {
      const int64_t step = stretch.begin + done, time = pass.reverse ? a.time - step - slots : step;
      const int64_t at = time * a.y_time_stride + pass.direction * a.y_dir_stride;
      return device.download_pieces(d->history, uint64_t(slot * bytes), uint64_t(bytes), static_cast<uint8_t *>(a.y) + at * plan.element,
                                    uint64_t(a.y_time_stride * plan.element), uint64_t(a.batch * plan.hidden * plan.element),
                                    uint64_t(slots));
    });
  }
  if (code == 0) {
    const int64_t from = first_wanted(pass, stretch, direct) - stretch.begin;
    code = for_each_piece(*d, stretch, from, [&](int64_t slot, int64_t, int64_t slots) {
      return device.download(d->history, uint64_t(slot * bytes), d->history_staging + slot * bytes, uint64_t(slots * bytes));
    });
  }
  return code == 0 ? HRNN_OK : failed(error, plan, "copying the states back", code);
}

// The fetched states to y; sequences that end here put theirs into the state.
void scatter_outputs(const Pass &pass, const Stretch &stretch, const Direct &direct) {
  const hrnn_plan &plan = *pass.plan;
  const hrnn_run_args &a = *pass.args;
  const DeviceState &d = *pass.state->device;
  const int64_t row_bytes = plan.padded() * plan.element;
  const size_t bytes = size_t(plan.hidden * plan.element);
  uint8_t *final_state = pass.state->directions[pass.direction].h[0];
  for (int64_t s = first_wanted(pass, stretch, direct); s < stretch.end; s++) {
    const uint8_t *states = d.history_staging + stretch.slot(d, s + 1 - stretch.begin) * slot_bytes(plan, a.batch);
    for (int64_t b = 0; b < pass.active(s); b++) {
      const Point point = pass.at(s, b);
      const int64_t at = point.time * a.y_time_stride + pass.direction * a.y_dir_stride + point.sequence * a.y_batch_stride;
      if (a.y != nullptr && !direct.y) memcpy(static_cast<uint8_t *>(a.y) + at * plan.element, states + b * row_bytes, bytes);
      if (s + 1 == pass.steps(b)) memcpy(final_state + b * row_bytes, states + b * row_bytes, bytes);
    }
  }
}

// The state into the first slot. It lives in h[0] from here on.
hrnn_status send_state(const Pass &pass, hrnn_error *error) {
  const hrnn_plan &plan = *pass.plan;
  DirectionState &host = pass.state->directions[pass.direction];
  const uint64_t bytes = uint64_t(pass.args->batch * plan.padded() * plan.element);
  if (host.current == 1) memcpy(host.h[0], host.h[1], bytes);
  host.current = 0;
  const int code = plan.choice.device->upload(pass.state->device->history, 0, host.h[0], bytes);
  return code == 0 ? HRNN_OK : failed(error, plan, "copying the state", code);
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
  const int64_t x_step = state->max_batch * plan.input * plan.element, h_step = slot_bytes(plan, state->max_batch);
  d->chunk_steps = std::max<int64_t>(1, std::min(kProjectedBytes / step_bytes, kCopiedBytes / (x_step + h_step)));
  d->staged_steps = std::max<int64_t>(1, std::min(d->chunk_steps, kStagedBytes / (x_step + h_step)));
  const int64_t x_bytes = aligned(d->chunk_steps * x_step), history_bytes = (d->chunk_steps + 1) * h_step;
  int code = device.allocate(uint64_t(x_bytes), &d->x);
  if (code == 0) code = device.allocate(uint64_t(d->chunk_steps * step_bytes), &d->projected);
  if (code == 0) code = device.allocate(uint64_t(history_bytes), &d->history);
  for (int64_t i = 0; plan.cell.phases > 1 && i < 1 + plan.carried && code == 0; i++)
    code = device.allocate(uint64_t(h_step), &d->between[i]);
  if (code != 0) return failed(error, plan, "allocating device memory", code);
  if (!d->staging.allocate(size_t(x_bytes + history_bytes)))
    return fail(error, HRNN_OUT_OF_MEMORY, "no memory to stage %lld bytes", static_cast<long long>(x_bytes + history_bytes));
  d->x_staging = reinterpret_cast<uint8_t *>(d->staging.data());
  d->history_staging = d->x_staging + x_bytes;
  d->pinned = device.pin(d->staging.data(), d->staging.size()) == 0;
  return HRNN_OK;
}

void device_state_destroy(hrnn_state *state) {
  DeviceState *d = state->device;
  if (d == nullptr) return;
  const hrnn_device &device = *state->plan->choice.device;
  hrnn_device_memory *all[] = {d->x, d->projected, d->history, d->between[0], d->between[1], d->between[2], d->between[3]};
  for (hrnn_device_memory *memory : all)
    if (memory != nullptr) device.release(memory);
  if (d->pinned) device.unpin(d->staging.data());
  destroy_object(d);
  state->device = nullptr;
}

hrnn_status device_run(const Pass &pass, hrnn_error *error) {
  const int64_t total = pass.steps();
  if (total == 0) return HRNN_OK;
  const Direct direct = direct_copies(pass);
  const bool staged = !direct.x || (pass.args->y != nullptr && !direct.y);
  const int64_t most = staged ? pass.state->device->staged_steps : pass.state->device->chunk_steps;
  auto stretch_from = [&](int64_t begin, int64_t first) {
    return Stretch{begin, std::min(begin + most, total), first, pass.reverse};
  };
  auto gather = [&](const Stretch &stretch) {
    if (!direct.x && stretch.steps() > 0) gather_input(pass, stretch);
  };
  Stretch now = stretch_from(0, 0);
  gather(now);
  hrnn_status status = send_state(pass, error);
  if (status == HRNN_OK) status = start(pass, now, direct, error);
  while (status == HRNN_OK) {
    const Stretch next = stretch_from(now.end, now.slot(*pass.state->device, now.steps()));
    gather(next);
    status = fetch(pass, now, direct, error);
    if (status == HRNN_OK && next.steps() > 0) status = start(pass, next, direct, error);
    if (status == HRNN_OK) scatter_outputs(pass, now, direct);
    if (next.steps() == 0) break;
    now = next;
  }
  return status;
}

}  // namespace hrnn
