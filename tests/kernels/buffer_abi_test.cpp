// SPDX-License-Identifier: Apache-2.0
//
// The runtime's descriptor of a buffer is the one that generated code reads.
#include <HalideRuntime.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <type_traits>

#include "kernel_call.h"

namespace {

#define SAME_MEMBER(ours, our_member, theirs, their_member)                                            \
  static_assert(offsetof(ours, our_member) == offsetof(theirs, their_member), #our_member);            \
  static_assert(sizeof(std::declval<ours>().our_member) == sizeof(std::declval<theirs>().their_member), #our_member)

SAME_MEMBER(hrnn::Dimension, min, halide_dimension_t, min);
SAME_MEMBER(hrnn::Dimension, extent, halide_dimension_t, extent);
SAME_MEMBER(hrnn::Dimension, stride, halide_dimension_t, stride);
SAME_MEMBER(hrnn::Dimension, flags, halide_dimension_t, flags);
static_assert(sizeof(hrnn::Dimension) == sizeof(halide_dimension_t));

SAME_MEMBER(hrnn::Buffer, device, halide_buffer_t, device);
SAME_MEMBER(hrnn::Buffer, device_interface, halide_buffer_t, device_interface);
SAME_MEMBER(hrnn::Buffer, host, halide_buffer_t, host);
SAME_MEMBER(hrnn::Buffer, flags, halide_buffer_t, flags);
SAME_MEMBER(hrnn::Buffer, dimensions, halide_buffer_t, dimensions);
SAME_MEMBER(hrnn::Buffer, dim, halide_buffer_t, dim);
SAME_MEMBER(hrnn::Buffer, padding, halide_buffer_t, padding);
static_assert(offsetof(hrnn::Buffer, type_code) == offsetof(halide_buffer_t, type) + offsetof(halide_type_t, code));
static_assert(offsetof(hrnn::Buffer, type_bits) == offsetof(halide_buffer_t, type) + offsetof(halide_type_t, bits));
static_assert(offsetof(hrnn::Buffer, type_lanes) == offsetof(halide_buffer_t, type) + offsetof(halide_type_t, lanes));
static_assert(sizeof(hrnn::Buffer) == sizeof(halide_buffer_t));
static_assert(alignof(hrnn::Buffer) == alignof(halide_buffer_t));

TEST(Buffer, ReadsAsHalides) {
  hrnn::Tensor<3> tensor;
  tensor.init(HRNN_F64);
  tensor.set(0, 8, 1);
  tensor.set(1, 5, 8, 2);
  tensor.set(2, 7, -40, 3);
  double value = 0;
  tensor.host() = reinterpret_cast<uint8_t *>(&value);
  const auto *buffer = static_cast<const halide_buffer_t *>(tensor.arg());
  EXPECT_EQ(buffer->type, halide_type_of<double>());
  EXPECT_EQ(buffer->dimensions, 3);
  EXPECT_EQ(buffer->dim[0], halide_dimension_t(0, 8, 1));
  EXPECT_EQ(buffer->dim[1], halide_dimension_t(2, 5, 8));
  EXPECT_EQ(buffer->dim[2], halide_dimension_t(3, 7, -40));
  EXPECT_EQ(buffer->host, reinterpret_cast<uint8_t *>(&value));
  EXPECT_EQ(buffer->flags, 0u);
  hrnn::Tensor<1> single;
  single.init(HRNN_F32);
  EXPECT_EQ(static_cast<const halide_buffer_t *>(single.arg())->type, halide_type_of<float>());
}

// Every panel of every row once, in whole tiles of the kernel that is called.
TEST(Cover, MeetsEveryTileOnce) {
  const int tiles[][2] = {{2, 4}, {1, 4}, {4, 1}, {1, 1}};  // panels, rows: more rows first, then more panels
  hrnn_kernel kernels[4] = {};
  hrnn::KernelSet set = {{}, 4};
  for (int i = 0; i < 4; i++) {
    kernels[i].panels = uint32_t(tiles[i][0]);
    kernels[i].rows = uint32_t(tiles[i][1]);
    set.kernels[i] = &kernels[i];
  }
  constexpr int kMost = 10;
  for (int64_t panels = 0; panels < kMost; panels++) {
    for (int64_t rows = 0; rows < kMost; rows++) {
      int met[kMost][kMost] = {};
      for (const hrnn::Rectangle &r : hrnn::Cover(set, panels, rows)) {
        EXPECT_TRUE(r.panel >= 0 && r.panels > 0 && r.panel + r.panels <= panels && r.panels % r.kernel->panels == 0);
        EXPECT_TRUE(r.row >= 0 && r.rows > 0 && r.row + r.rows <= rows && r.rows % r.kernel->rows == 0);
        for (int64_t i = r.panel; i < r.panel + r.panels; i++)
          for (int64_t j = r.row; j < r.row + r.rows; j++) met[i][j]++;
      }
      for (int64_t i = 0; i < kMost; i++)
        for (int64_t j = 0; j < kMost; j++)
          EXPECT_EQ(met[i][j], i < panels && j < rows) << panels << " panels, " << rows << " rows";
    }
  }
}

}  // namespace
