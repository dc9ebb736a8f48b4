// SPDX-License-Identifier: Apache-2.0
//
// Checks of every kernel of one target and type. Each returns what went wrong, one line a failure; tests/kernels and the
// check programs of a user's cells (check_main.h) run them.
#pragma once
#include <string>
#include <vector>

#include "counted_tables.h"
#include "layer_run.h"

namespace hrnn_test {

struct Report {
  std::vector<std::string> failures;
  long runs = 0;
  double worst = 0;    // largest difference from the reference, in tolerances
  double largest = 0;  // and as a number, where the data are made for it (values up to 8)

  void add(const std::string &where, const std::string &what) {
    if (!what.empty()) failures.push_back(where + ": " + what);
  }
};

// The kernels that a check is about: those of one target and type.
struct Kernels {
  const CountedTables *tables;
  const hrnn_target *target;
  hrnn_dtype dtype;

  bool gpu() const { return target->use != HRNN_USE_CPU; }
  KernelChoice choice() const { return {tables->tables(), target->name}; }
  bool has(const hrnn_kernel &row) const { return target->name == std::string(row.target->name) && row.dtype == uint32_t(dtype); }
  std::vector<hrnn_kernel> rows() const;
  std::vector<std::string> cells() const;  // that have step kernels
  std::vector<std::string> never_called() const;  // of what layers of these cells need
  std::string name() const;  // "avx2_f32"
};

// One for every target and type in the tables.
std::vector<Kernels> kernels_in(const CountedTables &tables);

// Layers over all shapes that straddle the tiles of the rows: every number of panels and of batch rows -1, +0, +1, and 1
// and primes; everything else (input size, time, direction, activations, lengths, layouts, what is absent) is drawn
// `draws` times a shape. Afterwards every row should have been called.
Report check_shapes(const Kernels &kernels, int draws);

// No steps, no sequences, no outputs.
Report check_empty(const Kernels &kernels);

// Every activation with parameters and clip, in every place of a cell.
Report check_activations(const Kernels &kernels);

// Every activation by itself, compiled in and general, over a fine grid: within 1.5 units of the last place of 1 or of a
// larger result.
Report check_accuracy(const Kernels &kernels);

// What the runtime computes in several goes: sequences longer than it projects at once, with lengths that end on both
// sides of that border, and weights that it walks there and back. `quick`: one case of each.
Report check_large(const Kernels &kernels, bool quick);

// hrnn_stream in several calls is one run.
Report check_streaming(const Kernels &kernels);

// A NaN stays in its sample and never travels to earlier steps; infinities and huge numbers saturate; denormals do no
// harm.
Report check_special_values(const Kernels &kernels);

// Kernels called directly: asked for panels [a, b) and rows [c, d) they write just those, with the same values.
Report check_cropping(const Kernels &kernels);

}  // namespace hrnn_test
