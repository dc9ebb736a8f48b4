// SPDX-License-Identifier: Apache-2.0
#include "variants.h"

#include <set>

#include "pack.h"

namespace hrnn {
namespace {

// Activations that get kernels of their own beside each cell's defaults.
struct CommonActivations {
  const char *cell;
  std::vector<std::string> activations;
};
const std::vector<CommonActivations> kCommon = {{"rnn", {"relu"}}};

std::vector<std::vector<std::string>> activation_sets(const std::string &cell) {
  std::vector<std::vector<std::string>> sets = {cell_by_name(cell).default_activations};
  for (const CommonActivations &row : kCommon)
    if (cell == row.cell) sets.push_back(row.activations);
  if (!sets[0].empty()) sets.push_back({});  // any; a cell without activations has nothing to choose
  return sets;
}

}  // namespace

void add_steps(std::vector<KernelFamily> *families, KernelFamily steps) {
  steps.kind = HRNN_STEP;
  families->push_back(steps);
  steps.kind = HRNN_FUSED_STEP;
  families->push_back(steps);
}

std::vector<KernelFamily> library_families(const std::vector<std::string> &cells, const std::vector<hrnn_dtype> &dtypes,
                                           const std::vector<int> &hidden) {
  std::vector<KernelFamily> families;
  std::set<int> gates = {1};
  for (const std::string &cell : cells) gates.insert(cell_by_name(cell).gates);
  for (hrnn_dtype dtype : dtypes) {
    for (int count : gates) families.push_back({HRNN_PROJECTION, "", {}, count, dtype, 0});
    for (const std::string &cell : cells) {
      const auto sets = activation_sets(cell);
      for (const auto &activations : sets) {
        add_steps(&families, {HRNN_STEP, cell, activations, 0, dtype, 0});
        // General kernels are made for any size only.
        for (int size : hidden)
          if (&activations == &sets[0] || !activations.empty()) add_steps(&families, {HRNN_STEP, cell, activations, 0, dtype, size});
      }
    }
  }
  return families;
}

namespace {

// Whether a tile of part of a panel is all of it.
bool has_all_units(const KernelFamily &family, const Tile &tile) { return !tile.half || 2 * family.inner <= lanes_of(family.dtype); }

// The largest first-level cache there is: 192 KiB, of an Apple core.
constexpr int kLargestFirstLevel = 192 * 1024;

// And half of the smallest second-level cache there is, 256 KiB: more may lie beyond.
constexpr int kMayBeBeyond = 128 * 1024;

// Whether a step's weights may lie where `tile` is made for.
bool may_lie_there(const KernelFamily &family, int gates, const Tile &tile) {
  const int64_t bytes = gates * panels_of(family.dtype, family.inner) * kRowBytes * family.inner;
  if (tile.cache_level == kBeyondSecondLevel) return bytes > kMayBeBeyond;
  return tile.cache_level != 1 || bytes <= kLargestFirstLevel;
}

// Whether covering `panels` panels (runtime/src/kernel_call.h) comes to `tile`, where the runtime takes tiles for weights
// in a cache or where it does not. One panel is always needed: threads and stretches leave other remainders.
bool is_reached(const std::vector<Tile> &tiles, const Tile &tile, int64_t panels) {
  if (tile.panels == 1) return true;
  for (bool cached : {true, false}) {
    std::set<int> larger;
    for (const Tile &other : tiles)
      if (other.rows == tile.rows && other.panels > tile.panels && (cached || other.cache_level == 0)) larger.insert(-other.panels);
    int64_t left = panels;
    for (int width : larger) left %= -width;
    if (left >= tile.panels && (cached || tile.cache_level == 0)) return true;
  }
  return false;
}

}  // namespace

std::vector<KernelSpec> expand(const KernelFamily &family, const TargetRow &target, const std::vector<TunedTile> &tuned) {
  std::vector<KernelSpec> specs;
  if (family.dtype == HRNN_F64 && !target.float64) return specs;
  const bool step = family.kind != HRNN_PROJECTION;
  const int phases = step ? static_cast<int>(cell_by_name(family.cell).phases.size()) : 1;
  for (int phase = 0; phase < phases; phase++) {
    const int gates = step ? static_cast<int>(cell_by_name(family.cell).phases[phase].gates.size()) : family.gates;
    const std::vector<Tile> all = tiles({target.name, family.kind, gates, family.dtype}, tuned);
    for (const Tile &tile : all) {
      const bool sized = step && family.inner > 0 && !target.machine.gpu;
      const bool used = !sized || (is_reached(all, tile, panels_of(family.dtype, family.inner)) &&
                                   may_lie_there(family, gates, tile) && has_all_units(family, tile));
      if (!used) continue;
      KernelSpec spec;
      spec.kind = family.kind;
      spec.cell = family.cell;
      spec.phase = phase;
      spec.gates = family.gates;
      spec.activations = family.activations;
      spec.dtype = family.dtype;
      spec.tile = tile;
      spec.inner = family.inner;
      specs.push_back(spec);
    }
  }
  return specs;
}

}  // namespace hrnn
