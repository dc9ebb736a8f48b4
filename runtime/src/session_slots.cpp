// SPDX-License-Identifier: Apache-2.0
//
// What follows from a program alone: who produces what, which values share a slot of the arena. See session.h.
#include "session.h"

namespace hrnn {
namespace {

constexpr int64_t kSlotAlignment = 64;

// Operations that compute: their outputs need memory. A Reshape may turn out to be a copy.
bool may_write(const OpRecord &op) { return !is_view(op.kind) || is_kind(op, OpKind::Reshape); }

// ---- Once a program -------------------------------------------------------------------------------------------------

// Who produces each value, and the last operation that reads its memory, also through views.
void find_readers(hrnn_session *session) {
  const Program &program = session->program;
  const uint32_t op_count = static_cast<uint32_t>(program.ops.size());
  Array<SessionTensor> &tensors = session->tensors;
  for (uint32_t id = 0; id < tensors.size(); ++id) {
    tensors[id].producer = -1;
    tensors[id].root = id;
  }
  for (uint32_t i = 0; i < op_count; ++i) {
    const OpRecord &op = program.ops[i];
    for (uint32_t out : op.outputs) {
      if (out == kNone) continue;
      tensors[out].producer = static_cast<int32_t>(i);
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
}

// The operand of an elementwise operation that may be computed where the result will lie: of the same shape and type,
// and nothing reads it again, nor another operand the same memory.
int32_t in_place_operand(const hrnn_session *session, uint32_t index) {
  const Program &program = session->program;
  const OpRecord &op = program.ops[index];
  if (!is_kind(op, OpKind::Elementwise) || op.ints[kInPlace] == 0) return -1;
  const int32_t slot = static_cast<int32_t>(op.ints[kInPlace]) - 1;
  const uint32_t in = op.inputs[slot], root = session->tensors[in].root;
  if (session->tensors[root].producer < 0 || session->tensors[root].last_read > index ||
      program.tensors[in].dtype != program.tensors[op.outputs[0]].dtype) {
    return -1;
  }
  for (int32_t k = 0; k < kMaxOpInputs; ++k) {
    if (k != slot && op.inputs[k] != kNone && session->tensors[op.inputs[k]].root == root) return -1;
  }
  return slot;
}

// The operations between which each value's memory is in use, assuming the most: that every view is one, that every
// input of a Concat is computed in the Concat's place, and what may be computed in place is.
void find_lifetimes(hrnn_session *session) {
  const Program &program = session->program;
  const uint32_t op_count = static_cast<uint32_t>(program.ops.size());
  Array<SessionTensor> &tensors = session->tensors;
  find_readers(session);
  for (uint32_t i = 0; i < op_count; ++i) {
    const OpRecord &op = program.ops[i];
    const int32_t in_place = session->ops[i].in_place = in_place_operand(session, i);
    uint32_t first_write = i;
    for (int32_t k = 0; k < kMaxOpInputs; ++k) {
      const uint32_t in = op.inputs[k];
      if (in == kNone || tensors[in].producer < 0) continue;
      const bool shares = is_view(op.kind) || is_kind(op, OpKind::Concat) || k == in_place;
      if (shares && tensors[in].first_write < first_write) first_write = tensors[in].first_write;
    }
    for (uint32_t out : op.outputs) {
      if (out != kNone) tensors[out].first_write = first_write;
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

// Per layer, the layer that reads its Y as X, or kNone.
bool find_followers(const hrnn_session *session, Array<uint32_t> *followers) {
  const Program &program = session->program;
  if (!followers->resize(program.ops.size())) return false;
  for (uint32_t &follower : *followers) follower = kNone;
  for (uint32_t i = 0; i < program.ops.size(); ++i) {
    const OpRecord &op = program.ops[i];
    if (!is_recurrent(op)) continue;
    const uint32_t x = session->tensors[op.inputs[kX]].root;
    const int32_t producer = session->tensors[x].producer;
    if (producer < 0) continue;
    const OpRecord &source = program.ops[static_cast<size_t>(producer)];
    if (is_recurrent(source) && source.outputs[kY] == x) (*followers)[static_cast<size_t>(producer)] = i;
  }
  return true;
}

// Values whose lifetimes do not overlap share a slot: walk along the operations and reuse any slot that has become
// free.
bool assign_slots(hrnn_session *session) {
  const Program &program = session->program;
  const size_t op_count = program.ops.size();
  struct Storage {
    uint32_t op, index, end, next;  // next with the same start
  };
  Array<uint32_t> followers;
  if (!find_followers(session, &followers)) return false;
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
      // As many layers as there are threads may run at the same time: then the first goes on reading while the last writes.
      uint32_t end = tensor.last_read;
      for (uint32_t n = 1; n < session->threads && end < op_count && followers[end] != kNone; ++n) end = followers[end];
      if (!add(k, tensor.first_write, end)) return false;
    }
    const bool copies = is_recurrent(op) || is_kind(op, OpKind::Dense) || is_kind(op, OpKind::MatMul);
    for (int k = 0; copies && k < kInputStorages; ++k) {
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
  if (is_kind(op, OpKind::Pad)) return 2 * HRNN_MAX_RANK + 1;  // a border each side, and what lies inside
  size_t count = 2;                                            // packing, running
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

int64_t slot_size(int32_t rank, const int64_t *dims, int32_t dtype) {
  int64_t count = 0;
  element_count(rank, dims, &count);  // was fine when the dims were inferred
  return (count * dtype_bytes(dtype) + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment;
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
