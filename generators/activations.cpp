// SPDX-License-Identifier: Apache-2.0
#include "activations.h"

#include <cmath>
#include <stdexcept>

namespace hrnn {
namespace {

using Halide::abs;
using Halide::cast;
using Halide::clamp;
using Halide::Expr;
using Halide::Float;
using Halide::Int;
using Halide::max;
using Halide::min;
using Halide::reinterpret;
using Halide::select;
using Halide::Type;
using Halide::UInt;

Expr constant(Type type, double value) { return Halide::Internal::make_const(type, value); }

// A polynomial by Horner's rule: fewest operations, one after another.
Expr horner(const Expr &x, const std::vector<double> &coefficients) {
  Expr sum = constant(x.type(), coefficients.back());
  for (size_t i = coefficients.size() - 1; i-- > 0;) sum = sum * x + constant(x.type(), coefficients[i]);
  return sum;
}

// The same by Estrin's scheme: halves side by side, so that a result takes log2(n) multiply-adds of latency instead of n.
// Activations are a chain that little else overlaps with when a layer is small.
Expr estrin(const Expr &x, const std::vector<double> &coefficients) {
  std::vector<Expr> terms;
  for (double c : coefficients) terms.push_back(constant(x.type(), c));
  for (Expr power = x; terms.size() > 1; power = power * power) {
    std::vector<Expr> pairs;
    for (size_t i = 0; i + 1 < terms.size(); i += 2) pairs.push_back(terms[i + 1] * power + terms[i]);
    if (terms.size() % 2 == 1) pairs.push_back(terms.back());
    terms = pairs;
  }
  return terms[0];
}

// 2^f on [-0.5, 0.5], interpolated at Chebyshev nodes with p(0) = 1; relative error 5e-9 (float), 1e-19 (double).
const std::vector<double> kExp2Float = {1.0,
                                        0.6931471880352002849,
                                        0.24022650760645807262,
                                        0.055503570711525073233,
                                        0.0096180825199904668781,
                                        0.0013390886332106697626,
                                        0.00015453182829959740588};
const std::vector<double> kExp2Double = {1.0,
                                         0.69314718055994530925,
                                         0.24022650695910071233,
                                         0.055504108664821627134,
                                         0.0096181291076284794974,
                                         0.0013333558146406435501,
                                         0.0001540353039337071599,
                                         0.000015252733841601815169,
                                         1.3215486808727857724e-6,
                                         1.0178057064573358798e-7,
                                         7.0548972926916273186e-9,
                                         4.4558220250149151406e-10,
                                         2.5729344553786754129e-11};

// e^x, with the result kept in the range of normal numbers.
// Halide's own exp calls libm for double, and round() splits wide AVX-512 vectors, so: round by adding a number whose last
// bit counts ones, and take the integer from the low bits, where the compiler's reassociation of floats does not reach.
Expr exponential(const Expr &x) {
  const Type type = x.type();
  const bool wide = type.bits() == 64;
  const int exponent_bias = wide ? 1023 : 127, mantissa_bits = wide ? 52 : 23;
  const Type bits = Int(type.bits(), type.lanes());
  Expr y = x * constant(type, 1.4426950408889634074);
  y = min(max(y, constant(type, 2 - exponent_bias)), constant(type, exponent_bias - 1));
  Expr rounder = constant(type, wide ? 0x1.8p52 : 0x1.8p23);
  Expr n = reinterpret(bits, y + rounder) - reinterpret(bits, rounder);
  Expr fraction = y - cast(type, cast(Int(32), n));
  Expr power = reinterpret(type, (n + exponent_bias) << mantissa_bits);
  return estrin(fraction, wide ? kExp2Double : kExp2Float) * power;
}

// log(1 + e) for e in [0, 1], by the series of 2 artanh(e / (2 + e)).
Expr log1p_unit(const Expr &e) {
  Expr s = e / (e + constant(e.type(), 2));
  std::vector<double> series;
  for (int k = 0; k < (e.type().bits() == 64 ? 17 : 8); k++) series.push_back(2.0 / (2 * k + 1));
  return s * horner(s * s, series);
}

// Code is generated under the assumption that no NaN occurs, so min, max and comparisons may swallow one: look at the
// bits, which no optimiser reasons about.
Expr keep_nan(const Expr &x, const Expr &result) {
  const bool wide = x.type().bits() == 64;
  const Type bits = UInt(x.type().bits(), x.type().lanes());
  const uint64_t magnitude_mask = wide ? 0x7fffffffffffffffu : 0x7fffffffu;
  const uint64_t infinity_bits = wide ? 0x7ff0000000000000u : 0x7f800000u;
  Expr magnitude = reinterpret(bits, x) & Halide::Internal::make_const(bits, magnitude_mask);
  Expr infinity = Halide::Internal::make_const(bits, infinity_bits);
  return select(magnitude > infinity, x, result);
}

// tanh(x) = x P(x^2) / Q(x^2) for |x| < 9, fitted to the smallest relative error (6e-8), with a little more than 1 at 9.
// Half as long a chain as an exponential, and accurate next to 0 too; errors are those of rounding, 3.3e-7 at most.
constexpr double kTanhBound = 9;
const std::vector<double> kTanhP = {1.0, 0.13411831855773926, 0.0035323298070579767, 2.1222220311756246e-5, 1.4226921862814379e-8};
const std::vector<double> kTanhQ = {1.0, 0.4674515426158905, 0.026016339659690857, 3.3460542908869684e-4, 8.128351396408107e-7};

// scale tanh(argument_scale x), in float. The bounds are set on the bits of positive numbers, which order like integers:
// that takes a cycle where a floating-point minimum takes four.
Expr tanh_by_ratio(const Expr &x, double argument_scale, double scale) {
  const Type type = x.type(), bits = UInt(type.bits(), type.lanes());
  auto bounded = [&](const Expr &positive, double bound) {
    return min(reinterpret(bits, positive), reinterpret(bits, constant(type, bound)));
  };
  Expr sign = reinterpret(bits, x) & Halide::Internal::make_const(bits, 0x80000000u);
  Expr m = reinterpret(type, bounded(abs(x), kTanhBound / argument_scale));
  Expr u = m * m, u2 = u * u;
  std::vector<Expr> p, q;
  for (size_t i = 0; i < kTanhP.size(); i++) {
    const double power = std::pow(argument_scale, 2.0 * double(i));
    p.push_back(constant(type, kTanhP[i] * power * argument_scale * scale));
    q.push_back(constant(type, kTanhQ[i] * power));
  }
  Expr numerator = m * (p[1] * u + p[0]) + (m * u2) * (p[4] * u2 + (p[3] * u + p[2]));
  Expr denominator = (q[1] * u + q[0]) + u2 * (q[4] * u2 + (q[3] * u + q[2]));
  return reinterpret(type, bounded(numerator / denominator, scale) | sign);
}

// In double, 1 - 2 / (1 + e^2x) is exact at 0 and saturates at +-1 by itself.
Expr tanh_of(const Expr &x) {
  if (x.type().bits() == 32) return tanh_by_ratio(x, 1, 1);
  Expr one = constant(x.type(), 1), two = constant(x.type(), 2);
  return one - two / (one + exponential(two * x));
}

Expr sigmoid_of(const Expr &x) {
  if (x.type().bits() == 32) return constant(x.type(), 0.5) + tanh_by_ratio(x, 0.5, 0.5);
  Expr one = constant(x.type(), 1);
  return one / (one + exponential(-x));
}

// The bound only matters for infinite x, where the quotient would not be a number.
Expr softsign_of(const Expr &x) {
  Expr one = constant(x.type(), 1), large = constant(x.type(), 1e30);
  Expr bounded = max(min(x, large), -large);
  return bounded / (one + abs(bounded));
}

struct Named {
  const char *name;
  hrnn_activation_kind kind;
};
constexpr Named kNames[] = {{"relu", HRNN_RELU},
                            {"tanh", HRNN_TANH},
                            {"sigmoid", HRNN_SIGMOID},
                            {"affine", HRNN_AFFINE},
                            {"leakyrelu", HRNN_LEAKY_RELU},
                            {"thresholdedrelu", HRNN_THRESHOLDED_RELU},
                            {"scaledtanh", HRNN_SCALED_TANH},
                            {"hardsigmoid", HRNN_HARD_SIGMOID},
                            {"elu", HRNN_ELU},
                            {"softsign", HRNN_SOFTSIGN},
                            {"softplus", HRNN_SOFTPLUS}};

}  // namespace

Expr activation(hrnn_activation_kind kind, const Expr &x, const Expr &alpha, const Expr &beta) {
  Expr zero = constant(x.type(), 0), one = constant(x.type(), 1);
  switch (kind) {
    case HRNN_RELU:
      return keep_nan(x, max(x, zero));
    case HRNN_TANH:
      return keep_nan(x, tanh_of(x));
    case HRNN_SIGMOID:
      return keep_nan(x, sigmoid_of(x));
    case HRNN_AFFINE:
      return alpha * x + beta;
    case HRNN_LEAKY_RELU:
      return keep_nan(x, select(x >= zero, x, alpha * x));
    case HRNN_THRESHOLDED_RELU:
      return keep_nan(x, select(x > alpha, x, zero));
    case HRNN_SCALED_TANH:
      return keep_nan(x, alpha * tanh_of(beta * x));
    case HRNN_HARD_SIGMOID:
      return keep_nan(x, min(max(alpha * x + beta, zero), one));
    case HRNN_ELU:
      return keep_nan(x, select(x >= zero, x, alpha * (exponential(min(x, zero)) - one)));
    case HRNN_SOFTSIGN:
      return keep_nan(x, softsign_of(x));
    case HRNN_SOFTPLUS:
      return keep_nan(x, max(x, zero) + log1p_unit(exponential(-abs(x))));
    default:
      throw std::invalid_argument("no activation has the number " + std::to_string(kind));
  }
}

Expr any_activation(const Expr &kind, const Expr &unbounded, const Expr &clip, const Expr &alpha, const Expr &beta) {
  const Type type = unbounded.type();
  Expr x = max(min(unbounded, clip), -clip);
  Expr zero = constant(type, 0), one = constant(type, 1), two = constant(type, 2);
  auto is = [&](hrnn_activation_kind k) { return kind == static_cast<int>(k); };

  // Everything exponential is a function of e = e^-|u|, which never overflows.
  Expr u = x * select(is(HRNN_TANH), two, is(HRNN_SCALED_TANH), two * beta, one);
  Expr e = exponential(-abs(u));
  Expr ratio = select(is(HRNN_SIGMOID), select(x >= zero, one, e), one - e) / (one + e);
  Expr odd = select(u < zero, -ratio, ratio);
  Expr bounded = min(max(alpha * x + beta, zero), one);

  Expr result = select(is(HRNN_RELU), max(x, zero),                                              //
                       is(HRNN_TANH), odd,                                                       //
                       is(HRNN_SIGMOID), ratio,                                                  //
                       is(HRNN_AFFINE), alpha * x + beta,                                        //
                       is(HRNN_LEAKY_RELU), select(x >= zero, x, alpha * x),                     //
                       is(HRNN_THRESHOLDED_RELU), select(x > alpha, x, zero),                    //
                       is(HRNN_SCALED_TANH), alpha * odd,                                        //
                       is(HRNN_HARD_SIGMOID), bounded,                                           //
                       is(HRNN_ELU), select(x >= zero, x, alpha * (e - one)),                    //
                       is(HRNN_SOFTSIGN), softsign_of(x),                                        //
                       max(x, zero) + log1p_unit(e));
  return keep_nan(unbounded, result);
}

hrnn_activation_kind activation_by_name(const std::string &name) {
  std::string known;
  for (const Named &entry : kNames) {
    if (name == entry.name) return entry.kind;
    known += (known.empty() ? "" : ", ") + std::string(entry.name);
  }
  throw std::invalid_argument("no activation is called '" + name + "'; known: " + known);
}

}  // namespace hrnn
