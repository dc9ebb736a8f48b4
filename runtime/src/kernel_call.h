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

// A whole number of a kernel's tiles.
struct Rectangle {
  const hrnn_kernel *kernel;
  int64_t panel, panels, row, rows;
};

// Rectangles that together cover rows x panels: of the largest tiles first, what remains in smaller ones. All of it,
// since the last kernel of a set has tiles of one panel and one row.
class Cover {
 public:
  Cover() = default;
  Cover(const KernelSet &set, int64_t panels, int64_t rows) {
    for (int64_t row = 0, i = 0; row < rows && i < set.count;) {
      const int64_t tile_rows = set.kernels[i]->rows;
      const int64_t group = (rows - row) / tile_rows * tile_rows;
      int64_t panel = 0;
      for (; i < set.count && set.kernels[i]->rows == tile_rows; i++) {
        const int64_t tile_panels = set.kernels[i]->panels;
        const int64_t width = group > 0 ? (panels - panel) / tile_panels * tile_panels : 0;
        if (width == 0) continue;
        rectangles_[count_++] = {set.kernels[i], panel, width, row, group};
        panel += width;
      }
      if (panel == panels) row += group;
    }
  }
  const Rectangle *begin() const { return rectangles_; }
  const Rectangle *end() const { return rectangles_ + count_; }
  bool empty() const { return count_ == 0; }

 private:
  Rectangle rectangles_[kMaxTiles];  // at most one a kernel
  int count_ = 0;
};

}  // namespace hrnn
