// SPDX-License-Identifier: Apache-2.0
//
// From shapes to instructions: see session.h.
#include <cstring>

#include "session.h"
#include "status.h"

namespace hrnn {
namespace {

constexpr int64_t kSlotAlignment = 64;

int64_t slot_size(int32_t rank, const int64_t *dims, int32_t dtype) {
  int64_t count = 0;
  element_count(rank, dims, &count);  // was fine when the dims were inferred
  return (count * dtype_bytes(dtype) + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment;
}

bool is_recurrent(const OpRecord &op) { return is_kind(op, OpKind::Recurrent); }

// Operations that compute: their outputs need memory. A Reshape may turn out to be a copy.
bool may_write(const OpRecord &op) { return !is_view(op.kind) || is_kind(op, OpKind::Reshape); }

// ---- Once a program -------------------------------------------------------------------------------------------------

// The operations between which each value's memory is in use, assuming the most: that every view is one, and that every
// input of a Concat is computed in the Concat's place.
void find_lifetimes(hrnn_session *session) {
  const Program &program = session->program;
  const uint32_t op_count = static_cast<uint32_t>(program.ops.size());
  Array<SessionTensor> &tensors = session->tensors;
  for (uint32_t id = 0; id < tensors.size(); ++id) {
    tensors[id].producer = -1;
    tensors[id].root = id;
  }
  for (uint32_t i = 0; i < op_count; ++i) {
    const OpRecord &op = program.ops[i];
    uint32_t first_write = i;
    for (uint32_t in : op.inputs) {
      if (in == kNone || tensors[in].producer < 0) continue;
      if ((is_view(op.kind) || is_kind(op, OpKind::Concat)) && tensors[in].first_write < first_write) {
        first_write = tensors[in].first_write;
      }
    }
    for (uint32_t out : op.outputs) {
      if (out == kNone) continue;
      tensors[out].producer = static_cast<int32_t>(i);
      tensors[out].first_write = first_write;
      tensors[out].last_read = i;
      if (is_view(op.kind)) tensors[out].root = tensors[op.inputs[0]].root;
    }
  }
  for (uint32_t id : program.outputs) {
    tensors[id].is_output = true;
    if (tensors[id].producer < 0) tensors[id].last_read = op_count;  // copied to the output after everything
  }
  for (uint32_t i = op_count; i-- > 0;) {
    const OpRecord &op = program.ops[i];
    for (uint32_t in : op.inputs) {
      if (in == kNone) continue;
      uint32_t last = i;
      if (is_view(op.kind) && tensors[op.outputs[0]].last_read > last) last = tensors[op.outputs[0]].last_read;
      if (last > tensors[in].last_read) tensors[in].last_read = last;
    }
  }
  for (uint32_t i = 0; i < op_count; ++i) {
    const OpRecord &op = program.ops[i];
    if (!is_kind(op, OpKind::Concat)) continue;
    uint32_t &last = tensors[op.outputs[0]].last_read;
    for (uint32_t in : op.inputs) {
      if (in == kNone) continue;
      const SessionTensor &root = tensors[tensors[in].root];
      if (root.producer >= 0 && root.last_read > last) last = root.last_read;
    }
  }
}

// Values whose lifetimes do not overlap share a slot: walk along the operations and reuse any slot that has become
// free.
bool assign_slots(hrnn_session *session) {
  const Program &program = session->program;
  const size_t op_count = program.ops.size();
  struct Storage {
    uint32_t op, index, end, next;  // next with the same start
  };
  Array<Storage> storages;
  Array<uint32_t> starting;  // per operation, the head of the list of storages that start there
  if (!starting.resize(op_count)) return false;
  for (uint32_t &head : starting) head = kNone;
  for (uint32_t i = 0; i < op_count; ++i) {
    const OpRecord &op = program.ops[i];
    for (uint32_t &slot : session->ops[i].slots) slot = kNone;
    const auto add = [&](int index, uint32_t start, uint32_t end) {
      if (!storages.push_back({i, static_cast<uint32_t>(index), end, starting[start]})) return false;
      starting[start] = static_cast<uint32_t>(storages.size() - 1);
      return true;
    };
    for (int k = 0; may_write(op) && k < kOutputStorages; ++k) {
      if (op.outputs[k] == kNone) continue;
      const SessionTensor &tensor = session->tensors[op.outputs[k]];
      if (!add(k, tensor.first_write, tensor.last_read)) return false;
    }
    const bool is_layer = is_recurrent(op) || is_kind(op, OpKind::Dense);
    for (int k = 0; is_layer && k < kInputStorages; ++k) {
      if (op.inputs[k] != kNone && !add(kOutputStorages + k, i, i)) return false;
    }
  }
  Array<uint32_t> slot_ends;
  for (uint32_t i = 0; i < op_count; ++i) {
    for (uint32_t id = starting[i]; id != kNone; id = storages[id].next) {
      const Storage &storage = storages[id];
      uint32_t slot = 0;
      while (slot < slot_ends.size() && slot_ends[slot] >= i) ++slot;
      if (slot == slot_ends.size() && !slot_ends.push_back(0)) return false;
      slot_ends[slot] = storage.end;
      session->ops[storage.op].slots[storage.index] = slot;
    }
  }
  return session->slot_bytes.resize(slot_ends.size());
}

// May output `output` lie in the memory of input `input`? If the input has been read for the last time before the
// output is first written. Also, for the usual "state in, state out": where the final state of a layer is an output and
// its initial state an input, element by element the one is read before the other is written.
Overlap overlap_of(const hrnn_session *session, uint32_t output, uint32_t input) {
  const SessionTensor &out = session->tensors[output], &in = session->tensors[input];
  if (out.producer < 0) return Overlap::kForbidden;
  if (in.last_read < out.first_write) return Overlap::kAllowed;
  const OpRecord &op = session->program.ops[static_cast<size_t>(out.producer)];
  if (in.last_read > out.first_write || !is_recurrent(op) || op.outputs[kYh] != output ||
      op.inputs[kInitialH] != input) {
    return Overlap::kForbidden;
  }
  for (int k = 0; k < kMaxOpInputs; ++k) {
    if (k != kInitialH && op.inputs[k] != kNone && session->tensors[op.inputs[k]].root == input) {
      return Overlap::kForbidden;
    }
  }
  return Overlap::kSameAddress;
}

size_t instructions_of(const OpRecord &op) {
  if (is_view(op.kind)) return 1;  // a Reshape's copy
  size_t count = 2;                // packing, running
  for (uint32_t in : op.inputs) count += in != kNone;
  return count;
}

}  // namespace

bool analyse_program(hrnn_session *session) {
  const Program &program = session->program;
  if (!session->tensors.resize(program.tensors.size()) || !session->ops.resize(program.ops.size())) return false;
  find_lifetimes(session);
  if (!assign_slots(session)) return false;
  const size_t inputs = program.inputs.size(), outputs = program.outputs.size();
  if (!session->overlaps.resize(inputs * outputs)) return false;
  for (size_t o = 0; o < outputs; ++o) {
    for (size_t i = 0; i < inputs; ++i) {
      session->overlaps[o * inputs + i] = overlap_of(session, program.outputs[o], program.inputs[i]);
    }
  }
  size_t instructions = outputs;  // copies to them
  for (const OpRecord &op : program.ops) instructions += instructions_of(op);
  session->first_output_base = kFirstInputBase + static_cast<uint32_t>(inputs);
  session->first_slot_base = session->first_output_base + static_cast<uint32_t>(outputs);
  return session->bases.resize(session->first_slot_base + session->slot_bytes.size()) &&
         session->symbols.resize(program.symbols.size()) && session->symbol_origins.resize(program.symbols.size()) &&
         session->wanted.resize(outputs) && session->bound_wanted.resize(outputs) &&
         session->instructions.resize(instructions);
}

// ---- Each time the shapes change ------------------------------------------------------------------------------------

namespace {

#define HRNN_OP_FORMAT "%s '%s': "
#define HRNN_OP_NAME(op) op_kind_name((op).kind), program_.op_name(op)

class Binder {
 public:
  Binder(hrnn_session *session, const uint8_t *wanted, bool streaming, hrnn_error *error)
      : s_(*session), program_(session->program), wanted_(wanted), streaming_(streaming), error_(error) {}

  hrnn_status bind(const hrnn_tensor *inputs) {
    s_.bound = false;
    s_.instruction_count = 0;
    for (int64_t &bytes : s_.slot_bytes) bytes = 0;
    for (SessionTensor &tensor : s_.tensors) tensor.needed = tensor.has_home = false;

    hrnn_status status = bind_inputs(inputs);
    for (size_t i = 0; status == HRNN_OK && i < program_.ops.size(); ++i) status = infer(i);
    if (status == HRNN_OK) status = check_outputs();
    if (status != HRNN_OK) return status;
    find_needed();
    find_homes();
    for (uint32_t i = 0; i < program_.ops.size(); ++i) {
      if (s_.ops[i].live) emit(i);
    }
    for (uint32_t o = 0; o < program_.outputs.size(); ++o) {
      const SessionTensor &tensor = s_.tensors[program_.outputs[o]];
      if (wanted_[o] != 0 && tensor.producer < 0) copy(tensor.place, output_place(o), program_.outputs[o]);
    }
    return HRNN_OK;
  }

 private:
  int32_t rank(uint32_t id) const { return program_.tensors[id].rank; }
  int32_t dtype(uint32_t id) const { return program_.tensors[id].dtype; }
  int64_t *dims(uint32_t id) { return s_.tensors[id].dims; }
  TensorView dense(uint32_t id) { return dense_view(rank(id), dims(id)); }

  // ---- Shapes ------------------------------------------------------------------------------------------------------

  hrnn_status bind_inputs(const hrnn_tensor *inputs) {
    for (int64_t &value : s_.symbols) value = -1;
    for (uint32_t i = 0; i < program_.inputs.size(); ++i) {
      const uint32_t id = program_.inputs[i];
      for (int32_t d = 0; d < rank(id); ++d) {
        const int64_t actual = inputs[i].dims[d], declared = program_.tensors[id].dims[d];
        if (actual < 0) {
          return fail(error_, HRNN_INVALID_ARGUMENT, "input '%s': dimension %d is %lld", program_.tensor_name(id), d,
                      static_cast<long long>(actual));
        }
        if (declared >= 0) {
          if (actual != declared) {
            return fail(error_, HRNN_INVALID_ARGUMENT, "input '%s': dimension %d is %lld, the model says %lld",
                        program_.tensor_name(id), d, static_cast<long long>(actual), static_cast<long long>(declared));
          }
        } else {
          const size_t symbol = static_cast<size_t>(-1 - declared);
          if (s_.symbols[symbol] < 0) {
            s_.symbols[symbol] = actual;
            s_.symbol_origins[symbol] = static_cast<int64_t>(i) * HRNN_MAX_RANK + d;
          } else if (s_.symbols[symbol] != actual) {
            const int64_t origin = s_.symbol_origins[symbol];
            return fail(error_, HRNN_INVALID_ARGUMENT,
                        "input '%s': dimension %d ('%s') is %lld, but dimension %d of input '%s' says it is %lld",
                        program_.tensor_name(id), d, program_.symbol_name(symbol), static_cast<long long>(actual),
                        static_cast<int>(origin % HRNN_MAX_RANK),
                        program_.tensor_name(program_.inputs[static_cast<size_t>(origin / HRNN_MAX_RANK)]),
                        static_cast<long long>(s_.symbols[symbol]));
          }
        }
        dims(id)[d] = actual;
      }
      int64_t count = 0;
      if (!element_count(rank(id), dims(id), &count)) {
        return fail(error_, HRNN_INVALID_ARGUMENT, "input '%s': its dimensions multiply to an absurd size",
                    program_.tensor_name(id));
      }
      set_place(id, {kFirstInputBase + i, dense(id)});
    }
    for (uint32_t id = 0; id < s_.tensors.size(); ++id) {
      const TensorRecord &record = program_.tensors[id];
      if (record.is_constant == 0) continue;
      memcpy(dims(id), record.dims, sizeof(record.dims));
      Place place = {kWeightsBase, dense(id)};
      place.view.offset = static_cast<int64_t>(record.data_offset) / dtype_bytes(record.dtype);
      set_place(id, place);
    }
    return HRNN_OK;
  }

  hrnn_status check_outputs() {
    for (uint32_t id : program_.outputs) {
      const TensorRecord &record = program_.tensors[id];
      for (int32_t d = 0; d < record.rank; ++d) {
        const int64_t actual = dims(id)[d], declared = record.dims[d];
        if (declared >= 0 && declared != actual) {
          return fail(error_, HRNN_INVALID_ARGUMENT,
                      "output '%s': dimension %d is %lld with these inputs, the model "
                      "says %lld",
                      program_.tensor_name(id), d, static_cast<long long>(actual), static_cast<long long>(declared));
        }
        if (declared >= 0) continue;
        const size_t symbol = static_cast<size_t>(-1 - declared);
        if (s_.symbols[symbol] < 0) s_.symbols[symbol] = actual;
        if (s_.symbols[symbol] != actual) {
          return fail(error_, HRNN_INVALID_ARGUMENT,
                      "output '%s': dimension %d ('%s') is %lld with these inputs, which "
                      "say elsewhere that it is %lld",
                      program_.tensor_name(id), d, program_.symbol_name(symbol), static_cast<long long>(actual),
                      static_cast<long long>(s_.symbols[symbol]));
        }
      }
    }
    return HRNN_OK;
  }

  hrnn_status expect_dim(const OpRecord &op, const char *operand, int slot, int dimension, int64_t expected) {
    if (op.inputs[slot] == kNone) return HRNN_OK;
    const int64_t actual = dims(op.inputs[slot])[dimension];
    if (actual == expected) return HRNN_OK;
    return fail(error_, HRNN_INVALID_ARGUMENT, HRNN_OP_FORMAT "dimension %d of %s is %lld, it must be %lld",
                HRNN_OP_NAME(op), dimension, operand, static_cast<long long>(actual), static_cast<long long>(expected));
  }

  hrnn_status infer_recurrent(const OpRecord &op, SessionOp &state) {
    const int time_axis = op.ints[kLayout] == 1 ? 1 : 0, batch_axis = 1 - time_axis;
    const int64_t *x = dims(op.inputs[kX]);
    const int64_t time = x[time_axis], batch = x[batch_axis], directions = state.directions;
    const int64_t input = op.ints[kInputSize], hidden = op.ints[kHiddenSize], units = state.cell.gates * hidden;
    state.batch = batch;
    const int h_dir = op.ints[kLayout] == 1 ? 1 : 0, h_batch = 1 - h_dir;
    const struct {
      const char *name;
      int slot, dimension;
      int64_t expected;
    } expectations[] = {
        {"X", kX, 2, input},
        {"W", kW, 0, directions},
        {"W", kW, 1, units},
        {"W", kW, 2, input},
        {"R", kR, 0, directions},
        {"R", kR, 1, units},
        {"R", kR, 2, hidden},
        {"B", kB, 0, directions},
        {"B", kB, 1, 2 * units},
        {"sequence_lens", kSequenceLens, 0, batch},
        {"initial_h", kInitialH, h_dir, directions},
        {"initial_h", kInitialH, h_batch, batch},
        {"initial_h", kInitialH, 2, hidden},
    };
    for (const auto &expectation : expectations) {
      const hrnn_status status =
          expect_dim(op, expectation.name, expectation.slot, expectation.dimension, expectation.expected);
      if (status != HRNN_OK) return status;
    }
    if (op.outputs[kY] != kNone) {
      int64_t *y = dims(op.outputs[kY]);
      y[0] = op.ints[kLayout] == 1 ? batch : time;
      y[1] = op.ints[kLayout] == 1 ? time : directions;
      y[2] = op.ints[kLayout] == 1 ? directions : batch;
      y[3] = hidden;
    }
    if (op.outputs[kYh] != kNone) {
      int64_t *h = dims(op.outputs[kYh]);
      h[h_dir] = directions;
      h[h_batch] = batch;
      h[2] = hidden;
    }
    return HRNN_OK;
  }

  hrnn_status infer_dense(const OpRecord &op) {
    const int last = rank(op.inputs[kDenseX]) - 1;
    const bool transposed = op.ints[kDenseTransposed] == 1;
    hrnn_status status = expect_dim(op, "the input", kDenseX, last, op.ints[kDenseIn]);
    if (status == HRNN_OK) status = expect_dim(op, "the weights", kDenseW, transposed ? 1 : 0, op.ints[kDenseOut]);
    if (status == HRNN_OK) status = expect_dim(op, "the weights", kDenseW, transposed ? 0 : 1, op.ints[kDenseIn]);
    if (status == HRNN_OK) status = expect_dim(op, "the bias", kDenseB, 0, op.ints[kDenseOut]);
    if (status != HRNN_OK) return status;
    memcpy(dims(op.outputs[0]), dims(op.inputs[kDenseX]), sizeof(SessionTensor::dims));
    dims(op.outputs[0])[last] = op.ints[kDenseOut];
    return HRNN_OK;
  }

  int64_t target_dim(int64_t dim) const { return dim <= -2 ? s_.symbols[static_cast<size_t>(-2 - dim)] : dim; }

  hrnn_status infer_reshape(const OpRecord &op) {
    const uint32_t in = op.inputs[0];
    int64_t *out = dims(op.outputs[0]);
    int64_t count = 0, known = 1;
    element_count(rank(in), dims(in), &count);  // it was fine when `in` was inferred
    // The inferred dimension is left / taken, both without the dimensions that stay in place: those may be 0.
    int64_t left = 1, taken = 1;
    int inferred = -1;
    bool fits = true;
    for (int i = 0; i < HRNN_MAX_RANK; ++i) {
      const bool has_in = i < rank(in), has_out = i < op.ints[0], is_inferred = has_out && op.ints[1 + i] == -1;
      if (is_inferred) {
        inferred = i;
      } else if (has_out) {
        out[i] = op.ints[1 + i] == 0 ? dims(in)[i] : target_dim(op.ints[1 + i]);
        fits = fits && multiply_sizes(known, out[i], &known);
      }
      if (has_in && has_out && !is_inferred && dims(in)[i] == out[i]) continue;
      if (has_in) fits = fits && multiply_sizes(left, dims(in)[i], &left);
      if (has_out && !is_inferred) fits = fits && multiply_sizes(taken, out[i], &taken);
    }
    if (fits && inferred >= 0) {
      fits = taken > 0 && left % taken == 0;
      if (fits) {
        out[inferred] = left / taken;
        fits = multiply_sizes(known, out[inferred], &known);
      }
    }
    if (fits && known == count) return HRNN_OK;
    return fail(error_, HRNN_INVALID_ARGUMENT,
                HRNN_OP_FORMAT "%lld elements do not fit the new shape, whose known dimensions multiply to %lld",
                HRNN_OP_NAME(op), static_cast<long long>(count), static_cast<long long>(known));
  }

  hrnn_status infer_expand(const OpRecord &op) {
    const uint32_t in = op.inputs[0];
    const int32_t out_rank = rank(op.outputs[0]), in_rank = rank(in), target_rank = static_cast<int32_t>(op.ints[0]);
    for (int32_t i = 0; i < out_rank; ++i) {
      const int32_t from = i - (out_rank - in_rank), to = i - (out_rank - target_rank);
      const int64_t have = from < 0 ? 1 : dims(in)[from], want = to < 0 ? 1 : target_dim(op.ints[1 + to]);
      if (have != want && have != 1 && want != 1) {
        return fail(error_, HRNN_INVALID_ARGUMENT, HRNN_OP_FORMAT "dimension %d of %lld cannot be repeated to %lld",
                    HRNN_OP_NAME(op), from, static_cast<long long>(have), static_cast<long long>(want));
      }
      dims(op.outputs[0])[i] = have == 1 ? want : have;
    }
    return HRNN_OK;
  }

  hrnn_status infer_concat(const OpRecord &op) {
    const int axis = static_cast<int>(op.ints[0]);
    int64_t *out = dims(op.outputs[0]);
    memcpy(out, dims(op.inputs[0]), sizeof(SessionTensor::dims));
    for (int slot = 1; slot < kMaxOpInputs && op.inputs[slot] != kNone; ++slot) {
      const int64_t *in = dims(op.inputs[slot]);
      for (int i = 0; i < rank(op.inputs[slot]); ++i) {
        if (i == axis) {
          out[i] += in[i];  // each is at most 2^56
        } else if (in[i] != out[i]) {
          return fail(error_, HRNN_INVALID_ARGUMENT,
                      HRNN_OP_FORMAT
                      "dimension %d is %lld in input %d and %lld in the "
                      "first",
                      HRNN_OP_NAME(op), i, static_cast<long long>(in[i]), slot, static_cast<long long>(out[i]));
        }
      }
    }
    return HRNN_OK;
  }

  hrnn_status infer_view(const OpRecord &op) {
    const uint32_t in = op.inputs[0], out = op.outputs[0];
    const int axis = static_cast<int>(op.ints[0]);
    const int64_t *from = dims(in);
    int64_t *to = dims(out);
    switch (static_cast<OpKind>(op.kind)) {
      case OpKind::Transpose:
        for (int i = 0; i < rank(out); ++i) to[i] = from[op.ints[i]];
        return HRNN_OK;
      case OpKind::Slice:
        memcpy(to, from, sizeof(SessionTensor::dims));
        to[axis] = slice_range(from[axis], op.ints[1], op.ints[2], op.ints[3]).count;
        return HRNN_OK;
      case OpKind::Select:
        if (op.ints[1] < -from[axis] || op.ints[1] >= from[axis]) {
          return fail(error_, HRNN_INVALID_ARGUMENT, HRNN_OP_FORMAT "index %lld is outside dimension %d, which is %lld",
                      HRNN_OP_NAME(op), static_cast<long long>(op.ints[1]), axis, static_cast<long long>(from[axis]));
        }
        break;
      case OpKind::Squeeze:
        if (from[axis] != 1) {
          return fail(error_, HRNN_INVALID_ARGUMENT, HRNN_OP_FORMAT "dimension %d is %lld, it must be 1",
                      HRNN_OP_NAME(op), axis, static_cast<long long>(from[axis]));
        }
        break;
      case OpKind::Unsqueeze:
        for (int i = 0; i < rank(out); ++i) to[i] = i == axis ? 1 : from[i < axis ? i : i - 1];
        return HRNN_OK;
      case OpKind::Reshape: return infer_reshape(op);
      default: return infer_expand(op);
    }
    for (int i = 0; i < rank(out); ++i) to[i] = from[i < axis ? i : i + 1];
    return HRNN_OK;
  }

  hrnn_status infer(size_t index) {
    const OpRecord &op = program_.ops[index];
    hrnn_status status = HRNN_OK;
    if (is_view(op.kind)) {
      status = infer_view(op);
    } else if (is_recurrent(op)) {
      status = infer_recurrent(op, s_.ops[index]);
    } else if (is_kind(op, OpKind::Dense)) {
      status = infer_dense(op);
    } else if (is_kind(op, OpKind::Concat)) {
      status = infer_concat(op);
    } else {
      memcpy(dims(op.outputs[0]), dims(op.inputs[0]), sizeof(SessionTensor::dims));
    }
    for (int k = 0; status == HRNN_OK && k < kMaxOpOutputs; ++k) {
      int64_t count = 0;
      if (op.outputs[k] != kNone && !element_count(rank(op.outputs[k]), dims(op.outputs[k]), &count)) {
        status = fail(error_, HRNN_INVALID_ARGUMENT, HRNN_OP_FORMAT "its output would have an absurd size",
                      HRNN_OP_NAME(op));
      }
    }
    return status;
  }

  // ---- Places ------------------------------------------------------------------------------------------------------

  void set_place(uint32_t id, const Place &place) { s_.tensors[id].place = place; }

  Place output_place(uint32_t output) { return {s_.first_output_base + output, dense(program_.outputs[output])}; }

  // A dense place of a tensor's shape in the slot an operation has for it.
  Place slot_place(uint32_t op, int storage, uint32_t id) {
    const uint32_t slot = s_.ops[op].slots[storage];
    const int64_t bytes = slot_size(rank(id), dims(id), dtype(id));
    if (bytes > s_.slot_bytes[slot]) s_.slot_bytes[slot] = bytes;
    return {s_.first_slot_base + slot, dense(id)};
  }

  static bool same_place(const Place &a, const Place &b) {
    return is_empty(a.view) || (a.base == b.base && same_elements(a.view, b.view));
  }

  // Rows of a layer's input or output: elements next to each other, and (as 0 stands for "dense" in hrnn_run_args)
  // no repeated ones.
  static bool has_plain_rows(const TensorView &view) {
    for (int32_t i = 0; i < view.rank; ++i) {
      if (view.dims[i] > 1 && (i == view.rank - 1 ? view.strides[i] != 1 : view.strides[i] == 0)) return false;
    }
    return true;
  }

  void find_needed() {
    for (uint32_t o = 0; o < program_.outputs.size(); ++o) {
      if (wanted_[o] != 0) s_.tensors[program_.outputs[o]].needed = true;
    }
    for (size_t i = program_.ops.size(); i-- > 0;) {
      const OpRecord &op = program_.ops[i];
      bool live = streaming_ && is_recurrent(op);  // its state goes on even when nobody looks
      for (uint32_t out : op.outputs) live = live || (out != kNone && s_.tensors[out].needed);
      s_.ops[i].live = live;
      for (int k = 0; live && k < kMaxOpInputs; ++k) {
        if (op.inputs[k] == kNone || (is_recurrent(op) && k == kInitialH && !s_.ops[i].has_initial_h)) continue;
        s_.tensors[op.inputs[k]].needed = true;
      }
    }
  }

  // The first to ask for a value at some place gets it there, unless its producer cannot write so.
  void offer_home(uint32_t id, const Place &home) {
    SessionTensor &tensor = s_.tensors[id];
    if (tensor.has_home || tensor.producer < 0) return;
    const OpRecord &op = program_.ops[static_cast<size_t>(tensor.producer)];
    if ((is_recurrent(op) || is_kind(op, OpKind::Dense)) && !has_plain_rows(home.view)) return;
    tensor.home = home;
    tensor.has_home = true;
  }

  Place concat_part(const OpRecord &op, const Place &whole, int slot) {
    const int axis = static_cast<int>(op.ints[0]);
    Place part = whole;
    for (int k = 0; k < slot; ++k) part.view.offset += whole.view.strides[axis] * dims(op.inputs[k])[axis];
    part.view.dims[axis] = dims(op.inputs[slot])[axis];
    return part;
  }

  void find_homes() {
    for (uint32_t o = 0; o < program_.outputs.size(); ++o) {
      if (wanted_[o] != 0) offer_home(program_.outputs[o], output_place(o));
    }
    for (uint32_t i = static_cast<uint32_t>(program_.ops.size()); i-- > 0;) {
      const OpRecord &op = program_.ops[i];
      if (!s_.ops[i].live) continue;
      if (is_kind(op, OpKind::Concat)) {
        const uint32_t out = op.outputs[0];
        if (!s_.tensors[out].has_home) offer_home(out, slot_place(i, 0, out));
        for (int k = 0; k < kMaxOpInputs && op.inputs[k] != kNone; ++k) {
          offer_home(op.inputs[k], concat_part(op, s_.tensors[out].home, k));
        }
      } else if (is_view(op.kind) && s_.tensors[op.outputs[0]].has_home) {
        const Place &out = s_.tensors[op.outputs[0]].home;
        const uint32_t in = op.inputs[0];
        Place home = {out.base, {}};
        if (invert_view(op, out.view, rank(in), dims(in), &home.view)) offer_home(in, home);
      }
    }
  }

  // ---- Instructions ------------------------------------------------------------------------------------------------

  Instruction &add(Action action, uint32_t op, int32_t dtype) {
    Instruction &instruction = s_.instructions[s_.instruction_count++];
    instruction.action = action;
    instruction.op = op;
    instruction.dtype = dtype;
    for (Operand &operand : instruction.operands) operand = {kNone, 0};
    return instruction;
  }

  static Operand operand_at(const Place &place, int32_t dtype) {
    return {place.base, place.view.offset * dtype_bytes(dtype)};
  }

  void copy(const Place &from, const Place &to, uint32_t id) {
    if (is_empty(from.view)) return;
    Instruction &instruction = add(Action::kCopy, kNone, dtype(id));
    instruction.operands[0] = operand_at(from, dtype(id));
    instruction.operands[1] = operand_at(to, dtype(id));
    instruction.loop = strided_loop(from.view, to.view);
  }

  // Called when tensor `id` has its place: brings it to the outputs that show it and are not that place themselves.
  void settle(uint32_t id) {
    const SessionTensor &tensor = s_.tensors[id];
    if (!tensor.needed || !tensor.is_output) return;
    for (uint32_t o = 0; o < program_.outputs.size(); ++o) {
      if (wanted_[o] == 0 || program_.outputs[o] != id) continue;
      const Place output = output_place(o);
      if (!same_place(tensor.place, output)) copy(tensor.place, output, id);
    }
  }

  Place output_of(uint32_t index, int k) {
    const uint32_t id = program_.ops[index].outputs[k];
    return s_.tensors[id].has_home ? s_.tensors[id].home : slot_place(index, k, id);
  }

  // An input in a form a layer can read.
  Place readable(uint32_t index, int k, bool must_be_dense) {
    const uint32_t id = program_.ops[index].inputs[k];
    const Place &place = s_.tensors[id].place;
    if (must_be_dense ? is_dense(place.view) : has_plain_rows(place.view)) return place;
    const Place scratch = slot_place(index, kOutputStorages + k, id);
    copy(place, scratch, id);
    return scratch;
  }

  void emit_packing(uint32_t index, Action action, int w, int r, int b, int32_t dtype) {
    const OpRecord &op = program_.ops[index];
    const int slots[3] = {w, r, b};
    Operand operands[3];
    for (int k = 0; k < 3; ++k) {
      operands[k] = {kNone, 0};
      if (slots[k] < 0 || op.inputs[slots[k]] == kNone) continue;
      operands[k] = operand_at(readable(index, slots[k], true), dtype);
    }
    Instruction &instruction = add(action, index, dtype);
    memcpy(instruction.operands, operands, sizeof(operands));
  }

  void emit_recurrent(uint32_t index) {
    const OpRecord &op = program_.ops[index];
    const SessionOp &state = s_.ops[index];
    const int32_t type = dtype(op.inputs[kX]);
    const bool batch_major = op.ints[kLayout] == 1;
    if (state.packed_offset >= 0) emit_packing(index, Action::kPackLayer, kW, kR, kB, type);

    const Place x = readable(index, kX, false);
    hrnn_run_args args = {};
    args.struct_size = sizeof(args);
    args.time = x.view.dims[batch_major ? 1 : 0];
    args.batch = state.batch;
    args.x_time_stride = x.view.strides[batch_major ? 1 : 0];
    args.x_batch_stride = x.view.strides[batch_major ? 0 : 1];
    Operand operands[5] = {operand_at(x, type), {kNone, 0}, {kNone, 0}, {kNone, 0}, {kNone, 0}};
    if (op.inputs[kSequenceLens] != kNone) {
      operands[1] = operand_at(readable(index, kSequenceLens, true), HRNN_I32);
    }
    if (state.has_initial_h) {
      const Place h0 = readable(index, kInitialH, false);
      operands[2] = operand_at(h0, type);
      args.h0_dir_stride = h0.view.strides[batch_major ? 1 : 0];
      args.h0_batch_stride = h0.view.strides[batch_major ? 0 : 1];
    }
    const uint32_t y_id = op.outputs[kY], h_id = op.outputs[kYh];
    if (y_id != kNone && s_.tensors[y_id].needed) {
      const Place y = output_of(index, kY);
      set_place(y_id, y);
      operands[3] = operand_at(y, type);
      args.y_time_stride = y.view.strides[batch_major ? 1 : 0];
      args.y_dir_stride = y.view.strides[batch_major ? 2 : 1];
      args.y_batch_stride = y.view.strides[batch_major ? 0 : 2];
    }
    if (h_id != kNone && s_.tensors[h_id].needed) {
      const Place h = output_of(index, kYh);
      set_place(h_id, h);
      operands[4] = operand_at(h, type);
      args.h_n_dir_stride = h.view.strides[batch_major ? 1 : 0];
      args.h_n_batch_stride = h.view.strides[batch_major ? 0 : 1];
    }
    Instruction &instruction = add(Action::kRunLayer, index, type);
    memcpy(instruction.operands, operands, sizeof(operands));
    instruction.args = args;
  }

  void emit_dense(uint32_t index) {
    const OpRecord &op = program_.ops[index];
    const uint32_t out = op.outputs[0];
    const int32_t type = dtype(out);
    if (s_.ops[index].packed_offset >= 0) emit_packing(index, Action::kPackDense, kDenseW, -1, kDenseB, type);
    Place x = readable(index, kDenseX, false);
    Place y = output_of(index, 0);
    set_place(out, y);
    if (is_empty(y.view)) return;
    Instruction &instruction = add(Action::kRunDense, index, type);
    instruction.operands[0] = operand_at(x, type);
    instruction.operands[1] = operand_at(y, type);
    // All dimensions but the last number rows; the longest run of rows at equal distances makes one call.
    --x.view.rank;
    --y.view.rank;
    StridedLoop &loop = instruction.loop;
    loop = strided_loop(x.view, y.view);
    const int32_t inner = loop.rank - 1;
    int32_t longest = inner;
    for (int32_t i = 0; i < inner; ++i) {
      if (loop.dims[i] > loop.dims[longest]) longest = i;
    }
    swap(loop.dims[longest], loop.dims[inner]);
    swap(loop.a_strides[longest], loop.a_strides[inner]);
    swap(loop.b_strides[longest], loop.b_strides[inner]);
  }

  static void swap(int64_t &a, int64_t &b) {
    const int64_t old = a;
    a = b;
    b = old;
  }

  void emit_reshape_copy(uint32_t index) {
    const OpRecord &op = program_.ops[index];
    const uint32_t in = op.inputs[0], out = op.outputs[0];
    // Copied in the input's shape, into a place that is seen in that shape.
    Place to = output_of(index, 0), to_as_in = {to.base, {}};
    if (!reshape_view(to.view, rank(in), dims(in), &to_as_in.view)) {
      to = slot_place(index, 0, out);
      to_as_in.base = to.base;
      reshape_view(to.view, rank(in), dims(in), &to_as_in.view);  // of a dense view: always possible
    }
    copy(s_.tensors[in].place, to_as_in, in);
    set_place(out, to);
  }

  void emit(uint32_t index) {
    const OpRecord &op = program_.ops[index];
    if (is_view(op.kind)) {
      const Place &in = s_.tensors[op.inputs[0]].place;
      const uint32_t out = op.outputs[0];
      Place place = {in.base, {}};
      if (apply_view(op, in.view, rank(out), dims(out), &place.view)) {
        set_place(out, place);
      } else {
        emit_reshape_copy(index);
      }
    } else if (is_recurrent(op)) {
      emit_recurrent(index);
    } else if (is_kind(op, OpKind::Dense)) {
      emit_dense(index);
    } else if (is_kind(op, OpKind::Concat)) {
      const uint32_t out = op.outputs[0];
      set_place(out, s_.tensors[out].home);
      for (int k = 0; k < kMaxOpInputs && op.inputs[k] != kNone; ++k) {
        const Place part = concat_part(op, s_.tensors[out].home, k);
        if (!same_place(s_.tensors[op.inputs[k]].place, part)) copy(s_.tensors[op.inputs[k]].place, part, out);
      }
    } else {
      const uint32_t in = op.inputs[0], out = op.outputs[0];
      const Place &from = s_.tensors[in].place;
      const Place to = output_of(index, 0);
      set_place(out, to);
      if (!is_empty(to.view)) {
        Instruction &instruction = add(Action::kActivate, index, dtype(out));
        instruction.operands[0] = operand_at(from, dtype(in));
        instruction.operands[1] = operand_at(to, dtype(out));
        instruction.loop = strided_loop(from.view, to.view);
      }
    }
    for (uint32_t out : op.outputs) {
      if (out != kNone) settle(out);
    }
  }

  hrnn_session &s_;
  const Program &program_;
  const uint8_t *wanted_;
  bool streaming_;
  hrnn_error *error_;
};

#undef HRNN_OP_FORMAT
#undef HRNN_OP_NAME

}  // namespace

hrnn_status bind_session(hrnn_session *session, const hrnn_tensor *inputs, const uint8_t *wanted, bool streaming,
                         hrnn_error *error) {
  return Binder(session, wanted, streaming, error).bind(inputs);
}

void most_slot_bytes(hrnn_session *session) {
  const Program &program = session->program;
  const auto raise = [&](uint32_t slot, uint32_t id) {
    if (slot == kNone) return;
    const TensorRecord &record = program.tensors[id];
    const int64_t bytes = slot_size(record.rank, session->tensors[id].dims, record.dtype);
    if (bytes > session->slot_bytes[slot]) session->slot_bytes[slot] = bytes;
  };
  for (size_t i = 0; i < program.ops.size(); ++i) {
    const OpRecord &op = program.ops[i];
    const uint32_t *slots = session->ops[i].slots;
    for (int k = 0; k < kOutputStorages; ++k) raise(slots[k], op.outputs[k]);
    for (int k = 0; k < kInputStorages; ++k) {
      // Inputs and constants of the model are dense, so a layer can read them where they are.
      if (op.inputs[k] != kNone && session->tensors[op.inputs[k]].producer < 0) continue;
      raise(slots[kOutputStorages + k], op.inputs[k]);
    }
  }
}

int64_t arena_bytes(const hrnn_session *session) {
  // Saturating: no allocation of that size succeeds.
  int64_t total = 0;
  for (int64_t bytes : session->slot_bytes) {
    if (bytes > INT64_MAX - total) return INT64_MAX;
    total += bytes;
  }
  return total;
}

void place_slots(hrnn_session *session) {
  char *at = session->arena.data();
  for (size_t i = 0; i < session->slot_bytes.size(); ++i) {
    session->bases[session->first_slot_base + i] = at;
    at += session->slot_bytes[i];
  }
}

}  // namespace hrnn
