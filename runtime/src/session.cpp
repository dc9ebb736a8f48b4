// SPDX-License-Identifier: Apache-2.0
//
// Sessions: creating one from a model, reserving memory, and running it. See session.h.
#include "session.h"

#include <cstring>

#include "select.h"
#include "status.h"
#include "team.h"

hrnn_session::~hrnn_session() {
  for (hrnn::SessionOp &op : ops) {
    if (op.state != nullptr) hrnn_state_destroy(op.state);
    if (op.plan != nullptr) hrnn_plan_destroy(op.plan);
    if (op.dense != nullptr) hrnn::dense_plan_destroy(op.dense);
  }
}

namespace hrnn {
namespace {

// A new session reserves memory for symbols of 1, unless that takes more than this.
constexpr int64_t kEagerBytes = int64_t{16} << 20;
// Memory for weights of run time that is taken even when their sizes could not be checked yet.
constexpr int64_t kMostUncheckedBytes = int64_t{256} << 20;

// Puts the operation's name in front of a message from below.
hrnn_status fail_in(const hrnn_session *session, const OpRecord &op, hrnn_status status, hrnn_error *error) {
  if (error == nullptr) return status;
  return fail(error, status, "%s '%s': %s", op_kind_name(op.kind), session->program.op_name(op), error->message);
}

hrnn_status no_memory(hrnn_error *error, const char *what, uint64_t bytes) {
  return fail(error, HRNN_OUT_OF_MEMORY, "no memory for %llu bytes of %s", static_cast<unsigned long long>(bytes),
              what);
}

// ---- Creating ------------------------------------------------------------------------------------------------------

// initial_h that is a constant zero, however expanded or sliced, is no initial state at all: frameworks export it for
// layers that were given none.
bool is_zero_constant(const hrnn_session *session, uint32_t id) {
  const Program &program = session->program;
  for (size_t i = program.ops.size(); program.tensors[id].is_constant == 0;) {
    // Operations are in order, so the chain of producers is found in one walk towards the front.
    while (i > 0 && program.ops[i - 1].outputs[0] != id) --i;
    if (i == 0 || !is_view(program.ops[i - 1].kind)) return false;
    id = program.ops[i - 1].inputs[0];
  }
  const TensorRecord &record = program.tensors[id];
  const char *bytes = static_cast<const char *>(session->weights) + record.data_offset;
  for (uint64_t i = 0; i < record.data_bytes; ++i) {
    if (bytes[i] != 0) return false;
  }
  return true;
}

hrnn_problem problem_of(const hrnn_session *session, const OpRecord &op, const SessionOp &state) {
  const TensorRecord &x = session->program.tensors[op.inputs[kX]];
  hrnn_problem problem = {};
  problem.struct_size = sizeof(problem);
  problem.dtype = x.dtype;
  problem.cell = session->program.string(static_cast<uint32_t>(op.ints[kCellName]));
  problem.direction = static_cast<int32_t>(op.ints[kDirection]);
  problem.clip_set = static_cast<int32_t>(op.ints[kClipSet]);
  problem.clip = op.reals[0];
  problem.input_size = op.ints[kInputSize];
  problem.hidden_size = op.ints[kHiddenSize];
  problem.activations_set = 1;
  for (int64_t d = 0; d < state.directions; ++d) {
    for (int a = 0; a < HRNN_MAX_ACTIVATIONS; ++a) {
      const int64_t i = d * HRNN_MAX_ACTIVATIONS + a, kind = op.ints[kActivationKinds + i];
      problem.activations[d][a].kind = static_cast<hrnn_activation_kind>(kind < 0 ? 0 : kind);
      problem.activations[d][a].alpha = op.reals[1 + 2 * i];
      problem.activations[d][a].beta = op.reals[2 + 2 * i];
    }
  }
  return problem;
}

// Checks what only the cell can tell, and counts the memory for weights that arrive at run time.
hrnn_status prepare_layer(hrnn_session *session, size_t index, int64_t *packed_bytes, hrnn_error *error) {
  const OpRecord &op = session->program.ops[index];
  SessionOp &state = session->ops[index];
  const char *label = session->program.op_name(op);
  const char *cell = session->program.string(static_cast<uint32_t>(op.ints[kCellName]));
  if (!find_cell(cell, {session->tables.data(), static_cast<size_t>(session->tables.size())}, &state.cell)) {
    return fail(error, HRNN_UNSUPPORTED, "recurrent layer '%s': no kernel offered here computes the cell '%s'", label,
                cell);
  }
  state.directions = op.ints[kDirection] == HRNN_BIDIRECTIONAL ? 2 : 1;
  for (int64_t d = 0; d < state.directions; ++d) {
    for (uint32_t a = 0; a < state.cell.activations; ++a) {
      if (op.ints[kActivationKinds + d * HRNN_MAX_ACTIVATIONS + a] < 0) {
        return fail(error, HRNN_CORRUPT_MODEL, "recurrent layer '%s': activation %u of direction %d is missing", label,
                    a, static_cast<int>(d));
      }
    }
  }
  const int32_t dtype = session->program.tensors[op.inputs[kX]].dtype;
  const PackedLayer layout =
      packed_layer(dtype, state.cell, state.directions, op.ints[kInputSize], op.ints[kHiddenSize]);
  if (op.ints[kPackedOffset] < 0) {
    state.packed_offset = *packed_bytes;
    *packed_bytes += layout.bytes;
  } else if (op.ints[kPackedBytes] != layout.bytes) {
    return fail(error, HRNN_CORRUPT_MODEL,
                "recurrent layer '%s': it has %lld bytes of packed weights, its sizes need "
                "%lld",
                label, static_cast<long long>(op.ints[kPackedBytes]), static_cast<long long>(layout.bytes));
  }
  state.has_initial_h = op.inputs[kInitialH] != kNone && !is_zero_constant(session, op.inputs[kInitialH]);
  return HRNN_OK;
}

// Fills in what each layer is, and counts the memory that weights of run time need.
hrnn_status prepare_layers(hrnn_session *session, int64_t *packed_bytes, hrnn_error *error) {
  const Program &program = session->program;
  *packed_bytes = 0;
  for (size_t i = 0; i < program.ops.size(); ++i) {
    const OpRecord &op = program.ops[i];
    SessionOp &state = session->ops[i];
    state.packed_offset = -1;
    if (is_kind(op, OpKind::Recurrent)) {
      const hrnn_status status = prepare_layer(session, i, packed_bytes, error);
      if (status != HRNN_OK) return status;
      if (!session->layers.push_back(static_cast<uint32_t>(i))) return no_memory(error, "tables", sizeof(uint32_t));
    } else if (is_kind(op, OpKind::Dense) && op.ints[kDensePackedOffset] < 0) {
      state.packed_offset = *packed_bytes;
      const int32_t dtype = program.tensors[op.inputs[kDenseX]].dtype;
      *packed_bytes += packed_product(dtype, 1, op.ints[kDenseOut], op.ints[kDenseIn]).bytes;
    }
    // A layer's share is below 2^57, so the sum cannot overflow before it is refused here.
    if (*packed_bytes > int64_t{1} << 56) return no_memory(error, "weights", static_cast<uint64_t>(*packed_bytes));
  }
  return HRNN_OK;
}

hrnn_status create_plans(hrnn_session *session, const hrnn_options *options, int64_t packed_bytes, hrnn_error *error) {
  const Program &program = session->program;
  if (!session->packed.allocate(static_cast<size_t>(packed_bytes))) {
    return no_memory(error, "weights", static_cast<uint64_t>(packed_bytes));
  }
  size_t dense_scratch = 0;
  for (size_t i = 0; i < program.ops.size(); ++i) {
    const OpRecord &op = program.ops[i];
    SessionOp &state = session->ops[i];
    const char *weights = static_cast<const char *>(session->weights);
    hrnn_status status = HRNN_OK;
    if (is_kind(op, OpKind::Recurrent)) {
      const hrnn_problem problem = problem_of(session, op, state);
      const char *packed =
          state.packed_offset < 0 ? weights + op.ints[kPackedOffset] : session->packed.data() + state.packed_offset;
      status = plan_create_packed(&problem, packed, options, &state.plan, error);
    } else if (is_kind(op, OpKind::Dense)) {
      const char *packed = state.packed_offset < 0 ? weights + op.ints[kDensePackedOffset]
                                                   : session->packed.data() + state.packed_offset;
      status = dense_plan_create(program.tensors[op.inputs[kDenseX]].dtype, op.ints[kDenseIn], op.ints[kDenseOut],
                                 packed, options, &state.dense, error);
      if (status == HRNN_OK && dense_scratch_bytes(state.dense) > dense_scratch) {
        dense_scratch = dense_scratch_bytes(state.dense);
      }
    }
    if (status != HRNN_OK) return fail_in(session, op, status, error);
  }
  if (!session->dense_scratch.allocate(dense_scratch)) return no_memory(error, "workspace", dense_scratch);
  return HRNN_OK;
}

// ---- Reserving -----------------------------------------------------------------------------------------------------

hrnn_status check_count(const char *what, const hrnn_tensor *tensors, size_t given, size_t expected,
                        hrnn_error *error) {
  if (given != expected) {
    return fail(error, HRNN_INVALID_ARGUMENT, "%zu %s were given, the model has %zu", given, what, expected);
  }
  if (tensors == nullptr && expected > 0) return fail(error, HRNN_INVALID_ARGUMENT, "%s is NULL", what);
  return HRNN_OK;
}

const char *dtype_name(int32_t dtype) {
  switch (dtype) {
    case HRNN_F32: return "float32";
    case HRNN_F64: return "float64";
    case HRNN_I32: return "int32";
    case HRNN_I64: return "int64";
    case HRNN_F16: return "float16";
    case HRNN_BF16: return "bfloat16";
    case HRNN_BOOL: return "bool";
    default: return "no dtype";
  }
}

// What the inputs must be, apart from their dims.
hrnn_status check_types(const hrnn_session *session, const hrnn_tensor *inputs, hrnn_error *error) {
  const Program &program = session->program;
  for (size_t i = 0; i < program.inputs.size(); ++i) {
    const TensorRecord &record = program.tensors[program.inputs[i]];
    const char *name = program.string(record.name);
    if (inputs[i].dtype != record.dtype) {
      return fail(error, HRNN_INVALID_ARGUMENT, "input '%s': its dtype is %s (%d), the model says %s (%d)", name,
                  dtype_name(inputs[i].dtype), inputs[i].dtype, dtype_name(record.dtype), record.dtype);
    }
    if (inputs[i].rank != record.rank) {
      return fail(error, HRNN_INVALID_ARGUMENT, "input '%s': its rank is %d, the model says %d", name, inputs[i].rank,
                  record.rank);
    }
  }
  return HRNN_OK;
}

void describe_outputs(const hrnn_session *session, hrnn_tensor *outputs) {
  const Program &program = session->program;
  for (size_t o = 0; o < program.outputs.size(); ++o) {
    const uint32_t id = program.outputs[o];
    outputs[o].dtype = program.tensors[id].dtype;
    outputs[o].rank = program.tensors[id].rank;
    memcpy(outputs[o].dims, session->tensors[id].dims, sizeof(outputs[o].dims));
  }
}

// Gives a layer a state for `batch` sequences; a stream that is under way goes on in it.
hrnn_status grow_state(hrnn_session *session, uint32_t layer, int64_t batch, hrnn_error *error) {
  const OpRecord &op = session->program.ops[layer];
  SessionOp &state = session->ops[layer];
  if (batch < 1) batch = 1;
  if (state.state != nullptr && batch <= state.max_batch) return HRNN_OK;
  hrnn_state *grown = nullptr;
  hrnn_status status = hrnn_state_create(state.plan, batch, &grown, error);
  if (status != HRNN_OK) return fail_in(session, op, status, error);
  if (state.stream_batch > 0) {
    const int64_t values = state.directions * state.stream_batch * op.ints[kHiddenSize];
    const int64_t bytes = values * dtype_bytes(session->program.tensors[op.inputs[kX]].dtype);
    AlignedBuffer copy;
    status =
        copy.allocate(static_cast<size_t>(bytes)) ? HRNN_OK : no_memory(error, "state", static_cast<uint64_t>(bytes));
    if (status == HRNN_OK) status = hrnn_state_get(state.state, state.stream_batch, copy.data(), error);
    if (status == HRNN_OK) status = hrnn_state_set(grown, state.stream_batch, copy.data(), error);
    if (status != HRNN_OK) {
      hrnn_state_destroy(grown);
      return status;
    }
  }
  if (state.state != nullptr) hrnn_state_destroy(state.state);
  state.state = grown;
  state.max_batch = batch;
  return HRNN_OK;
}

// The bytes each slot needs at most with inputs of these shapes, into slot_bytes. Which outputs are wanted decides what
// lies in the arena instead of in a caller's buffer, so every choice of a few outputs is tried; of many, the most that
// any choice could need is taken.
hrnn_status size_slots(hrnn_session *session, const hrnn_tensor *inputs, hrnn_error *error) {
  constexpr size_t kMostTried = 4;
  const size_t outputs = session->program.outputs.size();
  Array<int64_t> most;
  if (!most.resize(session->slot_bytes.size())) return no_memory(error, "tables", session->slot_bytes.bytes());
  const uint32_t choices = outputs <= kMostTried ? 1u << outputs : 1u;
  for (uint32_t choice = 0; choice < 2 * choices; ++choice) {
    for (size_t o = 0; o < outputs; ++o) session->wanted[o] = outputs > kMostTried || (choice >> o & 1u) != 0;
    const bool streaming = choice >= choices;  // then layers run even when nothing of theirs is wanted
    const hrnn_status status = bind_session(session, inputs, session->wanted.data(), streaming, error);
    if (status != HRNN_OK) return status;
    if (outputs > kMostTried) most_slot_bytes(session);
    for (size_t i = 0; i < most.size(); ++i) {
      if (session->slot_bytes[i] > most[i]) most[i] = session->slot_bytes[i];
    }
  }
  for (size_t i = 0; i < most.size(); ++i) session->slot_bytes[i] = most[i];
  return HRNN_OK;
}

hrnn_status reserve(hrnn_session *session, const hrnn_tensor *inputs, hrnn_error *error) {
  hrnn_status status = size_slots(session, inputs, error);
  const int64_t needed = arena_bytes(session);
  for (size_t i = 0; status == HRNN_OK && i < session->layers.size(); ++i) {
    status = grow_state(session, session->layers[i], session->ops[session->layers[i]].batch, error);
  }
  if (status != HRNN_OK) return status;
  if (static_cast<uint64_t>(needed) > session->arena.size() && !session->arena.allocate(static_cast<size_t>(needed))) {
    return no_memory(error, "intermediate values", static_cast<uint64_t>(needed));
  }
  return HRNN_OK;
}

// ---- Running -------------------------------------------------------------------------------------------------------

// The shapes and the choice of outputs are those of the binding.
bool is_bound(const hrnn_session *session, const hrnn_tensor *inputs, const hrnn_tensor *outputs) {
  if (!session->bound) return false;
  const Program &program = session->program;
  for (size_t i = 0; i < program.inputs.size(); ++i) {
    const uint32_t id = program.inputs[i];
    const TensorRecord &record = program.tensors[id];
    if (inputs[i].dtype != record.dtype || inputs[i].rank != record.rank) return false;
    for (int32_t d = 0; d < record.rank; ++d) {
      if (inputs[i].dims[d] != session->tensors[id].dims[d]) return false;
    }
  }
  for (size_t o = 0; o < program.outputs.size(); ++o) {
    if ((outputs[o].data != nullptr) != (session->bound_wanted[o] != 0)) return false;
  }
  return true;
}

hrnn_status rebind(hrnn_session *session, const hrnn_tensor *inputs, const hrnn_tensor *outputs, hrnn_error *error) {
  session->bound = false;
  hrnn_status status = check_types(session, inputs, error);
  if (status != HRNN_OK) return status;
  for (size_t o = 0; o < session->bound_wanted.size(); ++o) session->bound_wanted[o] = outputs[o].data != nullptr;
  status = bind_session(session, inputs, session->bound_wanted.data(), session->streaming, error);
  if (status != HRNN_OK) return status;
  for (uint32_t layer : session->layers) {
    const SessionOp &state = session->ops[layer];
    if (state.live && state.batch > state.max_batch) {
      return fail(error, HRNN_CAPACITY,
                  "recurrent layer '%s': the batch is %lld, memory is reserved for %lld: call "
                  "hrnn_session_reserve with these shapes first",
                  session->program.op_name(session->program.ops[layer]), static_cast<long long>(state.batch),
                  static_cast<long long>(state.max_batch));
    }
  }
  const int64_t needed = arena_bytes(session);
  if (static_cast<uint64_t>(needed) > session->arena.size()) {
    return fail(error, HRNN_CAPACITY,
                "these shapes need %lld bytes for intermediate values, %zu are reserved: call "
                "hrnn_session_reserve with these shapes first",
                static_cast<long long>(needed), session->arena.size());
  }
  place_slots(session);
  session->bound = true;
  return HRNN_OK;
}

size_t tensor_bytes(const hrnn_session *session, uint32_t id) {
  const TensorRecord &record = session->program.tensors[id];
  size_t bytes = static_cast<size_t>(dtype_bytes(record.dtype));
  for (int32_t d = 0; d < record.rank; ++d) bytes *= static_cast<size_t>(session->tensors[id].dims[d]);
  return bytes;
}

hrnn_status check_memory(const hrnn_session *session, const char *what, uint32_t id, const hrnn_tensor &tensor,
                         size_t needed, hrnn_status too_small, hrnn_error *error) {
  const char *name = session->program.tensor_name(id);
  if (tensor.bytes < needed) {
    return fail(error, too_small, "%s '%s': it has %zu bytes of memory and needs %zu", what, name, tensor.bytes,
                needed);
  }
  if (tensor.data == nullptr && needed > 0) {
    return fail(error, HRNN_INVALID_ARGUMENT, "%s '%s': data is NULL, %zu bytes are needed", what, name, needed);
  }
  const size_t alignment = static_cast<size_t>(dtype_bytes(session->program.tensors[id].dtype));
  if (reinterpret_cast<uintptr_t>(tensor.data) % alignment != 0) {
    return fail(error, HRNN_INVALID_ARGUMENT, "%s '%s': data is not aligned to %zu bytes", what, name, alignment);
  }
  return HRNN_OK;
}

struct ByteRange {
  uintptr_t begin, end;
};
bool overlap(const ByteRange &a, const ByteRange &b) {
  return a.begin < b.end && b.begin < a.end && a.begin < a.end && b.begin < b.end;
}
ByteRange range_of(const hrnn_session *session, uint32_t id, const void *data) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(data);
  return {begin, begin + tensor_bytes(session, id)};
}

// Takes over the caller's buffers. Outputs must not lie in memory that is still to be read.
hrnn_status take_buffers(hrnn_session *session, const hrnn_tensor *inputs, const hrnn_tensor *outputs,
                         hrnn_error *error) {
  const Program &program = session->program;
  const size_t input_count = program.inputs.size();
  for (size_t i = 0; i < input_count; ++i) {
    const uint32_t id = program.inputs[i];
    const hrnn_status status =
        check_memory(session, "input", id, inputs[i], tensor_bytes(session, id), HRNN_INVALID_ARGUMENT, error);
    if (status != HRNN_OK) return status;
    session->bases[kFirstInputBase + i] = static_cast<char *>(inputs[i].data);
  }
  for (size_t o = 0; o < program.outputs.size(); ++o) {
    session->bases[session->first_output_base + o] = static_cast<char *>(outputs[o].data);
    if (outputs[o].data == nullptr) continue;
    const uint32_t id = program.outputs[o];
    const hrnn_status status =
        check_memory(session, "output", id, outputs[o], tensor_bytes(session, id), HRNN_CAPACITY, error);
    if (status != HRNN_OK) return status;
    const ByteRange range = range_of(session, id, outputs[o].data);
    for (size_t i = 0; i < input_count; ++i) {
      const Overlap allowed = session->overlaps[o * input_count + i];
      if (allowed == Overlap::kAllowed || (allowed == Overlap::kSameAddress && inputs[i].data == outputs[o].data)) {
        continue;
      }
      if (overlap(range, range_of(session, program.inputs[i], inputs[i].data))) {
        return fail(error, HRNN_INVALID_ARGUMENT,
                    "output '%s' overlaps input '%s', which is still read after the output "
                    "is first written: give them memory of their own",
                    program.tensor_name(id), program.tensor_name(program.inputs[i]));
      }
    }
    for (size_t other = 0; other < o; ++other) {
      if (outputs[other].data != nullptr &&
          overlap(range, range_of(session, program.outputs[other], outputs[other].data))) {
        return fail(error, HRNN_INVALID_ARGUMENT, "output '%s' overlaps output '%s'", program.tensor_name(id),
                    program.tensor_name(program.outputs[other]));
      }
    }
  }
  return HRNN_OK;
}

class Executor {
 public:
  Executor(hrnn_session *session, hrnn_error *error) : s_(*session), error_(error) {}

  hrnn_status run() {
    for (size_t i = 0; i < s_.instruction_count; ++i) {
      const hrnn_status status = is_layer(i) && !s_.streaming ? run_layers(&i) : execute(s_.instructions[i]);
      if (status != HRNN_OK) return fail_in(&s_, s_.program.ops[s_.instructions[i].op], status, error_);
    }
    return HRNN_OK;
  }

 private:
  char *at(const Operand &operand) const {
    if (operand.base == kNone || s_.bases[operand.base] == nullptr) return nullptr;
    return s_.bases[operand.base] + operand.offset;
  }

  hrnn_status execute(const Instruction &instruction) {
    const Operand *operands = instruction.operands;
    switch (instruction.action) {
      case Action::kCopy:
        copy_elements(instruction.loop, instruction.dtype, at(operands[0]), at(operands[1]));
        return HRNN_OK;
      case Action::kFill: return run_fill(instruction);
      case Action::kElementwise: return run_function(instruction);
      case Action::kReduce: {
        const OpRecord &op = s_.program.ops[instruction.op];
        reduce_elements(static_cast<Reduction>(op.ints[kReduction]), instruction.dtype, instruction.loop,
                        instruction.inner, instruction.count, at(operands[0]), at(operands[1]));
        return HRNN_OK;
      }
      case Action::kMatMul: return run_matmul(instruction);
      case Action::kGather: return run_gather(instruction);
      case Action::kScatter: return run_scatter(instruction);
      case Action::kTopK: return run_top_k(instruction);
      case Action::kRange: return run_range(instruction);
      case Action::kPackLayer: {
        const OpRecord &op = s_.program.ops[instruction.op];
        const SessionOp &state = s_.ops[instruction.op];
        pack_layer(instruction.dtype, state.cell, state.directions, op.ints[kInputSize], op.ints[kHiddenSize],
                   at(operands[0]), at(operands[1]), at(operands[2]), s_.packed.data() + state.packed_offset);
        return HRNN_OK;
      }
      case Action::kPackDense: {
        const OpRecord &op = s_.program.ops[instruction.op];
        pack_dense(instruction.dtype, op.ints[kDenseOut], op.ints[kDenseIn], op.ints[kDenseTransposed] == 1,
                   at(operands[0]), at(operands[2]), s_.packed.data() + s_.ops[instruction.op].packed_offset);
        return HRNN_OK;
      }
      case Action::kRunDense: return run_dense(instruction);
      case Action::kRunLayer: return stream_layer(instruction);
    }
    return HRNN_OK;
  }

  hrnn_status run_dense(const Instruction &instruction) {
    const DensePlan *plan = s_.ops[instruction.op].dense;
    const StridedLoop &loop = instruction.loop;
    const int32_t inner = loop.rank - 1;
    const int64_t size = dtype_bytes(instruction.dtype);
    const char *x = at(instruction.operands[0]);
    char *y = at(instruction.operands[1]);
    hrnn_status status = HRNN_OK;
    for_each_run(loop, [&](const int64_t *offsets) {
      if (status != HRNN_OK) return;
      status = dense_run(plan, s_.dense_scratch.data(), loop.dims[inner], x + offsets[0] * size, loop.strides[0][inner],
                         y + offsets[1] * size, loop.strides[1][inner], error_);
    });
    return status;
  }

  hrnn_status run_fill(const Instruction &instruction) {
    // The value as an element of the type: a one-element Cast.
    const double value = s_.program.ops[instruction.op].reals[0];
    alignas(8) char element[8];
    StridedLoop one = {};
    one.rank = 1;
    one.operands = 2;
    one.dims[0] = one.strides[0][0] = one.strides[1][0] = 1;
    const void *from[] = {&value};
    run_elementwise({Function::Cast, HRNN_F64, instruction.dtype, 0, 0}, one, from, element);
    fill_elements(instruction.loop, instruction.dtype, element, at(instruction.operands[0]));
    return HRNN_OK;
  }

  hrnn_status run_function(const Instruction &instruction) {
    const OpRecord &op = s_.program.ops[instruction.op];
    const int count = instruction.loop.operands - 1;
    const void *operands[kMaxFunctionOperands];
    for (int k = 0; k < count; ++k) operands[k] = at(instruction.operands[k]);
    const ElementwiseCall call = {static_cast<Function>(op.ints[kFunction]), instruction.dtype,
                                  s_.program.tensors[op.outputs[0]].dtype, op.reals[0], op.reals[1]};
    if (run_elementwise(call, instruction.loop, operands, at(instruction.operands[count]))) return HRNN_OK;
    return fail(error_, HRNN_INVALID_ARGUMENT, "an integer is divided by zero");
  }

  hrnn_status run_matmul(const Instruction &instruction) {
    const int64_t size = dtype_bytes(instruction.dtype);
    const char *a = at(instruction.operands[0]), *b = at(instruction.operands[1]);
    char *y = at(instruction.operands[2]);
    for_each_element(instruction.loop, [&](const int64_t *offsets) {
      multiply_matrices(instruction.dtype, instruction.matrix, a + offsets[0] * size, b + offsets[1] * size,
                        y + offsets[2] * size);
    });
    return HRNN_OK;
  }

  hrnn_status check_index(bool good, const BadIndex &bad) {
    if (good) return HRNN_OK;
    return fail(error_, HRNN_INVALID_ARGUMENT, "index %lld is out of range for dimension %d, which is %lld",
                static_cast<long long>(bad.index), bad.axis, static_cast<long long>(bad.dim));
  }

  hrnn_status run_gather(const Instruction &instruction) {
    BadIndex bad = {};
    const Operand *operands = instruction.operands;
    return check_index(gather_elements(instruction.dtype, instruction.tuple, instruction.loop, instruction.inner,
                                       at(operands[0]), at(operands[2]), at(operands[1]), &bad),
                       bad);
  }

  hrnn_status run_scatter(const Instruction &instruction) {
    BadIndex bad = {};
    const Operand *operands = instruction.operands;
    const int64_t reduction = s_.program.ops[instruction.op].ints[kScatterReduction];
    return check_index(scatter_elements(instruction.dtype, reduction, instruction.tuple, instruction.loop,
                                        instruction.inner, at(operands[0]), at(operands[2]), at(operands[1]), &bad),
                       bad);
  }

  hrnn_status run_top_k(const Instruction &instruction) {
    const OpRecord &op = s_.program.ops[instruction.op];
    const int64_t size = dtype_bytes(instruction.dtype);
    const char *from = at(instruction.operands[0]);
    int64_t *to = reinterpret_cast<int64_t *>(at(instruction.operands[1]));
    for_each_element(instruction.loop, [&](const int64_t *offsets) {
      top_k(instruction.dtype, op.ints[kTopKLargest] == 1, from + offsets[0] * size, instruction.inner.dims[0],
            instruction.inner.strides[0][0], to + offsets[1], instruction.count, instruction.inner.strides[1][0]);
    });
    return HRNN_OK;
  }

  hrnn_status run_range(const Instruction &instruction) {
    const OpRecord &op = s_.program.ops[instruction.op];
    char *to = at(instruction.operands[0]);
    uint64_t value = static_cast<uint64_t>(instruction.count);  // wraps around
    for_each_element(instruction.loop, [&](const int64_t *offsets) {
      if (instruction.dtype == HRNN_I64) {
        reinterpret_cast<int64_t *>(to)[offsets[0]] = static_cast<int64_t>(value);
      } else {
        reinterpret_cast<int32_t *>(to)[offsets[0]] = static_cast<int32_t>(static_cast<uint32_t>(value));
      }
      value += static_cast<uint64_t>(op.ints[kRangeStep]);
    });
    return HRNN_OK;
  }

  bool is_layer(size_t i) const { return i < s_.instruction_count && s_.instructions[i].action == Action::kRunLayer; }

  hrnn_run_args layer_args(const Instruction &instruction) const {
    hrnn_run_args args = instruction.args;
    args.x = at(instruction.operands[0]);
    args.lengths = reinterpret_cast<const int32_t *>(at(instruction.operands[1]));
    args.h0 = at(instruction.operands[2]);
    args.y = at(instruction.operands[3]);
    args.h_n = at(instruction.operands[4]);
    return args;
  }

  // The layer at instruction *i, and those after it that run at the same time; *i becomes the last of them, or the one that
  // failed.
  hrnn_status run_layers(size_t *i) {
    hrnn_run_args args[kMostLayers];
    LayerCall calls[kMostLayers];
    int count = 0, done;
    for (; count < kMostLayers && is_layer(*i + size_t(count)); ++count) {
      const Instruction &instruction = s_.instructions[*i + size_t(count)];
      args[count] = layer_args(instruction);
      calls[count] = {s_.ops[instruction.op].plan, s_.ops[instruction.op].state, &args[count]};
    }
    const hrnn_status status = hrnn::run_layers(calls, count, &done, error_);
    *i += size_t(status == HRNN_OK ? done - 1 : done);
    return status;
  }

  hrnn_status stream_layer(const Instruction &instruction) {
    SessionOp &state = s_.ops[instruction.op];
    const hrnn_run_args args = layer_args(instruction);
    if (state.stream_batch != 0 && args.batch != state.stream_batch) {
      return fail(error_, HRNN_INVALID_ARGUMENT,
                  "the stream carries the state of %lld sequences, this run has %lld: "
                  "call hrnn_session_reset before changing the batch",
                  static_cast<long long>(state.stream_batch), static_cast<long long>(args.batch));
    }
    const hrnn_status status = hrnn_stream(state.plan, state.state, &args, error_);
    if (status == HRNN_OK) state.stream_batch = args.batch;
    return status;
  }

  hrnn_session &s_;
  hrnn_error *error_;
};

hrnn_status fill_info(const hrnn_session *session, const Array<uint32_t> &ids, size_t index, hrnn_tensor_info *info) {
  if (info == nullptr || index >= ids.size()) return HRNN_INVALID_ARGUMENT;
  const TensorRecord &record = session->program.tensors[ids[index]];
  *info = {};
  info->name = session->program.string(record.name);
  info->dtype = record.dtype;
  info->rank = record.rank;
  memcpy(info->dims, record.dims, sizeof(int64_t) * static_cast<size_t>(record.rank));
  return HRNN_OK;
}

hrnn_status build_session(hrnn_session *session, const hrnn_model *model, const hrnn_options *given,
                          hrnn_error *error) {
  hrnn_options options = {};
  if (given != nullptr) {
    if (given->struct_size < offsetof(hrnn_options, force_variant)) {
      return fail(error, HRNN_INVALID_ARGUMENT, "options: struct_size is %u, it must be %zu", given->struct_size,
                  sizeof(hrnn_options));
    }
    memcpy(&options, given, given->struct_size < sizeof(options) ? given->struct_size : sizeof(options));
    if (options.table_count > 0 && options.tables == nullptr) {
      return fail(error, HRNN_INVALID_ARGUMENT, "options: table_count is %u and tables is NULL", options.table_count);
    }
  }
  session->weights = model->weights;
  session->weights_bytes = model->weights_bytes;
  hrnn_status status =
      read_program(model->program, model->program_bytes, model->weights_bytes, &session->program, error);
  if (status != HRNN_OK) return status;

  if (model->kernels != nullptr && !session->tables.push_back(model->kernels)) return no_memory(error, "tables", 8);
  for (uint32_t i = 0; i < options.table_count; ++i) {
    if (options.tables[i] == nullptr) return fail(error, HRNN_INVALID_ARGUMENT, "options: tables[%u] is NULL", i);
    if (!session->tables.push_back(options.tables[i])) return no_memory(error, "tables", 8);
  }
  for (const hrnn_kernel_table *table : session->tables) {
    if (table->abi_version != HRNN_ABI_VERSION) {
      return fail(error, HRNN_CORRUPT_MODEL,
                  "a kernel table was made for version %u of the interface, this runtime is "
                  "version %u",
                  table->abi_version, HRNN_ABI_VERSION);
    }
  }
  options.struct_size = sizeof(options);
  options.tables = session->tables.data();
  options.table_count = static_cast<uint32_t>(session->tables.size());
  hrnn_machine machine = {};
  if (options.machine == nullptr) {  // once for all layers: asking the processor is slow on virtual machines
    machine.struct_size = sizeof(machine);
    status = hrnn_machine_detect(options.tables, options.table_count, &machine);
    if (status != HRNN_OK) return fail(error, status, "the machine cannot be described");
    options.machine = &machine;
  }

  if (options.team != nullptr) session->threads = team_threads(options.team);
  if (!analyse_program(session)) return no_memory(error, "tables", session->program.bytes());
  session->bases[kWeightsBase] = static_cast<char *>(const_cast<void *>(session->weights));
  int64_t packed_bytes = 0;
  status = prepare_layers(session, &packed_bytes, error);
  if (status != HRNN_OK) return status;

  // Try the shapes the model states, symbols taken as 1. It shows whether weights of run time have the sizes their
  // layers say, before memory is taken for them. A model of fixed shapes has no others.
  Array<hrnn_tensor> inputs;
  bool fixed = true;
  if (!inputs.resize(session->program.inputs.size())) return no_memory(error, "tables", sizeof(hrnn_tensor));
  for (size_t i = 0; i < inputs.size(); ++i) {
    const TensorRecord &record = session->program.tensors[session->program.inputs[i]];
    for (int32_t d = 0; d < record.rank; ++d) {
      fixed = fixed && record.dims[d] >= 0;
      inputs[i].dims[d] = record.dims[d] < 0 ? 1 : record.dims[d];
    }
  }
  status = size_slots(session, inputs.data(), error);
  const bool shapes_work = status == HRNN_OK;
  if (!shapes_work && (fixed || packed_bytes > kMostUncheckedBytes)) {
    if (status == HRNN_INVALID_ARGUMENT) status = HRNN_CORRUPT_MODEL;
    return error == nullptr ? status : fail(error, status, "%s", error->message);
  }
  status = create_plans(session, &options, packed_bytes, error);
  if (status != HRNN_OK) return status;

  // A model of fixed shapes, or one fed step by step, so runs without a call to reserve; large ones wait for the call.
  bool small = shapes_work && arena_bytes(session) <= kEagerBytes;
  for (uint32_t layer : session->layers) {
    small = small && session->ops[layer].batch <= kEagerBytes / 64 / session->program.ops[layer].ints[kHiddenSize];
  }
  if (small) (void)reserve(session, inputs.data(), nullptr);
  return HRNN_OK;
}

}  // namespace
}  // namespace hrnn

// ---- The C interface -----------------------------------------------------------------------------------------------

using hrnn::fail;

extern "C" hrnn_status hrnn_session_create(const hrnn_model *model, const hrnn_options *options, hrnn_session **session,
                                           hrnn_error *error) {
  if (session == nullptr) return fail(error, HRNN_INVALID_ARGUMENT, "session is NULL");
  *session = nullptr;
  if (model == nullptr) return fail(error, HRNN_INVALID_ARGUMENT, "model is NULL");
  if (model->abi_version != HRNN_ABI_VERSION) {
    return fail(error, HRNN_CORRUPT_MODEL,
                "the model was made for version %u of the interface, this runtime is version "
                "%u",
                model->abi_version, HRNN_ABI_VERSION);
  }
  if (model->weights == nullptr && model->weights_bytes > 0) {
    return fail(error, HRNN_CORRUPT_MODEL, "the model's weights are NULL and have %llu bytes",
                static_cast<unsigned long long>(model->weights_bytes));
  }
  if (reinterpret_cast<uintptr_t>(model->weights) % hrnn::kRowBytes != 0) {
    return fail(error, HRNN_CORRUPT_MODEL, "the model's weights are not aligned to %d bytes",
                static_cast<int>(hrnn::kRowBytes));
  }
  hrnn_session *created = hrnn::create_object<hrnn_session>();
  if (created == nullptr) return fail(error, HRNN_OUT_OF_MEMORY, "no memory for a session");
  const hrnn_status status = hrnn::build_session(created, model, options, error);
  if (status != HRNN_OK) {
    hrnn::destroy_object(created);
    return status;
  }
  *session = created;
  return HRNN_OK;
}

extern "C" void hrnn_session_destroy(hrnn_session *session) { hrnn::destroy_object(session); }

extern "C" size_t hrnn_session_input_count(const hrnn_session *session) {
  return session == nullptr ? 0 : session->program.inputs.size();
}

extern "C" size_t hrnn_session_output_count(const hrnn_session *session) {
  return session == nullptr ? 0 : session->program.outputs.size();
}

extern "C" hrnn_status hrnn_session_input(const hrnn_session *session, size_t index, hrnn_tensor_info *info) {
  if (session == nullptr) return HRNN_INVALID_ARGUMENT;
  return hrnn::fill_info(session, session->program.inputs, index, info);
}

extern "C" hrnn_status hrnn_session_output(const hrnn_session *session, size_t index, hrnn_tensor_info *info) {
  if (session == nullptr) return HRNN_INVALID_ARGUMENT;
  return hrnn::fill_info(session, session->program.outputs, index, info);
}

extern "C" const char *hrnn_session_symbol(const hrnn_session *session, size_t symbol) {
  if (session == nullptr || symbol >= session->program.symbols.size()) return nullptr;
  return session->program.symbol_name(symbol);
}

extern "C" hrnn_status hrnn_session_reserve(hrnn_session *session, const hrnn_tensor *inputs, size_t input_count,
                                            hrnn_tensor *outputs, size_t output_count, hrnn_error *error) {
  if (session == nullptr) return fail(error, HRNN_INVALID_ARGUMENT, "session is NULL");
  const size_t model_outputs = session->program.outputs.size();
  hrnn_status status = hrnn::check_count("inputs", inputs, input_count, session->program.inputs.size(), error);
  if (status == HRNN_OK && outputs != nullptr) {
    status = hrnn::check_count("outputs", outputs, output_count, model_outputs, error);
  }
  if (status == HRNN_OK) status = hrnn::check_types(session, inputs, error);
  if (status == HRNN_OK) status = hrnn::reserve(session, inputs, error);
  if (status == HRNN_OK && outputs != nullptr) hrnn::describe_outputs(session, outputs);
  return status;
}

extern "C" hrnn_status hrnn_session_run(hrnn_session *session, const hrnn_tensor *inputs, size_t input_count,
                                        hrnn_tensor *outputs, size_t output_count, hrnn_error *error) {
  if (session == nullptr) return fail(error, HRNN_INVALID_ARGUMENT, "session is NULL");
  hrnn_status status = hrnn::check_count("inputs", inputs, input_count, session->program.inputs.size(), error);
  if (status == HRNN_OK) {
    status = hrnn::check_count("outputs", outputs, output_count, session->program.outputs.size(), error);
  }
  if (status == HRNN_OK && !hrnn::is_bound(session, inputs, outputs)) {
    status = hrnn::rebind(session, inputs, outputs, error);
  }
  if (status != HRNN_OK) return status;
  hrnn::describe_outputs(session, outputs);
  status = hrnn::take_buffers(session, inputs, outputs, error);
  return status != HRNN_OK ? status : hrnn::Executor(session, error).run();
}

extern "C" hrnn_status hrnn_session_stream(hrnn_session *session, int on, hrnn_error *error) {
  if (session == nullptr) return fail(error, HRNN_INVALID_ARGUMENT, "session is NULL");
  for (uint32_t layer : session->layers) {
    if (on == 0) break;
    const hrnn::OpRecord &op = session->program.ops[layer];
    const char *name = session->program.op_name(op);
    if (op.ints[hrnn::kDirection] != HRNN_FORWARD) {
      return fail(error, HRNN_UNSUPPORTED,
                  "recurrent layer '%s' cannot stream: it runs backwards in time, from steps "
                  "that have not come yet",
                  name);
    }
    if (session->ops[layer].has_initial_h) {
      return fail(error, HRNN_UNSUPPORTED,
                  "recurrent layer '%s' cannot stream: the model gives it an initial state "
                  "(initial_h), so feed its final state (Y_h) back yourself",
                  name);
    }
  }
  session->streaming = on != 0;
  session->bound = false;  // in a stream every layer runs, whatever outputs are wanted
  hrnn_session_reset(session);
  return HRNN_OK;
}

extern "C" void hrnn_session_reset(hrnn_session *session) {
  if (session == nullptr) return;
  for (uint32_t layer : session->layers) {
    hrnn::SessionOp &state = session->ops[layer];
    if (state.state != nullptr) hrnn_state_reset(state.state);
    state.stream_batch = 0;
  }
}

extern "C" hrnn_status hrnn_session_selection(const hrnn_session *session, size_t index, hrnn_selection *selection) {
  if (session == nullptr || selection == nullptr || index >= session->layers.size()) return HRNN_INVALID_ARGUMENT;
  hrnn_plan_selection(session->ops[session->layers[index]].plan, selection);
  return HRNN_OK;
}

extern "C" size_t hrnn_session_bytes(const hrnn_session *session) {
  if (session == nullptr) return 0;
  size_t bytes = sizeof(*session) + session->program.bytes() + session->tables.bytes() + session->tensors.bytes() +
                 session->ops.bytes() + session->layers.bytes() + session->overlaps.bytes() + session->bases.bytes() +
                 session->slot_bytes.bytes() + session->arena.size() + session->packed.size() +
                 session->dense_scratch.size() + session->symbols.bytes() + session->symbol_origins.bytes() +
                 session->wanted.bytes() + session->bound_wanted.bytes() + session->instructions.bytes();
  for (uint32_t layer : session->layers) {
    const hrnn::SessionOp &state = session->ops[layer];
    bytes += hrnn_plan_bytes(state.plan);
    if (state.state != nullptr) bytes += hrnn_state_bytes(state.state);
  }
  return bytes;
}
