// SPDX-License-Identifier: Apache-2.0
//
// Every formula is finite wherever its value is, and NaN in gives NaN out: comparisons are written so that a NaN takes
// the branch that hands it on.
#include "activation.h"

#include <cmath>

namespace hrnn {
namespace {

template <typename Value, typename Function>
void map_elements(const StridedLoop &loop, const void *a, void *b, const Function &function) {
  const int64_t count = loop.dims[loop.rank - 1];
  const int64_t a_stride = loop.a_strides[loop.rank - 1], b_stride = loop.b_strides[loop.rank - 1];
  for_each_run(loop, [&](int64_t a_offset, int64_t b_offset) {
    const Value *from = static_cast<const Value *>(a) + a_offset;
    Value *to = static_cast<Value *>(b) + b_offset;
    if (a_stride == 1 && b_stride == 1) {  // a loop that vectorises
      for (int64_t i = 0; i < count; ++i) to[i] = function(from[i]);
    } else {
      for (int64_t i = 0; i < count; ++i) to[i * b_stride] = function(from[i * a_stride]);
    }
  });
}

template <typename Value>
Value sigmoid(Value x) {
  // exp of a negative number only: no overflow, and no cancellation in the lower tail.
  const Value e = std::exp(-std::fabs(x));
  return (x < 0 ? e : Value(1)) / (1 + e);
}

template <typename Value>
Value softsign(Value x) {
  return std::isinf(x) ? std::copysign(Value(1), x) : x / (1 + std::fabs(x));
}

template <typename Value>
Value softplus(Value x) {
  return (x < 0 ? Value(0) : x) + std::log1p(std::exp(-std::fabs(x)));
}

template <typename Value>
void activate_as(const StridedLoop &loop, const hrnn_activation &activation, const void *a, void *b) {
  const Value alpha = static_cast<Value>(activation.alpha), beta = static_cast<Value>(activation.beta);
  const auto map = [&](const auto &function) { map_elements<Value>(loop, a, b, function); };
  switch (activation.kind) {
    case HRNN_RELU: return map([](Value x) { return x < 0 ? Value(0) : x; });
    case HRNN_TANH: return map([](Value x) { return std::tanh(x); });
    case HRNN_SIGMOID: return map([](Value x) { return sigmoid(x); });
    case HRNN_AFFINE: return map([=](Value x) { return alpha * x + beta; });
    case HRNN_LEAKY_RELU: return map([=](Value x) { return x < 0 ? alpha * x : x; });
    case HRNN_THRESHOLDED_RELU: return map([=](Value x) { return x <= alpha ? Value(0) : x; });
    case HRNN_SCALED_TANH: return map([=](Value x) { return alpha * std::tanh(beta * x); });
    case HRNN_HARD_SIGMOID:
      return map([=](Value x) {
        const Value y = alpha * x + beta;
        return y < 0 ? Value(0) : y > 1 ? Value(1) : y;
      });
    case HRNN_ELU: return map([=](Value x) { return x < 0 ? alpha * std::expm1(x) : x; });
    case HRNN_SOFTSIGN: return map([](Value x) { return softsign(x); });
    case HRNN_SOFTPLUS: return map([](Value x) { return softplus(x); });
    case HRNN_ACTIVATION_COUNT: return;
  }
}

}  // namespace

void activate_elements(const StridedLoop &loop, int32_t dtype, const hrnn_activation &activation, const void *a,
                       void *b) {
  if (dtype == HRNN_F64) {
    activate_as<double>(loop, activation, a, b);
  } else {
    activate_as<float>(loop, activation, a, b);
  }
}

}  // namespace hrnn
