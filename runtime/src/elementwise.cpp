// SPDX-License-Identifier: Apache-2.0
//
// Elements are computed in blocks: operands that do not lie side by side are gathered first, so that every function has
// one plain loop a type.
//
// Every formula is finite wherever its value is, and NaN in gives NaN out: comparisons are written so that a NaN takes
// the branch that hands it on.
#include "elementwise.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "float16.h"
#include "pack.h"

namespace hrnn {
namespace {

constexpr int64_t kBlock = 64;  // elements

struct Block {
  const void *operands[kMaxFunctionOperands];
  void *result;
  int64_t count;
  double alpha, beta;
};
using BlockFunction = bool (*)(const Block &);

// ---- Functions of one operand: of(x, alpha, beta) -------------------------------------------------------------------

template <typename T>
T sigmoid(T x) {
  // exp of a negative number only: no overflow, and no cancellation in the lower tail.
  const T e = std::exp(-std::fabs(x));
  return (x < 0 ? e : T(1)) / (1 + e);
}
template <typename T>
T softplus(T x) {
  return (x < 0 ? T(0) : x) + std::log1p(std::exp(-std::fabs(x)));
}

#define HRNN_UNARY(Name, expression)           \
  struct Name {                                \
    template <typename T>                      \
    static T of(T x, T alpha, T beta) {        \
      (void)x, (void)alpha, (void)beta;        \
      return static_cast<T>(expression);       \
    }                                          \
  };

HRNN_UNARY(ReluOf, x < 0 ? T(0) : x)
HRNN_UNARY(TanhOf, std::tanh(x))
HRNN_UNARY(SigmoidOf, sigmoid(x))
HRNN_UNARY(AffineOf, alpha *x + beta)
HRNN_UNARY(LeakyReluOf, x < 0 ? alpha * x : x)
HRNN_UNARY(ThresholdedReluOf, x <= alpha ? T(0) : x)
HRNN_UNARY(ScaledTanhOf, alpha *std::tanh(beta *x))
struct HardSigmoidOf {
  template <typename T>
  static T of(T x, T alpha, T beta) {
    const T y = alpha * x + beta;
    return y < 0 ? T(0) : y > 1 ? T(1) : y;
  }
};
HRNN_UNARY(EluOf, x < 0 ? alpha * std::expm1(x) : x)
HRNN_UNARY(SoftsignOf, std::isinf(x) ? std::copysign(T(1), x) : x / (1 + std::fabs(x)))
HRNN_UNARY(SoftplusOf, softplus(x))
HRNN_UNARY(SqrtOf, std::sqrt(x))
HRNN_UNARY(ReciprocalOf, 1 / x)
HRNN_UNARY(ExpOf, std::exp(x))
HRNN_UNARY(LogOf, std::log(x))
HRNN_UNARY(ErfOf, std::erf(x))
HRNN_UNARY(FloorOf, std::floor(x))
HRNN_UNARY(CeilOf, std::ceil(x))
HRNN_UNARY(RoundOf, std::nearbyint(x))
HRNN_UNARY(SinOf, std::sin(x))
HRNN_UNARY(CosOf, std::cos(x))
HRNN_UNARY(TanOf, std::tan(x))
HRNN_UNARY(AsinOf, std::asin(x))
HRNN_UNARY(AcosOf, std::acos(x))
HRNN_UNARY(AtanOf, std::atan(x))
HRNN_UNARY(SinhOf, std::sinh(x))
HRNN_UNARY(CoshOf, std::cosh(x))
HRNN_UNARY(AsinhOf, std::asinh(x))
HRNN_UNARY(AcoshOf, std::acosh(x))
HRNN_UNARY(AtanhOf, std::atanh(x))
// x * 0 keeps a NaN and would make one of an infinite x: where the factor is 0 the limit is.
HRNN_UNARY(GeluOf, x == -std::numeric_limits<T>::infinity() ? T(0) : x *T(0.5) * std::erfc(x *T(-0.70710678118654752440)))
HRNN_UNARY(GeluTanhOf, x == -std::numeric_limits<T>::infinity()
                           ? T(0)
                           : x *sigmoid(T(1.5957691216057307118) * (x + T(0.044715) * x * x * x)))
HRNN_UNARY(SeluOf, beta *(x > 0 ? x : alpha * std::expm1(x)))
HRNN_UNARY(CeluOf, x < 0 ? alpha * std::expm1(x / alpha) : x)
struct HardSwishOf {
  template <typename T>
  static T of(T x, T, T) {
    return x <= -3 ? T(0) : x >= 3 ? x : x * (x / 6 + T(0.5));
  }
};
HRNN_UNARY(MishOf, x == -std::numeric_limits<T>::infinity() ? T(0) : x *std::tanh(softplus(x)))
HRNN_UNARY(SwishOf, std::isinf(x) && sigmoid(alpha *x) == 0 ? T(0) : x *sigmoid(alpha *x))
HRNN_UNARY(ShrinkOf, x < -alpha ? x + beta : x > alpha ? x - beta : x != x ? x : T(0))
HRNN_UNARY(AbsOf, x < 0 ? -x : x == 0 ? T(0) : x)
HRNN_UNARY(SignOf, x > 0 ? T(1) : x < 0 ? T(-1) : x)

struct RoundF16Of {
  static float of(float x, float, float) { return to_float(to_float16(x)); }
  static double of(double x, double, double) { return static_cast<double>(to_float(to_float16(to_odd_float(x)))); }
};
struct RoundBF16Of {
  static float of(float x, float, float) { return to_float(to_bfloat16(x)); }
  static double of(double x, double, double) { return static_cast<double>(to_float(to_bfloat16(to_odd_float(x)))); }
};

// Integers wrap around: there is no signed overflow in these.
template <typename T>
using Wrapping = typename std::conditional<sizeof(T) == 8, uint64_t, uint32_t>::type;
template <typename T>
constexpr bool kIsInteger = std::is_integral<T>::value;

struct NegOf {
  template <typename T>
  static T of(T x, T, T) {
    if constexpr (kIsInteger<T>) return static_cast<T>(0 - static_cast<Wrapping<T>>(x));
    return -x;
  }
};
struct IntegerAbsOf {
  template <typename T>
  static T of(T x, T, T) {
    return x < 0 ? NegOf::of<T>(x, 0, 0) : x;
  }
};

template <typename F, typename T>
bool unary(const Block &block) {
  const T *x = static_cast<const T *>(block.operands[0]);
  T *y = static_cast<T *>(block.result);
  const T alpha = static_cast<T>(block.alpha), beta = static_cast<T>(block.beta);
  for (int64_t i = 0; i < block.count; ++i) y[i] = F::of(x[i], alpha, beta);
  return true;
}

// ---- Predicates -----------------------------------------------------------------------------------------------------

template <typename T>
bool is_nan(const Block &block) {
  const T *x = static_cast<const T *>(block.operands[0]);
  uint8_t *y = static_cast<uint8_t *>(block.result);
  for (int64_t i = 0; i < block.count; ++i) y[i] = std::isnan(x[i]);
  return true;
}

template <typename T>
bool is_inf(const Block &block) {
  const T *x = static_cast<const T *>(block.operands[0]);
  uint8_t *y = static_cast<uint8_t *>(block.result);
  const bool minus = block.alpha != 0, plus = block.beta != 0;
  for (int64_t i = 0; i < block.count; ++i) y[i] = std::isinf(x[i]) && (x[i] < 0 ? minus : plus);
  return true;
}

bool logical_not(const Block &block) {
  const uint8_t *x = static_cast<const uint8_t *>(block.operands[0]);
  uint8_t *y = static_cast<uint8_t *>(block.result);
  for (int64_t i = 0; i < block.count; ++i) y[i] = x[i] == 0;
  return true;
}

// ---- Functions of two operands: of(a, b) ----------------------------------------------------------------------------

#define HRNN_BINARY(Name, expression)    \
  struct Name {                          \
    template <typename T>                \
    static T of(T a, T b) {              \
      return static_cast<T>(expression); \
    }                                    \
  };
#define HRNN_WRAPPING(Name, sign)                                                                         \
  struct Name {                                                                                           \
    template <typename T>                                                                                 \
    static T of(T a, T b) {                                                                               \
      if constexpr (kIsInteger<T>) {                                                                      \
        return static_cast<T>(static_cast<Wrapping<T>>(a) sign static_cast<Wrapping<T>>(b));              \
      } else {                                                                                            \
        return a sign b;                                                                                  \
      }                                                                                                   \
    }                                                                                                     \
  };

HRNN_WRAPPING(AddOf, +)
HRNN_WRAPPING(SubOf, -)
HRNN_WRAPPING(MulOf, *)
HRNN_BINARY(DivOf, a / b)
HRNN_BINARY(FmodOf, std::fmod(a, b))
struct ModOf {
  template <typename T>
  static T of(T a, T b) {
    const T rest = std::fmod(a, b);
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
  }
};
HRNN_BINARY(PowOf, std::pow(a, b))
HRNN_BINARY(MinOf, a < b || a != a ? a : b)
HRNN_BINARY(MaxOf, a > b || a != a ? a : b)
HRNN_BINARY(PReluOf, a < 0 ? a * b : a)
HRNN_BINARY(AndOf, (a != 0 && b != 0))
HRNN_BINARY(OrOf, (a != 0 || b != 0))
HRNN_BINARY(XorOf, (a != 0) != (b != 0))

// Integer powers wrap as repeated multiplication does; of a negative exponent only 1 and -1 have one.
struct IntegerPowOf {
  template <typename T>
  static T of(T a, T b) {
    if (b < 0) return a == 1 || (a == -1 && b % 2 == 0) ? T(1) : a == -1 ? T(-1) : T(0);
    Wrapping<T> base = static_cast<Wrapping<T>>(a), power = 1;
    for (; b > 0; b /= 2, base *= base) {
      if (b % 2 == 1) power *= base;
    }
    return static_cast<T>(power);
  }
};

template <typename F, typename T>
bool binary(const Block &block) {
  const T *a = static_cast<const T *>(block.operands[0]), *b = static_cast<const T *>(block.operands[1]);
  T *y = static_cast<T *>(block.result);
  for (int64_t i = 0; i < block.count; ++i) y[i] = F::of(a[i], b[i]);
  return true;
}

// The quotient that does not fit (least / -1) wraps around; there is none by zero.
struct IntegerDivOf {
  template <typename T>
  static T of(T a, T b) {
    return b == -1 ? NegOf::of<T>(a, 0, 0) : a / b;
  }
};
struct IntegerFmodOf {
  template <typename T>
  static T of(T a, T b) {
    return b == -1 ? T(0) : a % b;
  }
};
struct IntegerModOf {
  template <typename T>
  static T of(T a, T b) {
    const T rest = IntegerFmodOf::of(a, b);
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
  }
};
template <typename F, typename T>
bool dividing(const Block &block) {
  const T *b = static_cast<const T *>(block.operands[1]);
  for (int64_t i = 0; i < block.count; ++i) {
    if (b[i] == 0) return false;
  }
  return binary<F, T>(block);
}

#define HRNN_COMPARISON(Name, expression) \
  struct Name {                           \
    template <typename T>                 \
    static bool of(T a, T b) {            \
      return expression;                  \
    }                                     \
  };
HRNN_COMPARISON(EqualOf, a == b)
HRNN_COMPARISON(LessOf, a < b)
HRNN_COMPARISON(LessOrEqualOf, a <= b)
HRNN_COMPARISON(GreaterOf, a > b)
HRNN_COMPARISON(GreaterOrEqualOf, a >= b)

template <typename F, typename T>
bool compare(const Block &block) {
  const T *a = static_cast<const T *>(block.operands[0]), *b = static_cast<const T *>(block.operands[1]);
  uint8_t *y = static_cast<uint8_t *>(block.result);
  for (int64_t i = 0; i < block.count; ++i) y[i] = F::of(a[i], b[i]);
  return true;
}

#undef HRNN_UNARY
#undef HRNN_BINARY
#undef HRNN_WRAPPING
#undef HRNN_COMPARISON

// ---- Functions of three operands ------------------------------------------------------------------------------------

template <typename T>
bool where(const Block &block) {
  const uint8_t *condition = static_cast<const uint8_t *>(block.operands[0]);
  const T *a = static_cast<const T *>(block.operands[1]), *b = static_cast<const T *>(block.operands[2]);
  T *y = static_cast<T *>(block.result);
  for (int64_t i = 0; i < block.count; ++i) y[i] = condition[i] != 0 ? a[i] : b[i];
  return true;
}

template <typename T>
bool mul_add(const Block &block) {
  const T *a = static_cast<const T *>(block.operands[0]), *b = static_cast<const T *>(block.operands[1]);
  const T *c = static_cast<const T *>(block.operands[2]);
  T *y = static_cast<T *>(block.result);
  for (int64_t i = 0; i < block.count; ++i) y[i] = a[i] * b[i] + c[i];
  return true;
}

// ---- The table ------------------------------------------------------------------------------------------------------

// One loop a type; null where the function does not take it.
struct FunctionLoops {
  BlockFunction f32, f64, i32, i64, boolean;
};

struct FunctionRow {
  Function function;
  FunctionInfo info;
  FunctionLoops loops;
};

template <typename F>
constexpr FunctionLoops real_unary() {
  return {unary<F, float>, unary<F, double>, nullptr, nullptr, nullptr};
}
template <typename F, typename Integer>
constexpr FunctionLoops number_unary() {
  return {unary<F, float>, unary<F, double>, unary<Integer, int32_t>, unary<Integer, int64_t>, nullptr};
}
template <typename F>
constexpr FunctionLoops real_binary() {
  return {binary<F, float>, binary<F, double>, nullptr, nullptr, nullptr};
}
template <typename F, typename Integer>
constexpr FunctionLoops number_binary() {
  return {binary<F, float>, binary<F, double>, binary<Integer, int32_t>, binary<Integer, int64_t>, nullptr};
}
template <typename F, typename Integer>
constexpr FunctionLoops quotient() {
  return {binary<F, float>, binary<F, double>, dividing<Integer, int32_t>, dividing<Integer, int64_t>, nullptr};
}
template <typename F>
constexpr FunctionLoops logical() {
  return {nullptr, nullptr, nullptr, nullptr, binary<F, uint8_t>};
}
template <typename F>
constexpr FunctionLoops comparison() {
  return {compare<F, float>, compare<F, double>, compare<F, int32_t>, compare<F, int64_t>, compare<F, uint8_t>};
}

constexpr Function activation(hrnn_activation_kind kind) { return static_cast<Function>(kind); }
constexpr FunctionInfo real_function(const char *name, int operands = 1) {
  return {name, operands, ResultType::Same, kFloatTypes};
}
constexpr FunctionInfo number_function(const char *name, int operands) {
  return {name, operands, ResultType::Same, kNumberTypes};
}
constexpr FunctionInfo bool_function(const char *name, int operands) {
  return {name, operands, ResultType::Same, type_bit(HRNN_BOOL)};
}
constexpr FunctionInfo predicate(const char *name, int operands, uint32_t types) {
  return {name, operands, ResultType::Bool, types};
}

constexpr FunctionRow kFunctionRows[] = {
    {activation(HRNN_RELU), number_function("Relu", 1), number_unary<ReluOf, ReluOf>()},
    {activation(HRNN_TANH), real_function("Tanh"), real_unary<TanhOf>()},
    {activation(HRNN_SIGMOID), real_function("Sigmoid"), real_unary<SigmoidOf>()},
    {activation(HRNN_AFFINE), real_function("Affine"), real_unary<AffineOf>()},
    {activation(HRNN_LEAKY_RELU), real_function("LeakyRelu"), real_unary<LeakyReluOf>()},
    {activation(HRNN_THRESHOLDED_RELU), real_function("ThresholdedRelu"), real_unary<ThresholdedReluOf>()},
    {activation(HRNN_SCALED_TANH), real_function("ScaledTanh"), real_unary<ScaledTanhOf>()},
    {activation(HRNN_HARD_SIGMOID), real_function("HardSigmoid"), real_unary<HardSigmoidOf>()},
    {activation(HRNN_ELU), real_function("Elu"), real_unary<EluOf>()},
    {activation(HRNN_SOFTSIGN), real_function("Softsign"), real_unary<SoftsignOf>()},
    {activation(HRNN_SOFTPLUS), real_function("Softplus"), real_unary<SoftplusOf>()},
    {Function::Cast, {"Cast", 1, ResultType::Given, kAllTypes}, {}},
    {Function::Neg, number_function("Neg", 1), number_unary<NegOf, NegOf>()},
    {Function::Abs, number_function("Abs", 1), number_unary<AbsOf, IntegerAbsOf>()},
    {Function::Sqrt, real_function("Sqrt"), real_unary<SqrtOf>()},
    {Function::Reciprocal, real_function("Reciprocal"), real_unary<ReciprocalOf>()},
    {Function::Exp, real_function("Exp"), real_unary<ExpOf>()},
    {Function::Log, real_function("Log"), real_unary<LogOf>()},
    {Function::Erf, real_function("Erf"), real_unary<ErfOf>()},
    {Function::Floor, real_function("Floor"), real_unary<FloorOf>()},
    {Function::Ceil, real_function("Ceil"), real_unary<CeilOf>()},
    {Function::Round, real_function("Round"), real_unary<RoundOf>()},
    {Function::Sign, number_function("Sign", 1), number_unary<SignOf, SignOf>()},
    {Function::Sin, real_function("Sin"), real_unary<SinOf>()},
    {Function::Cos, real_function("Cos"), real_unary<CosOf>()},
    {Function::Tan, real_function("Tan"), real_unary<TanOf>()},
    {Function::Asin, real_function("Asin"), real_unary<AsinOf>()},
    {Function::Acos, real_function("Acos"), real_unary<AcosOf>()},
    {Function::Atan, real_function("Atan"), real_unary<AtanOf>()},
    {Function::Sinh, real_function("Sinh"), real_unary<SinhOf>()},
    {Function::Cosh, real_function("Cosh"), real_unary<CoshOf>()},
    {Function::Asinh, real_function("Asinh"), real_unary<AsinhOf>()},
    {Function::Acosh, real_function("Acosh"), real_unary<AcoshOf>()},
    {Function::Atanh, real_function("Atanh"), real_unary<AtanhOf>()},
    {Function::Not, bool_function("Not", 1), {nullptr, nullptr, nullptr, nullptr, logical_not}},
    {Function::IsNaN, predicate("IsNaN", 1, kFloatTypes), {is_nan<float>, is_nan<double>, nullptr, nullptr, nullptr}},
    {Function::IsInf, predicate("IsInf", 1, kFloatTypes), {is_inf<float>, is_inf<double>, nullptr, nullptr, nullptr}},
    {Function::Gelu, real_function("Gelu"), real_unary<GeluOf>()},
    {Function::GeluTanh, real_function("GeluTanh"), real_unary<GeluTanhOf>()},
    {Function::Selu, real_function("Selu"), real_unary<SeluOf>()},
    {Function::Celu, real_function("Celu"), real_unary<CeluOf>()},
    {Function::HardSwish, real_function("HardSwish"), real_unary<HardSwishOf>()},
    {Function::Mish, real_function("Mish"), real_unary<MishOf>()},
    {Function::Swish, real_function("Swish"), real_unary<SwishOf>()},
    {Function::Shrink, real_function("Shrink"), real_unary<ShrinkOf>()},
    {Function::RoundF16, real_function("RoundF16"), real_unary<RoundF16Of>()},
    {Function::RoundBF16, real_function("RoundBF16"), real_unary<RoundBF16Of>()},

    {Function::Add, number_function("Add", 2), number_binary<AddOf, AddOf>()},
    {Function::Sub, number_function("Sub", 2), number_binary<SubOf, SubOf>()},
    {Function::Mul, number_function("Mul", 2), number_binary<MulOf, MulOf>()},
    {Function::Div, number_function("Div", 2), quotient<DivOf, IntegerDivOf>()},
    {Function::Mod, number_function("Mod", 2), quotient<ModOf, IntegerModOf>()},
    {Function::Fmod, number_function("Fmod", 2), quotient<FmodOf, IntegerFmodOf>()},
    {Function::Pow, number_function("Pow", 2), number_binary<PowOf, IntegerPowOf>()},
    {Function::Min, number_function("Min", 2), number_binary<MinOf, MinOf>()},
    {Function::Max, number_function("Max", 2), number_binary<MaxOf, MaxOf>()},
    {Function::PRelu, number_function("PRelu", 2), number_binary<PReluOf, PReluOf>()},
    {Function::And, bool_function("And", 2), logical<AndOf>()},
    {Function::Or, bool_function("Or", 2), logical<OrOf>()},
    {Function::Xor, bool_function("Xor", 2), logical<XorOf>()},
    {Function::Equal, predicate("Equal", 2, kComputedTypes), comparison<EqualOf>()},
    {Function::Less, predicate("Less", 2, kNumberTypes), comparison<LessOf>()},
    {Function::LessOrEqual, predicate("LessOrEqual", 2, kNumberTypes), comparison<LessOrEqualOf>()},
    {Function::Greater, predicate("Greater", 2, kNumberTypes), comparison<GreaterOf>()},
    {Function::GreaterOrEqual, predicate("GreaterOrEqual", 2, kNumberTypes), comparison<GreaterOrEqualOf>()},

    {Function::Where,
     {"Where", 3, ResultType::Same, kComputedTypes},
     {where<float>, where<double>, where<int32_t>, where<int64_t>, where<uint8_t>}},
    {Function::MulAdd, real_function("MulAdd", 3), {mul_add<float>, mul_add<double>, nullptr, nullptr, nullptr}},
};

const FunctionRow *find_function(int64_t function) {
  for (const FunctionRow &row : kFunctionRows) {
    if (static_cast<int64_t>(row.function) == function) return &row;
  }
  return nullptr;
}

BlockFunction loop_of(const FunctionLoops &loops, int32_t dtype) {
  switch (dtype) {
    case HRNN_F32: return loops.f32;
    case HRNN_F64: return loops.f64;
    case HRNN_I32: return loops.i32;
    case HRNN_I64: return loops.i64;
    case HRNN_BOOL: return loops.boolean;
    default: return nullptr;
  }
}

// ---- Cast -----------------------------------------------------------------------------------------------------------

struct Bool {
  uint8_t value;
};

// What a number is converted by way of: exact for every value of the type.
inline float widened(float x) { return x; }
inline double widened(double x) { return x; }
inline int64_t widened(int32_t x) { return x; }
inline int64_t widened(int64_t x) { return x; }
inline float widened(Float16 x) { return to_float(x); }
inline float widened(BFloat16 x) { return to_float(x); }
inline int64_t widened(Bool x) { return x.value != 0; }

// Towards zero; out of range becomes the nearest, NaN 0.
template <typename Integer>
Integer truncated(double x) {
  constexpr double kEnd = -static_cast<double>(std::numeric_limits<Integer>::min());
  if (!(x < kEnd)) return x != x ? 0 : std::numeric_limits<Integer>::max();
  return x < -kEnd ? std::numeric_limits<Integer>::min() : static_cast<Integer>(x);
}

template <typename To>
struct Narrow {
  template <typename From>
  static To of(From x) {
    if constexpr (std::is_integral<To>::value && !std::is_integral<From>::value) {
      return truncated<To>(static_cast<double>(x));
    } else {
      return static_cast<To>(x);  // integers wrap around, floating-point numbers round once
    }
  }
};
template <>
struct Narrow<Bool> {
  template <typename From>
  static Bool of(From x) {
    return {x != 0};
  }
};
template <>
struct Narrow<Float16> {
  static Float16 of(float x) { return to_float16(x); }
  template <typename From>
  static Float16 of(From x) {
    return to_float16(to_odd_float(static_cast<double>(x)));
  }
};
template <>
struct Narrow<BFloat16> {
  static BFloat16 of(float x) { return to_bfloat16(x); }
  template <typename From>
  static BFloat16 of(From x) {
    return to_bfloat16(to_odd_float(static_cast<double>(x)));
  }
};

template <typename From, typename To>
bool convert(const Block &block) {
  const From *x = static_cast<const From *>(block.operands[0]);
  To *y = static_cast<To *>(block.result);
  for (int64_t i = 0; i < block.count; ++i) y[i] = Narrow<To>::of(widened(x[i]));
  return true;
}

template <typename From>
BlockFunction conversion_from(int32_t to) {
  switch (to) {
    case HRNN_F32: return convert<From, float>;
    case HRNN_F64: return convert<From, double>;
    case HRNN_I32: return convert<From, int32_t>;
    case HRNN_I64: return convert<From, int64_t>;
    case HRNN_F16: return convert<From, Float16>;
    case HRNN_BF16: return convert<From, BFloat16>;
    default: return convert<From, Bool>;
  }
}

BlockFunction conversion(int32_t from, int32_t to) {
  switch (from) {
    case HRNN_F32: return conversion_from<float>(to);
    case HRNN_F64: return conversion_from<double>(to);
    case HRNN_I32: return conversion_from<int32_t>(to);
    case HRNN_I64: return conversion_from<int64_t>(to);
    case HRNN_F16: return conversion_from<Float16>(to);
    case HRNN_BF16: return conversion_from<BFloat16>(to);
    default: return conversion_from<Bool>(to);
  }
}

// ---- Blocks ---------------------------------------------------------------------------------------------------------

template <typename Bits>
void repeat(const char *from, int64_t count, char *to) {
  Bits element;
  memcpy(&element, from, sizeof element);
  for (int64_t i = 0; i < count; ++i) memcpy(to + i * static_cast<int64_t>(sizeof element), &element, sizeof element);
}

// Elements `stride` apart, at most kBlock of them, side by side.
void gather(const char *from, int64_t stride, int64_t count, int64_t size, char *to) {
  if (stride == 0) {  // one that is broadcast
    switch (size) {
      case 1: return repeat<uint8_t>(from, count, to);
      case 2: return repeat<uint16_t>(from, count, to);
      case 4: return repeat<uint32_t>(from, count, to);
      default: return repeat<uint64_t>(from, count, to);
    }
  }
  switch (size) {
    case 1: for (int64_t i = 0; i < count; ++i) to[i] = from[i * stride]; break;
    case 2: for (int64_t i = 0; i < count; ++i) memcpy(to + i * 2, from + i * stride * 2, 2); break;
    case 4: for (int64_t i = 0; i < count; ++i) memcpy(to + i * 4, from + i * stride * 4, 4); break;
    default: for (int64_t i = 0; i < count; ++i) memcpy(to + i * 8, from + i * stride * 8, 8); break;
  }
}

void scatter(const char *from, int64_t stride, int64_t count, int64_t size, char *to) {
  for (int64_t i = 0; i < count; ++i) memcpy(to + i * stride * size, from + i * size, static_cast<size_t>(size));
}

}  // namespace

const FunctionInfo *function_info(int64_t function) {
  const FunctionRow *row = find_function(function);
  return row == nullptr ? nullptr : &row->info;
}

bool run_elementwise(const ElementwiseCall &call, const StridedLoop &loop, const void *const *operands, void *result) {
  const FunctionRow &row = *find_function(static_cast<int64_t>(call.function));
  const BlockFunction function =
      call.function == Function::Cast ? conversion(call.dtype, call.result_dtype) : loop_of(row.loops, call.dtype);
  const int inputs = row.info.operands;
  const int32_t inner = loop.rank - 1;
  int64_t sizes[kMaxFunctionOperands];
  for (int k = 0; k < inputs; ++k) {
    sizes[k] = dtype_bytes(call.function == Function::Where && k == 0 ? HRNN_BOOL : call.dtype);
  }
  const int64_t result_size = dtype_bytes(call.result_dtype), result_stride = loop.strides[inputs][inner];
  alignas(64) char gathered[kMaxFunctionOperands + 1][kBlock * 8];
  bool defined = true;
  for_each_run(loop, [&](const int64_t *offsets) {
    // Side by side everywhere: one block of any length.
    bool plain = result_stride == 1;
    for (int k = 0; k < inputs; ++k) plain = plain && loop.strides[k][inner] == 1;
    const int64_t step = plain ? loop.dims[inner] : kBlock;
    for (int64_t first = 0; first < loop.dims[inner]; first += step) {
      const int64_t left = loop.dims[inner] - first;
      Block block = {{}, nullptr, left < step ? left : step, call.alpha, call.beta};
      for (int k = 0; k < inputs; ++k) {
        const int64_t stride = loop.strides[k][inner];
        const char *from = static_cast<const char *>(operands[k]) + (offsets[k] + first * stride) * sizes[k];
        if (stride != 1) gather(from, stride, block.count, sizes[k], gathered[k]);
        block.operands[k] = stride == 1 ? from : gathered[k];
      }
      char *to = static_cast<char *>(result) + (offsets[inputs] + first * result_stride) * result_size;
      block.result = result_stride == 1 ? to : gathered[kMaxFunctionOperands];
      defined = function(block) && defined;
      if (result_stride != 1) scatter(gathered[kMaxFunctionOperands], result_stride, block.count, result_size, to);
    }
  });
  return defined;
}

}  // namespace hrnn
