// SPDX-License-Identifier: Apache-2.0
#include "matmul.h"

#include "hrnn/hrnn.h"

namespace hrnn {
namespace {

// A tile of y stays in registers while k runs.
constexpr int kTileRows = 4, kTileColumns = 8;

template <int kHeight, typename T>
void whole_tile(const MatMulShape &s, const T *a, const T *b, T *y) {
  T sums[kHeight][kTileColumns] = {};
  for (int64_t k = 0; k < s.k; ++k, b += s.b_k_stride) {
    for (int row = 0; row < kHeight; ++row) {
      const T factor = a[row * s.a_row_stride + k * s.a_k_stride];
      for (int column = 0; column < kTileColumns; ++column) sums[row][column] += factor * b[column];
    }
  }
  for (int row = 0; row < kHeight; ++row) {
    for (int column = 0; column < kTileColumns; ++column) y[row * s.y_row_stride + column] = sums[row][column];
  }
}

template <typename T>
void one_element(const MatMulShape &s, const T *a, const T *b, T *y) {
  T sum = 0;
  for (int64_t k = 0; k < s.k; ++k) sum += a[k * s.a_k_stride] * b[k * s.b_k_stride];
  *y = sum;
}

template <typename T>
void multiply_as(const MatMulShape &s, const T *a, const T *b, T *y) {
  for (int64_t row = 0; row < s.m;) {
    const bool rows = s.m - row >= kTileRows;
    const T *a_row = a + row * s.a_row_stride;
    T *y_row = y + row * s.y_row_stride;
    int64_t column = 0;
    for (; s.n - column >= kTileColumns; column += kTileColumns) {
      if (rows) {
        whole_tile<kTileRows>(s, a_row, b + column, y_row + column);
      } else {
        whole_tile<1>(s, a_row, b + column, y_row + column);
      }
    }
    for (int64_t i = 0; i < (rows ? kTileRows : 1); ++i) {
      for (int64_t j = column; j < s.n; ++j) one_element(s, a_row + i * s.a_row_stride, b + j, y_row + i * s.y_row_stride + j);
    }
    row += rows ? kTileRows : 1;
  }
}

}  // namespace

void multiply_matrices(int32_t dtype, const MatMulShape &shape, const void *a, const void *b, void *y) {
  if (dtype == HRNN_F64) {
    multiply_as(shape, static_cast<const double *>(a), static_cast<const double *>(b), static_cast<double *>(y));
  } else {
    multiply_as(shape, static_cast<const float *>(a), static_cast<const float *>(b), static_cast<float *>(y));
  }
}

}  // namespace hrnn
