// SPDX-License-Identifier: Apache-2.0
#include "run_model.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "runtime/session_kernels.h"

// A model may ask for more memory than there is, and is then refused: malloc says so here as it does elsewhere.
extern "C" const char *__asan_default_options() { return "allocator_may_return_null=1:max_allocation_size_mb=512"; }

namespace hrnn_fuzz {
namespace {

constexpr int64_t kMostElements = 4096;  // of a tensor that is filled in or asked for

int64_t element_bytes(int32_t dtype) { return dtype == HRNN_F32 || dtype == HRNN_I32 ? 4 : 8; }

// The memory of a session's inputs and outputs.
class Tensors {
 public:
  // With open dimensions between 1 and 3. False when a tensor is not tiny.
  bool add(const hrnn_tensor_info &info) {
    hrnn_tensor tensor = {};
    tensor.dtype = info.dtype;
    tensor.rank = info.rank;
    int64_t count = 1;
    for (int i = 0; i < info.rank; i++) {
      tensor.dims[i] = info.dims[i] < 0 ? 1 + (-1 - info.dims[i]) % 3 : info.dims[i];
      if (tensor.dims[i] > kMostElements) return false;
      count *= tensor.dims[i];
      if (count > kMostElements) return false;
    }
    return add(tensor, count);
  }
  // As the session said it will be.
  bool add_as_it_is(const hrnn_tensor &tensor) {
    int64_t count = 1;
    for (int i = 0; i < tensor.rank; i++) {
      if (tensor.dims[i] < 0 || tensor.dims[i] > kMostElements) return false;
      count *= tensor.dims[i];
      if (count > kMostElements) return false;
    }
    return add(tensor, count);
  }
  std::vector<hrnn_tensor> all;

 private:
  bool add(hrnn_tensor tensor, int64_t count) {
    // Exactly as much as it takes, so that a byte beyond is seen.
    memory_.emplace_back(size_t(count * element_bytes(tensor.dtype)));
    tensor.data = memory_.back().data();
    tensor.bytes = memory_.back().size();
    fill(tensor, count);
    all.push_back(tensor);
    return true;
  }
  static void fill(const hrnn_tensor &tensor, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
      const int whole = int(i % 4);
      char *at = static_cast<char *>(tensor.data) + i * element_bytes(tensor.dtype);
      const auto put = [&](auto value) { memcpy(at, &value, sizeof value); };
      switch (tensor.dtype) {
        case HRNN_F32: put(0.25f * float(whole)); break;
        case HRNN_F64: put(0.25 * whole); break;
        case HRNN_I32: put(int32_t(whole)); break;
        default: put(int64_t(whole));
      }
    }
  }
  std::vector<std::vector<char>> memory_;
};

void run(hrnn_session *session) {
  hrnn_error error = {};
  Tensors inputs, outputs;
  for (size_t i = 0; i < hrnn_session_input_count(session); i++) {
    hrnn_tensor_info info = {};
    if (hrnn_session_input(session, i, &info) != HRNN_OK || !inputs.add(info)) return;
  }
  std::vector<hrnn_tensor> shapes(hrnn_session_output_count(session));
  if (hrnn_session_reserve(session, inputs.all.data(), inputs.all.size(), shapes.data(), shapes.size(), &error) != HRNN_OK) return;
  for (const hrnn_tensor &shape : shapes)
    if (!outputs.add_as_it_is(shape)) return;
  for (int streaming = 0; streaming < 2; streaming++) {
    hrnn_session_stream(session, streaming, &error);
    hrnn_session_run(session, inputs.all.data(), inputs.all.size(), outputs.all.data(), outputs.all.size(), &error);
  }
}

}  // namespace

void run_model(const hrnn_model &model) {
  const hrnn_kernel_table *const tables[] = {session_kernels()};
  hrnn_options options = {};
  options.struct_size = sizeof options;
  options.tables = tables;
  options.table_count = 1;
  hrnn_session *session = nullptr;
  hrnn_error error = {};
  if (hrnn_session_create(&model, &options, &session, &error) != HRNN_OK) {
    if (session != nullptr || memchr(error.message, 0, sizeof error.message) == nullptr) abort();
    return;
  }
  run(session);
  hrnn_session_destroy(session);
}

}  // namespace hrnn_fuzz
