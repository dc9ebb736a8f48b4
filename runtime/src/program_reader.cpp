// SPDX-License-Identifier: Apache-2.0
#include "program_reader.h"

#include <cmath>
#include <cstring>

#include "elementwise.h"
#include "indexing.h"
#include "pack.h"
#include "reduce.h"
#include "status.h"

namespace hrnn {

static_assert(sizeof(ProgramHeader) == 40 && sizeof(TensorRecord) == 96 && sizeof(OpRecord) == 312,
              "the records are a file format: no compiler may pad them differently");

const char *op_kind_name(uint32_t kind) {
  switch (static_cast<OpKind>(kind)) {
    case OpKind::Recurrent: return "recurrent layer";
    case OpKind::Dense: return "dense layer";
    case OpKind::Transpose: return "Transpose";
    case OpKind::Slice: return "Slice";
    case OpKind::Select: return "Select";
    case OpKind::Unsqueeze: return "Unsqueeze";
    case OpKind::Squeeze: return "Squeeze";
    case OpKind::Reshape: return "Reshape";
    case OpKind::Expand: return "Expand";
    case OpKind::Elementwise: return "elementwise operation";
    case OpKind::Concat: return "Concat";
    case OpKind::Reduce: return "reduction";
    case OpKind::MatMul: return "MatMul";
    case OpKind::Gather: return "Gather";
    case OpKind::Pad: return "Pad";
    case OpKind::Window: return "Window";
    case OpKind::GatherElements: return "GatherElements";
    case OpKind::GatherND: return "GatherND";
    case OpKind::ScatterElements: return "ScatterElements";
    case OpKind::ScatterND: return "ScatterND";
    case OpKind::TopK: return "TopK";
    case OpKind::Range: return "Range";
  }
  return "unknown operation";
}

bool element_count(int32_t rank, const int64_t *dims, int64_t *count) {
  // Strides are products of dimensions, so those must fit even where another dimension is 0. The bound leaves room
  // for the element size and for sums of a few such sizes.
  constexpr int64_t kMost = int64_t{1} << 56;
  int64_t product = 1;
  bool empty = false;
  for (int32_t i = 0; i < rank; ++i) {
    if (dims[i] < 0) return false;
    if (dims[i] == 0) {
      empty = true;
    } else if (!multiply_sizes(product, dims[i], &product) || product > kMost) {
      return false;
    }
  }
  *count = empty ? 0 : product;
  return true;
}

namespace {

bool is_float(int32_t dtype) { return dtype == HRNN_F32 || dtype == HRNN_F64; }

uint64_t round_up_8(uint64_t bytes) { return (bytes + 7) / 8 * 8; }

class ProgramReader {
 public:
  ProgramReader(const void *blob, uint64_t blob_bytes, uint64_t weights_bytes, Program *program, hrnn_error *error)
      : blob_(static_cast<const char *>(blob)),
        blob_bytes_(blob_bytes),
        weights_bytes_(weights_bytes),
        program_(program),
        error_(error) {}

  hrnn_status read() {
    hrnn_status status = read_sections();
    if (status == HRNN_OK) status = check_symbols();
    if (status == HRNN_OK) status = check_tensors();
    if (status == HRNN_OK) status = check_inputs();
    for (size_t i = 0; status == HRNN_OK && i < program_->ops.size(); ++i) status = check_op(i);
    if (status == HRNN_OK) status = check_outputs();
    return status;
  }

 private:
  hrnn_status no_memory() { return fail(error_, HRNN_OUT_OF_MEMORY, "no memory to read the model's program"); }

  // Copies a section into an array of its own: the blob need not be aligned, and inferred ranks are written back.
  template <typename T>
  bool take(uint64_t *at, uint32_t count, Array<T> *array) {
    if (!array->resize(count)) return false;
    if (count > 0) memcpy(array->data(), blob_ + *at, count * sizeof(T));
    *at += round_up_8(count * sizeof(T));
    return true;
  }

  hrnn_status read_sections() {
    ProgramHeader header;
    if (blob_ == nullptr || blob_bytes_ < sizeof(header)) {
      return fail(error_, HRNN_CORRUPT_MODEL, "the model's program has %llu bytes, fewer than its header's %u",
                  static_cast<unsigned long long>(blob_ == nullptr ? 0 : blob_bytes_),
                  static_cast<unsigned>(sizeof(header)));
    }
    memcpy(&header, blob_, sizeof(header));
    if (memcmp(header.magic, kProgramMagic, sizeof(kProgramMagic)) != 0) {
      return fail(error_, HRNN_CORRUPT_MODEL,
                  "the model's program does not start with \"%.8s\": it is damaged, or of "
                  "another version of the compiler",
                  kProgramMagic);
    }
    if (header.bytes != blob_bytes_) {
      return fail(error_, HRNN_CORRUPT_MODEL, "the model's program says it has %u bytes and has %llu", header.bytes,
                  static_cast<unsigned long long>(blob_bytes_));
    }
    if (header.reserved != 0) {
      return fail(error_, HRNN_CORRUPT_MODEL, "the model's program needs a feature (%u) this runtime does not know",
                  header.reserved);
    }
    const uint64_t end = sizeof(header) + round_up_8(uint64_t{header.symbol_count} * sizeof(uint32_t)) +
                         uint64_t{header.tensor_count} * sizeof(TensorRecord) +
                         uint64_t{header.op_count} * sizeof(OpRecord) +
                         round_up_8(uint64_t{header.input_count} * sizeof(uint32_t)) +
                         round_up_8(uint64_t{header.output_count} * sizeof(uint32_t)) + header.string_bytes;
    if (blob_bytes_ != end && blob_bytes_ != round_up_8(end)) {
      return fail(error_, HRNN_CORRUPT_MODEL, "the sections of the model's program need %llu bytes and it has %llu",
                  static_cast<unsigned long long>(end), static_cast<unsigned long long>(blob_bytes_));
    }
    uint64_t at = sizeof(header);
    if (!take(&at, header.symbol_count, &program_->symbols) || !take(&at, header.tensor_count, &program_->tensors) ||
        !take(&at, header.op_count, &program_->ops) || !take(&at, header.input_count, &program_->inputs) ||
        !take(&at, header.output_count, &program_->outputs)) {
      return no_memory();
    }
    program_->strings = blob_ + at;
    program_->string_bytes = header.string_bytes;
    if (header.string_bytes > 0 && program_->strings[header.string_bytes - 1] != 0) {
      return fail(error_, HRNN_CORRUPT_MODEL, "the strings of the model's program do not end in a zero");
    }
    if (!available_.resize(header.tensor_count) || !symbol_bound_.resize(header.symbol_count)) return no_memory();
    return HRNN_OK;
  }

  bool valid_string(uint32_t offset) const { return offset < program_->string_bytes; }

  hrnn_status check_symbols() {
    for (size_t i = 0; i < program_->symbols.size(); ++i) {
      if (!valid_string(program_->symbols[i])) {
        return fail(error_, HRNN_CORRUPT_MODEL, "symbol %zu: its name is at %u, the strings have %u bytes", i,
                    program_->symbols[i], program_->string_bytes);
      }
    }
    return HRNN_OK;
  }

  // The dimensions as the record states them; those of intermediates are not looked at.
  hrnn_status check_dims(uint32_t id, bool symbols_allowed) {
    const TensorRecord &tensor = program_->tensors[id];
    for (int32_t i = 0; i < tensor.rank; ++i) {
      const int64_t dim = tensor.dims[i];
      if (dim < 0 && (!symbols_allowed || -1 - dim >= static_cast<int64_t>(program_->symbols.size()))) {
        return fail(error_, HRNN_CORRUPT_MODEL,
                    "tensor %u '%s': dimension %d is %lld, which is neither a size nor one "
                    "of %zu symbols",
                    id, program_->tensor_name(id), i, static_cast<long long>(dim), program_->symbols.size());
      }
    }
    return HRNN_OK;
  }

  hrnn_status check_tensors() {
    for (uint32_t id = 0; id < program_->tensors.size(); ++id) {
      const TensorRecord &tensor = program_->tensors[id];
      if (tensor.name != kNone && !valid_string(tensor.name)) {
        return fail(error_, HRNN_CORRUPT_MODEL, "tensor %u: its name is at %u, the strings have %u bytes", id,
                    tensor.name, program_->string_bytes);
      }
      if (tensor.is_constant > 1) {
        return fail(error_, HRNN_CORRUPT_MODEL, "tensor %u '%s': is_constant is %u, not 0 or 1", id,
                    program_->tensor_name(id), tensor.is_constant);
      }
      if (tensor.is_constant != 0) {
        hrnn_status status = check_declared(id, false);
        if (status != HRNN_OK) return status;
        int64_t count = 0;
        const uint64_t size = static_cast<uint64_t>(dtype_bytes(tensor.dtype));
        if (!element_count(tensor.rank, tensor.dims, &count) ||
            static_cast<uint64_t>(count) * size != tensor.data_bytes) {
          return fail(error_, HRNN_CORRUPT_MODEL,
                      "constant '%s': it has %llu bytes of data, its shape needs another "
                      "number",
                      program_->tensor_name(id), static_cast<unsigned long long>(tensor.data_bytes));
        }
        if (tensor.data_offset % size != 0 || !in_weights(tensor.data_offset, tensor.data_bytes)) {
          return fail(error_, HRNN_CORRUPT_MODEL,
                      "constant '%s': %llu bytes at offset %llu do not lie in the %llu bytes "
                      "of weights",
                      program_->tensor_name(id), static_cast<unsigned long long>(tensor.data_bytes),
                      static_cast<unsigned long long>(tensor.data_offset),
                      static_cast<unsigned long long>(weights_bytes_));
        }
        available_[id] = 1;
      }
    }
    return HRNN_OK;
  }

  bool in_weights(uint64_t offset, uint64_t bytes) const {
    return offset <= weights_bytes_ && bytes <= weights_bytes_ - offset;
  }

  // dtype, rank and dims of a tensor whose record states them.
  hrnn_status check_declared(uint32_t id, bool symbols_allowed) {
    const TensorRecord &tensor = program_->tensors[id];
    if (tensor.dtype < HRNN_F32 || tensor.dtype > HRNN_BOOL) {
      return fail(error_, HRNN_CORRUPT_MODEL, "tensor %u '%s': dtype %d is none of hrnn_dtype", id,
                  program_->tensor_name(id), tensor.dtype);
    }
    if (tensor.rank < 0 || tensor.rank > HRNN_MAX_RANK) {
      return fail(error_, HRNN_CORRUPT_MODEL, "tensor %u '%s': rank %d is not in 0..%d", id, program_->tensor_name(id),
                  tensor.rank, HRNN_MAX_RANK);
    }
    return check_dims(id, symbols_allowed);
  }

  hrnn_status check_inputs() {
    for (size_t i = 0; i < program_->inputs.size(); ++i) {
      const uint32_t id = program_->inputs[i];
      if (id >= program_->tensors.size()) {
        return fail(error_, HRNN_CORRUPT_MODEL, "input %zu is tensor %u of %zu", i, id, program_->tensors.size());
      }
      const TensorRecord &tensor = program_->tensors[id];
      if (available_[id] != 0 || tensor.name == kNone) {
        return fail(error_, HRNN_CORRUPT_MODEL, "input %zu '%s' is nameless, a constant or listed twice", i,
                    program_->tensor_name(id));
      }
      const hrnn_status status = check_declared(id, true);
      if (status != HRNN_OK) return status;
      for (int32_t d = 0; d < tensor.rank; ++d) {
        if (tensor.dims[d] < 0) symbol_bound_[static_cast<size_t>(-1 - tensor.dims[d])] = 1;
      }
      available_[id] = 1;
    }
    return HRNN_OK;
  }

  hrnn_status check_outputs() {
    for (size_t i = 0; i < program_->outputs.size(); ++i) {
      const uint32_t id = program_->outputs[i];
      if (id >= program_->tensors.size() || available_[id] == 0 || program_->tensors[id].name == kNone) {
        return fail(error_, HRNN_CORRUPT_MODEL, "output %zu is tensor %u, which is nameless or which nothing produces",
                    i, id);
      }
      const hrnn_status status = check_declared(id, true);
      if (status != HRNN_OK) return status;
    }
    return HRNN_OK;
  }

  // ---- Operations ------------------------------------------------------------------------------------------------

#define HRNN_OP_FORMAT "operation %zu (%s '%s'): "
#define HRNN_OP_NAME(op) index_, op_kind_name((op).kind), program_->op_name(op)

  hrnn_status bad_op(const OpRecord &op, const char *what, int64_t value) {
    return fail(error_, HRNN_CORRUPT_MODEL, HRNN_OP_FORMAT "%s %lld", HRNN_OP_NAME(op), what,
                static_cast<long long>(value));
  }

  const TensorRecord *input_of(const OpRecord &op, int slot) const {
    return op.inputs[slot] == kNone ? nullptr : &program_->tensors[op.inputs[slot]];
  }

  // Inputs present must be available, and exactly the slots in `required` (bits) must be present, those in `optional`
  // may be.
  hrnn_status check_operands(const OpRecord &op, uint32_t required, uint32_t optional, uint32_t outputs_required,
                             uint32_t outputs_optional) {
    for (int slot = 0; slot < kMaxOpInputs; ++slot) {
      const uint32_t id = op.inputs[slot];
      if (id == kNone) {
        if ((required >> slot & 1u) != 0) return bad_op(op, "there is no input", slot);
        continue;
      }
      if (((required | optional) >> slot & 1u) == 0) return bad_op(op, "it takes no input", slot);
      if (id >= program_->tensors.size() || available_[id] == 0) {
        return bad_op(op, "nothing before it produces its input, tensor", id);
      }
    }
    for (int slot = 0; slot < kMaxOpOutputs; ++slot) {
      const uint32_t id = op.outputs[slot];
      if (id == kNone) {
        if ((outputs_required >> slot & 1u) != 0) return bad_op(op, "there is no output", slot);
        continue;
      }
      if (((outputs_required | outputs_optional) >> slot & 1u) == 0) return bad_op(op, "it has no output", slot);
      if (id >= program_->tensors.size() || available_[id] != 0) {
        return bad_op(op, "its output is out of range, an input, a constant or produced twice: tensor", id);
      }
      available_[id] = 1;
    }
    return HRNN_OK;
  }

  hrnn_status set_output(const OpRecord &op, int slot, int32_t dtype, int32_t rank) {
    if (op.outputs[slot] == kNone) return HRNN_OK;
    TensorRecord &tensor = program_->tensors[op.outputs[slot]];
    for (uint32_t id : program_->outputs) {
      // What the model declares for its outputs is part of its interface and has to be true.
      if (id == op.outputs[slot] && (tensor.dtype != dtype || tensor.rank != rank)) {
        return fail(error_, HRNN_CORRUPT_MODEL,
                    HRNN_OP_FORMAT
                    "output '%s' is declared with dtype %d and rank %d, but "
                    "has dtype %d and rank %d",
                    HRNN_OP_NAME(op), program_->tensor_name(id), tensor.dtype, tensor.rank, dtype, rank);
      }
    }
    tensor.dtype = dtype;
    tensor.rank = rank;
    return HRNN_OK;
  }

  hrnn_status expect(const OpRecord &op, int slot, int32_t dtype, int32_t rank) {
    const TensorRecord *tensor = input_of(op, slot);
    if (tensor == nullptr || (tensor->dtype == dtype && tensor->rank == rank)) return HRNN_OK;
    return fail(error_, HRNN_CORRUPT_MODEL,
                HRNN_OP_FORMAT
                "input %d has dtype %d and rank %d, it must have dtype %d "
                "and rank %d",
                HRNN_OP_NAME(op), slot, tensor->dtype, tensor->rank, dtype, rank);
  }

  hrnn_status check_packed(const OpRecord &op, int64_t offset, int64_t bytes) {
    if (offset < 0 || bytes < 0 || offset % kRowBytes != 0 ||
        !in_weights(static_cast<uint64_t>(offset), static_cast<uint64_t>(bytes))) {
      return fail(error_, HRNN_CORRUPT_MODEL,
                  HRNN_OP_FORMAT
                  "%lld bytes of packed weights at offset %lld do not lie in "
                  "the %llu bytes of weights",
                  HRNN_OP_NAME(op), static_cast<long long>(bytes), static_cast<long long>(offset),
                  static_cast<unsigned long long>(weights_bytes_));
    }
    return HRNN_OK;
  }

  hrnn_status check_features(const OpRecord &op, const char *what, int64_t value) {
    if (value >= 1 && value <= kMaxFeatures) return HRNN_OK;
    return fail(error_, HRNN_CORRUPT_MODEL, HRNN_OP_FORMAT "%s is %lld, not in 1..%lld", HRNN_OP_NAME(op), what,
                static_cast<long long>(value), static_cast<long long>(kMaxFeatures));
  }

  hrnn_status check_recurrent(const OpRecord &op) {
    const bool packed = op.ints[kPackedOffset] != -1;
    hrnn_status status =
        check_operands(op, packed ? 1u << kX : 1u << kX | 1u << kW | 1u << kR,
                       1u << kSequenceLens | 1u << kInitialH | (packed ? 0u : 1u << kB), 0, 1u << kY | 1u << kYh);
    if (status != HRNN_OK) return status;
    const int64_t name = op.ints[kCellName];
    if (name < 0 || name >= static_cast<int64_t>(program_->string_bytes)) {
      return bad_op(op, "its cell's name is outside the strings, at", name);
    }
    if (op.ints[kDirection] < HRNN_FORWARD || op.ints[kDirection] > HRNN_BIDIRECTIONAL) {
      return bad_op(op, "there is no direction", op.ints[kDirection]);
    }
    if (op.ints[kLayout] != 0 && op.ints[kLayout] != 1) return bad_op(op, "there is no layout", op.ints[kLayout]);
    status = check_features(op, "the input size", op.ints[kInputSize]);
    if (status == HRNN_OK) status = check_features(op, "the hidden size", op.ints[kHiddenSize]);
    if (status == HRNN_OK && packed) status = check_packed(op, op.ints[kPackedOffset], op.ints[kPackedBytes]);
    if (status != HRNN_OK) return status;
    if (op.ints[kClipSet] != 0 && op.ints[kClipSet] != 1) {
      return bad_op(op, "clip_set is neither 0 nor 1 but", op.ints[kClipSet]);
    }
    if (op.ints[kClipSet] == 1 && !(op.reals[0] >= 0)) return bad_op(op, "clip is negative or no number", 0);
    const int directions = op.ints[kDirection] == HRNN_BIDIRECTIONAL ? 2 : 1;
    for (int i = 0; i < directions * HRNN_MAX_ACTIVATIONS; ++i) {
      // -1: the cell has fewer activations.
      if (op.ints[kActivationKinds + i] < -1 || op.ints[kActivationKinds + i] >= HRNN_ACTIVATION_COUNT) {
        return bad_op(op, "there is no activation", op.ints[kActivationKinds + i]);
      }
      if (!std::isfinite(op.reals[1 + 2 * i]) || !std::isfinite(op.reals[2 + 2 * i])) {
        return bad_op(op, "alpha or beta is not finite, activation", i);
      }
    }
    const int32_t dtype = input_of(op, kX)->dtype;
    if (!is_float(dtype)) return bad_op(op, "X has no floating-point dtype but", dtype);
    status = expect(op, kX, dtype, 3);
    if (status == HRNN_OK) status = expect(op, kW, dtype, 3);
    if (status == HRNN_OK) status = expect(op, kR, dtype, 3);
    if (status == HRNN_OK) status = expect(op, kB, dtype, 2);
    if (status == HRNN_OK) status = expect(op, kSequenceLens, HRNN_I32, 1);
    if (status == HRNN_OK) status = expect(op, kInitialH, dtype, 3);
    if (status == HRNN_OK) status = set_output(op, kY, dtype, 4);
    if (status == HRNN_OK) status = set_output(op, kYh, dtype, 3);
    return status;
  }

  hrnn_status check_dense(const OpRecord &op) {
    const bool packed = op.ints[kDensePackedOffset] != -1;
    hrnn_status status =
        check_operands(op, packed ? 1u << kDenseX : 1u << kDenseX | 1u << kDenseW, packed ? 0u : 1u << kDenseB, 1, 0);
    if (status != HRNN_OK) return status;
    status = check_features(op, "the number of input features", op.ints[kDenseIn]);
    if (status == HRNN_OK) status = check_features(op, "the number of output features", op.ints[kDenseOut]);
    if (status != HRNN_OK) return status;
    const TensorRecord &x = *input_of(op, kDenseX);
    if (!is_float(x.dtype)) return bad_op(op, "x has no floating-point dtype but", x.dtype);
    if (x.rank < 1) return bad_op(op, "x must have a dimension, its rank is", x.rank);
    if (packed) {
      status = check_packed(op, op.ints[kDensePackedOffset], op.ints[kDensePackedBytes]);
      if (status != HRNN_OK) return status;
      const PackedProduct layout = packed_product(x.dtype, 1, op.ints[kDenseOut], op.ints[kDenseIn]);
      if (layout.bytes != op.ints[kDensePackedBytes]) {
        return bad_op(op, "the packed weights have the wrong number of bytes,", op.ints[kDensePackedBytes]);
      }
    } else if (op.ints[kDenseTransposed] != 0 && op.ints[kDenseTransposed] != 1) {
      return bad_op(op, "transposed is neither 0 nor 1 but", op.ints[kDenseTransposed]);
    }
    status = expect(op, kDenseW, x.dtype, 2);
    if (status == HRNN_OK) status = expect(op, kDenseB, x.dtype, 1);
    if (status == HRNN_OK) status = set_output(op, 0, x.dtype, x.rank);
    return status;
  }

  hrnn_status check_axis(const OpRecord &op, int64_t axis, int32_t rank) {
    return axis >= 0 && axis < rank ? HRNN_OK : bad_op(op, "there is no axis", axis);
  }

  // A dimension that a program states: at least `least`, or a symbol that an input fixes.
  hrnn_status check_stated_dim(const OpRecord &op, int64_t dim, int64_t least) {
    return dim >= least ? HRNN_OK : check_symbol(op, dim);
  }

  hrnn_status check_symbol(const OpRecord &op, int64_t dim) {
    if (dim > -2 || -2 - dim >= static_cast<int64_t>(symbol_bound_.size()) ||
        symbol_bound_[static_cast<size_t>(-2 - dim)] == 0) {
      return bad_op(op, "a dimension is neither a size nor a symbol that an input fixes but", dim);
    }
    return HRNN_OK;
  }

  // The target shape of Reshape and Expand.
  hrnn_status check_target(const OpRecord &op, int64_t least) {
    if (op.ints[0] < 0 || op.ints[0] > HRNN_MAX_RANK) return bad_op(op, "there is no rank", op.ints[0]);
    for (int64_t i = 0; i < op.ints[0]; ++i) {
      const int64_t dim = op.ints[1 + i];
      if (least < 0 && is_input_dim(dim)) continue;
      const hrnn_status status = check_stated_dim(op, dim, least);
      if (status != HRNN_OK) return status;
    }
    return HRNN_OK;
  }

  hrnn_status check_view(const OpRecord &op) {
    hrnn_status status = check_operands(op, 1, 0, 1, 0);
    if (status != HRNN_OK) return status;
    const int32_t dtype = input_of(op, 0)->dtype, rank = input_of(op, 0)->rank;
    int32_t out_rank = rank;
    switch (static_cast<OpKind>(op.kind)) {
      case OpKind::Transpose: {
        uint32_t seen = 0;
        for (int32_t i = 0; i < rank; ++i) {
          if (op.ints[i] < 0 || op.ints[i] >= rank || (seen >> op.ints[i] & 1u) != 0) {
            return bad_op(op, "not a permutation:", op.ints[i]);
          }
          seen |= 1u << op.ints[i];
        }
        break;
      }
      case OpKind::Slice:
        status = check_axis(op, op.ints[0], rank);
        if (status == HRNN_OK && op.ints[3] == 0) status = bad_op(op, "the step is", 0);
        break;
      case OpKind::Select:
      case OpKind::Squeeze:
        status = check_axis(op, op.ints[0], rank);
        out_rank = rank - 1;
        break;
      case OpKind::Unsqueeze:
        out_rank = rank + 1;
        if (out_rank > HRNN_MAX_RANK) return bad_op(op, "the rank would be", out_rank);
        status = check_axis(op, op.ints[0], out_rank);
        break;
      case OpKind::Reshape: {
        status = check_target(op, -1);
        int inferred = 0;
        for (int64_t i = 0; status == HRNN_OK && i < op.ints[0]; ++i) {
          const int64_t dim = op.ints[1 + i], copied = dim == 0 ? i : is_input_dim(dim) ? dim - kInputDim : -1;
          if (copied >= rank) status = bad_op(op, "the input has no dimension", copied);
          if (op.ints[1 + i] == -1 && ++inferred == 2) status = bad_op(op, "a second inferred dimension,", i);
        }
        out_rank = static_cast<int32_t>(op.ints[0]);
        break;
      }
      case OpKind::Window: status = check_window(op, rank, &out_rank); break;
      default:  // Expand
        status = check_target(op, 1);
        if (op.ints[0] > rank) out_rank = static_cast<int32_t>(op.ints[0]);
        break;
    }
    return status != HRNN_OK ? status : set_output(op, 0, dtype, out_rank);
  }

  hrnn_status check_elementwise(const OpRecord &op) {
    const FunctionInfo *info = function_info(op.ints[kFunction]);
    if (info == nullptr) return bad_op(op, "there is no function", op.ints[kFunction]);
    const hrnn_status status = check_operands(op, (1u << info->operands) - 1, 0, 1, 0);
    if (status != HRNN_OK) return status;
    const bool is_where = op.ints[kFunction] == static_cast<int64_t>(Function::Where);
    const int32_t dtype = input_of(op, is_where ? 1 : 0)->dtype;
    int32_t rank = 0;
    for (int slot = 0; slot < info->operands; ++slot) {
      const TensorRecord &operand = *input_of(op, slot);
      const int32_t expected = is_where && slot == 0 ? static_cast<int32_t>(HRNN_BOOL) : dtype;
      if (operand.dtype != expected) return bad_op(op, "its operands do not fit each other: one has dtype", operand.dtype);
      if (operand.rank > rank) rank = operand.rank;
    }
    if ((info->types & type_bit(dtype)) == 0) return bad_op(op, "the function does not take dtype", dtype);
    if (!std::isfinite(op.reals[0]) || !std::isfinite(op.reals[1])) {
      return bad_op(op, "alpha or beta is not finite,", 0);
    }
    if (op.ints[kInPlace] < 0 || op.ints[kInPlace] > info->operands) {
      return bad_op(op, "its result cannot replace operand (counted from 1)", op.ints[kInPlace]);
    }
    if (info->result == ResultType::Bool) return set_output(op, 0, HRNN_BOOL, rank);
    if (info->result == ResultType::Same) return set_output(op, 0, dtype, rank);
    const int64_t result = op.ints[kResultType];
    if (result < HRNN_F32 || result > HRNN_BOOL) return bad_op(op, "there is no dtype", result);
    return set_output(op, 0, static_cast<int32_t>(result), rank);
  }

  hrnn_status check_reduce(const OpRecord &op) {
    const hrnn_status status = check_operands(op, 1, 0, 1, 0);
    if (status != HRNN_OK) return status;
    const TensorRecord &x = *input_of(op, 0);
    const int64_t kind = op.ints[kReduction], axes = op.ints[kReducedAxes];
    if (kind < 0 || kind >= kReductions) return bad_op(op, "there is no reduction", kind);
    const Reduction reduction = static_cast<Reduction>(kind);
    if ((reduction_types(reduction) & type_bit(x.dtype)) == 0) {
      return bad_op(op, "the reduction does not take dtype", x.dtype);
    }
    if (axes < 0 || axes >> x.rank != 0) return bad_op(op, "an axis is out of range in the bits", axes);
    int32_t count = 0;
    for (int32_t i = 0; i < x.rank; ++i) count += static_cast<int32_t>(axes >> i & 1);
    if (gives_index(reduction) && count != 1) return bad_op(op, "an index is of one axis, not of", count);
    if (op.ints[kKeepAxes] != 0 && op.ints[kKeepAxes] != 1) {
      return bad_op(op, "keeping axes is neither 0 nor 1 but", op.ints[kKeepAxes]);
    }
    const int32_t dtype = gives_index(reduction) ? static_cast<int32_t>(HRNN_I64) : x.dtype;
    return set_output(op, 0, dtype, op.ints[kKeepAxes] == 1 ? x.rank : x.rank - count);
  }

  hrnn_status check_matmul(const OpRecord &op) {
    const hrnn_status status = check_operands(op, 3, 0, 1, 0);
    if (status != HRNN_OK) return status;
    const TensorRecord &a = *input_of(op, 0), &b = *input_of(op, 1);
    if (!is_float(a.dtype) || a.dtype != b.dtype) return bad_op(op, "its inputs must be equal floats, one is", b.dtype);
    if (a.rank < 2 || b.rank < 2) return bad_op(op, "its inputs must be matrices, one has rank", a.rank < 2 ? a.rank : b.rank);
    return set_output(op, 0, a.dtype, a.rank > b.rank ? a.rank : b.rank);
  }

  // Of everything that gathers or scatters.
  hrnn_status check_indices(const OpRecord &op, uint32_t inputs) {
    const hrnn_status status = check_operands(op, inputs, 0, 1, 0);
    if (status != HRNN_OK) return status;
    const int32_t dtype = input_of(op, kGatherIndices)->dtype;
    if (dtype == HRNN_I32 || dtype == HRNN_I64) return HRNN_OK;
    return bad_op(op, "the indices must be integers, their dtype is", dtype);
  }

  // Tuples of `batch` + n indices into dimensions of the data; the rank of what they pick.
  hrnn_status check_tuples(const OpRecord &op, int64_t batch, int32_t *rank) {
    const TensorRecord &data = *input_of(op, kGatherData), &indices = *input_of(op, kGatherIndices);
    const int64_t size = op.ints[kTupleSize];
    if (batch < 0 || batch >= indices.rank) return bad_op(op, "the indices have no batch dimensions", batch);
    if (size < 1 || size > data.rank - batch) return bad_op(op, "the data cannot be picked from by tuples of", size);
    *rank = indices.rank - 1 + data.rank - static_cast<int32_t>(size + batch);
    return *rank > HRNN_MAX_RANK ? bad_op(op, "the rank would be", *rank) : HRNN_OK;
  }

  // Along an axis of data of the same rank.
  hrnn_status check_index_axis(const OpRecord &op) {
    const TensorRecord &data = *input_of(op, kGatherData), &indices = *input_of(op, kGatherIndices);
    if (indices.rank != data.rank) return bad_op(op, "data and indices must have the same rank, the indices have", indices.rank);
    return check_axis(op, op.ints[0], data.rank);
  }

  hrnn_status check_gather_tuples(const OpRecord &op) {
    hrnn_status status = check_indices(op, 1u << kGatherData | 1u << kGatherIndices);
    if (status != HRNN_OK) return status;
    int32_t rank = input_of(op, kGatherData)->rank;
    status = is_kind(op, OpKind::GatherND) ? check_tuples(op, op.ints[kTupleBatch], &rank) : check_index_axis(op);
    return status != HRNN_OK ? status : set_output(op, 0, input_of(op, kGatherData)->dtype, rank);
  }

  hrnn_status check_scatter(const OpRecord &op) {
    hrnn_status status = check_indices(op, 1u << kGatherData | 1u << kGatherIndices | 1u << kScatterUpdates);
    if (status != HRNN_OK) return status;
    const TensorRecord &data = *input_of(op, kGatherData);
    int32_t rank = data.rank;
    status = is_kind(op, OpKind::ScatterND) ? check_tuples(op, 0, &rank) : check_index_axis(op);
    if (status == HRNN_OK) status = expect(op, kScatterUpdates, data.dtype, rank);
    if (status != HRNN_OK) return status;
    const int64_t reduction = op.ints[kScatterReduction];
    if (!is_scatter_reduction(reduction)) return bad_op(op, "updates cannot be combined by function", reduction);
    if (reduction != kReplace && (function_info(reduction)->types & type_bit(data.dtype)) == 0) {
      return bad_op(op, "the function does not take dtype", data.dtype);
    }
    return set_output(op, 0, data.dtype, data.rank);
  }

  hrnn_status check_top_k(const OpRecord &op) {
    hrnn_status status = check_operands(op, 1, 0, 1, 0);
    if (status != HRNN_OK) return status;
    const TensorRecord &x = *input_of(op, 0);
    if ((kNumberTypes & type_bit(x.dtype)) == 0) return bad_op(op, "it cannot order dtype", x.dtype);
    status = check_axis(op, op.ints[kTopKAxis], x.rank);
    if (status == HRNN_OK) status = check_stated_dim(op, op.ints[kTopKCount], 0);
    if (status != HRNN_OK) return status;
    if (op.ints[kTopKLargest] != 0 && op.ints[kTopKLargest] != 1) {
      return bad_op(op, "largest is neither 0 nor 1 but", op.ints[kTopKLargest]);
    }
    return set_output(op, 0, HRNN_I64, x.rank);
  }

  hrnn_status check_range(const OpRecord &op) {
    hrnn_status status = check_operands(op, 0, 0, 1, 0);
    if (status == HRNN_OK) status = check_stated_dim(op, op.ints[kRangeCount], 0);
    if (status == HRNN_OK && op.ints[kRangeSymbol] != 0) status = check_symbol(op, op.ints[kRangeSymbol]);
    if (status != HRNN_OK) return status;
    const int64_t type = op.ints[kRangeType];
    if (type != HRNN_I32 && type != HRNN_I64) return bad_op(op, "it cannot count in dtype", type);
    return set_output(op, 0, static_cast<int32_t>(type), 1);
  }

  hrnn_status check_gather(const OpRecord &op) {
    hrnn_status status = check_indices(op, 1u << kGatherData | 1u << kGatherIndices);
    if (status != HRNN_OK) return status;
    const TensorRecord &data = *input_of(op, kGatherData), &indices = *input_of(op, kGatherIndices);
    status = check_axis(op, op.ints[0], data.rank);
    if (status != HRNN_OK) return status;
    const int32_t rank = data.rank - 1 + indices.rank;
    return rank > HRNN_MAX_RANK ? bad_op(op, "the rank would be", rank) : set_output(op, 0, data.dtype, rank);
  }

  hrnn_status check_pad(const OpRecord &op) {
    const hrnn_status status = check_operands(op, 1, 0, 1, 0);
    if (status != HRNN_OK) return status;
    const TensorRecord &x = *input_of(op, 0);
    for (int32_t i = 0; i < x.rank; ++i) {
      for (const int64_t count : {op.ints[i], op.ints[kPadAfter + i]}) {
        if (count < 0 || count > kMaxPadding) return bad_op(op, "it cannot add elements:", count);
      }
    }
    return set_output(op, 0, x.dtype, x.rank);
  }

  // A window is a view, with numbers that nothing else bounds.
  hrnn_status check_window(const OpRecord &op, int32_t rank, int32_t *out_rank) {
    *out_rank = rank + 1;
    if (*out_rank > HRNN_MAX_RANK) return bad_op(op, "the rank would be", *out_rank);
    for (const int position : {kWindowSize, kWindowStride, kWindowDilation}) {
      if (op.ints[position] < 1 || op.ints[position] > kMaxPadding) {
        return bad_op(op, "size, stride or dilation of the windows is", op.ints[position]);
      }
    }
    return check_axis(op, op.ints[kWindowAxis], rank);
  }

  hrnn_status check_concat(const OpRecord &op) {
    hrnn_status status = check_operands(op, 1, (1u << kMaxOpInputs) - 1, 1, 0);
    if (status != HRNN_OK) return status;
    const TensorRecord &first = *input_of(op, 0);
    status = check_axis(op, op.ints[0], first.rank);
    bool ended = false;
    for (int slot = 1; status == HRNN_OK && slot < kMaxOpInputs; ++slot) {
      if (op.inputs[slot] == kNone) {
        ended = true;
      } else if (ended) {
        return bad_op(op, "inputs are missing before input", slot);
      } else {
        status = expect(op, slot, first.dtype, first.rank);
      }
    }
    return status != HRNN_OK ? status : set_output(op, 0, first.dtype, first.rank);
  }

  hrnn_status check_op(size_t index) {
    index_ = index;
    const OpRecord &op = program_->ops[index];
    if (op.name != kNone && !valid_string(op.name)) {
      return fail(error_, HRNN_CORRUPT_MODEL, "operation %zu: its name is at %u, the strings have %u bytes", index,
                  op.name, program_->string_bytes);
    }
    if (is_view(op.kind)) return check_view(op);
    switch (static_cast<OpKind>(op.kind)) {
      case OpKind::Recurrent: return check_recurrent(op);
      case OpKind::Dense: return check_dense(op);
      case OpKind::Elementwise: return check_elementwise(op);
      case OpKind::Concat: return check_concat(op);
      case OpKind::Reduce: return check_reduce(op);
      case OpKind::MatMul: return check_matmul(op);
      case OpKind::Gather: return check_gather(op);
      case OpKind::Pad: return check_pad(op);
      case OpKind::GatherElements:
      case OpKind::GatherND: return check_gather_tuples(op);
      case OpKind::ScatterElements:
      case OpKind::ScatterND: return check_scatter(op);
      case OpKind::TopK: return check_top_k(op);
      case OpKind::Range: return check_range(op);
      default: return bad_op(op, "this runtime does not know operation kind", op.kind);
    }
  }

#undef HRNN_OP_FORMAT
#undef HRNN_OP_NAME

  const char *blob_;
  uint64_t blob_bytes_, weights_bytes_;
  Program *program_;
  hrnn_error *error_;
  size_t index_ = 0;                         // of the operation being checked
  Array<uint8_t> available_, symbol_bound_;  // per tensor: has a value by now; per symbol: an input fixes it
};

}  // namespace

hrnn_status read_program(const void *blob, uint64_t blob_bytes, uint64_t weights_bytes, Program *program,
                         hrnn_error *error) {
  return ProgramReader(blob, blob_bytes, weights_bytes, program, error).read();
}

}  // namespace hrnn
