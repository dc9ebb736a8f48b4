// SPDX-License-Identifier: Apache-2.0
//
// Functions of one to three operands applied element by element, in plain C++. (Those inside a cell are part of its
// kernels.) A function is a row of the table in elementwise.cpp; the compiler checks and folds with the same rows.
#pragma once
#include "hrnn/hrnn.h"
#include "tensor_view.h"

namespace hrnn {

// Numbers of programs: they never change. 0 to 31 are hrnn_activation_kind, with alpha and beta.
enum class Function : int32_t {
  Cast = 32,  // to the type of the result
  Neg = 33,
  Abs = 34,
  Sqrt = 35,
  Reciprocal = 36,
  Exp = 37,
  Log = 38,
  Erf = 39,
  Floor = 40,
  Ceil = 41,
  Round = 42,  // ties to even
  Sign = 43,
  Sin = 44,
  Cos = 45,
  Not = 46,
  IsNaN = 47,
  IsInf = 48,       // alpha, beta: whether minus, plus infinity counts
  Gelu = 49,        // x P(X <= x) of a standard normal X
  GeluTanh = 50,    // its usual approximation
  Selu = 51,        // beta (x if x > 0 else alpha (e^x - 1))
  Celu = 52,        // max(0, x) + min(0, alpha (e^(x / alpha) - 1))
  HardSwish = 53,   // x min(max(x / 6 + 1 / 2, 0), 1)
  Mish = 54,        // x tanh(softplus(x))
  Swish = 55,       // x sigmoid(alpha x)
  Shrink = 56,      // x - beta if x > alpha, x + beta if x < -alpha, else 0
  RoundF16 = 57,    // to the nearest value a 16-bit type has
  RoundBF16 = 58,
  Tan = 59,
  Asin = 60,
  Acos = 61,
  Atan = 62,
  Sinh = 63,
  Cosh = 64,
  Asinh = 65,
  Acosh = 66,
  Atanh = 67,

  Add = 96,
  Sub = 97,
  Mul = 98,
  Div = 99,  // of integers: towards zero
  Mod = 100,   // with the sign of the divisor
  Fmod = 101,  // with the sign of the dividend
  Pow = 102,
  Min = 103,
  Max = 104,
  PRelu = 105,  // x if x >= 0 else slope x
  And = 106,
  Or = 107,
  Xor = 108,
  Equal = 109,
  Less = 110,
  LessOrEqual = 111,
  Greater = 112,
  GreaterOrEqual = 113,

  Where = 128,   // condition, x, y
  MulAdd = 129,  // a b + c, rounded once or twice
};

enum class ResultType : uint8_t { Same, Bool, Given };

constexpr uint32_t type_bit(int32_t dtype) { return 1u << dtype; }
constexpr uint32_t kFloatTypes = type_bit(HRNN_F32) | type_bit(HRNN_F64);
constexpr uint32_t kIntegerTypes = type_bit(HRNN_I32) | type_bit(HRNN_I64);
constexpr uint32_t kNumberTypes = kFloatTypes | kIntegerTypes;
constexpr uint32_t kComputedTypes = kNumberTypes | type_bit(HRNN_BOOL);
constexpr uint32_t kAllTypes = kComputedTypes | type_bit(HRNN_F16) | type_bit(HRNN_BF16);

constexpr int kMaxFunctionOperands = 3;

struct FunctionInfo {
  const char *name;  // "Add", as ONNX has it
  int operands;
  ResultType result;
  uint32_t types;  // of the operands, as bits; all have the same type, but the condition of Where, which is a bool
};
// Null where there is no such function.
const FunctionInfo *function_info(int64_t function);

struct ElementwiseCall {
  Function function;
  int32_t dtype;         // of the operands (of Where: of the second and third)
  int32_t result_dtype;  // as the function says, or of a Cast
  double alpha, beta;
};
// result = function(operands...) over a loop whose operands are the function's and then the result. No dimension is 0.
// An operand may be the same memory as the result if their strides and types are the same. False: a division of an
// integer by zero.
bool run_elementwise(const ElementwiseCall &call, const StridedLoop &loop, const void *const *operands, void *result);

}  // namespace hrnn
