// SPDX-License-Identifier: Apache-2.0
//
// From shapes to instructions: see session.h.
#include <cstring>

#include "session.h"
#include "status.h"

namespace hrnn {
namespace {

class Binder {
 public:
  Binder(hrnn_session *session, const uint8_t *wanted, bool streaming, hrnn_error *error)
      : s_(*session), program_(session->program), wanted_(wanted), streaming_(streaming), error_(error) {}

  hrnn_status bind(const hrnn_tensor *inputs) {
    s_.bound = false;
    s_.instruction_count = 0;
    for (int64_t &bytes : s_.slot_bytes) bytes = 0;
    for (SessionTensor &tensor : s_.tensors) tensor.needed = tensor.has_home = false;

    const hrnn_status status = infer_shapes(&s_, inputs, error_);
    if (status != HRNN_OK) return status;
    place_given();
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

  // ---- Places ------------------------------------------------------------------------------------------------------

  void set_place(uint32_t id, const Place &place) { s_.tensors[id].place = place; }

  // Inputs and constants.
  void place_given() {
    for (uint32_t i = 0; i < program_.inputs.size(); ++i) {
      const uint32_t id = program_.inputs[i];
      set_place(id, {kFirstInputBase + i, dense(id)});
    }
    for (uint32_t id = 0; id < s_.tensors.size(); ++id) {
      const TensorRecord &record = program_.tensors[id];
      if (record.is_constant == 0) continue;
      Place place = {kWeightsBase, dense(id)};
      place.view.offset = static_cast<int64_t>(record.data_offset) / dtype_bytes(record.dtype);
      set_place(id, place);
    }
  }

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
      } else if (s_.ops[i].in_place >= 0) {
        const uint32_t out = op.outputs[0];
        if (!s_.tensors[out].has_home) offer_home(out, slot_place(i, 0, out));
        offer_home(op.inputs[s_.ops[i].in_place], s_.tensors[out].home);
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
    for (int64_t(&strides)[HRNN_MAX_RANK] : loop.strides) swap(strides[longest], strides[inner]);
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

  // The view an operand of `out_dims` (broadcast as numpy does) has of the result.
  static TensorView broadcast(const TensorView &view, const TensorView &result) {
    TensorView wide = result;
    wide.offset = view.offset;
    for (int32_t i = 0; i < result.rank; ++i) {
      const int32_t from = i - (result.rank - view.rank);
      wide.strides[i] = from < 0 || view.dims[from] != result.dims[i] ? 0 : view.strides[from];
    }
    return wide;
  }

  void emit_elementwise(uint32_t index, const Place &to) {
    const OpRecord &op = program_.ops[index];
    const int count = function_info(op.ints[kFunction])->operands;
    const bool is_where = op.ints[kFunction] == static_cast<int64_t>(Function::Where);
    Instruction &instruction = add(Action::kElementwise, index, dtype(op.inputs[is_where ? 1 : 0]));
    TensorView operands[kMaxFunctionOperands];
    const TensorView *views[kMaxFunctionOperands + 1];
    for (int k = 0; k < count; ++k) {
      const Place &from = s_.tensors[op.inputs[k]].place;
      operands[k] = broadcast(from.view, to.view);
      views[k] = &operands[k];
      instruction.operands[k] = operand_at(from, dtype(op.inputs[k]));
    }
    views[count] = &to.view;
    instruction.operands[count] = operand_at(to, dtype(op.outputs[0]));
    instruction.loop = strided_loop(views, count + 1);
  }

  // The axes of a view that are set in `axes`.
  static TensorView axes_of(const TensorView &view, uint32_t axes) {
    TensorView some = {};
    for (int32_t i = 0; i < view.rank; ++i) {
      if ((axes >> i & 1u) == 0) continue;
      some.dims[some.rank] = view.dims[i];
      some.strides[some.rank++] = view.strides[i];
    }
    return some;
  }

  void emit_reduce(uint32_t index, const Place &to) {
    const OpRecord &op = program_.ops[index];
    const Place &from = s_.tensors[op.inputs[0]].place;
    const uint32_t reduced = static_cast<uint32_t>(op.ints[kReducedAxes]);
    const TensorView kept = axes_of(from.view, ~reduced), inner = axes_of(from.view, reduced);
    const TensorView result = op.ints[kKeepAxes] == 1 ? axes_of(to.view, ~reduced) : to.view;
    Instruction &instruction = add(Action::kReduce, index, dtype(op.inputs[0]));
    instruction.operands[0] = operand_at(from, dtype(op.inputs[0]));
    instruction.operands[1] = operand_at(to, dtype(op.outputs[0]));
    instruction.loop = strided_loop(kept, result);
    const TensorView *views[] = {&inner};
    instruction.inner = strided_loop(views, 1);
    element_count(inner.rank, inner.dims, &instruction.count);
  }

  void emit_matmul(uint32_t index, const Place &to) {
    const OpRecord &op = program_.ops[index];
    const int32_t type = dtype(op.outputs[0]);
    const Place &a = s_.tensors[op.inputs[0]].place;
    Place b = s_.tensors[op.inputs[1]].place;
    const auto last_is_dense = [](const TensorView &view) {
      return view.dims[view.rank - 1] <= 1 || view.strides[view.rank - 1] == 1;
    };
    if (!last_is_dense(b.view)) b = readable(index, 1, true);
    Instruction &instruction = add(Action::kMatMul, index, type);
    const int32_t row = to.view.rank - 2, column = row + 1;
    instruction.matrix = {to.view.dims[row],
                          to.view.dims[column],
                          a.view.dims[a.view.rank - 1],
                          a.view.strides[a.view.rank - 2],
                          a.view.strides[a.view.rank - 1],
                          b.view.strides[b.view.rank - 2],
                          to.view.strides[row]};
    const uint32_t leading = (1u << row) - 1;
    const auto batch = [&](const TensorView &view) { return axes_of(broadcast(view, to.view), leading); };
    const TensorView a_batch = batch(a.view), b_batch = batch(b.view), y_batch = axes_of(to.view, leading);
    const TensorView *views[] = {&a_batch, &b_batch, &y_batch};
    instruction.loop = strided_loop(views, 3);
    instruction.operands[0] = operand_at(a, type);
    instruction.operands[1] = operand_at(b, type);
    instruction.operands[2] = operand_at(to, type);
  }

  // What gathering and scattering have in common: where tuples of indices lie, and what of the data (`picked`) and of the
  // result or the updates (`given`) belongs to a tuple.
  struct Picks {
    TensorView indices;           // without the axis of a tuple's elements
    TensorView outer_data, data;  // along the tuples, and what one of them picks
    TensorView outer_given, given;
    IndexTuple tuple;
  };

  static TensorView still(const TensorView &dims) {  // the same place for all
    TensorView view = dims;
    for (int64_t &stride : view.strides) stride = 0;
    return view;
  }

  static void pick_along(Picks *picks, const TensorView &data, int32_t axis) {
    IndexTuple &tuple = picks->tuple;
    tuple.axes[tuple.count] = axis;
    tuple.dims[tuple.count] = data.dims[axis];
    tuple.strides[tuple.count++] = data.strides[axis];
  }

  static constexpr uint32_t first_axes(int64_t count) { return (1u << count) - 1; }

  // Gather: all indices at one axis of the data, where the result has theirs.
  static void find_picks_of_axis(const OpRecord &op, const TensorView &data, const TensorView &given, Picks *picks) {
    const int32_t axis = static_cast<int32_t>(op.ints[0]);
    const uint32_t picked_axes = first_axes(picks->indices.rank) << axis;
    pick_along(picks, data, axis);
    picks->outer_given = axes_of(given, picked_axes);
    picks->given = axes_of(given, ~picked_axes);
    picks->outer_data = still(picks->outer_given);
    picks->data = axes_of(data, ~(1u << axis));
  }

  // GatherElements, ScatterElements: an index an element.
  static void find_picks_of_elements(const OpRecord &op, const TensorView &data, const TensorView &given, Picks *picks) {
    const int32_t axis = static_cast<int32_t>(op.ints[0]);
    pick_along(picks, data, axis);
    picks->outer_given = given;
    picks->outer_data = given;
    for (int32_t i = 0; i < given.rank; ++i) picks->outer_data.strides[i] = i == axis ? 0 : data.strides[i];
  }

  // GatherND, ScatterND: tuples along the last axis of the indices.
  static void find_picks_of_tuples(const OpRecord &op, const TensorView &data, const TensorView &given, Picks *picks) {
    const int32_t batch = is_kind(op, OpKind::GatherND) ? static_cast<int32_t>(op.ints[kTupleBatch]) : 0;
    const int32_t last = --picks->indices.rank, size = static_cast<int32_t>(op.ints[kTupleSize]);
    picks->tuple.index_stride = picks->indices.strides[last];
    for (int32_t e = 0; e < size; ++e) pick_along(picks, data, batch + e);
    picks->outer_given = axes_of(given, first_axes(last));
    picks->given = axes_of(given, ~first_axes(last));
    picks->outer_data = still(picks->outer_given);
    for (int32_t i = 0; i < batch; ++i) picks->outer_data.strides[i] = data.strides[i];
    picks->data = axes_of(data, ~first_axes(batch + size));
  }

  Picks find_picks(const OpRecord &op, const TensorView &data, const TensorView &given) {
    Picks picks = {};
    picks.indices = s_.tensors[op.inputs[kGatherIndices]].place.view;
    picks.tuple.index_dtype = dtype(op.inputs[kGatherIndices]);
    if (is_kind(op, OpKind::Gather)) {
      find_picks_of_axis(op, data, given, &picks);
    } else if (is_kind(op, OpKind::GatherND) || is_kind(op, OpKind::ScatterND)) {
      find_picks_of_tuples(op, data, given, &picks);
    } else {
      find_picks_of_elements(op, data, given, &picks);
    }
    return picks;
  }

  Instruction &add_picks(Action action, uint32_t index, const Picks &picks, const Place &from, const Place &to) {
    const OpRecord &op = program_.ops[index];
    Instruction &instruction = add(action, index, dtype(op.outputs[0]));
    instruction.operands[0] = operand_at(from, dtype(op.outputs[0]));
    instruction.operands[1] = operand_at(to, dtype(op.outputs[0]));
    instruction.operands[2] =
        operand_at(s_.tensors[op.inputs[kGatherIndices]].place, dtype(op.inputs[kGatherIndices]));
    instruction.tuple = picks.tuple;
    return instruction;
  }

  void emit_gather(uint32_t index, const Place &to) {
    const OpRecord &op = program_.ops[index];
    const Place &data = s_.tensors[op.inputs[kGatherData]].place;
    const Picks picks = find_picks(op, data.view, to.view);
    Instruction &instruction = add_picks(Action::kGather, index, picks, data, to);
    const TensorView *outer[] = {&picks.indices, &picks.outer_data, &picks.outer_given};
    instruction.loop = strided_loop(outer, 3);
    instruction.inner = strided_loop(picks.data, picks.given);
  }

  // The data is copied first.
  void emit_scatter(uint32_t index, const Place &to) {
    const OpRecord &op = program_.ops[index];
    const Place &updates = s_.tensors[op.inputs[kScatterUpdates]].place;
    copy(s_.tensors[op.inputs[kGatherData]].place, to, op.outputs[0]);
    if (is_empty(updates.view)) return;
    const Picks picks = find_picks(op, to.view, updates.view);
    Instruction &instruction = add_picks(Action::kScatter, index, picks, updates, to);
    const TensorView *outer[] = {&picks.indices, &picks.outer_given, &picks.outer_data};
    const TensorView *inner[] = {&picks.data, &picks.given, &picks.data};
    instruction.loop = strided_loop(outer, 3);
    instruction.inner = strided_loop(inner, 3);
  }

  void emit_top_k(uint32_t index, const Place &to) {
    const OpRecord &op = program_.ops[index];
    const Place &from = s_.tensors[op.inputs[0]].place;
    const int32_t axis = static_cast<int32_t>(op.ints[kTopKAxis]);
    Instruction &instruction = add(Action::kTopK, index, dtype(op.inputs[0]));
    instruction.operands[0] = operand_at(from, dtype(op.inputs[0]));
    instruction.operands[1] = operand_at(to, HRNN_I64);
    instruction.loop = strided_loop(axes_of(from.view, ~(1u << axis)), axes_of(to.view, ~(1u << axis)));
    instruction.inner = {1, 2, {from.view.dims[axis]}, {{from.view.strides[axis]}, {to.view.strides[axis]}}};
    instruction.count = to.view.dims[axis];
  }

  void emit_range(uint32_t index, const Place &to) {
    const OpRecord &op = program_.ops[index];
    Instruction &instruction = add(Action::kRange, index, dtype(op.outputs[0]));
    const int64_t symbol = op.ints[kRangeSymbol];
    const int64_t added = symbol == 0 ? 0 : s_.symbols[static_cast<size_t>(-2 - symbol)];
    // Wraps around, as what is counted from it does.
    instruction.count = static_cast<int64_t>(static_cast<uint64_t>(op.ints[kRangeFirst]) + static_cast<uint64_t>(added));
    instruction.operands[0] = operand_at(to, instruction.dtype);
    const TensorView *views[] = {&to.view};
    instruction.loop = strided_loop(views, 1);
  }

  // The borders, axis by axis, each as wide as what the axes before leave; then what lies inside.
  void emit_pad(uint32_t index, const Place &to) {
    const OpRecord &op = program_.ops[index];
    const uint32_t in = op.inputs[0];
    Place inside = to;
    for (int32_t i = 0; i < to.view.rank; ++i) {
      const int64_t before = op.ints[i], after = op.ints[kPadAfter + i], all = inside.view.dims[i];
      const auto part = [&](int64_t first, int64_t count) {
        Place place = inside;
        place.view.offset += first * place.view.strides[i];
        place.view.dims[i] = count;
        return place;
      };
      for (const Place &border : {part(0, before), part(all - after, after)}) {
        if (is_empty(border.view)) continue;
        Instruction &instruction = add(Action::kFill, index, dtype(in));
        const TensorView *views[] = {&border.view};
        instruction.loop = strided_loop(views, 1);
        instruction.operands[0] = operand_at(border, dtype(in));
      }
      inside = part(before, all - before - after);
    }
    copy(s_.tensors[in].place, inside, in);
  }

  // Operations with one output that are computed in plain C++.
  void emit_computed(uint32_t index) {
    const OpRecord &op = program_.ops[index];
    Place to = output_of(index, 0);
    if (is_kind(op, OpKind::MatMul) && !is_empty(to.view) && to.view.dims[to.view.rank - 1] > 1 &&
        to.view.strides[to.view.rank - 1] != 1) {
      to = slot_place(index, 0, op.outputs[0]);  // a home whose columns are apart
    }
    set_place(op.outputs[0], to);
    if (is_empty(to.view)) return;
    switch (static_cast<OpKind>(op.kind)) {
      case OpKind::Elementwise: return emit_elementwise(index, to);
      case OpKind::Reduce: return emit_reduce(index, to);
      case OpKind::MatMul: return emit_matmul(index, to);
      case OpKind::Gather:
      case OpKind::GatherElements:
      case OpKind::GatherND: return emit_gather(index, to);
      case OpKind::ScatterElements:
      case OpKind::ScatterND: return emit_scatter(index, to);
      case OpKind::TopK: return emit_top_k(index, to);
      case OpKind::Range: return emit_range(index, to);
      default: return emit_pad(index, to);
    }
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
      emit_computed(index);
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

}  // namespace hrnn
