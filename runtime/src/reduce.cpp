// SPDX-License-Identifier: Apache-2.0
#include "reduce.h"

#include <cmath>
#include <limits>
#include <type_traits>

#include "elementwise.h"

namespace hrnn {
namespace {

// Sums of integers wrap around.
template <typename T>
using Sum = typename std::conditional<std::is_floating_point<T>::value, double, uint64_t>::type;

template <typename T>
Sum<T> term(Reduction reduction, T x) {
  const Sum<T> value = static_cast<Sum<T>>(x);
  switch (reduction) {
    case Reduction::SumSquare:
    case Reduction::L2: return value * value;
    case Reduction::L1: return x < 0 ? 0 - value : value;
    default: return value;
  }
}

template <typename T>
T finished(Reduction reduction, Sum<T> sum, int64_t count) {
  if constexpr (std::is_floating_point<T>::value) {
    switch (reduction) {
      case Reduction::Mean: return static_cast<T>(sum / static_cast<double>(count));
      case Reduction::L2: return static_cast<T>(std::sqrt(sum));
      case Reduction::LogSum: return static_cast<T>(std::log(sum));
      default: return static_cast<T>(sum);
    }
  } else {
    const int64_t value = static_cast<int64_t>(sum);
    switch (reduction) {
      case Reduction::Mean: return static_cast<T>(count == 0 ? 0 : value / count);
      case Reduction::L2: return static_cast<T>(std::sqrt(static_cast<double>(value)));
      case Reduction::LogSum: return static_cast<T>(std::log(static_cast<double>(value)));
      default: return static_cast<T>(value);
    }
  }
}

template <typename T>
T extreme(bool largest, const StridedLoop &inner, int64_t count, const T *from) {
  T best = largest ? std::numeric_limits<T>::lowest() : std::numeric_limits<T>::max();
  if (std::is_floating_point<T>::value) {
    best = largest ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::infinity();
  }
  if (std::is_same<T, uint8_t>::value) best = largest ? 0 : 1;  // a bool
  if (count == 0) return best;
  for_each_element(inner, [&](const int64_t *offsets) {
    const T x = from[offsets[0]];
    if (x != x || (largest ? x > best : x < best)) best = x;  // once NaN, no comparison replaces it
  });
  return best;
}

template <typename T>
int64_t index_of_extreme(Reduction reduction, const StridedLoop &inner, const T *from) {
  const bool largest = reduction == Reduction::ArgMax || reduction == Reduction::ArgMaxLast;
  const bool last = reduction == Reduction::ArgMaxLast || reduction == Reduction::ArgMinLast;
  const int64_t stride = inner.strides[0][0];
  int64_t best = 0;
  for (int64_t i = 1; i < inner.dims[0]; ++i) {
    const T x = from[i * stride], champion = from[best * stride];
    const bool better = largest ? x > champion : x < champion, equal = x == champion;
    if (champion == champion && (better || x != x || (last && equal))) best = i;  // the first NaN is the extreme
  }
  return best;
}

template <typename T>
double log_sum_exp(const StridedLoop &inner, int64_t count, const T *from) {
  const double largest = static_cast<double>(extreme(true, inner, count, from));
  if (count == 0 || std::isinf(largest)) return largest;
  double sum = 0;
  for_each_element(inner, [&](const int64_t *offsets) {
    sum += std::exp(static_cast<double>(from[offsets[0]]) - largest);
  });
  return largest + std::log(sum);
}

template <typename T>
T reduced(Reduction reduction, const StridedLoop &inner, int64_t count, const T *from) {
  switch (reduction) {
    case Reduction::Max: return extreme(true, inner, count, from);
    case Reduction::Min: return extreme(false, inner, count, from);
    case Reduction::LogSumExp: return static_cast<T>(log_sum_exp(inner, count, from));
    default: break;
  }
  const bool product = reduction == Reduction::Prod;
  Sum<T> sum = product ? 1 : 0;
  if (count > 0) {
    for_each_element(inner, [&](const int64_t *offsets) {
      const Sum<T> x = term(reduction, from[offsets[0]]);
      sum = product ? sum * x : sum + x;
    });
  }
  return finished<T>(reduction, sum, count);
}

template <typename T>
void reduce_as(Reduction reduction, const StridedLoop &outer, const StridedLoop &inner, int64_t count, const void *from,
               void *to) {
  for_each_element(outer, [&](const int64_t *offsets) {
    // What has no element may be a null pointer, which must not be moved.
    const T *first = static_cast<const T *>(from) + (count > 0 ? offsets[0] : 0);
    if (gives_index(reduction)) {
      static_cast<int64_t *>(to)[offsets[1]] = index_of_extreme(reduction, inner, first);
    } else {
      static_cast<T *>(to)[offsets[1]] = reduced(reduction, inner, count, first);
    }
  });
}

}  // namespace

uint32_t reduction_types(Reduction reduction) {
  switch (reduction) {
    case Reduction::Max:
    case Reduction::Min: return kComputedTypes;
    default: return kNumberTypes;
  }
}

void reduce_elements(Reduction reduction, int32_t dtype, const StridedLoop &outer, const StridedLoop &inner,
                     int64_t count, const void *from, void *to) {
  switch (dtype) {
    case HRNN_F32: return reduce_as<float>(reduction, outer, inner, count, from, to);
    case HRNN_F64: return reduce_as<double>(reduction, outer, inner, count, from, to);
    case HRNN_I32: return reduce_as<int32_t>(reduction, outer, inner, count, from, to);
    case HRNN_I64: return reduce_as<int64_t>(reduction, outer, inner, count, from, to);
    default: return reduce_as<uint8_t>(reduction, outer, inner, count, from, to);
  }
}

}  // namespace hrnn
