// SPDX-License-Identifier: Apache-2.0
//
// The packed weight layout, one per weight type, shared by all CPU variants: panels of `kLanes` hidden units (one
// 64-byte row of values), stored (lane, gate, k, panel) with lane innermost. Biases are (lane, gate, panel). Lanes past
// the hidden size are zero. The compiler packs models with this, the runtime packs weights that arrive at run time.
#pragma once
#include <cstddef>
#include <cstdint>

#include "hrnn/hrnn.h"

namespace hrnn {

constexpr int64_t kRowBytes = 64;

inline int64_t dtype_bytes(int32_t dtype) {
  switch (dtype) {
    case HRNN_F64:
    case HRNN_I64: return 8;
    case HRNN_F16:
    case HRNN_BF16: return 2;
    case HRNN_BOOL: return 1;
    default: return 4;
  }
}
inline int64_t lanes_of(int32_t dtype) { return kRowBytes / dtype_bytes(dtype); }
inline int64_t panels_of(int32_t dtype, int64_t hidden) { return (hidden + lanes_of(dtype) - 1) / lanes_of(dtype); }

// One product: `gates` gates of a [hidden, inner] matrix each, plus bias. Offsets in bytes from the start of a block.
struct PackedProduct {
  int64_t weights_offset, bias_offset, bytes;  // bytes is a multiple of kRowBytes
};
PackedProduct packed_product(int32_t dtype, int64_t gates, int64_t hidden, int64_t inner);

// A recurrent layer, per direction: the input projection (all gates), then one product per phase of the cell.
struct PackedLayer {
  PackedProduct projection;
  PackedProduct phases[HRNN_MAX_PHASES];
  int64_t projection_offset, phase_offsets[HRNN_MAX_PHASES];  // from the start of a direction
  int64_t direction_bytes, bytes;                             // bytes = directions * direction_bytes
};

// What must be known of a cell before its kernels are chosen: its gates, which of them each phase multiplies with the
// state, and its activations where a problem names none.
struct CellShape {
  int64_t gates, phases;
  uint32_t phase_gates[HRNN_MAX_PHASES];  // bit g = gate g
  uint32_t activations;
  int32_t defaults[HRNN_MAX_ACTIVATIONS];

  int64_t gates_of_phase(int64_t phase) const {
    int64_t count = 0;
    for (uint32_t bits = phase_gates[phase]; bits != 0; bits &= bits - 1) count++;
    return count;
  }
};
// The cells of this library: "rnn", "rnn_masked", "gru", "gru_reset_before". False for others (their kernels' rows say).
bool builtin_cell_shape(const char *cell, CellShape *shape);

PackedLayer packed_layer(int32_t dtype, const CellShape &cell, int64_t directions, int64_t input, int64_t hidden);

// w [directions, gates * hidden, input], r [directions, gates * hidden, hidden],
// b [directions, 2 * gates * hidden] (Wb, Rb) or null. `out`: packed_layer(...).bytes bytes, 64-byte aligned.
void pack_layer(int32_t dtype, const CellShape &cell, int64_t directions, int64_t input, int64_t hidden, const void *w,
                const void *r, const void *b, void *out);

// One dense product y = x wT + b, packed as a projection with one gate. w [out, in] (or [in, out] when `transposed`),
// b [out] or null. `out`: packed_product(dtype, 1, out_features, in_features).bytes bytes.
void pack_dense(int32_t dtype, int64_t out_features, int64_t in_features, bool transposed, const void *w, const void *b,
                void *out);

}  // namespace hrnn
