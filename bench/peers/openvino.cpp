// SPDX-License-Identifier: Apache-2.0
//
// OpenVINO through its C++ interface, in float32 (its default is bfloat16 where the processor has it), tensors bound
// once. It reads the layer as compare.py wrote it: layer.onnx takes X and, streaming, the state H, and gives Y.
#include <openvino/openvino.hpp>

#include "peer.h"

namespace {

class OpenVino : public peer::Engine {
 public:
  explicit OpenVino(const peer::Layer &layer) : l_(layer) {
    static ov::Core core;
    const auto model = core.read_model(l_.folder + "/layer.onnx");
    auto compiled = core.compile_model(model, "CPU", ov::hint::inference_precision(ov::element::f32),
                                       ov::inference_num_threads(l_.threads), ov::num_streams(1),
                                       ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
                                       ov::hint::enable_cpu_pinning(false));
    const ov::Shape shape = compiled.output().get_shape();
    const ov::Tensor x(ov::element::f32, compiled.input("X").get_shape(), l_.x.data());
    // Streaming alternates between two states, each the output of one call and the input of the next.
    const int calls = l_.streaming ? 2 : 1;
    for (int i = 0; i < calls; i++) {
      outputs_.emplace_back(ov::element::f32, shape);
      std::fill_n(outputs_.back().data<float>(), outputs_.back().get_size(), 0.0f);
    }
    for (int i = 0; i < calls; i++) {
      requests_.push_back(compiled.create_infer_request());
      requests_[i].set_tensor("X", x);
      if (l_.streaming) requests_[i].set_tensor("H", outputs_[1 - i]);
      requests_[i].set_output_tensor(outputs_[i]);
    }
  }

  void run() override {
    requests_[call_].infer();
    if (l_.streaming) call_ ^= 1;
  }

  std::vector<float> output() override {
    return {outputs_[0].data<float>(), outputs_[0].data<float>() + outputs_[0].get_size()};
  }

 private:
  peer::Layer l_;
  std::vector<ov::Tensor> outputs_;
  std::vector<ov::InferRequest> requests_;
  size_t call_ = 0;
};

}  // namespace

int main() {
  const std::string build = ov::get_openvino_version().buildNumber;
  return peer::main(
      "openvino", "OpenVINO " + build.substr(0, build.find('-')),
      [](const peer::Layer &layer) -> std::unique_ptr<peer::Engine> { return std::make_unique<OpenVino>(layer); });
}
