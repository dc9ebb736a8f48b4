// SPDX-License-Identifier: Apache-2.0
//
// Writes programs (runtime/src/program.h) for tests, one tensor and operation at a time.
#pragma once
#include <cstring>
#include <initializer_list>
#include <string>
#include <vector>

#include "hrnn/hrnn.h"
#include "layer.h"
#include "pack.h"
#include "program.h"

namespace hrnn_test {

using hrnn::kNone;
using hrnn::OpKind;
using hrnn::OpRecord;
using hrnn::TensorRecord;

// 64-byte aligned bytes, with nothing usable around them.
class AlignedBytes {
 public:
  void assign(const std::vector<char> &bytes) {
    size_ = bytes.size();
    storage_.assign(size_ + 64, 0);
    if (size_ > 0) memcpy(data(), bytes.data(), size_);
  }
  char *data() { return storage_.data() + (64 - reinterpret_cast<uintptr_t>(storage_.data()) % 64) % 64; }
  size_t size() const { return size_; }

 private:
  std::vector<char> storage_;
  size_t size_ = 0;
};

template <typename T>
constexpr hrnn_dtype dtype_of() {
  if constexpr (std::is_same_v<T, float>) return HRNN_F32;
  if constexpr (std::is_same_v<T, double>) return HRNN_F64;
  if constexpr (std::is_same_v<T, int32_t>) return HRNN_I32;
  return HRNN_I64;
}

class ProgramBuilder {
 public:
  // A symbolic dimension, to be used in the dims of inputs and outputs; target() of it in those of Reshape and Expand.
  int64_t symbol(const std::string &name) {
    symbols_.push_back(string(name));
    return -static_cast<int64_t>(symbols_.size());
  }
  static int64_t target(int64_t symbol) { return symbol - 1; }

  uint32_t input(const std::string &name, hrnn_dtype dtype, const std::vector<int64_t> &dims) {
    inputs_.push_back(tensor(name, dtype, dims));
    return inputs_.back();
  }
  // Names a tensor, states its dims and makes it an output.
  void output(uint32_t id, const std::string &name, hrnn_dtype dtype, const std::vector<int64_t> &dims) {
    tensors_[id].name = string(name);
    declare(id, dtype, dims);
    outputs_.push_back(id);
  }
  // An output of which only the rank matters: every dimension gets a symbol of its own.
  void output_of_rank(uint32_t id, const std::string &name, hrnn_dtype dtype, size_t rank) {
    std::vector<int64_t> dims;
    for (size_t i = 0; i < rank; ++i) dims.push_back(symbol(name + std::to_string(i)));
    output(id, name, dtype, dims);
  }
  template <typename T>
  uint32_t constant(const std::vector<int64_t> &dims, const std::vector<T> &values) {
    const uint32_t id = tensor("", dtype_of<T>(), dims);
    tensors_[id].is_constant = 1;
    tensors_[id].data_offset = add_weights(values.data(), values.size() * sizeof(T));
    tensors_[id].data_bytes = values.size() * sizeof(T);
    return id;
  }
  uint32_t intermediate() { return tensor("", HRNN_F32, {}); }

  // A reference stays valid until the next operation is added.
  OpRecord &op(OpKind kind, const std::string &name, std::initializer_list<uint32_t> inputs,
               std::initializer_list<uint32_t> outputs) {
    OpRecord record = {};
    record.kind = static_cast<uint32_t>(kind);
    record.name = string(name);
    for (uint32_t &id : record.inputs) id = kNone;
    for (uint32_t &id : record.outputs) id = kNone;
    std::copy(inputs.begin(), inputs.end(), record.inputs);
    std::copy(outputs.begin(), outputs.end(), record.outputs);
    ops_.push_back(record);
    return ops_.back();
  }
  // An operation with one new output.
  uint32_t unary(OpKind kind, const std::string &name, uint32_t in, std::initializer_list<int64_t> ints,
                 std::initializer_list<double> reals = {}) {
    const uint32_t out = intermediate();
    OpRecord &record = op(kind, name, {in}, {out});
    std::copy(ints.begin(), ints.end(), record.ints);
    std::copy(reals.begin(), reals.end(), record.reals);
    return out;
  }
  uint32_t concat(const std::string &name, const std::vector<uint32_t> &inputs, int64_t axis) {
    const uint32_t out = intermediate();
    OpRecord &record = op(OpKind::Concat, name, {}, {out});
    std::copy(inputs.begin(), inputs.end(), record.inputs);
    record.ints[0] = axis;
    return out;
  }

  struct LayerTensors {
    uint32_t x = kNone, w = kNone, r = kNone, b = kNone, lengths = kNone, h0 = kNone, y = kNone, h = kNone;
  };
  // Weights are packed into the program unless tensors.w is set.
  template <typename T>
  void layer(const std::string &name, const Layer &layer, int64_t layout, const LayerTensors &tensors) {
    OpRecord record =
        op(OpKind::Recurrent, name, {tensors.x, tensors.w, tensors.r, tensors.b, tensors.lengths, tensors.h0},
           {tensors.y, tensors.h});
    record.ints[hrnn::kCellName] = string(layer.cell);
    record.ints[hrnn::kDirection] = layer.direction;
    record.ints[hrnn::kLayout] = layout;
    record.ints[hrnn::kInputSize] = layer.input;
    record.ints[hrnn::kHiddenSize] = layer.hidden;
    record.ints[hrnn::kClipSet] = std::isfinite(layer.clip);
    record.ints[hrnn::kPackedOffset] = -1;
    if (std::isfinite(layer.clip)) record.reals[0] = layer.clip;
    for (int d = 0; d < 2; ++d) {
      for (int a = 0; a < HRNN_MAX_ACTIVATIONS; ++a) {
        const int i = d * HRNN_MAX_ACTIVATIONS + a;
        record.ints[hrnn::kActivationKinds + i] = a < 2 ? layer.activations[d][a].kind : -1;
        if (a == 2) continue;
        record.reals[1 + 2 * i] = layer.activations[d][a].alpha;
        record.reals[2 + 2 * i] = layer.activations[d][a].beta;
      }
    }
    if (tensors.w == kNone) {
      hrnn::CellShape shape;
      hrnn::builtin_cell_shape(layer.cell.c_str(), &shape);
      const auto packed = hrnn::packed_layer(dtype_of<T>(), shape, layer.directions(), layer.input, layer.hidden);
      std::vector<char> block(static_cast<size_t>(packed.bytes));
      const std::vector<T> w(layer.w.begin(), layer.w.end()), r(layer.r.begin(), layer.r.end()),
          b(layer.b.begin(), layer.b.end());
      hrnn::pack_layer(dtype_of<T>(), shape, layer.directions(), layer.input, layer.hidden, w.data(), r.data(),
                       b.empty() ? nullptr : b.data(), block.data());
      record.ints[hrnn::kPackedOffset] = static_cast<int64_t>(add_weights(block.data(), block.size()));
      record.ints[hrnn::kPackedBytes] = packed.bytes;
    }
    ops_.back() = record;
  }

  // y = x wT + b, packed unless w_id is set. w [out, in].
  template <typename T>
  uint32_t dense(const std::string &name, uint32_t x, int64_t in, int64_t out, const std::vector<double> &w,
                 const std::vector<double> &b, uint32_t w_id = kNone, uint32_t b_id = kNone, bool transposed = false) {
    const uint32_t y = intermediate();
    OpRecord record = op(OpKind::Dense, name, {x, w_id, b_id}, {y});
    record.ints[hrnn::kDenseIn] = in;
    record.ints[hrnn::kDenseOut] = out;
    record.ints[hrnn::kDensePackedOffset] = -1;
    record.ints[hrnn::kDenseTransposed] = transposed;
    if (w_id == kNone) {
      const auto packed = hrnn::packed_product(dtype_of<T>(), 1, out, in);
      std::vector<char> block(static_cast<size_t>(packed.bytes));
      const std::vector<T> weights(w.begin(), w.end()), bias(b.begin(), b.end());
      hrnn::pack_dense(dtype_of<T>(), out, in, false, weights.data(), bias.empty() ? nullptr : bias.data(),
                       block.data());
      record.ints[hrnn::kDensePackedOffset] = static_cast<int64_t>(add_weights(block.data(), block.size()));
      record.ints[hrnn::kDensePackedBytes] = packed.bytes;
    }
    ops_.back() = record;
    return y;
  }

  std::vector<char> program() const {
    hrnn::ProgramHeader header = {};
    memcpy(header.magic, hrnn::kProgramMagic, sizeof(header.magic));
    header.symbol_count = static_cast<uint32_t>(symbols_.size());
    header.tensor_count = static_cast<uint32_t>(tensors_.size());
    header.op_count = static_cast<uint32_t>(ops_.size());
    header.input_count = static_cast<uint32_t>(inputs_.size());
    header.output_count = static_cast<uint32_t>(outputs_.size());
    header.string_bytes = static_cast<uint32_t>(strings_.size());
    std::vector<char> blob(sizeof(header));
    const auto append = [&](const void *data, size_t bytes) {
      const size_t at = blob.size();
      blob.resize((at + bytes + 7) / 8 * 8);
      if (bytes > 0) memcpy(blob.data() + at, data, bytes);
    };
    append(symbols_.data(), symbols_.size() * sizeof(uint32_t));
    append(tensors_.data(), tensors_.size() * sizeof(TensorRecord));
    append(ops_.data(), ops_.size() * sizeof(OpRecord));
    append(inputs_.data(), inputs_.size() * sizeof(uint32_t));
    append(outputs_.data(), outputs_.size() * sizeof(uint32_t));
    append(strings_.data(), strings_.size());
    header.bytes = static_cast<uint32_t>(blob.size());
    memcpy(blob.data(), &header, sizeof(header));
    return blob;
  }
  const std::vector<char> &weights() const { return weights_; }
  std::vector<TensorRecord> &tensors() { return tensors_; }
  std::vector<OpRecord> &ops() { return ops_; }

 private:
  uint32_t string(const std::string &text) {
    if (text.empty()) return kNone;
    const uint32_t at = static_cast<uint32_t>(strings_.size());
    strings_.append(text).push_back('\0');
    return at;
  }
  void declare(uint32_t id, hrnn_dtype dtype, const std::vector<int64_t> &dims) {
    tensors_[id].dtype = dtype;
    tensors_[id].rank = static_cast<int32_t>(dims.size());
    std::copy(dims.begin(), dims.end(), tensors_[id].dims);
  }
  uint32_t tensor(const std::string &name, hrnn_dtype dtype, const std::vector<int64_t> &dims) {
    tensors_.push_back({});
    const uint32_t id = static_cast<uint32_t>(tensors_.size() - 1);
    tensors_[id].name = string(name);
    declare(id, dtype, dims);
    return id;
  }
  uint64_t add_weights(const void *data, size_t bytes) {
    const size_t offset = weights_.size();
    weights_.resize(offset + (bytes + 63) / 64 * 64);
    if (bytes > 0) memcpy(weights_.data() + offset, data, bytes);
    return offset;
  }

  std::vector<uint32_t> symbols_, inputs_, outputs_;
  std::vector<TensorRecord> tensors_;
  std::vector<OpRecord> ops_;
  std::string strings_;
  std::vector<char> weights_;
};

}  // namespace hrnn_test
