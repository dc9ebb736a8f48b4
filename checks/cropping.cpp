// SPDX-License-Identifier: Apache-2.0
//
// check_cropping (kernel_checks.h): kernels called as generated code is, with Halide's own buffers.
#include <HalideRuntime.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>

#include "hrnn/device.h"
#include "kernel_checks.h"

namespace hrnn_test {
namespace {

constexpr int kRowBytes = 64;
constexpr int kCanary = 0x5a;

// A range of the panels or of the batch rows.
struct Range {
  int begin, end;
};

// An argument of a kernel: dense, innermost dimension first, on the host or, where there is a device, on that.
class Array {
 public:
  Array(hrnn_dtype dtype, const hrnn_device *device, const std::vector<int> &extents)
      : device_(device), f64_(dtype == HRNN_F64), extents_(extents) {
    count_ = 1;
    for (int extent : extents) count_ *= size_t(extent);
    bytes_ = (count_ * element() + kRowBytes - 1) / kRowBytes * kRowBytes;
    host_.reset(static_cast<uint8_t *>(std::aligned_alloc(kRowBytes, bytes_)));
    memset(host_.get(), kCanary, bytes_);
    if (device_ != nullptr) device_->allocate(bytes_, &memory_);
  }
  ~Array() {
    for (auto &argument : arguments_)
      if (device_ != nullptr) device_->release_view(memory_, argument->buffer.device);
    if (device_ != nullptr) device_->release(memory_);
  }
  Array(const Array &) = delete;
  Array &operator=(const Array &) = delete;

  void randomize(std::mt19937 *random) {
    for (size_t i = 0; i < count_; i++) {
      const double value = double(int32_t((*random)())) / double(1u << 31);
      if (f64_)
        reinterpret_cast<double *>(host_.get())[i] = value;
      else
        reinterpret_cast<float *>(host_.get())[i] = float(value);
    }
  }
  void upload() {
    if (device_ != nullptr) device_->upload(memory_, 0, host_.get(), bytes_);
  }
  void download() {
    if (device_ != nullptr) device_->download(memory_, 0, host_.get(), bytes_);
  }

  void *whole() { return argument({0, 0}); }
  // Panels and rows are the last two dimensions of everything that is cropped.
  void *part(Range panels, Range rows) {
    const size_t n = extents_.size();
    halide_buffer_t *buffer = argument({panels.begin, rows.begin});
    buffer->dim[n - 2].extent = panels.end - panels.begin;
    buffer->dim[n - 1].extent = rows.end - rows.begin;
    return buffer;
  }

  size_t element() const { return f64_ ? 8 : 4; }
  size_t rows() const { return size_t(extents_.back()); }
  size_t panels() const { return size_t(extents_[extents_.size() - 2]); }
  size_t panel_bytes() const { return bytes_ / rows() / panels(); }
  const uint8_t *panel(size_t p, size_t row) const { return host_.get() + (row * panels() + p) * panel_bytes(); }

 private:
  struct Argument {
    halide_buffer_t buffer;
    std::array<halide_dimension_t, 4> dims;
  };

  // A buffer whose last two dimensions begin at `min`.
  halide_buffer_t *argument(std::array<int, 2> min) {
    arguments_.push_back(std::make_unique<Argument>());
    Argument &made = *arguments_.back();
    made = {};
    const size_t n = extents_.size();
    size_t stride = 1, offset = 0;
    for (size_t d = 0; d < n; d++) {
      made.dims[d] = {d + 2 < n ? 0 : min[d + 2 - n], extents_[d], int32_t(stride), 0};
      offset += size_t(made.dims[d].min) * stride;
      stride *= size_t(extents_[d]);
    }
    made.buffer.type = {halide_type_float, uint8_t(8 * element()), 1};
    made.buffer.dimensions = int32_t(n);
    made.buffer.dim = made.dims.data();
    made.buffer.host = host_.get() + offset * element();
    if (device_ != nullptr) {
      made.buffer.host = nullptr;
      made.buffer.device_interface = static_cast<const halide_device_interface_t *>(device_->buffer_interface());
      device_->view(memory_, offset * element(), &made.buffer.device);
    }
    return &made.buffer;
  }

  struct Free {
    void operator()(uint8_t *memory) const { free(memory); }
  };
  const hrnn_device *device_;
  bool f64_;
  std::vector<int> extents_;
  size_t count_, bytes_;
  std::unique_ptr<uint8_t, Free> host_;
  hrnn_device_memory *memory_ = nullptr;
  std::vector<std::unique_ptr<Argument>> arguments_;
};

int count_bits(uint32_t bits) {
  int count = 0;
  for (; bits; bits &= bits - 1) count++;
  return count;
}

// Fused steps are for one row and compute their first tile; everything else is called for several tiles.
bool computes_one_tile(const hrnn_kernel &kernel) { return kernel.kind == HRNN_FUSED_STEP; }
int row_tiles(const hrnn_kernel &kernel) { return computes_one_tile(kernel) ? 1 : 3; }

// The arguments of one kernel for 3 by row_tiles() of `unit`.
class Call {
 public:
  Call(const hrnn_kernel &kernel, const hrnn_device *device, int unit_panels, int unit_rows) : kernel_(kernel) {
    const hrnn_dtype dtype = hrnn_dtype(kernel.dtype);
    const int lanes = kRowBytes / (dtype == HRNN_F64 ? 8 : 4), gates = int(kernel.gates);
    // Steps on a GPU count on rows of whole panels, as the runtime keeps states.
    const int any = device != nullptr && kernel.kind == HRNN_STEP ? 48 : 13, inner = kernel.inner ? int(kernel.inner) : any;
    const int panels = 3 * unit_panels, rows = row_tiles(kernel) * unit_rows;
    std::mt19937 random(7);
    auto input = [&](const std::vector<int> &extents) {
      inputs_.push_back(std::make_unique<Array>(dtype, device, extents));
      inputs_.back()->randomize(&random);
      inputs_.back()->upload();
      fixed_.push_back(inputs_.back()->whole());
    };
    const bool step = kernel.kind != HRNN_PROJECTION;
    const int products = step ? count_bits(kernel.phase_gates) : gates;
    if (kernel.kind == HRNN_FUSED_STEP) {
      constexpr int kInput = 7;
      input({lanes, gates, kInput, panels});
      input({lanes, gates, panels});
      input({kInput, rows});
    }
    input({lanes, products, inner, panels});  // weights
    input({lanes, products, panels});         // bias
    if (!step) {
      input({inner, rows});
      outputs_.push_back(std::make_unique<Array>(dtype, device, std::vector<int>{lanes, gates, panels, rows}));
      return;
    }
    if (kernel.kind == HRNN_STEP) input({lanes, gates, panels, rows});
    input({inner, rows});          // operand
    input({lanes, panels, rows});  // state
    const bool last = kernel.phase + 1 == kernel.phases;
    for (uint32_t i = 0; kernel.phase > 0 && i < kernel.carried; i++) input({lanes, panels, rows});
    for (uint32_t i = 0; i < kernel.activation_count && kernel.activations[0] < 0; i++) {
      fixed_.push_back(&kind_);
      fixed_.push_back(&one_);
      fixed_.push_back(&one_);
    }
    if (kernel.activation_count > 0 && kernel.activations[0] < 0) fixed_.push_back(&infinity_);
    if (dtype == HRNN_F64) one_.f64 = 1, infinity_.f64 = std::numeric_limits<double>::infinity();
    for (uint32_t i = 0; i < (last ? 1 : 1 + kernel.carried); i++)
      outputs_.push_back(std::make_unique<Array>(dtype, device, std::vector<int>{lanes, panels, rows}));
  }

  // Computes the part, with canaries everywhere else.
  std::string run(Range panels, Range rows) {
    std::vector<void *> arguments = fixed_;
    for (auto &output : outputs_) {
      output->upload();
      arguments.push_back(output->part(panels, rows));
    }
    const int code = kernel_.entry(arguments.data());
    for (auto &output : outputs_) output->download();
    return code == 0 ? "" : "returned error " + std::to_string(code);
  }

  const std::vector<std::unique_ptr<Array>> &outputs() const { return outputs_; }

 private:
  union Number {
    float f32;
    double f64;
  };
  const hrnn_kernel &kernel_;
  std::vector<std::unique_ptr<Array>> inputs_, outputs_;
  std::vector<void *> fixed_;
  int32_t kind_ = HRNN_SIGMOID;
  Number one_ = {1}, infinity_ = {std::numeric_limits<float>::infinity()};
};

std::string check_part(const hrnn_kernel &kernel, const hrnn_device *device, int unit_panels, int unit_rows, Range panels, Range rows) {
  Call whole(kernel, device, unit_panels, unit_rows), part(kernel, device, unit_panels, unit_rows);
  const int all_panels = 3 * unit_panels, all_rows = row_tiles(kernel) * unit_rows;
  std::string error = whole.run({0, all_panels}, {0, all_rows});
  if (error.empty()) error = part.run(panels, rows);
  if (!error.empty()) return error;
  for (size_t i = 0; i < whole.outputs().size(); i++) {
    const Array &expected = *whole.outputs()[i], &actual = *part.outputs()[i];
    const std::vector<uint8_t> canary(expected.panel_bytes(), kCanary);
    for (int row = 0; row < all_rows; row++) {
      for (int p = 0; p < all_panels; p++) {
        const bool asked = p >= panels.begin && p < panels.end && row >= rows.begin && row < rows.end;
        const uint8_t *should = asked ? expected.panel(size_t(p), size_t(row)) : canary.data();
        if (asked && memcmp(should, canary.data(), canary.size()) == 0) return "the whole call left a panel out";
        const size_t untouched = asked && kernel.lanes > 0 ? canary.size() - kernel.lanes * expected.element() : 0;
        if (memcmp(should + canary.size() - untouched, canary.data(), untouched) != 0) return "a write to units left out";
        if (memcmp(actual.panel(size_t(p), size_t(row)), should, canary.size()) == 0) continue;
        return std::string(asked ? "another result" : "a write outside") + " at panel " + std::to_string(p) + ", row " +
               std::to_string(row);
      }
    }
  }
  return "";
}

const hrnn_device *device_of(const Kernels &kernels) {
  for (const hrnn_kernel_table *table : kernels.tables->tables())
    if (table->device != nullptr && (kernels.target->features >> table->device->feature & 1)) return table->device;
  return nullptr;
}

}  // namespace

Report check_cropping(const Kernels &kernels) {
  Report report;
  for (const hrnn_kernel &kernel : kernels.rows()) {
    // Views into device memory begin at multiples of 512 bytes.
    const int panels = kernels.gpu() ? 8 : int(kernel.panels), rows = int(kernel.rows);
    for (int p = 0; p < (computes_one_tile(kernel) ? 1 : 3); p++) {
      for (int r = 0; r < row_tiles(kernel); r++) {
        // The part at (p, r), and everything from there on.
        for (bool one : {true, false}) {
          if (!one && computes_one_tile(kernel)) continue;
          const Range asked_panels = {p * panels, (one ? p + 1 : 3) * panels}, asked_rows = {r * rows, (one ? r + 1 : row_tiles(kernel)) * rows};
          report.runs++;
          report.add(std::string(kernel.symbol) + " panels " + std::to_string(asked_panels.begin) + "-" +
                         std::to_string(asked_panels.end) + " rows " + std::to_string(asked_rows.begin) + "-" +
                         std::to_string(asked_rows.end),
                     check_part(kernel, device_of(kernels), panels, rows, asked_panels, asked_rows));
        }
      }
    }
    if (!kernels.gpu()) continue;
    // What a GPU's kernel returns is all that says whether it ran.
    Call call(kernel, device_of(kernels), panels, rows);
    report.runs++;
    report.add(std::string(kernel.symbol) + " of rows that are not there",
               call.run({0, 3 * panels}, {0, (row_tiles(kernel) + 1) * rows}).empty() ? "returned no error" : "");
  }
  return report;
}

}  // namespace hrnn_test
