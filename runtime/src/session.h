// SPDX-License-Identifier: Apache-2.0
//
// What a session is made of.
//
// A program is executed in two stages. *Binding* takes the shapes of the inputs and which outputs are wanted, and
// produces a list of instructions in which every operand is (base, byte offset): shapes are inferred, views become
// strides, and each value gets a place. *Executing* resolves the bases (the caller's buffers, the arena, the weights)
// and runs the list. A run with the shapes of the run before only executes.
//
// Where values are placed:
//   - the value of a graph output is computed in the caller's buffer, also through views that can be inverted (a GRU's
//   Y
//     that is squeezed and transposed before it leaves is written once, where it belongs);
//   - inputs of a Concat are likewise computed in the Concat's place, and an operand of an elementwise operation that
//     nothing reads later in the place of its result;
//   - everything else lies in a slot of the arena. Which values share a slot follows from the program alone, so that
//     smaller shapes never need more memory than larger ones.
#pragma once
#include "array.h"
#include "elementwise.h"
#include "hrnn/hrnn.h"
#include "indexing.h"
#include "matmul.h"
#include "pack.h"
#include "plan.h"
#include "program_reader.h"
#include "reduce.h"
#include "tensor_view.h"

namespace hrnn {

// Elements somewhere in the memory of a base (an index into hrnn_session::bases).
struct Place {
  uint32_t base;
  TensorView view;
};

struct SessionTensor {
  // Of the program.
  int32_t producer;      // operation, or -1: an input or a constant
  uint32_t root;         // the tensor this is a view of, itself if it is none
  uint32_t first_write;  // the operations between which memory holding this value may be written and read
  uint32_t last_read;
  bool is_output;
  // Of the binding.
  int64_t dims[HRNN_MAX_RANK];
  bool needed, has_home;
  Place place;  // where the value lies
  Place home;   // where it is best computed
};

// Memory an operation may need: for its outputs, and for inputs whose strides it cannot read.
constexpr int kOutputStorages = 2, kInputStorages = 6, kStorages = kOutputStorages + kInputStorages;

struct SessionOp {
  uint32_t slots[kStorages];  // of the arena, or kNone
  int32_t in_place;           // elementwise: the operand whose memory the result may take, or -1
  bool live;                  // of the binding: its outputs are needed
  // Recurrent and dense layers.
  hrnn_plan *plan;
  DensePlan *dense;
  int64_t packed_offset;  // into hrnn_session::packed: weights that arrive at run time; else -1
  // Recurrent layers.
  CellShape cell;
  int64_t directions;
  bool has_initial_h;  // given, and not a constant zero
  hrnn_state *state;
  int64_t max_batch;     // of the state
  int64_t batch;         // of the binding
  int64_t stream_batch;  // sequences whose state is being carried on, 0 = none yet
};

// Whether the caller may give an input and an output the same memory.
enum class Overlap : uint8_t { kForbidden, kSameAddress, kAllowed };

enum class Action : uint32_t {
  kCopy,
  kFill,
  kPackLayer,
  kPackDense,
  kRunLayer,
  kRunDense,
  kElementwise,
  kReduce,
  kMatMul,
  kGather,
  kScatter,
  kTopK,
  kRange
};

struct Operand {
  uint32_t base;   // kNone: absent
  int64_t offset;  // bytes
};

struct Instruction {
  Action action;
  uint32_t op;
  int32_t dtype;
  // Copy, dense, reduce: from, to. Fill: to. Packing: w, r, b (dense: w, b at 0 and 2). Layer: x, lengths, h0, y, h_n.
  // Elementwise: operands, result. Matrices: a, b, y. Gather, scatter: data or updates, to, indices. TopK: from, to.
  // Range: to.
  Operand operands[5];
  // Over the elements of the operands; dense: rows are the innermost dimension; reduce: over what stays; matrices: over
  // the leading dimensions; gather, scatter: over tuples of indices (indexing.h); TopK: over the other axes.
  StridedLoop loop;
  StridedLoop inner;   // reduce: over what is reduced; gather, scatter: over what one tuple picks; TopK: along its axis
  int64_t count;       // reduce: elements of the inner loop; TopK: k; Range: the first
  IndexTuple tuple;    // gather, scatter
  MatMulShape matrix;
  hrnn_run_args args;  // layer: all but the pointers
};

}  // namespace hrnn

struct hrnn_session {
  hrnn::Program program;
  const void *weights = nullptr;
  uint64_t weights_bytes = 0;
  hrnn::Array<const hrnn_kernel_table *> tables;
  uint32_t threads = 1;

  hrnn::Array<hrnn::SessionTensor> tensors;
  hrnn::Array<hrnn::SessionOp> ops;
  hrnn::Array<uint32_t> layers;         // recurrent operations
  hrnn::Array<hrnn::Overlap> overlaps;  // [output][input]

  // Bases: the weights, the inputs, the outputs, the slots of the arena.
  hrnn::Array<char *> bases;
  uint32_t first_output_base = 0, first_slot_base = 0;
  hrnn::Array<int64_t> slot_bytes;  // of the binding
  hrnn::AlignedBuffer arena, packed, dense_scratch;

  // The binding.
  hrnn::Array<int64_t> symbols, symbol_origins;  // value or -1; input * HRNN_MAX_RANK + dimension that fixed it
  hrnn::Array<uint8_t> wanted, bound_wanted;     // outputs
  hrnn::Array<hrnn::Instruction> instructions;   // sized for any binding
  size_t instruction_count = 0;
  bool bound = false;
  bool streaming = false;

  hrnn_session() = default;
  hrnn_session(const hrnn_session &) = delete;
  hrnn_session &operator=(const hrnn_session &) = delete;
  ~hrnn_session();
};

namespace hrnn {

inline bool is_recurrent(const OpRecord &op) { return is_kind(op, OpKind::Recurrent); }

constexpr uint32_t kWeightsBase = 0, kFirstInputBase = 1;

// Once, after the program is read and has_initial_h of every layer is known: who produces what, which values share a
// slot, and the sizes of everything binding writes to. False: no memory.
bool analyse_program(hrnn_session *session);

// The dims of all tensors. Only dims of `inputs` are read.
hrnn_status infer_shapes(hrnn_session *session, const hrnn_tensor *inputs, hrnn_error *error);

// The bytes of a slot that holds such a tensor; the dims were inferred.
int64_t slot_size(int32_t rank, const int64_t *dims, int32_t dtype);

// Binds shapes. Only dims of `inputs` are read, whose dtypes and ranks are right. Allocates nothing; leaves the bytes
// each slot needs in slot_bytes and `bound` false.
hrnn_status bind_session(hrnn_session *session, const hrnn_tensor *inputs, const uint8_t *wanted, bool streaming,
                         hrnn_error *error);

// After bind_session: what each slot may need at most with these shapes, whichever outputs are wanted.
void most_slot_bytes(hrnn_session *session);

// The arena bytes that slot_bytes add up to.
int64_t arena_bytes(const hrnn_session *session);
// Gives the slots their addresses in the arena, which is large enough.
void place_slots(hrnn_session *session);

}  // namespace hrnn
