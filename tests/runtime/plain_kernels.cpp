// SPDX-License-Identifier: Apache-2.0
//
// Kernels in plain C++ behind the calling convention of the generated ones: every cell, in both types.
#include "session_kernels.h"

#include <cstdint>
#include <vector>

#include "kernel_call.h"
#include "layer.h"

namespace {

// Plain C++ runs everywhere, also where a device's memory is the host's (device_test.cpp).
const hrnn_target kPlainTarget = {"plain", 0, 1, HRNN_USE_CPU};

// Element access by coordinates, as generated code does it.
template <typename T>
struct View {
  explicit View(void *argument) : buffer(static_cast<hrnn::Buffer *>(argument)) {}
  template <typename... Index>
  T &operator()(Index... index) const {
    const int64_t at[] = {index...};
    int64_t offset = 0;
    for (size_t i = 0; i < sizeof...(index); ++i) offset += (at[i] - buffer->dim[i].min) * buffer->dim[i].stride;
    const void *first = buffer->host != nullptr ? buffer->host : reinterpret_cast<const void *>(uintptr_t(buffer->device));
    return static_cast<T *>(const_cast<void *>(first))[offset];
  }
  int64_t begin(int d) const { return buffer->dim[d].min; }
  int64_t end(int d) const { return buffer->dim[d].min + buffer->dim[d].extent; }
  int64_t extent(int d) const { return buffer->dim[d].extent; }
  hrnn::Buffer *buffer;
};

template <typename T>
int project(void **args) {
  const View<T> weights(args[0]), bias(args[1]), x(args[2]), out(args[3]);
  for (int64_t row = out.begin(3); row < out.end(3); ++row) {
    for (int64_t panel = out.begin(2); panel < out.end(2); ++panel) {
      for (int64_t gate = 0; gate < out.extent(1); ++gate) {
        for (int64_t lane = 0; lane < out.extent(0); ++lane) {
          double sum = bias(lane, gate, panel);
          for (int64_t k = 0; k < weights.extent(2); ++k) sum += double(weights(lane, gate, k, panel)) * x(k, row);
          out(lane, gate, panel, row) = T(sum);
        }
      }
    }
  }
  return 0;
}

enum class Cell { kRnn, kRnnMasked, kGru, kGruResetBefore };

// One phase; the arguments as StepCall lays them out.
template <typename T, Cell cell, int phase>
int step(void **args) {
  constexpr int kActivations = cell == Cell::kRnn || cell == Cell::kRnnMasked ? 1 : 2;
  constexpr bool kFirstOfTwo = cell == Cell::kGruResetBefore && phase == 0;
  const View<T> weights(args[0]), bias(args[1]), input(args[2]), operand(args[3]), state(args[4]);
  int next = 5;
  [[maybe_unused]] void *carried = cell == Cell::kGruResetBefore && phase == 1 ? args[next++] : nullptr;
  hrnn_activation activations[kActivations];
  for (hrnn_activation &activation : activations) {
    activation.kind = hrnn_activation_kind(*static_cast<int32_t *>(args[next++]));
    activation.alpha = *static_cast<T *>(args[next++]);
    activation.beta = *static_cast<T *>(args[next++]);
  }
  const double clip = *static_cast<T *>(args[next++]);
  const View<T> out(args[next++]);
  [[maybe_unused]] void *carry = kFirstOfTwo ? args[next++] : nullptr;
  const auto f = [&](int i, double x) {
    return hrnn_test::activate(activations[i], x > clip ? clip : x < -clip ? -clip : x);
  };
  for (int64_t row = out.begin(2); row < out.end(2); ++row) {
    for (int64_t panel = out.begin(1); panel < out.end(1); ++panel) {
      for (int64_t lane = 0; lane < out.extent(0); ++lane) {
        double product[3] = {};
        for (int64_t gate = 0; gate < weights.extent(1); ++gate) {
          product[gate] = bias(lane, gate, panel);
          for (int64_t k = 0; k < weights.extent(2); ++k) {
            product[gate] += double(weights(lane, gate, k, panel)) * operand(k, row);
          }
        }
        const double h = state(lane, panel, row);
        const auto in = [&](int64_t gate) { return double(input(lane, gate, panel, row)); };
        double result = 0;
        if constexpr (cell == Cell::kRnn) {
          result = f(0, in(0) + product[0]);
        } else if constexpr (cell == Cell::kRnnMasked) {
          const double argument = in(0) + product[0];
          result = argument >= HRNN_MASKED ? h : f(0, argument);
        } else if constexpr (cell == Cell::kGru) {
          const double z = f(0, in(0) + product[0]), r = f(0, in(1) + product[1]);
          result = (1 - z) * f(1, in(2) + r * product[2]) + z * h;
        } else if constexpr (phase == 0) {
          const View<T> z(carry);
          z(lane, panel, row) = T(f(0, in(0) + product[0]));
          result = f(0, in(1) + product[1]) * h;
        } else {
          const double z = View<T>(carried)(lane, panel, row);
          result = (1 - z) * f(1, in(2) + product[0]) + z * h;
        }
        out(lane, panel, row) = T(result);
      }
    }
  }
  return 0;
}

hrnn_kernel row(const char *symbol, uint32_t kind, hrnn_dtype dtype, uint32_t gates, hrnn_kernel_entry entry) {
  hrnn_kernel kernel = {};
  kernel.symbol = symbol;
  kernel.cell = "";
  kernel.entry = entry;
  kernel.kind = kind;
  kernel.target = &kPlainTarget;
  kernel.dtype = dtype;
  kernel.panels = kernel.rows = 1;
  kernel.gates = gates;
  for (int32_t &activation : kernel.activations) activation = -1;
  return kernel;
}

void add_step(std::vector<hrnn_kernel> *kernels, const char *symbol, const char *cell, hrnn_dtype dtype, uint32_t gates,
              uint32_t phase, uint32_t phases, uint32_t phase_gates, hrnn_kernel_entry entry) {
  hrnn_kernel kernel = row(symbol, HRNN_STEP, dtype, gates, entry);
  kernel.cell = cell;
  kernel.phase = phase;
  kernel.phases = phases;
  kernel.phase_gates = phase_gates;
  kernel.carried = phases == 2 ? 1 : 0;
  kernel.activation_count = gates == 1 ? 1 : 2;
  kernels->push_back(kernel);
}

template <typename T>
void add_kernels(std::vector<hrnn_kernel> *kernels, hrnn_dtype dtype) {
  kernels->push_back(row("plain_projection1", HRNN_PROJECTION, dtype, 1, project<T>));
  kernels->push_back(row("plain_projection3", HRNN_PROJECTION, dtype, 3, project<T>));
  add_step(kernels, "plain_rnn", "rnn", dtype, 1, 0, 1, 1, step<T, Cell::kRnn, 0>);
  add_step(kernels, "plain_rnn_masked", "rnn_masked", dtype, 1, 0, 1, 1, step<T, Cell::kRnnMasked, 0>);
  add_step(kernels, "plain_gru", "gru", dtype, 3, 0, 1, 7, step<T, Cell::kGru, 0>);
  add_step(kernels, "plain_gru_reset_before0", "gru_reset_before", dtype, 3, 0, 2, 3,
           step<T, Cell::kGruResetBefore, 0>);
  add_step(kernels, "plain_gru_reset_before1", "gru_reset_before", dtype, 3, 1, 2, 4,
           step<T, Cell::kGruResetBefore, 1>);
}

}  // namespace

const hrnn_kernel_table *session_kernels() {
  static const std::vector<hrnn_kernel> kernels = [] {
    std::vector<hrnn_kernel> all;
    add_kernels<float>(&all, HRNN_F32);
    add_kernels<double>(&all, HRNN_F64);
    return all;
  }();
  static const hrnn_kernel_table table = {HRNN_ABI_VERSION, uint32_t(kernels.size()), kernels.data(), nullptr};
  return &table;
}
