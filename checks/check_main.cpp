// SPDX-License-Identifier: Apache-2.0
#include "check_main.h"

#include <cstdio>
#include <cstring>
#include <stdexcept>

#include "kernel_checks.h"

namespace hrnn_test {
namespace {

// Prints what came out; true when nothing failed.
bool print(const std::string &kernels, const char *check, const Report &report) {
  std::printf("%-12s %-14s %6ld runs  %s", kernels.c_str(), check, report.runs, report.failures.empty() ? "ok" : "FAILED");
  if (report.worst > 0) std::printf("  largest error %.2g, %.2f of what rounding allows", report.largest, report.worst);
  std::printf("\n");
  for (size_t i = 0; i < report.failures.size() && i < 10; i++) std::printf("    %s\n", report.failures[i].c_str());
  if (report.failures.size() > 10) std::printf("    and %zu more\n", report.failures.size() - 10);
  std::fflush(stdout);
  return report.failures.empty();
}

// All kernels of one target and type. `largest`: the largest error seen so far.
bool check(const Kernels &kernels, bool quick, double *largest) {
  bool good = true;
  auto add = [&](const char *name, Report report) {
    good &= print(kernels.name(), name, report);
    *largest = std::max(*largest, report.largest);
  };
  Report shapes = check_shapes(kernels, kernels.gpu() ? 3 : quick ? 1 : 4);
  for (const std::string &symbol : kernels.never_called()) shapes.add(symbol, "was never called");
  add("shapes", shapes);
  add("empty", check_empty(kernels));
  add("activations", check_activations(kernels));
  add("large", check_large(kernels, quick));
  add("streaming", check_streaming(kernels));
  add("cropping", check_cropping(kernels));
  add("special values", check_special_values(kernels));
  return good;
}

// The reference is of the same cell as the kernels.
void compare_definitions(const std::string &cell, const std::vector<const hrnn_kernel_table *> &tables) {
  const hrnn::CellReference &reference = reference::cell(cell);
  reference::Layer layer;
  layer.cell = cell;
  const std::vector<reference::Activation> activations = layer.default_activations();
  for (const hrnn_kernel_table *table : tables) {
    for (uint32_t i = 0; i < table->count; i++) {
      const hrnn_kernel &row = table->kernels[i];
      if (row.kind != HRNN_STEP) continue;
      if (int(row.gates) != reference.gates)
        throw std::invalid_argument("cell '" + cell + "' has " + std::to_string(row.gates) + " gates, its reference " +
                                    std::to_string(reference.gates));
      if (row.activation_count != activations.size())
        throw std::invalid_argument("cell '" + cell + "' has " + std::to_string(row.activation_count) +
                                    " activations, its reference " + std::to_string(activations.size()));
      for (size_t a = 0; a < activations.size(); a++) {
        const std::string &name = reference::activation_names()[size_t(row.defaults[a])];
        if (name != activations[a].name)
          throw std::invalid_argument("activation " + std::to_string(a) + " of cell '" + cell + "' is " + name +
                                      ", of its reference " + activations[a].name);
      }
    }
  }
}

}  // namespace

int check_main(const std::string &cell, const std::vector<const hrnn_kernel_table *> &tables, int argc, char **argv) {
  const bool quick = argc == 2 && std::strcmp(argv[1], "--quick") == 0;
  if (argc > 1 && !quick) {
    std::fprintf(stderr, "usage: %s [--quick]\n", argv[0]);
    return 2;
  }
  try {
    compare_definitions(cell, tables);
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s: error: %s\n", argv[0], error.what());
    return 1;
  }
  const CountedTables counted(tables);
  hrnn_machine machine = {};
  machine.struct_size = sizeof machine;
  hrnn_machine_detect(tables.data(), tables.size(), &machine);
  bool good = true;
  int checked = 0;
  double largest[2] = {0, 0};
  for (const Kernels &kernels : kernels_in(counted)) {
    char why[512];
    if (!hrnn_target_usable(kernels.target, &machine, why, sizeof why)) {
      std::printf("%-12s skipped: %s\n", kernels.name().c_str(), why);
      continue;
    }
    checked++;
    good &= check(kernels, quick, &largest[kernels.dtype == HRNN_F64]);
  }
  if (checked == 0) std::printf("nothing was checked: this machine can run none of the kernels\n");
  std::printf("%s: %s; largest error %.3g (f32), %.3g (f64)\n", cell.c_str(), good && checked > 0 ? "ok" : "FAILED", largest[0],
              largest[1]);
  return good && checked > 0 ? 0 : 1;
}

}  // namespace hrnn_test
