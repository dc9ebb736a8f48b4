// SPDX-License-Identifier: Apache-2.0
#include "program_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <unordered_map>

#include "indexing.h"
#include "pack.h"
#include "program.h"
#include "program_reader.h"

namespace hrnn {
namespace {

// The weights section: blocks on 64-byte boundaries.
class Weights {
 public:
  // Zeroed space for `bytes`; returns its offset. The memory at at() is valid until the next call.
  int64_t add(int64_t bytes) {
    const int64_t offset = static_cast<int64_t>(data_.size());
    data_.resize(static_cast<size_t>(offset + (bytes + kRowBytes - 1) / kRowBytes * kRowBytes));
    return offset;
  }
  uint8_t *at(int64_t offset) { return data_.data() + offset; }
  AlignedBytes take() { return std::move(data_); }

 private:
  AlignedBytes data_;
};

class Strings {
 public:
  uint32_t add(const std::string &text) {
    const auto [entry, added] = offsets_.emplace(text, static_cast<uint32_t>(data_.size()));
    if (added) data_.append(text.c_str()).push_back('\0');
    return entry->second;
  }
  const std::string &data() const { return data_; }

 private:
  std::string data_;
  std::unordered_map<std::string, uint32_t> offsets_;
};

class Writer {
 public:
  explicit Writer(const Graph &graph) : graph_(graph), records_(graph.tensors.size(), kNone) {}

  CompiledModel write(const std::string &name) {
    for (const Symbol &symbol : graph_.symbols) symbols_.push_back(strings_.add(symbol.name));
    for (TensorId id : graph_.inputs) inputs_.push_back(tensor(id));
    for (const Node &node : graph_.nodes) ops_.push_back(lower(node));
    for (TensorId id : graph_.outputs) outputs_.push_back(tensor(id));
    CompiledModel model;
    model.name = name;
    model.program = assemble();
    model.weights = weights_.take();
    return model;
  }

 private:
  // ---- Tensors ----

  uint32_t tensor(TensorId id) {
    if (id == kNoTensor) return kNone;
    uint32_t &record = records_[static_cast<size_t>(id)];
    if (record == kNone) {
      record = static_cast<uint32_t>(tensors_.size());
      tensors_.push_back(make_record(graph_.tensor(id)));
    }
    return record;
  }

  TensorRecord make_record(const Tensor &tensor) {
    TensorRecord record{};
    record.name = tensor.name.empty() ? kNone : strings_.add(tensor.name);
    record.dtype = runtime_type(tensor.type);
    record.rank = static_cast<int32_t>(tensor.dims.size());
    for (size_t i = 0; i < tensor.dims.size(); ++i) record.dims[i] = encode(tensor.dims[i]);
    if (tensor.constant) {
      const auto &bytes = tensor.constant->bytes;
      record.is_constant = 1;
      record.data_offset = static_cast<uint64_t>(weights_.add(static_cast<int64_t>(bytes.size())));
      record.data_bytes = bytes.size();
      if (!bytes.empty())
        std::memcpy(weights_.at(static_cast<int64_t>(record.data_offset)), bytes.data(), bytes.size());
    }
    return record;
  }

  // A literal, or symbol k as -1 - k. A formula such as "time - 1" gets a symbol of that name, which only names it: the
  // session infers the real size from the operations.
  int64_t encode(const Dim &dim) {
    if (dim.literal()) return *dim.literal();
    if (dim.symbol()) return -1 - *dim.symbol();
    const std::string text = dim.text(graph_.symbols);
    const auto [entry, added] = formulas_.emplace(text, static_cast<int64_t>(symbols_.size()));
    if (added) symbols_.push_back(strings_.add(text));
    return -1 - entry->second;
  }

  // ---- Operations ----

  OpRecord lower(const Node &node) {
    OpRecord record{};
    record.name = strings_.add(node.name);
    std::fill(std::begin(record.inputs), std::end(record.inputs), kNone);
    std::fill(std::begin(record.outputs), std::end(record.outputs), kNone);
    std::visit([&](const auto &op) { lower(node, op, &record); }, node.op);
    for (size_t i = 0; i < node.outputs.size(); ++i) record.outputs[i] = tensor(node.outputs[i]);
    return record;
  }

  void set_inputs(const Node &node, OpRecord *record) {
    for (size_t i = 0; i < node.inputs.size(); ++i) record->inputs[i] = tensor(node.inputs[i]);
  }

  static OpRecord *begin(OpKind kind, std::initializer_list<int64_t> ints, OpRecord *record) {
    record->kind = static_cast<uint32_t>(kind);
    std::copy(ints.begin(), ints.end(), record->ints);
    return record;
  }

  const void *data(TensorId id) const { return id == kNoTensor ? nullptr : graph_.tensor(id).constant->bytes.data(); }

  // Whether all weights are known now; else they stay tensors, and the runtime packs them when they arrive.
  bool packable(const Node &node, size_t first, size_t count) const {
    for (size_t i = first; i < first + count; ++i) {
      if (node.inputs[i] != kNoTensor && !graph_.is_constant(node.inputs[i])) return false;
    }
    return true;
  }

  void lower(const Node &node, const op::Recurrent &layer, OpRecord *record) {
    begin(OpKind::Recurrent, {}, record);
    record->ints[kCellName] = strings_.add(layer.cell);
    record->ints[kDirection] = layer.direction;
    record->ints[kLayout] = layer.layout;
    record->ints[kInputSize] = layer.input_size;
    record->ints[kHiddenSize] = layer.hidden_size;
    record->ints[kClipSet] = layer.clip.has_value();
    record->ints[kPackedOffset] = -1;
    record->reals[0] = layer.clip.value_or(0);
    for (size_t d = 0; d < layer.activations.size(); ++d) {
      for (size_t a = 0; a < layer.activations[d].size(); ++a) {
        const size_t slot = d * HRNN_MAX_ACTIVATIONS + a;
        record->ints[kActivationKinds + slot] = layer.activations[d][a].kind;
        record->reals[1 + 2 * slot] = layer.activations[d][a].alpha;
        record->reals[2 + 2 * slot] = layer.activations[d][a].beta;
      }
    }
    std::vector<TensorId> inputs = node.inputs;
    if (packable(node, 1, 3)) {
      pack(layer, inputs, record);
      std::fill(inputs.begin() + 1, inputs.begin() + 4, kNoTensor);
    }
    for (size_t i = 0; i < inputs.size(); ++i) record->inputs[i] = tensor(inputs[i]);
  }

  void pack(const op::Recurrent &layer, const std::vector<TensorId> &inputs, OpRecord *record) {
    CellShape shape;
    if (!builtin_cell_shape(layer.cell.c_str(), &shape)) throw ModelError("cell '" + layer.cell + "' is not known");
    const hrnn_dtype dtype = runtime_type(graph_.tensor(inputs[1]).type);
    const int64_t directions = layer.directions(), input = layer.input_size, hidden = layer.hidden_size;
    const int64_t bytes = packed_layer(dtype, shape, directions, input, hidden).bytes;
    record->ints[kPackedOffset] = weights_.add(bytes);
    record->ints[kPackedBytes] = bytes;
    pack_layer(dtype, shape, directions, input, hidden, data(inputs[1]), data(inputs[2]), data(inputs[3]),
               weights_.at(record->ints[kPackedOffset]));
  }

  void lower(const Node &node, const op::Dense &dense, OpRecord *record) {
    begin(OpKind::Dense, {dense.in_features, dense.out_features, -1, 0, dense.transposed}, record);
    record->inputs[0] = tensor(node.inputs[0]);
    if (!packable(node, 1, 2)) return set_inputs(node, record);
    const hrnn_dtype dtype = runtime_type(graph_.tensor(node.inputs[1]).type);
    const int64_t bytes = packed_product(dtype, 1, dense.out_features, dense.in_features).bytes;
    record->ints[kDensePackedOffset] = weights_.add(bytes);
    record->ints[kDensePackedBytes] = bytes;
    pack_dense(dtype, dense.out_features, dense.in_features, dense.transposed, data(node.inputs[1]),
               data(node.inputs[2]), weights_.at(record->ints[kDensePackedOffset]));
  }

  void lower(const Node &node, const op::Transpose &op, OpRecord *record) {
    set_inputs(node, begin(OpKind::Transpose, {}, record));
    std::copy(op.permutation.begin(), op.permutation.end(), record->ints);
  }
  void lower(const Node &node, const op::Slice &op, OpRecord *record) {
    set_inputs(node, begin(OpKind::Slice, {op.axis, op.start, op.stop, op.step}, record));
  }
  void lower(const Node &node, const op::Select &op, OpRecord *record) {
    set_inputs(node, begin(OpKind::Select, {op.axis, op.index}, record));
  }
  void lower(const Node &node, const op::Unsqueeze &op, OpRecord *record) {
    set_inputs(node, begin(OpKind::Unsqueeze, {op.axis}, record));
  }
  void lower(const Node &node, const op::Squeeze &op, OpRecord *record) {
    set_inputs(node, begin(OpKind::Squeeze, {op.axis}, record));
  }
  // 1 + the operand that has the result's shape and type whatever the dynamic dimensions are, 0 where there is none.
  int64_t in_place_operand(const Node &node) const {
    const Tensor &result = graph_.tensor(node.outputs[0]);
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const Tensor &operand = graph_.tensor(node.inputs[i]);
      if (!operand.constant && operand.type == result.type && operand.dims == result.dims) {
        return static_cast<int64_t>(i) + 1;
      }
    }
    return 0;
  }
  void lower(const Node &node, const op::Elementwise &op, OpRecord *record) {
    set_inputs(node, begin(OpKind::Elementwise, {static_cast<int64_t>(op.function)}, record));
    record->ints[kResultType] = runtime_type(graph_.tensor(node.outputs[0]).type);
    record->ints[kInPlace] = in_place_operand(node);
    record->reals[0] = op.alpha;
    record->reals[1] = op.beta;
  }
  void lower(const Node &node, const op::Reduce &op, OpRecord *record) {
    int64_t bits = 0;
    for (int64_t axis : op.axes) bits |= int64_t{1} << axis;
    set_inputs(node, begin(OpKind::Reduce, {static_cast<int64_t>(op.reduction), bits, op.keep_axes}, record));
  }
  void lower(const Node &node, const op::MatMul &, OpRecord *record) {
    set_inputs(node, begin(OpKind::MatMul, {}, record));
  }
  void lower(const Node &node, const op::Gather &op, OpRecord *record) {
    set_inputs(node, begin(OpKind::Gather, {op.axis}, record));
  }
  void lower(const Node &node, const op::Pad &op, OpRecord *record) {
    set_inputs(node, begin(OpKind::Pad, {}, record));
    std::copy(op.before.begin(), op.before.end(), record->ints);
    std::copy(op.after.begin(), op.after.end(), record->ints + kPadAfter);
    record->reals[0] = op.value;
  }
  void lower(const Node &node, const op::Window &op, OpRecord *record) {
    set_inputs(node, begin(OpKind::Window, {op.axis, op.size, op.stride, op.dilation}, record));
  }
  void lower(const Node &node, const op::GatherElements &op, OpRecord *record) {
    set_inputs(node, begin(OpKind::GatherElements, {op.axis}, record));
  }
  void lower(const Node &node, const op::GatherND &op, OpRecord *record) {
    set_inputs(node, begin(OpKind::GatherND, {op.size, 0, op.batch}, record));
  }
  static int64_t scatter_reduction(const std::optional<Function> &reduction) {
    return reduction ? static_cast<int64_t>(*reduction) : kReplace;
  }
  void lower(const Node &node, const op::ScatterElements &op, OpRecord *record) {
    set_inputs(node, begin(OpKind::ScatterElements, {op.axis, scatter_reduction(op.reduction)}, record));
  }
  void lower(const Node &node, const op::ScatterND &op, OpRecord *record) {
    set_inputs(node, begin(OpKind::ScatterND, {op.size, scatter_reduction(op.reduction)}, record));
  }
  // A dimension that is no input's: a literal, or a symbol.
  int64_t stated_dim(const Node &node, const char *what, const Dim &dim) const {
    if (dim.literal()) return *dim.literal();
    const auto symbol = bound_symbol(dim);
    if (!symbol) fail_shape(node, what, dim);
    return *symbol;
  }
  void lower(const Node &node, const op::TopK &op, OpRecord *record) {
    const Dim &count = graph_.tensor(node.outputs[0]).dims[op.axis];
    set_inputs(node, begin(OpKind::TopK, {op.axis, stated_dim(node, "picks", count), op.largest}, record));
  }
  void lower(const Node &node, const op::Range &op, OpRecord *record) {
    const Tensor &out = graph_.tensor(node.outputs[0]);
    const int64_t count = stated_dim(node, "makes", out.dims[0]), type = runtime_type(out.type);
    if (op.first.literal()) {
      begin(OpKind::Range, {count, *op.first.literal(), op.step, type, 0}, record);
      return;
    }
    const Dim::Offset first = *op.first.offset();
    begin(OpKind::Range, {count, first.number, op.step, type, stated_dim(node, "counts with", Dim::symbol(first.symbol))},
          record);
  }
  void lower(const Node &node, const op::Concat &op, OpRecord *record) {
    set_inputs(node, begin(OpKind::Concat, {op.axis}, record));
  }

  // A symbol whose value a session can read from the inputs, as -2 - k.
  std::optional<int64_t> bound_symbol(const Dim &dim) const {
    const std::optional<int> symbol = dim.symbol();
    if (!symbol || !graph_.symbols[*symbol].from_input) return std::nullopt;
    return -2 - static_cast<int64_t>(*symbol);
  }

  [[noreturn]] void fail_shape(const Node &node, const char *what, const Dim &dim) const {
    throw ModelError(
        fmt::format("node '{}' ({}): {} shape {}, whose dimension {} cannot be computed from the inputs' "
                    "dimensions; fix one of the dynamic dimensions when exporting",
                    node.name, node.source, what, graph_.dims_text(node.outputs[0]), dim.text(graph_.symbols)));
  }

  void lower(const Node &node, const op::Reshape &, OpRecord *record) {
    const Dims &from = graph_.tensor(node.inputs[0]).dims, &to = graph_.tensor(node.outputs[0]).dims;
    set_inputs(node, begin(OpKind::Reshape, {static_cast<int64_t>(to.size())}, record));
    bool inferred = false;
    for (size_t i = 0; i < to.size(); ++i) {
      int64_t &code = record->ints[1 + i];
      if (to[i].literal() && *to[i].literal() > 0) {
        code = *to[i].literal();
      } else if (i < from.size() && from[i] == to[i]) {
        code = 0;
      } else if (const auto copied = std::find(from.begin(), from.end(), to[i]); copied != from.end()) {
        code = kInputDim + (copied - from.begin());
      } else if (const auto symbol = bound_symbol(to[i])) {
        code = *symbol;
      } else if (!inferred && !to[i].literal()) {
        code = -1;
        inferred = true;
      } else {
        fail_shape(node, "reshapes to", to[i]);
      }
    }
  }

  void lower(const Node &node, const op::Expand &, OpRecord *record) {
    const Dims &from = graph_.tensor(node.inputs[0]).dims, &to = graph_.tensor(node.outputs[0]).dims;
    set_inputs(node, begin(OpKind::Expand, {static_cast<int64_t>(to.size())}, record));
    for (size_t i = 0; i < to.size(); ++i) {
      int64_t &code = record->ints[1 + i];
      const size_t added = to.size() - from.size();
      if (to[i].literal() && *to[i].literal() > 0) {
        code = *to[i].literal();
      } else if (const auto symbol = bound_symbol(to[i])) {
        code = *symbol;
      } else if (i >= added && from[i - added] == to[i]) {
        code = 1;  // broadcasting with 1 keeps the input's
      } else {
        fail_shape(node, "expands to", to[i]);
      }
    }
  }

  // ---- The blob ----

  template <class T>
  static void append(const std::vector<T> &records, std::vector<uint8_t> *out) {
    const auto *bytes = reinterpret_cast<const uint8_t *>(records.data());
    out->insert(out->end(), bytes, bytes + records.size() * sizeof(T));
    out->resize((out->size() + 7) / 8 * 8);
  }

  std::vector<uint8_t> assemble() const {
    ProgramHeader header{};
    std::memcpy(header.magic, kProgramMagic, sizeof header.magic);
    header.symbol_count = static_cast<uint32_t>(symbols_.size());
    header.tensor_count = static_cast<uint32_t>(tensors_.size());
    header.op_count = static_cast<uint32_t>(ops_.size());
    header.input_count = static_cast<uint32_t>(inputs_.size());
    header.output_count = static_cast<uint32_t>(outputs_.size());
    header.string_bytes = static_cast<uint32_t>(strings_.data().size());
    std::vector<uint8_t> out;
    append(std::vector<ProgramHeader>{header}, &out);
    append(symbols_, &out);
    append(tensors_, &out);
    append(ops_, &out);
    append(inputs_, &out);
    append(outputs_, &out);
    append(std::vector<char>(strings_.data().begin(), strings_.data().end()), &out);
    if (out.size() > std::numeric_limits<uint32_t>::max()) throw ModelError("the model's program exceeds 4 GiB");
    header.bytes = static_cast<uint32_t>(out.size());
    std::memcpy(out.data(), &header, sizeof header);
    return out;
  }

  const Graph &graph_;
  std::vector<uint32_t> records_;  // of each tensor, or kNone while it has none
  std::unordered_map<std::string, int64_t> formulas_;
  Weights weights_;
  Strings strings_;
  std::vector<uint32_t> symbols_, inputs_, outputs_;
  std::vector<TensorRecord> tensors_;
  std::vector<OpRecord> ops_;
};

}  // namespace

CompiledModel write_program(const Graph &graph, const std::string &name) { return Writer(graph).write(name); }

}  // namespace hrnn
