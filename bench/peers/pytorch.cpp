// SPDX-License-Identifier: Apache-2.0
//
// PyTorch through ATen, its C++ interface, in inference mode.
#include <ATen/Parallel.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/gru.h>
#include <ATen/ops/gru_cell.h>
#include <ATen/ops/rnn_tanh.h>
#include <ATen/ops/rnn_tanh_cell.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <torch/headeronly/version.h>

#include "peer.h"

namespace {

class PyTorch : public peer::Engine {
 public:
  explicit PyTorch(const peer::Layer &layer) : l_(layer) {
    if (l_.cell == "gru_reset_before") throw peer::Refused("its GRU resets after the product");
    if (l_.ragged) throw peer::Refused("it has no lengths, but sequences packed one by one");
    if (l_.reverse) throw peer::Refused("it has no reverse direction alone");
    at::set_num_threads(l_.threads);
    const float *w = l_.w.data(), *r = l_.r.data(), *b = l_.b.data();
    for (int64_t layer = 0; layer < l_.layers; layer++) {
      for (int64_t d = 0; d < l_.directions; d++) {
        weights_.push_back(reordered(&w, l_.layer_input(layer)));
        weights_.push_back(reordered(&r, l_.hidden));
        weights_.push_back(reordered(&b, 1).flatten());
        weights_.push_back(reordered(&b, 1).flatten());
      }
    }
    x_ = at::from_blob(l_.x.data(), {l_.time, l_.batch, l_.input}).clone();
    zeros_ = at::zeros({l_.layers * l_.directions, l_.batch, l_.hidden});
    state_ = zeros_;
    if (l_.streaming && l_.layers == 1) choose_cell();
  }

  void run() override { cell_ ? run_cell() : run_layer(); }

  std::vector<float> output() override {
    const at::Tensor y = (cell_ ? state_ : y_).contiguous();
    return peer::by_direction(y.const_data_ptr<float>(), l_);
  }

 private:
  // ONNX has the gates as z, r, h; PyTorch as r, z, n.
  at::Tensor reordered(const float **values, int64_t inner) {
    const at::Tensor all = at::from_blob(const_cast<float *>(*values), {l_.gates, l_.hidden, inner});
    *values += l_.gates * l_.hidden * inner;
    const at::Tensor ordered = l_.gates == 1 ? all : at::stack({all[1], all[0], all[2]});
    return ordered.reshape({l_.gates * l_.hidden, inner}).clone();
  }

  void run_layer() {
    const c10::InferenceMode inference;
    const bool both = l_.directions == 2;
    const auto function = l_.cell == "rnn" ? static_cast<decltype(&layer_function)>(rnn_function) : layer_function;
    std::tie(y_, last_) = function(x_, l_.streaming ? state_ : zeros_, weights_, l_.layers, both);
    if (l_.streaming) state_ = last_;
  }
  using Result = std::tuple<at::Tensor, at::Tensor>;
  static Result layer_function(const at::Tensor &x, const at::Tensor &h, at::TensorList weights, int64_t layers,
                               bool both) {
    return at::gru(x, h, weights, true, layers, 0.0, false, both, false);
  }
  static Result rnn_function(const at::Tensor &x, const at::Tensor &h, at::TensorList weights, int64_t layers,
                             bool both) {
    return at::rnn_tanh(x, h, weights, true, layers, 0.0, false, both, false);
  }

  // One step is a cell as well as a layer: the faster one.
  void choose_cell() {
    run_layer();
    const double layer = hrnn::burst(hrnn::Clock::kWall, [&] { run_layer(); });
    cell_ = true;
    cell_x_ = x_[0], state_ = zeros_[0];
    run_cell();
    cell_ = hrnn::burst(hrnn::Clock::kWall, [&] { run_cell(); }) < layer;
    state_ = cell_ ? zeros_[0] : zeros_;
  }

  void run_cell() {
    const c10::InferenceMode inference;
    const auto &w = weights_;
    state_ = l_.cell == "rnn" ? at::rnn_tanh_cell(cell_x_, state_, w[0], w[1], w[2], w[3])
                              : at::gru_cell(cell_x_, state_, w[0], w[1], w[2], w[3]);
  }

  peer::Layer l_;
  std::vector<at::Tensor> weights_;
  at::Tensor x_, zeros_, state_, y_, last_, cell_x_;
  bool cell_ = false;
};

}  // namespace

int main() {
  return peer::main("pytorch", "PyTorch " TORCH_VERSION, [](const peer::Layer &layer) -> std::unique_ptr<peer::Engine> {
    return std::make_unique<PyTorch>(layer);
  });
}
