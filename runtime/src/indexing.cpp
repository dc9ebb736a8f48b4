// SPDX-License-Identifier: Apache-2.0
#include "indexing.h"

#include "pack.h"

namespace hrnn {

bool gather_elements(int32_t dtype, const IndexTuple &tuple, const StridedLoop &outer, const StridedLoop &inner,
                     const void *data, const void *indices, void *to, BadIndex *bad) {
  const int64_t size = dtype_bytes(dtype);
  const char *from = static_cast<const char *>(data);
  char *result = static_cast<char *>(to);
  return for_each_tuple(tuple, outer, indices, bad, [&](int64_t picked, const int64_t *offsets) {
    copy_elements(inner, dtype, from + (picked + offsets[1]) * size, result + offsets[2] * size);
  });
}

bool scatter_elements(int32_t dtype, int64_t reduction, const IndexTuple &tuple, const StridedLoop &outer,
                      const StridedLoop &inner, const void *updates, const void *indices, void *to, BadIndex *bad) {
  const int64_t size = dtype_bytes(dtype);
  StridedLoop copied = inner;  // of updates and result only
  for (int32_t i = 0; i < inner.rank; ++i) copied.strides[0][i] = inner.strides[1][i], copied.strides[1][i] = inner.strides[2][i];
  copied.operands = 2;
  const ElementwiseCall call = {static_cast<Function>(reduction), dtype, dtype, 0, 0};
  return for_each_tuple(tuple, outer, indices, bad, [&](int64_t picked, const int64_t *offsets) {
    char *there = static_cast<char *>(to) + (picked + offsets[2]) * size;
    const char *update = static_cast<const char *>(updates) + offsets[1] * size;
    if (reduction == kReplace) return copy_elements(copied, dtype, update, there);
    const void *operands[] = {there, update};
    run_elementwise(call, inner, operands, there);  // no division: it cannot fail
  });
}

namespace {

template <typename T>
struct Order {
  const T *from;
  int64_t stride;
  bool largest;

  bool before(int64_t a, int64_t b) const {
    const T x = from[a * stride], y = from[b * stride];
    if (x != x || y != y) {  // NaN: the largest
      if (x != x && y != y) return a < b;
      return (x != x) == largest;
    }
    if (x == y) return a < b;
    return largest ? x > y : x < y;
  }
};

// A heap of indices whose root comes last of them.
struct Heap {
  int64_t *at;
  int64_t stride;
  int64_t &operator[](int64_t i) const { return at[i * stride]; }

  // Lets `index`, put at the root of the `size` first, sink to where it belongs.
  template <typename T>
  void sink(const Order<T> &order, int64_t index, int64_t root, int64_t size) const {
    for (int64_t child = 2 * root + 1; child < size; child = 2 * root + 1) {
      if (child + 1 < size && order.before((*this)[child], (*this)[child + 1])) ++child;
      if (!order.before(index, (*this)[child])) break;
      (*this)[root] = (*this)[child];
      root = child;
    }
    (*this)[root] = index;
  }
};

template <typename T>
void top_k_of(const Order<T> &order, int64_t count, const Heap &heap, int64_t k) {
  if (k == 0) return;
  for (int64_t i = 0; i < k; ++i) heap[i] = i;
  for (int64_t root = k / 2; root-- > 0;) heap.sink(order, heap[root], root, k);
  for (int64_t i = k; i < count; ++i) {
    if (order.before(i, heap[0])) heap.sink(order, i, 0, k);
  }
  for (int64_t size = k - 1; size > 0; --size) {  // the last of the rest goes to the end
    const int64_t index = heap[size];
    heap[size] = heap[0];
    heap.sink(order, index, 0, size);
  }
}

}  // namespace

void top_k(int32_t dtype, bool largest, const void *from, int64_t count, int64_t stride, int64_t *to, int64_t k,
           int64_t to_stride) {
  const Heap heap = {to, to_stride};
  switch (dtype) {
    case HRNN_F32: return top_k_of<float>({static_cast<const float *>(from), stride, largest}, count, heap, k);
    case HRNN_F64: return top_k_of<double>({static_cast<const double *>(from), stride, largest}, count, heap, k);
    case HRNN_I32: return top_k_of<int32_t>({static_cast<const int32_t *>(from), stride, largest}, count, heap, k);
    default: return top_k_of<int64_t>({static_cast<const int64_t *>(from), stride, largest}, count, heap, k);
  }
}

}  // namespace hrnn
