// SPDX-License-Identifier: Apache-2.0
#include "reference.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>
#include <stdexcept>

namespace reference {
namespace {

using hrnn::CellReference;

// H' = f(X W^T + Wb + H R^T + Rb)
HRNN_CELL_REFERENCE(rnn, 1, {"tanh"}, [](const auto &in) {
  auto next = in.state;
  for (int j = 0; j < in.hidden; j++) next[j] = in.activation(0, in.input(0, j) + in.product(0, j, in.state));
  return next;
});

// H' = H where X W^T + Wb + H R^T + Rb >= 1e30 (hrnn.h), else as rnn
HRNN_CELL_REFERENCE(rnn_masked, 1, {"tanh"}, [](const auto &in) {
  auto next = in.state;
  for (int j = 0; j < in.hidden; j++) {
    const auto argument = in.input(0, j) + in.product(0, j, in.state);
    if (!(argument >= 1e30)) next[j] = in.activation(0, argument);
  }
  return next;
});

// z = f(X Wz^T + H Rz^T + Wbz + Rbz)
// r = f(X Wr^T + H Rr^T + Wbr + Rbr)
// n = g(X Wh^T + (r . H) Rh^T + Rbh + Wbh)      linear_before_reset = 0
// n = g(X Wh^T + r . (H Rh^T + Rbh) + Wbh)      linear_before_reset != 0
// H' = (1 - z) . n + z . H
template <typename Real>
std::vector<Real> gru_step(const hrnn::ReferenceStep<Real> &in, bool linear_before_reset) {
  std::vector<Real> z(in.hidden), r(in.hidden), reset(in.hidden), next(in.hidden);
  for (int j = 0; j < in.hidden; j++) {
    z[j] = in.activation(0, in.input(0, j) + in.product(0, j, in.state));
    r[j] = in.activation(0, in.input(1, j) + in.product(1, j, in.state));
    reset[j] = r[j] * in.state[j];
  }
  for (int j = 0; j < in.hidden; j++) {
    const Real from_state = linear_before_reset ? r[j] * in.product(2, j, in.state) : in.product(2, j, reset);
    const Real n = in.activation(1, in.input(2, j) + from_state);
    next[j] = (1 - z[j]) * n + z[j] * in.state[j];
  }
  return next;
}
HRNN_CELL_REFERENCE(gru, 3, {"sigmoid", "tanh"}, [](const auto &in) { return gru_step(in, true); });
HRNN_CELL_REFERENCE(gru_reset_before, 3, {"sigmoid", "tanh"}, [](const auto &in) { return gru_step(in, false); });

const std::vector<std::string> kActivationNames = {"Relu",       "Tanh",        "Sigmoid", "Affine",   "LeakyRelu", "ThresholdedRelu",
                                                   "ScaledTanh", "HardSigmoid", "Elu",     "Softsign", "Softplus"};

std::map<std::string, CellReference> &registry() {
  static std::map<std::string, CellReference> cells;
  return cells;
}

std::string lower(std::string text) {
  for (char &c : text) c = char(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// "HardSigmoid" for the "hardsigmoid" of hrnn/cell.h.
std::string onnx_name(const std::string &name) {
  std::string known;
  for (const std::string &candidate : activation_names()) {
    if (lower(candidate) == name) return candidate;
    known += (known.empty() ? "" : ", ") + lower(candidate);
  }
  throw std::invalid_argument("no activation is called '" + name + "'; known: " + known);
}

const CellReference::Step<float> &step_in(const CellReference &cell, float) { return cell.in_float; }
const CellReference::Step<double> &step_in(const CellReference &cell, double) { return cell.in_double; }
const CellReference::Step<long double> &step_in(const CellReference &cell, long double) { return cell.in_long_double; }

// One direction of a layer.
template <typename Real>
class Direction {
 public:
  Direction(const Layer &layer, int direction) : step_(step_in(cell(layer.cell), Real())) {
    const size_t rows = size_t(direction) * layer.gates() * layer.hidden_size;
    in_.hidden = layer.hidden_size;
    in_.gates = layer.gates();
    in_.inputs = layer.input_size;
    in_.w = layer.w.data() + rows * layer.input_size;
    in_.r = layer.r.data() + rows * layer.hidden_size;
    in_.b = layer.b.empty() ? nullptr : layer.b.data() + 2 * rows;
    const size_t activations = size_t(layer.activations_per_direction());
    in_.activation = [this, &layer, first = direction * activations](int index, Real x) {
      const Activation &f = layer.activations.at(first + size_t(index));
      // std::clamp lets a NaN through.
      if (std::isfinite(layer.clip)) x = std::clamp(x, Real(-layer.clip), Real(layer.clip));
      if (f.name == "ThresholdedRelu") jump_distance_ = std::min(jump_distance_, std::abs(x - Real(f.alpha)));
      return activate(f, x);
    };
  }
  Direction(const Direction &) = delete;
  Direction &operator=(const Direction &) = delete;

  // h holds the state before the step, then the one after it.
  void step(const double *x, std::vector<Real> *h) {
    const std::vector<Real> values(x, x + in_.inputs);
    in_.x = values.data();
    in_.state.swap(*h);
    *h = step_(in_);
    if (h->size() != in_.state.size()) throw std::logic_error("the reference returned another number of units");
  }

  Real jump_distance() const { return jump_distance_; }

 private:
  const CellReference::Step<Real> &step_;
  hrnn::ReferenceStep<Real> in_;
  Real jump_distance_ = std::numeric_limits<Real>::infinity();
};

}  // namespace

const CellReference &cell(const std::string &name) {
  const auto found = registry().find(name);
  if (found != registry().end()) return found->second;
  std::string known;
  for (const auto &entry : registry()) known += (known.empty() ? "" : ", ") + entry.first;
  throw std::invalid_argument("there is no reference for cell '" + name + "'; known: " + known);
}

std::vector<Activation> Layer::default_activations() const {
  std::vector<Activation> all;
  for (int d = 0; d < directions(); d++)
    for (const std::string &name : reference::cell(cell).activations) all.push_back({onnx_name(name), 1, 0});
  return all;
}

const std::vector<std::string> &activation_names() { return kActivationNames; }

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
    Direction<Real> one(layer, d);
    for (int n = 0; n < batch; n++) {
      const int length = sequences.lengths.empty() ? sequences.time : sequences.lengths[n];
      if (!sequences.lengths.empty() && length == 0) continue;
      const size_t state_at = (size_t(d) * batch + n) * hidden;
      std::vector<Real> h(hidden, 0);
      for (int j = 0; j < hidden && !sequences.initial_h.empty(); j++) h[j] = Real(sequences.initial_h[state_at + j]);
      for (int step = 0; step < length; step++) {
        const int t = reverse ? length - 1 - step : step;
        one.step(&sequences.x[(size_t(t) * batch + n) * layer.input_size], &h);
        std::copy(h.begin(), h.end(), &out.y[((size_t(t) * directions + d) * batch + n) * hidden]);
      }
      std::copy(h.begin(), h.end(), &out.y_h[state_at]);
    }
    out.jump_distance = std::min(out.jump_distance, one.jump_distance());
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

namespace hrnn {

bool register_cell_reference(CellReference cell) {
  const std::string name = cell.name;
  reference::registry()[name] = std::move(cell);
  return true;
}

}  // namespace hrnn
