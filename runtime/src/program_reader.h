// SPDX-License-Identifier: Apache-2.0
//
// Reading a program (program.h). A blob may be damaged, so nothing in it is believed: after read_program succeeds every
// index is in range, every tensor is written before it is read, and dtypes and ranks fit the operations.
#pragma once
#include "array.h"
#include "hrnn/hrnn.h"
#include "program.h"

namespace hrnn {

// The largest I, H or feature count a program may ask for; far above any model, and small enough that sizes computed
// from a product of two cannot overflow.
constexpr int64_t kMaxFeatures = int64_t{1} << 24;

// The most a Pad may add at once, and the largest window, stride and dilation.
constexpr int64_t kMaxPadding = int64_t{1} << 40;

inline bool is_input_dim(int64_t dim) { return dim < kInputDim + HRNN_MAX_RANK; }  // of a Reshape's target

// Positions in OpRecord::inputs and outputs.
enum RecurrentInput : int { kX = 0, kW = 1, kR = 2, kB = 3, kSequenceLens = 4, kInitialH = 5 };
enum RecurrentOutput : int { kY = 0, kYh = 1 };
enum DenseInput : int { kDenseX = 0, kDenseW = 1, kDenseB = 2 };
enum GatherInput : int { kGatherData = 0, kGatherIndices = 1, kScatterUpdates = 2 };  // of all that gather and scatter
// Positions in OpRecord::ints.
// kInPlace: 1 + the operand that has the dims of the result whatever they are, so that the result may take its memory; 0
// where there is none.
enum ElementwiseInt : int { kFunction = 0, kResultType = 1, kInPlace = 2 };
enum ReduceInt : int { kReduction = 0, kReducedAxes = 1, kKeepAxes = 2 };
enum TupleInt : int { kTupleSize = 0, kScatterReduction = 1, kTupleBatch = 2 };
enum TopKInt : int { kTopKAxis = 0, kTopKCount = 1, kTopKLargest = 2 };        // count: as a dimension of Expand, or 0
// count: likewise; kRangeSymbol: 0, or the symbol whose value is added to the first, as -2 - symbol.
enum RangeInt : int { kRangeCount = 0, kRangeFirst = 1, kRangeStep = 2, kRangeType = 3, kRangeSymbol = 4 };
enum WindowInt : int { kWindowAxis = 0, kWindowSize = 1, kWindowStride = 2, kWindowDilation = 3 };

struct Program {
  Array<uint32_t> symbols;      // string offsets
  Array<TensorRecord> tensors;  // dtype and rank are set for all of them
  Array<OpRecord> ops;
  Array<uint32_t> inputs, outputs;  // tensor ids
  const char *strings = nullptr;    // in the blob
  uint32_t string_bytes = 0;

  // Only offsets that were checked may be asked for; kNone is "".
  const char *string(uint32_t offset) const { return offset == kNone ? "" : strings + offset; }
  const char *symbol_name(size_t symbol) const { return string(symbols[symbol]); }
  const char *tensor_name(uint32_t tensor) const { return string(tensors[tensor].name); }
  const char *op_name(const OpRecord &op) const { return string(op.name); }
  size_t bytes() const { return symbols.bytes() + tensors.bytes() + ops.bytes() + inputs.bytes() + outputs.bytes(); }
};

// The blob must outlive `program` (strings stay where they are). It may have any alignment.
hrnn_status read_program(const void *blob, uint64_t blob_bytes, uint64_t weights_bytes, Program *program,
                         hrnn_error *error);

const char *op_kind_name(uint32_t kind);  // "GRU or RNN layer", "Transpose", ...
inline bool is_view(uint32_t kind) {      // says where values lie and computes none
  return (kind >= static_cast<uint32_t>(OpKind::Transpose) && kind <= static_cast<uint32_t>(OpKind::Expand)) ||
         kind == static_cast<uint32_t>(OpKind::Window);
}
inline bool is_kind(const OpRecord &op, OpKind kind) { return op.kind == static_cast<uint32_t>(kind); }

// a * b for a, b >= 0; false when the product does not fit.
inline bool multiply_sizes(int64_t a, int64_t b, int64_t *product) {
  if (b != 0 && a > INT64_MAX / b) return false;
  *product = a * b;
  return true;
}
// The number of elements of a tensor; false when it (or the count without dimensions of 0) is absurd.
bool element_count(int32_t rank, const int64_t *dims, int64_t *count);

}  // namespace hrnn
