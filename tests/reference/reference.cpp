// SPDX-License-Identifier: Apache-2.0
#include "reference.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace reference {
namespace {

// One time step of one sequence in one direction.
template <typename Real>
class Cell {
 public:
  Cell(const Layer &layer, int direction) : layer_(layer), direction_(direction) {}

  // h holds the state before the step, then the one after it.
  void step(const double *x, std::vector<Real> *h) {
    if (layer_.op_type == "RNN")
      rnn(x, h);
    else
      gru(x, h);
  }

  Real jump_distance() const { return jump_distance_; }

 private:
  // H = f(X W^T + H R^T + Wb + Rb)
  void rnn(const double *x, std::vector<Real> *h) {
    std::vector<Real> next(h->size());
    for (int j = 0; j < layer_.hidden_size; j++)
      next[j] = activate(0, input_product(0, j, x) + state_product(0, j, *h) + wb(0, j) + rb(0, j));
    *h = next;
  }

  // z = f(X Wz^T + H Rz^T + Wbz + Rbz)
  // r = f(X Wr^T + H Rr^T + Wbr + Rbr)
  // n = g(X Wh^T + (r . H) Rh^T + Rbh + Wbh)      linear_before_reset = 0
  // n = g(X Wh^T + r . (H Rh^T + Rbh) + Wbh)      linear_before_reset != 0
  // H = (1 - z) . n + z . H
  void gru(const double *x, std::vector<Real> *h) {
    const int hidden = layer_.hidden_size;
    std::vector<Real> z(hidden), r(hidden), reset(hidden), next(hidden);
    for (int j = 0; j < hidden; j++) {
      z[j] = activate(0, input_product(0, j, x) + state_product(0, j, *h) + wb(0, j) + rb(0, j));
      r[j] = activate(0, input_product(1, j, x) + state_product(1, j, *h) + wb(1, j) + rb(1, j));
      reset[j] = r[j] * (*h)[j];
    }
    for (int j = 0; j < hidden; j++) {
      const Real from_state = layer_.linear_before_reset ? r[j] * (state_product(2, j, *h) + rb(2, j))
                                                         : state_product(2, j, reset) + rb(2, j);
      const Real n = activate(1, input_product(2, j, x) + from_state + wb(2, j));
      next[j] = (1 - z[j]) * n + z[j] * (*h)[j];
    }
    *h = next;
  }

  Real activate(int index, Real x) {
    const Activation &f = layer_.activations.at(direction_ * layer_.activations_per_direction() + index);
    // std::clamp lets a NaN through.
    if (std::isfinite(layer_.clip)) x = std::clamp(x, Real(-layer_.clip), Real(layer_.clip));
    if (f.name == "ThresholdedRelu") jump_distance_ = std::min(jump_distance_, std::abs(x - Real(f.alpha)));
    return reference::activate(f, x);
  }

  size_t row(int gate, int j) const { return size_t(direction_ * layer_.gates() + gate) * layer_.hidden_size + j; }
  Real input_product(int gate, int j, const double *x) const {
    return dot(&layer_.w[row(gate, j) * layer_.input_size], x, layer_.input_size);
  }
  Real state_product(int gate, int j, const std::vector<Real> &h) const {
    return dot(&layer_.r[row(gate, j) * layer_.hidden_size], h.data(), layer_.hidden_size);
  }
  Real wb(int gate, int j) const { return bias(gate, j); }
  Real rb(int gate, int j) const { return bias(layer_.gates() + gate, j); }
  Real bias(int block, int j) const {
    const size_t blocks = 2 * layer_.gates();
    return layer_.b.empty() ? 0 : Real(layer_.b[(direction_ * blocks + block) * layer_.hidden_size + j]);
  }
  template <typename Other>
  static Real dot(const double *weights, const Other *values, int count) {
    Real sum = 0;
    for (int k = 0; k < count; k++) sum += Real(weights[k]) * Real(values[k]);
    return sum;
  }

  const Layer &layer_;
  int direction_;
  Real jump_distance_ = std::numeric_limits<Real>::infinity();
};

}  // namespace

template <typename Real>
Real activate(const Activation &f, Real x) {
  const Real alpha = Real(f.alpha), beta = Real(f.beta);
  if (std::isnan(x)) return x;
  if (f.name == "Relu") return x > 0 ? x : 0;
  if (f.name == "Tanh") return std::tanh(x);
  if (f.name == "Sigmoid") return 1 / (1 + std::exp(-x));
  if (f.name == "Affine") return alpha * x + beta;
  if (f.name == "LeakyRelu") return x >= 0 ? x : alpha * x;
  if (f.name == "ThresholdedRelu") return x > alpha ? x : 0;
  if (f.name == "ScaledTanh") return alpha * std::tanh(beta * x);
  if (f.name == "HardSigmoid") return std::min(std::max(alpha * x + beta, Real(0)), Real(1));
  if (f.name == "Elu") return x >= 0 ? x : alpha * (std::exp(x) - 1);
  if (f.name == "Softsign") return std::isinf(x) ? std::copysign(Real(1), x) : x / (1 + std::abs(x));
  if (f.name == "Softplus") return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
  throw std::invalid_argument("no activation is called " + f.name);
}

template <typename Real>
Outputs<Real> run(const Layer &layer, const Sequences &sequences) {
  const int directions = layer.directions(), hidden = layer.hidden_size, batch = sequences.batch;
  Outputs<Real> out;
  out.y.assign(size_t(sequences.time) * directions * batch * hidden, 0);
  out.y_h.assign(size_t(directions) * batch * hidden, 0);
  for (int d = 0; d < directions; d++) {
    const bool reverse = layer.direction == "reverse" || d == 1;
    Cell<Real> cell(layer, d);
    for (int n = 0; n < batch; n++) {
      const int length = sequences.lengths.empty() ? sequences.time : sequences.lengths[n];
      if (!sequences.lengths.empty() && length == 0) continue;
      const size_t state_at = (size_t(d) * batch + n) * hidden;
      std::vector<Real> h(hidden, 0);
      for (int j = 0; j < hidden && !sequences.initial_h.empty(); j++) h[j] = Real(sequences.initial_h[state_at + j]);
      for (int step = 0; step < length; step++) {
        const int t = reverse ? length - 1 - step : step;
        cell.step(&sequences.x[(size_t(t) * batch + n) * layer.input_size], &h);
        std::copy(h.begin(), h.end(), &out.y[((size_t(t) * directions + d) * batch + n) * hidden]);
      }
      std::copy(h.begin(), h.end(), &out.y_h[state_at]);
    }
    out.jump_distance = std::min(out.jump_distance, cell.jump_distance());
  }
  return out;
}

template float activate(const Activation &, float);
template double activate(const Activation &, double);
template long double activate(const Activation &, long double);
template Outputs<float> run(const Layer &, const Sequences &);
template Outputs<double> run(const Layer &, const Sequences &);
template Outputs<long double> run(const Layer &, const Sequences &);

}  // namespace reference
