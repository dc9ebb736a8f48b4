// SPDX-License-Identifier: Apache-2.0
//
// Calling generated kernels: the buffer descriptor they take, and covering a shape with tiles.
#pragma once
#include <climits>
#include <cstdint>

#include "select.h"

namespace hrnn {

// The memory layout of Halide's halide_dimension_t and halide_buffer_t (HalideRuntime.h), which generated code reads.
// Checked against the header by a test; written out here so that the runtime needs nothing of Halide.
struct Dimension {
  int32_t min, extent, stride;
  uint32_t flags;
};
struct Buffer {
  uint64_t device;
  const void *device_interface;
  uint8_t *host;
  uint64_t flags;
  uint8_t type_code, type_bits;
  uint16_t type_lanes;
  int32_t dimensions;
  Dimension *dim;
  void *padding;
};

// A buffer together with its dimensions. Not copyable: `dim` points into itself.
template <int N>
struct Tensor {
  Buffer buffer = {};
  Dimension dims[N] = {};

  Tensor() = default;
  Tensor(const Tensor &) = delete;
  Tensor &operator=(const Tensor &) = delete;

  void init(int32_t dtype) {
    buffer.type_code = 2;  // halide_type_float
    buffer.type_bits = dtype == HRNN_F64 ? 64 : 32;
    buffer.type_lanes = 1;
    buffer.dimensions = N;
    buffer.dim = dims;
  }
  void set(int d, int64_t extent, int64_t stride, int64_t min = 0) {
    dims[d] = {int32_t(min), int32_t(extent), int32_t(stride), 0};
  }
  void *arg() { return &buffer; }
  uint8_t *&host() { return buffer.host; }
};

// Calls `call(kernel, panel, panels, row, rows)` for rectangles that together cover rows x panels [begin, end): each is a
// whole number of the kernel's tiles.
template <class Call>
inline int cover(const KernelSet &set, int64_t begin, int64_t end, int64_t rows, Call call) {
  for (int64_t row = 0, i = 0; row < rows && i < set.count;) {
    const int64_t tile_rows = set.kernels[i]->rows;
    const int64_t group = (rows - row) / tile_rows * tile_rows;
    int64_t panel = begin;
    for (; i < set.count && set.kernels[i]->rows == tile_rows; i++) {
      const int64_t tile_panels = set.kernels[i]->panels;
      const int64_t width = group > 0 ? (end - panel) / tile_panels * tile_panels : 0;
      if (width == 0) continue;
      if (int error = call(*set.kernels[i], panel, width, row, group)) return error;
      panel += width;
    }
    if (panel == end) row += group;
  }
  return 0;
}

}  // namespace hrnn
