// SPDX-License-Identifier: Apache-2.0
//
// The program of a model: what `hrnn compile` embeds and what a session executes. A flat, versioned, little-endian blob
// of fixed-size records, so that it can lie in read-only memory of any target and be read without allocation. The
// compiler writes it (compiler/program_writer.*), the runtime reads it with every index checked (session.cpp).
#pragma once
#include <cstdint>

namespace hrnn {

constexpr char kProgramMagic[8] = {'h', 'r', 'n', 'n', 'p', 'r', 'g', '1'};
constexpr uint32_t kNone = 0xffffffffu;  // absent tensor, string or symbol
constexpr int kMaxOpInputs = 8, kMaxOpOutputs = 4, kMaxOpInts = 16, kMaxOpReals = 16;

enum class OpKind : uint32_t {
  // RNN or GRU layer, ONNX semantics. in: X, W, R, B, sequence_lens, initial_h (W, R, B only when they arrive at run
  // time); out: Y, Y_h. ints: see RecurrentInt; reals: clip, then per direction and activation alpha, beta.
  Recurrent = 1,
  // y[..., n] = sum_k x[..., k] w[n, k] + b[n]. in: x, w, b (w, b only when they arrive at run time).
  // ints: see DenseInt. Leading dimensions of x are rows.
  Dense = 2,
  // Views: nothing is computed or copied where a stride can say it.
  Transpose = 3,  // ints: the permutation
  Slice = 4,      // ints: axis, start, stop, step; negative start/stop count from the end; step may be negative
  Select = 5,     // removes an axis. ints: axis, index (negative counts from the end)
  Unsqueeze = 6,  // ints: axis
  Squeeze = 7,    // ints: axis (the dimension must be 1)
  Reshape = 8,    // ints: rank, then dims: > 0 literal, 0 = copy from the input, -1 = infer, <= -2: symbol -2 - dim,
                  // kInputDim + k = the input's dimension k
  Expand = 9,     // broadcast. ints: rank, then dims: >= 1 literal or <= -2: symbol -2 - dim
  // y[...] = f(a[...], b[...], c[...]), operands broadcast as numpy does. ints: see ElementwiseInt (a Function
  // of elementwise.h; the hrnn_dtype of a Cast); reals: alpha, beta
  Elementwise = 10,
  Concat = 11,    // in: up to 8 tensors. ints: axis
  Reduce = 12,    // ints: see ReduceInt (a Reduction of reduce.h; axes as bits; 1 = they stay, as 1)
  MatMul = 13,    // in: a [..., m, k], b [..., k, n]; leading dimensions are broadcast
  // out [outer, indices, inner] of data [outer, axis, inner]. in: data, indices (negative ones count from the end; a run
  // with one out of range fails). ints: axis
  Gather = 14,
  Pad = 15,       // with one value. ints: elements before each axis, then (from kPadAfter) after; reals: the value
  // A view: adds a last axis of `size` neighbours to every position. ints: axis, size, stride, dilation
  Window = 16,
  // out [indices' shape]: along `axis` what the index says, along the others what stands beside it. ints: axis
  GatherElements = 17,
  // out [..., rest of data] of data and tuples of indices [..., n]. The first `batch` dimensions of both go together.
  // ints: see TupleInt
  GatherND = 18,
  // in: data, indices, updates: the data with the updates where GatherElements or GatherND would find them.
  // ints: axis or kTupleSize, then kScatterReduction (0: replaces; or Add, Mul, Min, Max of elementwise.h)
  ScatterElements = 19,
  ScatterND = 20,
  TopK = 21,   // out: the indices of the k largest, in falling order (or smallest, rising). ints: see TopKInt
  Range = 22,  // no inputs; out [count]: first, first + step, ... ints: see RangeInt
};

constexpr int64_t kInputDim = INT64_MIN;
constexpr int kPadAfter = 8;

enum RecurrentInt : int {
  kCellName = 0,       // offset into the strings
  kDirection = 1,      // hrnn_direction
  kLayout = 2,         // ONNX layout: 0 time-major, 1 batch-major
  kInputSize = 3,
  kHiddenSize = 4,
  kClipSet = 5,
  kPackedOffset = 6,   // packed weights in the weights section, or -1: W, R, B arrive at run time
  kPackedBytes = 7,
  kActivationKinds = 8 // then, direction-major, HRNN_MAX_ACTIVATIONS kinds a direction (6 in all)
};
// reals of Recurrent: [0] clip; [1 + 2 * (d * HRNN_MAX_ACTIVATIONS + a)] alpha, the next one beta.

enum DenseInt : int {
  kDenseIn = 0,
  kDenseOut = 1,
  kDensePackedOffset = 2, // or -1: w [out, in] and b [out] arrive at run time
  kDensePackedBytes = 3,
  kDenseTransposed = 4    // weights at run time only: w is [in, out] (ONNX MatMul)
};

// A dimension: literal >= 0, or symbol k as -1 - k.
struct TensorRecord {
  uint32_t name;  // offset into the strings, or kNone
  int32_t dtype;  // hrnn_dtype
  int32_t rank;
  uint32_t is_constant;   // data lies in the weights section
  int64_t dims[8];        // of inputs, outputs and constants; unused for the rest (inferred)
  uint64_t data_offset, data_bytes;
};

struct OpRecord {
  uint32_t kind;  // OpKind
  uint32_t name;  // the source node's name, for messages
  uint32_t inputs[kMaxOpInputs];
  uint32_t outputs[kMaxOpOutputs];
  int64_t ints[kMaxOpInts];
  double reals[kMaxOpReals];
};

// Followed by, in this order and each 8-byte aligned: symbols (uint32_t string offsets), tensors, ops in execution
// order, input tensor ids, output tensor ids, strings (zero-terminated).
struct ProgramHeader {
  char magic[8];
  uint32_t bytes;  // of the whole program
  uint32_t symbol_count, tensor_count, op_count, input_count, output_count, string_bytes;
  uint32_t reserved;
};

}  // namespace hrnn
