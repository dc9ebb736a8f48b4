// SPDX-License-Identifier: Apache-2.0
//
// ONNX Runtime through its C interface, tensors made once. The wheel has the library but not its header; the interface
// is a table of functions that only ever grows, so the few that are needed are named here by their places in it. It
// reads the layer as compare.py wrote it: layer.onnx takes X and, streaming, the state H, and gives Y.
#include "peer.h"

namespace {

struct ApiBase {
  const void *const *(*api)(uint32_t version);
  const char *(*version)();
};
extern "C" const ApiBase *OrtGetApiBase();

// Opaque to the caller; a status is null where all went well.
using Status = void *;
using Object = void *;

enum Place {
  kGetErrorMessage = 2,
  kCreateEnv = 3,
  kCreateSession = 7,
  kRun = 9,
  kCreateSessionOptions = 10,
  kSetSessionGraphOptimizationLevel = 23,
  kSetIntraOpNumThreads = 24,
  kSetInterOpNumThreads = 25,
  kCreateTensorWithDataAsOrtValue = 49,
  kCreateCpuMemoryInfo = 69
};
constexpr int kVersionOfTable = 1, kEnableAll = 99, kWarning = 2, kFloat = 1, kDeviceAllocator = 0, kDefaultMemory = 0;

const void *const *table() {
  static const void *const *functions = OrtGetApiBase()->api(kVersionOfTable);
  return functions;
}

template <class... Arguments>
void call(Place place, Arguments... arguments) {
  const Status status = reinterpret_cast<Status (*)(Arguments...)>(const_cast<void *>(table()[place]))(arguments...);
  if (!status) return;
  const auto message = reinterpret_cast<const char *(*)(Status)>(const_cast<void *>(table()[kGetErrorMessage]));
  throw std::runtime_error(message(status));
}

class OnnxRuntime : public peer::Engine {
 public:
  explicit OnnxRuntime(const peer::Layer &layer) : l_(layer) {
    Object environment = nullptr, options = nullptr;
    call(kCreateEnv, kWarning, "hrnn", &environment);
    call(kCreateSessionOptions, &options);
    call(kSetIntraOpNumThreads, options, l_.threads);
    call(kSetInterOpNumThreads, options, 1);
    call(kSetSessionGraphOptimizationLevel, options, kEnableAll);
    call(kCreateSession, environment, (l_.folder + "/layer.onnx").c_str(), options, &session_);
    call(kCreateCpuMemoryInfo, kDeviceAllocator, kDefaultMemory, &memory_);
    x_ = tensor(&l_.x, {l_.time, l_.batch, l_.input});
    const std::vector<int64_t> sequence{l_.time, l_.directions, l_.batch, l_.hidden},
        state{l_.layers, l_.batch, l_.hidden};
    // Streaming alternates between two states, each the output of one call and the input of the next.
    for (int i = 0; i < (l_.streaming ? 2 : 1); i++) {
      values_[i].assign(l_.streaming ? l_.state_values() : l_.y_values(), 0.0f);
      outputs_[i] = tensor(&values_[i], l_.streaming ? state : sequence);
    }
  }

  void run() override {
    static const char *const inputs[] = {"X", "H"};
    static const char *const outputs[] = {"Y"};
    const Object in[] = {x_, outputs_[1 - call_]};
    call(kRun, session_, Object(nullptr), inputs, in, size_t(l_.streaming ? 2 : 1), outputs, size_t(1),
         &outputs_[call_]);
    if (l_.streaming) call_ ^= 1;
  }

  std::vector<float> output() override { return values_[0]; }

 private:
  Object tensor(std::vector<float> *values, const std::vector<int64_t> &shape) {
    Object result = nullptr;
    call(kCreateTensorWithDataAsOrtValue, memory_, values->data(), values->size() * sizeof(float), shape.data(),
         shape.size(), kFloat, &result);
    return result;
  }

  peer::Layer l_;
  Object session_ = nullptr, memory_ = nullptr, x_ = nullptr, outputs_[2] = {};
  std::vector<float> values_[2];
  int call_ = 0;
};

}  // namespace

int main() {
  return peer::main(
      "onnxruntime", std::string("ONNX Runtime ") + OrtGetApiBase()->version(),
      [](const peer::Layer &layer) -> std::unique_ptr<peer::Engine> { return std::make_unique<OnnxRuntime>(layer); });
}
