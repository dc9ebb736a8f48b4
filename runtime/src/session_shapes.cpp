// SPDX-License-Identifier: Apache-2.0
//
// The dimensions of every tensor, from those of the inputs: see session.h.
#include <cstring>

#include "session.h"
#include "status.h"

namespace hrnn {
namespace {

#define HRNN_OP_FORMAT "%s '%s': "
#define HRNN_OP_NAME(op) op_kind_name((op).kind), program_.op_name(op)

class ShapeInference {
 public:
  ShapeInference(hrnn_session *session, hrnn_error *error)
      : s_(*session), program_(session->program), error_(error) {}

  hrnn_status run(const hrnn_tensor *inputs) {
    hrnn_status status = bind_inputs(inputs);
    for (size_t i = 0; status == HRNN_OK && i < program_.ops.size(); ++i) status = infer(i);
    return status == HRNN_OK ? check_outputs() : status;
  }

 private:
  int32_t rank(uint32_t id) const { return program_.tensors[id].rank; }
  int64_t *dims(uint32_t id) { return s_.tensors[id].dims; }

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
    }
    for (uint32_t id = 0; id < s_.tensors.size(); ++id) {
      const TensorRecord &record = program_.tensors[id];
      if (record.is_constant == 0) continue;
      memcpy(dims(id), record.dims, sizeof(record.dims));
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

  int64_t reshaped_dim(int64_t dim, int axis, const int64_t *in) const {
    if (dim == 0) return in[axis];
    return is_input_dim(dim) ? in[dim - kInputDim] : target_dim(dim);
  }

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
        out[i] = reshaped_dim(op.ints[1 + i], i, dims(in));
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

  // The `count` last dimensions of `id` but `skip` of them, broadcast into those of `out`, as numpy does.
  hrnn_status broadcast_into(const OpRecord &op, uint32_t id, int32_t skip, int64_t *out, int32_t out_rank) {
    for (int32_t i = 0; i < rank(id) - skip; ++i) {
      const int64_t have = dims(id)[i];
      int64_t &want = out[i + out_rank - rank(id)];
      if (want == 1) want = have;
      if (have == want || have == 1) continue;
      return fail(error_, HRNN_INVALID_ARGUMENT, HRNN_OP_FORMAT "dimension %d of an operand is %lld, of another %lld",
                  HRNN_OP_NAME(op), i, static_cast<long long>(have), static_cast<long long>(want));
    }
    return HRNN_OK;
  }

  hrnn_status infer_elementwise(const OpRecord &op) {
    const uint32_t out = op.outputs[0];
    for (int64_t &dim : s_.tensors[out].dims) dim = 1;
    for (int k = 0; k < kMaxOpInputs && op.inputs[k] != kNone; ++k) {
      const hrnn_status status = broadcast_into(op, op.inputs[k], 0, dims(out), rank(out));
      if (status != HRNN_OK) return status;
    }
    if (op.ints[kInPlace] == 0) return HRNN_OK;
    const uint32_t in = op.inputs[op.ints[kInPlace] - 1];
    bool same = rank(in) == rank(out);
    for (int i = 0; same && i < rank(in); ++i) same = dims(in)[i] == dims(out)[i];
    return same ? HRNN_OK
                : fail(error_, HRNN_CORRUPT_MODEL, HRNN_OP_FORMAT "the operand it may overwrite has another shape",
                       HRNN_OP_NAME(op));
  }

  hrnn_status infer_reduce(const OpRecord &op) {
    const int64_t *in = dims(op.inputs[0]);
    int64_t *out = dims(op.outputs[0]);
    for (int i = 0, to = 0; i < rank(op.inputs[0]); ++i) {
      const bool reduced = (op.ints[kReducedAxes] >> i & 1) != 0;
      if (reduced && in[i] == 0 && gives_index(static_cast<Reduction>(op.ints[kReduction]))) {
        return fail(error_, HRNN_INVALID_ARGUMENT, HRNN_OP_FORMAT "dimension %d is 0: it has no largest or least element",
                    HRNN_OP_NAME(op), i);
      }
      if (!reduced) out[to++] = in[i];
      if (reduced && op.ints[kKeepAxes] == 1) out[to++] = 1;
    }
    return HRNN_OK;
  }

  hrnn_status infer_matmul(const OpRecord &op) {
    const uint32_t a = op.inputs[0], b = op.inputs[1], out = op.outputs[0];
    const hrnn_status status = expect_dim(op, "the second matrix", 1, rank(b) - 2, dims(a)[rank(a) - 1]);
    if (status != HRNN_OK) return status;
    int64_t *to = dims(out);
    for (int i = 0; i < rank(out); ++i) to[i] = 1;
    for (const uint32_t id : {a, b}) {
      const hrnn_status fits = broadcast_into(op, id, 2, to, rank(out));
      if (fits != HRNN_OK) return fits;
    }
    to[rank(out) - 2] = dims(a)[rank(a) - 2];
    to[rank(out) - 1] = dims(b)[rank(b) - 1];
    return HRNN_OK;
  }

  hrnn_status infer_gather(const OpRecord &op) {
    const uint32_t data = op.inputs[kGatherData], indices = op.inputs[kGatherIndices];
    int64_t *out = dims(op.outputs[0]);
    int to = 0;
    for (int i = 0; i < rank(data); ++i) {
      if (i != op.ints[0]) out[to++] = dims(data)[i];
      for (int k = 0; i == op.ints[0] && k < rank(indices); ++k) out[to++] = dims(indices)[k];
    }
    return HRNN_OK;
  }

  // Along the axis there may be any number of indices; beside it, at most as many as the data has elements.
  hrnn_status check_beside(const OpRecord &op) {
    const int64_t *data = dims(op.inputs[kGatherData]), *indices = dims(op.inputs[kGatherIndices]);
    for (int i = 0; i < rank(op.inputs[kGatherData]); ++i) {
      if (i == op.ints[0] || indices[i] <= data[i]) continue;
      return fail(error_, HRNN_INVALID_ARGUMENT, HRNN_OP_FORMAT "dimension %d of the indices is %lld, of the data %lld",
                  HRNN_OP_NAME(op), i, static_cast<long long>(indices[i]), static_cast<long long>(data[i]));
    }
    return HRNN_OK;
  }

  hrnn_status infer_gather_elements(const OpRecord &op) {
    memcpy(dims(op.outputs[0]), dims(op.inputs[kGatherIndices]), sizeof(SessionTensor::dims));
    return check_beside(op);
  }

  // The dims of what tuples of indices pick.
  hrnn_status infer_picked(const OpRecord &op, int batch, int64_t *out) {
    const uint32_t data = op.inputs[kGatherData], indices = op.inputs[kGatherIndices];
    const int last = rank(indices) - 1;
    hrnn_status status = expect_dim(op, "the indices", kGatherIndices, last, op.ints[kTupleSize]);
    for (int i = 0; status == HRNN_OK && i < batch; ++i) {
      status = expect_dim(op, "the indices", kGatherIndices, i, dims(data)[i]);
    }
    for (int i = 0; i < last; ++i) out[i] = dims(indices)[i];
    for (int i = batch + static_cast<int>(op.ints[kTupleSize]), to = last; i < rank(data); ++i) out[to++] = dims(data)[i];
    return status;
  }

  hrnn_status infer_gather_nd(const OpRecord &op) {
    return infer_picked(op, static_cast<int>(op.ints[kTupleBatch]), dims(op.outputs[0]));
  }

  hrnn_status infer_scatter(const OpRecord &op) {
    memcpy(dims(op.outputs[0]), dims(op.inputs[kGatherData]), sizeof(SessionTensor::dims));
    int64_t picked[HRNN_MAX_RANK];
    memcpy(picked, dims(op.inputs[kGatherIndices]), sizeof(picked));
    hrnn_status status = is_kind(op, OpKind::ScatterND) ? infer_picked(op, 0, picked) : check_beside(op);
    for (int i = 0; status == HRNN_OK && i < rank(op.inputs[kScatterUpdates]); ++i) {
      status = expect_dim(op, "the updates", kScatterUpdates, i, picked[i]);
    }
    return status;
  }

  hrnn_status infer_top_k(const OpRecord &op) {
    const int axis = static_cast<int>(op.ints[kTopKAxis]);
    const int64_t k = target_dim(op.ints[kTopKCount]), count = dims(op.inputs[0])[axis];
    memcpy(dims(op.outputs[0]), dims(op.inputs[0]), sizeof(SessionTensor::dims));
    dims(op.outputs[0])[axis] = k;
    if (k <= count) return HRNN_OK;
    return fail(error_, HRNN_INVALID_ARGUMENT, HRNN_OP_FORMAT "k is %lld, dimension %d has %lld elements",
                HRNN_OP_NAME(op), static_cast<long long>(k), axis, static_cast<long long>(count));
  }

  hrnn_status infer_pad(const OpRecord &op) {
    for (int i = 0; i < rank(op.inputs[0]); ++i) {
      dims(op.outputs[0])[i] = dims(op.inputs[0])[i] + op.ints[i] + op.ints[kPadAfter + i];  // at most 2^58
    }
    return HRNN_OK;
  }

  hrnn_status infer_window(const OpRecord &op) {
    const int axis = static_cast<int>(op.ints[kWindowAxis]), last = rank(op.inputs[0]);
    const int64_t *in = dims(op.inputs[0]);
    int64_t *out = dims(op.outputs[0]);
    for (int i = 0; i < last; ++i) out[i] = in[i];
    out[axis] = window_count(in[axis], op.ints[kWindowSize], op.ints[kWindowStride], op.ints[kWindowDilation]);
    out[last] = op.ints[kWindowSize];
    if (out[axis] > 0) return HRNN_OK;
    return fail(error_, HRNN_INVALID_ARGUMENT,
                HRNN_OP_FORMAT "dimension %d is %lld with its padding, a window of %lld elements %lld apart does not fit",
                HRNN_OP_NAME(op), axis, static_cast<long long>(in[axis]), static_cast<long long>(op.ints[kWindowSize]),
                static_cast<long long>(op.ints[kWindowDilation]));
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
      case OpKind::Window: return infer_window(op);
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
    } else {
      switch (static_cast<OpKind>(op.kind)) {
        case OpKind::Recurrent: status = infer_recurrent(op, s_.ops[index]); break;
        case OpKind::Dense: status = infer_dense(op); break;
        case OpKind::Concat: status = infer_concat(op); break;
        case OpKind::Reduce: status = infer_reduce(op); break;
        case OpKind::MatMul: status = infer_matmul(op); break;
        case OpKind::Gather: status = infer_gather(op); break;
        case OpKind::Pad: status = infer_pad(op); break;
        case OpKind::GatherElements: status = infer_gather_elements(op); break;
        case OpKind::GatherND: status = infer_gather_nd(op); break;
        case OpKind::ScatterElements:
        case OpKind::ScatterND: status = infer_scatter(op); break;
        case OpKind::TopK: status = infer_top_k(op); break;
        case OpKind::Range: dims(op.outputs[0])[0] = target_dim(op.ints[kRangeCount]); break;
        default: status = infer_elementwise(op); break;
      }
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

  hrnn_session &s_;
  const Program &program_;
  hrnn_error *error_;
};

#undef HRNN_OP_FORMAT
#undef HRNN_OP_NAME

}  // namespace

hrnn_status infer_shapes(hrnn_session *session, const hrnn_tensor *inputs, hrnn_error *error) {
  return ShapeInference(session, error).run(inputs);
}

}  // namespace hrnn
