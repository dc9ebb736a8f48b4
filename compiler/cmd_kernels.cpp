// SPDX-License-Identifier: Apache-2.0
//
// hrnn kernels: the variants linked into this command.
#include <fmt/format.h>

#include <set>

#include "cli.h"

namespace hrnn {
namespace {

// Which gates a phase of a two-phase cell multiplies with the state; empty for cells of one phase.
std::string phase_text(const hrnn_kernel &kernel) {
  return kernel.phases > 1 ? fmt::format("phase {} of {}", kernel.phase + 1, kernel.phases) : "";
}

std::string activations_text(const hrnn_kernel &kernel) {
  std::string text;
  for (uint32_t i = 0; i < kernel.activation_count && i < HRNN_MAX_ACTIVATIONS; ++i) {
    const int32_t kind = kernel.activations[i];
    text += (i ? "," : "") + std::string(kind < 0 ? "any" : activation_name(static_cast<hrnn_activation_kind>(kind)));
  }
  return text;
}

std::string size_text(uint32_t size) { return size ? std::to_string(size) : "any"; }

const char *kind_text(const hrnn_kernel &kernel) {
  return kernel.kind == HRNN_PROJECTION ? "projection" : kernel.kind == HRNN_FUSED_STEP ? "fused step" : "step";
}

bool usable(const hrnn_kernel &kernel, const hrnn_machine &machine) {
  return hrnn_target_usable(kernel.target, &machine, nullptr, 0) != 0;
}

template <class Visit>
void for_each_kernel(Visit visit) {
  for (size_t i = 0; i < hrnn_prebuilt_table_count; ++i) {
    const hrnn_kernel_table &table = *hrnn_prebuilt_tables[i];
    for (uint32_t k = 0; k < table.count; ++k) visit(table.kernels[k]);
  }
}

Json kernel_json(const hrnn_kernel &kernel, const hrnn_machine &machine) {
  return {{"symbol", kernel.symbol},
          {"kind", kind_text(kernel)},
          {"cell", kernel.cell},
          {"target", kernel.target->name},
          {"type", dtype_name(static_cast<int32_t>(kernel.dtype))},
          {"panels", kernel.panels},
          {"rows", kernel.rows},
          {"gates", kernel.gates},
          {"phase", kernel.phase},
          {"phases", kernel.phases},
          {"inner", kernel.inner},
          {"cache_level", kernel.cache_level},
          {"activations", activations_text(kernel)},
          {"usable", usable(kernel, machine)}};
}

void print_json(const hrnn_machine &machine) {
  Json json = {{"cpu", machine.cpu}, {"device_refused", machine.device_refused}, {"kernels", Json::array()}};
  for_each_kernel([&](const hrnn_kernel &kernel) { json["kernels"].push_back(kernel_json(kernel, machine)); });
  print(json);
}

void print_table(const hrnn_machine &machine) {
  size_t width = 6, count = 0, runnable = 0;
  for_each_kernel([&](const hrnn_kernel &kernel) { width = std::max(width, std::string(kernel.symbol).size()); });
  fmt::print("{:<{}}  {:<7} {:<10} {:<8} {:<7} {:<5} {:<4} {}\n", "symbol", width, "target", "kind", "type", "tile",
             "inner", "here", "activations");
  for_each_kernel([&](const hrnn_kernel &kernel) {
    const bool here = usable(kernel, machine);
    ++count;
    runnable += here;
    fmt::print("{:<{}}  {:<7} {:<10} {:<8} {:<7} {:<5} {:<4} {} {}\n", kernel.symbol, width, kernel.target->name,
               kind_text(kernel), dtype_name(static_cast<int32_t>(kernel.dtype)),
               fmt::format("{}x{}", kernel.panels, kernel.rows), size_text(kernel.inner), here ? "yes" : "no",
               activations_text(kernel), phase_text(kernel));
  });
  fmt::print("{} kernels, {} usable on this machine ({})\n", count, runnable, machine.cpu);
  std::set<std::string> told;
  for_each_kernel([&](const hrnn_kernel &kernel) {
    char why[512];
    if (!hrnn_target_usable(kernel.target, &machine, why, sizeof why) && told.insert(kernel.target->name).second)
      fmt::print("{}: {}\n", kernel.target->name, why);
  });
  if (machine.device_refused[0]) fmt::print("{}\n", machine.device_refused);
}

}  // namespace

void add_kernels(CLI::App &app) {
  CLI::App *command = app.add_subcommand("kernels", "List the kernels of this build (tile = panels x batch rows)");
  auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "Print JSON");
  command->callback([json] {
    hrnn_machine machine{};
    machine.struct_size = sizeof machine;
    check(hrnn_machine_detect(hrnn_prebuilt_tables, hrnn_prebuilt_table_count, &machine), hrnn_error{}, "this machine");
    if (*json) {
      print_json(machine);
    } else {
      print_table(machine);
    }
  });
}

}  // namespace hrnn
