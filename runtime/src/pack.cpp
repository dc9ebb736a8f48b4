// SPDX-License-Identifier: Apache-2.0
#include "pack.h"

#include <cstring>

namespace hrnn {
namespace {

int64_t round_to_rows(int64_t bytes) { return (bytes + kRowBytes - 1) / kRowBytes * kRowBytes; }

// Where the values of one product lie in ONNX layout: element (gate, unit, k) of the weights is
// weights[gate_rows[gate] * row + unit * unit_stride + k * k_stride], of the bias bias[gate_bias[gate] + unit].
// Strides and offsets in elements; gates are numbered within the product.
struct ProductSource {
  const char *weights, *bias;  // bias may be null
  int64_t gate_offset[HRNN_MAX_GATES], bias_offset[HRNN_MAX_GATES];
  int64_t unit_stride, k_stride;
};

template <typename Value>
void pack_product_as(const ProductSource &source, int64_t gates, int64_t hidden, int64_t inner,
                     const PackedProduct &layout, char *out) {
  constexpr int64_t kLanes = kRowBytes / static_cast<int64_t>(sizeof(Value));
  const int64_t panels = (hidden + kLanes - 1) / kLanes;
  const Value *weights = reinterpret_cast<const Value *>(source.weights);
  const Value *bias = reinterpret_cast<const Value *>(source.bias);
  Value *row = reinterpret_cast<Value *>(out + layout.weights_offset);
  for (int64_t panel = 0; panel < panels; ++panel) {
    const int64_t first = panel * kLanes;
    const int64_t lanes = hidden - first < kLanes ? hidden - first : kLanes;
    for (int64_t k = 0; k < inner; ++k) {
      for (int64_t gate = 0; gate < gates; ++gate, row += kLanes) {
        const Value *from = weights + source.gate_offset[gate] + first * source.unit_stride + k * source.k_stride;
        int64_t lane = 0;
        for (; lane < lanes; ++lane) row[lane] = from[lane * source.unit_stride];
        for (; lane < kLanes; ++lane) row[lane] = 0;
      }
    }
  }
  // Weights fill whole rows, so there is no gap before the bias.
  row = reinterpret_cast<Value *>(out + layout.bias_offset);
  for (int64_t panel = 0; panel < panels; ++panel) {
    const int64_t first = panel * kLanes;
    for (int64_t gate = 0; gate < gates; ++gate, row += kLanes) {
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        row[lane] = bias != nullptr && first + lane < hidden ? bias[source.bias_offset[gate] + first + lane] : 0;
      }
    }
  }
}

void pack_product(int32_t dtype, const ProductSource &source, int64_t gates, int64_t hidden, int64_t inner, char *out) {
  const PackedProduct layout = packed_product(dtype, gates, hidden, inner);
  if (dtype == HRNN_F64) {
    pack_product_as<double>(source, gates, hidden, inner, layout, out);
  } else {
    pack_product_as<float>(source, gates, hidden, inner, layout, out);
  }
}

}  // namespace

PackedProduct packed_product(int32_t dtype, int64_t gates, int64_t hidden, int64_t inner) {
  const int64_t rows_per_k = panels_of(dtype, hidden) * gates;  // rows of kRowBytes
  PackedProduct product;
  product.weights_offset = 0;
  product.bias_offset = round_to_rows(rows_per_k * inner * kRowBytes);
  product.bytes = product.bias_offset + round_to_rows(rows_per_k * kRowBytes);
  return product;
}

bool builtin_cell_shape(const char *cell, CellShape *shape) {
  if (cell == nullptr) return false;
  if (strcmp(cell, "rnn") == 0 || strcmp(cell, "rnn_masked") == 0) {
    *shape = {1, 1, {1u, 0u}, 1, {HRNN_TANH}};
  } else if (strcmp(cell, "gru") == 0) {
    *shape = {3, 1, {7u, 0u}, 2, {HRNN_SIGMOID, HRNN_TANH}};
  } else if (strcmp(cell, "gru_reset_before") == 0) {
    // z and r first: the candidate's product needs r * h of every unit.
    *shape = {3, 2, {3u, 4u}, 2, {HRNN_SIGMOID, HRNN_TANH}};
  } else {
    return false;
  }
  return true;
}

PackedLayer packed_layer(int32_t dtype, const CellShape &cell, int64_t directions, int64_t input, int64_t hidden) {
  PackedLayer layer = {};
  layer.projection = packed_product(dtype, cell.gates, hidden, input);
  layer.projection_offset = 0;
  int64_t offset = layer.projection.bytes;
  for (int64_t phase = 0; phase < cell.phases; ++phase) {
    layer.phases[phase] = packed_product(dtype, cell.gates_of_phase(phase), hidden, hidden);
    layer.phase_offsets[phase] = offset;
    offset += layer.phases[phase].bytes;
  }
  layer.direction_bytes = offset;
  layer.bytes = directions * offset;
  return layer;
}

void pack_layer(int32_t dtype, const CellShape &cell, int64_t directions, int64_t input, int64_t hidden, const void *w,
                const void *r, const void *b, void *out) {
  const PackedLayer layer = packed_layer(dtype, cell, directions, input, hidden);
  const int64_t size = dtype_bytes(dtype);
  const int64_t units = cell.gates * hidden;
  for (int64_t direction = 0; direction < directions; ++direction) {
    char *block = static_cast<char *>(out) + direction * layer.direction_bytes;
    const char *bias = b == nullptr ? nullptr : static_cast<const char *>(b) + direction * 2 * units * size;

    ProductSource source = {};
    source.weights = static_cast<const char *>(w) + direction * units * input * size;
    source.bias = bias;
    source.unit_stride = input;
    source.k_stride = 1;
    for (int64_t gate = 0; gate < cell.gates; ++gate) {
      source.gate_offset[gate] = gate * hidden * input;
      source.bias_offset[gate] = gate * hidden;
    }
    pack_product(dtype, source, cell.gates, hidden, input, block + layer.projection_offset);

    for (int64_t phase = 0; phase < cell.phases; ++phase) {
      source = {};
      source.weights = static_cast<const char *>(r) + direction * units * hidden * size;
      source.bias = bias == nullptr ? nullptr : bias + units * size;  // Rb follows Wb
      source.unit_stride = hidden;
      source.k_stride = 1;
      int64_t gates = 0;
      for (int64_t gate = 0; gate < cell.gates; ++gate) {
        if ((cell.phase_gates[phase] >> gate & 1u) == 0) continue;
        source.gate_offset[gates] = gate * hidden * hidden;
        source.bias_offset[gates] = gate * hidden;
        ++gates;
      }
      pack_product(dtype, source, gates, hidden, hidden, block + layer.phase_offsets[phase]);
    }
  }
}

void pack_dense(int32_t dtype, int64_t out_features, int64_t in_features, bool transposed, const void *w, const void *b,
                void *out) {
  ProductSource source = {};
  source.weights = static_cast<const char *>(w);
  source.bias = static_cast<const char *>(b);
  source.unit_stride = transposed ? 1 : in_features;
  source.k_stride = transposed ? out_features : 1;
  pack_product(dtype, source, 1, out_features, in_features, static_cast<char *>(out));
}

}  // namespace hrnn
