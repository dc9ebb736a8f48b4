// SPDX-License-Identifier: Apache-2.0
//
// The activation functions as expressions: vectorised on every target, free of library calls, for float and double.
// Formulas and parameters are those of the ONNX operators RNN and GRU.
#pragma once
#include <string>
#include <vector>

#include "Halide.h"
#include "hrnn/hrnn.h"

namespace hrnn {

// activation(x) with alpha and beta where the function has them. A NaN stays a NaN; infinities saturate.
// Largest absolute error against exact arithmetic: about 3e-7 (float), 2.3e-16 (double) for the bounded
// functions.
Halide::Expr activation(hrnn_activation_kind kind, const Halide::Expr &x, const Halide::Expr &alpha,
                        const Halide::Expr &beta);

// The same of x bounded to [-clip, clip], with the kind chosen at run time (an int32 hrnn_activation_kind): one
// exponential shared by all kinds.
Halide::Expr any_activation(const Halide::Expr &kind, const Halide::Expr &x, const Halide::Expr &clip,
                            const Halide::Expr &alpha, const Halide::Expr &beta);

// "tanh", "sigmoid", "relu", ...: lower-case ONNX names. Throws std::invalid_argument naming the known ones.
hrnn_activation_kind activation_by_name(const std::string &name);

}  // namespace hrnn
