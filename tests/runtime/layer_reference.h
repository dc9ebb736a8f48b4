// SPDX-License-Identifier: Apache-2.0
//
// ONNX RNN and GRU in double precision, written from the equations of the operators' documentation.
#pragma once
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "hrnn/hrnn.h"

namespace reference {

inline double activate(const hrnn_activation &f, double x) {
  switch (f.kind) {
    case HRNN_RELU: return x > 0 || std::isnan(x) ? x : 0;
    case HRNN_TANH: return std::tanh(x);
    case HRNN_SIGMOID: return 1 / (1 + std::exp(-x));
    case HRNN_AFFINE: return f.alpha * x + f.beta;
    case HRNN_LEAKY_RELU: return x >= 0 ? x : f.alpha * x;
    case HRNN_THRESHOLDED_RELU: return x > f.alpha || std::isnan(x) ? x : 0;
    case HRNN_SCALED_TANH: return f.alpha * std::tanh(f.beta * x);
    case HRNN_HARD_SIGMOID: {
      const double y = f.alpha * x + f.beta;
      return std::isnan(y) ? y : std::fmin(std::fmax(y, 0), 1);
    }
    case HRNN_ELU: return x >= 0 ? x : f.alpha * (std::exp(x) - 1);
    case HRNN_SOFTSIGN: return x / (1 + std::fabs(x));
    case HRNN_SOFTPLUS: return x > 700 ? x : std::log(1 + std::exp(x));  // exp(710) is no double
    default: return NAN;
  }
}

// A layer with weights in ONNX layout and order (GRU: z, r, h).
struct Layer {
  std::string cell;  // "rnn", "gru" (linear_before_reset = 1), "gru_reset_before" (= 0)
  int64_t input = 1, hidden = 1;
  hrnn_direction direction = HRNN_FORWARD;
  double clip = HUGE_VAL;
  hrnn_activation activations[2][2] = {};  // per direction: f, g
  std::vector<double> w, r, b;             // b may be empty

  int64_t gates() const { return cell == "rnn" ? 1 : 3; }
  int64_t directions() const { return direction == HRNN_BIDIRECTIONAL ? 2 : 1; }
};

struct Sequence {
  std::vector<double> y, h;  // [T, D, N, H], [D, N, H]
};

// x [T, N, I]; lengths [N] or empty; h0 [D, N, H] or empty.
inline Sequence run(const Layer &layer, int64_t time, int64_t batch, const std::vector<double> &x,
                    const std::vector<int32_t> &lengths, const std::vector<double> &h0) {
  const int64_t D = layer.directions(), H = layer.hidden, I = layer.input, G = layer.gates();
  Sequence out;
  out.y.assign(size_t(time * D * batch * H), 0.0);
  out.h.assign(size_t(D * batch * H), 0.0);
  for (int64_t d = 0; d < D; ++d) {
    const bool reverse = layer.direction == HRNN_REVERSE || d == 1;
    const auto f = [&](int i, double v) {
      return activate(layer.activations[d][i], std::fmax(-layer.clip, std::fmin(layer.clip, v)));
    };
    for (int64_t n = 0; n < batch; ++n) {
      const int64_t length = lengths.empty() ? time : lengths[size_t(n)];
      std::vector<double> h(size_t(H), 0.0);
      // A sequence without steps gives zeros, unless no lengths are given at all.
      if (!h0.empty() && (length > 0 || lengths.empty() || time == 0)) {
        for (int64_t j = 0; j < H; ++j) h[size_t(j)] = h0[size_t((d * batch + n) * H + j)];
      }
      for (int64_t step = 0; step < length; ++step) {
        const int64_t t = reverse ? length - 1 - step : step;
        const auto in = [&](int64_t g, int64_t j) {  // x W_g^T + Wb_g
          double sum = layer.b.empty() ? 0 : layer.b[size_t(d * 2 * G * H + g * H + j)];
          for (int64_t k = 0; k < I; ++k) {
            sum += x[size_t((t * batch + n) * I + k)] * layer.w[size_t(((d * G + g) * H + j) * I + k)];
          }
          return sum;
        };
        const auto rec = [&](int64_t g, int64_t j, const std::vector<double> &v) {  // v R_g^T + Rb_g
          double sum = layer.b.empty() ? 0 : layer.b[size_t(d * 2 * G * H + (G + g) * H + j)];
          for (int64_t k = 0; k < H; ++k) sum += v[size_t(k)] * layer.r[size_t(((d * G + g) * H + j) * H + k)];
          return sum;
        };
        std::vector<double> next(h);
        if (layer.cell == "rnn") {
          for (int64_t j = 0; j < H; ++j) next[size_t(j)] = f(0, in(0, j) + rec(0, j, h));
        } else {
          std::vector<double> z(h), r(h), rh(h);
          for (int64_t j = 0; j < H; ++j) {
            z[size_t(j)] = f(0, in(0, j) + rec(0, j, h));
            r[size_t(j)] = f(0, in(1, j) + rec(1, j, h));
            rh[size_t(j)] = r[size_t(j)] * h[size_t(j)];
          }
          for (int64_t j = 0; j < H; ++j) {
            const double candidate =
                layer.cell == "gru" ? f(1, in(2, j) + r[size_t(j)] * rec(2, j, h)) : f(1, in(2, j) + rec(2, j, rh));
            next[size_t(j)] = (1 - z[size_t(j)]) * candidate + z[size_t(j)] * h[size_t(j)];
          }
        }
        h = next;
        for (int64_t j = 0; j < H; ++j) out.y[size_t(((t * D + d) * batch + n) * H + j)] = h[size_t(j)];
      }
      for (int64_t j = 0; j < H; ++j) out.h[size_t((d * batch + n) * H + j)] = h[size_t(j)];
    }
  }
  return out;
}

}  // namespace reference
