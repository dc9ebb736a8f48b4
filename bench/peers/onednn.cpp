// SPDX-License-Identifier: Apache-2.0
//
// oneDNN through its C++ interface: one primitive for the whole sequence, weights in the layout that it asks for.
#include <omp.h>

#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

#include "peer.h"

namespace {

using dnnl::memory;
using Dims = memory::dims;
constexpr auto kFloat = memory::data_type::f32;

memory::desc dense(const Dims &dims, memory::format_tag tag) { return {dims, kFloat, tag}; }
memory::desc any(const Dims &dims) { return dense(dims, memory::format_tag::any); }

class OneDnn : public peer::Engine {
 public:
  explicit OneDnn(const peer::Layer &layer) : l_(layer), engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    if (l_.ragged) throw peer::Refused("it has no lengths");
    if (l_.layers > 1 && l_.input != l_.hidden) throw peer::Refused("its layers all take as many inputs");
    if (l_.layers > 1 && l_.directions > 1)
      throw peer::Refused("one primitive has no bidirectional layers over another");
    omp_set_num_threads(l_.threads);
    if (l_.cell == "rnn")
      make<dnnl::vanilla_rnn_forward>(1, dnnl::algorithm::eltwise_tanh);
    else if (l_.cell == "gru")
      make<dnnl::lbr_gru_forward>(4);
    else
      make<dnnl::gru_forward>(3);
  }

  void run() override {
    primitive_.execute(stream_, arguments_[call_]);
    if (l_.streaming) call_ ^= 1;
  }

  std::vector<float> output() override {
    return peer::by_direction(static_cast<const float *>(y_.get_data_handle()), l_);
  }

 private:
  template <class Primitive, class... Algorithm>
  void make(int64_t biases, Algorithm... algorithm) {
    const int64_t L = l_.layers, D = l_.directions, G = l_.gates, I = l_.input, H = l_.hidden;
    const Dims weights{L, D, I, G, H}, recurrent{L, D, H, G, H}, bias{L, D, biases, H}, state{L, D, l_.batch, H};
    const auto x = dense({l_.time, l_.batch, I}, memory::format_tag::tnc);
    const auto y = dense({l_.time, l_.batch, D * H}, memory::format_tag::tnc);
    const auto b = dense(bias, memory::format_tag::ldgo);
    // The state of a whole sequence begins with zeros and is not asked for.
    const auto s = l_.streaming ? dense(state, memory::format_tag::ldnc) : memory::desc();
    const auto direction = D == 2       ? dnnl::rnn_direction::bidirectional_concat
                           : l_.reverse ? dnnl::rnn_direction::unidirectional_right2left
                                        : dnnl::rnn_direction::unidirectional_left2right;
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const typename Primitive::primitive_desc description(engine_, dnnl::prop_kind::forward_inference, algorithm...,
                                                         direction, x, s, any(weights), any(recurrent), b, y, s,
                                                         attributes);
    primitive_ = Primitive(description);
    y_ = memory(y, engine_);
    const memory input(x, engine_), scratch(description.scratchpad_desc(), engine_);
    std::copy(l_.x.begin(), l_.x.end(), static_cast<float *>(input.get_data_handle()));
    const std::unordered_map<int, memory> common{
        {DNNL_ARG_SRC_LAYER, input},
        {DNNL_ARG_WEIGHTS_LAYER, packed(weights, l_.w, I, description.weights_layer_desc())},
        {DNNL_ARG_WEIGHTS_ITER, packed(recurrent, l_.r, H, description.weights_iter_desc())},
        {DNNL_ARG_BIAS, summed(b, biases)},
        {DNNL_ARG_DST_LAYER, y_},
        {DNNL_ARG_SCRATCHPAD, scratch}};
    arguments_[0] = arguments_[1] = common;
    if (!l_.streaming) return;
    for (int i = 0; i < 2; i++) {
      const memory values(s, engine_);
      std::fill_n(static_cast<float *>(values.get_data_handle()), l_.state_values(), 0.0f);
      arguments_[i].emplace(DNNL_ARG_SRC_ITER, values);
      arguments_[1 - i].emplace(DNNL_ARG_DST_ITER, values);
    }
  }

  // [layer, direction, gate, hidden, inner], as ONNX has it, in the layout that the primitive asks for.
  memory packed(const Dims &dims, const std::vector<float> &values, int64_t inner, const memory::desc &wanted) {
    const memory plain(dense(dims, memory::format_tag::ldigo), engine_), result(wanted, engine_);
    float *to = static_cast<float *>(plain.get_data_handle());
    const int64_t outer = l_.layers * l_.directions, rows = l_.gates * l_.hidden;
    for (int64_t o = 0; o < outer; o++)
      for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < inner; i++)
          to[(o * inner + i) * rows + row] = values[size_t((o * rows + row) * inner + i)];
    dnnl::reorder(plain, result).execute(stream_, const_cast<memory &>(plain), const_cast<memory &>(result));
    stream_.wait();
    return result;
  }

  // ONNX has two biases a gate; here they are one, apart from the candidate's where the reset gate comes after it.
  memory summed(const memory::desc &description, int64_t biases) {
    const memory result(description, engine_);
    float *to = static_cast<float *>(result.get_data_handle());
    const int64_t H = l_.hidden, G = l_.gates;
    for (int64_t o = 0; o < l_.layers * l_.directions; o++) {
      const float *from = l_.b.data() + o * 2 * G * H;
      for (int64_t i = 0; i < biases * H; i++) {
        const bool candidate = biases == 4 && i >= 2 * H;
        *to++ = candidate ? from[i < 3 * H ? i : i - H + G * H] : from[i] + from[G * H + i];
      }
    }
    return result;
  }

  const peer::Layer &l_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::primitive primitive_;
  memory y_;
  std::unordered_map<int, memory> arguments_[2];
  int call_ = 0;
};

}  // namespace

int main() {
  const dnnl_version_t *v = dnnl::version();
  const std::string version =
      std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
  return peer::main("onednn", "oneDNN " + version, [](const peer::Layer &layer) -> std::unique_ptr<peer::Engine> {
    return std::make_unique<OneDnn>(layer);
  });
}
