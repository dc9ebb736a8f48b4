// SPDX-License-Identifier: Apache-2.0
#include "schedules.h"

#include <algorithm>
#include <stdexcept>

namespace hrnn {
namespace {

using Halide::RVar;
using Halide::TailStrategy;
using Halide::Var;

constexpr int kPanelBytes = 64;  // one packed row: runtime/src/pack.h

// Independent accumulators that hide the latency of a multiply-add on every core we know: latency 4, two a cycle.
constexpr int kAccumulatorsForLatency = 8;

int vectors_per_panel(const Machine &machine) { return kPanelBytes / machine.vector_bytes; }

// What the second-level cache delivers at most in the latency of a multiply-add, in panel rows of 64 bytes: 48 bytes a
// cycle (measured: 32 on Zen 4, 48 on Golden Cove).
constexpr int kPanelRowsFromSecondLevel = 3;

// One row, every weight used once: panels until the accumulators of a product are enough, those of all products fitting
// the registers.
int panels_for(const Machine &machine, int gates, int accumulators, int products) {
  const int one = gates * vectors_per_panel(machine);
  int panels = 1;
  while (panels < 8 && panels * one < accumulators && 2 * panels * one * products + 2 <= machine.registers) panels *= 2;
  return panels;
}

// Weights in the first-level cache: bound by latency, or by two loads a cycle, with some to spare.
Tile first_level_tile(const Machine &machine, int gates, int products = 1) {
  return {panels_for(machine, gates, kAccumulatorsForLatency + 4, products), 1, false, 1};
}

// Weights from beyond: as few panels as keep up with the cache, since each is a stream of its own to the prefetcher.
Tile streaming_tile(const Machine &machine, int gates, int products = 1) {
  return {panels_for(machine, gates, kPanelRowsFromSecondLevel * vectors_per_panel(machine), products), 1, false, 0};
}

// Vector registers that a tile needs: its accumulators, the operands or the weights in use, one to spare.
int registers_of(int weights, int rows) { return weights * rows + std::min(weights, rows) + 1; }

// Many rows: the tile with the fewest loads per multiply-add whose registers suffice.
Tile many_rows_tile(const Machine &machine, int gates) {
  Tile best{1, 1, false, 0};
  double best_loads = 1e9;
  for (bool gate_by_gate : {false, true}) {
    for (int panels : {1, 2, 4}) {
      for (int rows : {2, 4, 8}) {
        int weights = panels * vectors_per_panel(machine) * (gate_by_gate ? 1 : gates);
        int accumulators = weights * rows;
        if (registers_of(weights, rows) > machine.registers || accumulators < kAccumulatorsForLatency) continue;
        double loads = double(weights + rows) / accumulators;
        if (loads < best_loads - 1e-9) best_loads = loads, best = {panels, rows, gate_by_gate, 0};
      }
    }
  }
  return best;
}

// Two rows, where many_rows_tile takes more: still bound by the weights, so as many panels as the registers hold.
Tile two_rows_tile(const Machine &machine, int gates) {
  int panels = 1;
  while (panels < 4 && registers_of(2 * panels * gates * vectors_per_panel(machine), 2) <= machine.registers) panels *= 2;
  return {panels, 2, registers_of(panels * gates * vectors_per_panel(machine), 2) > machine.registers, 0};
}

void schedule_cpu_product(const Tile &tile, Product &product, ProductLoops &s, const Var &tile_loop, int vector) {
  product.func.compute_at(s.output, tile_loop)
      .bound(s.lane, 0, s.lanes)
      .bound(s.gate, 0, s.gates)
      .bound_extent(s.panel, tile.panels)
      .bound_extent(s.row, tile.rows);
  Var lane_outer("lo"), lane_inner("li");
  product.func.split(s.lane, lane_outer, lane_inner, vector)
      .reorder(lane_inner, lane_outer, s.gate, s.panel, s.row)
      .vectorize(lane_inner)
      .unroll(lane_outer)
      .unroll(s.gate)
      .unroll(s.panel)
      .unroll(s.row);
  // Rows innermost: a vector of weights is loaded, used for every row, and its register is free again.
  auto update = product.func.update();
  update.split(s.lane, lane_outer, lane_inner, vector);
  if (tile.gate_by_gate)
    update.reorder(lane_inner, s.row, lane_outer, s.panel, product.k, s.gate);
  else
    update.reorder(lane_inner, s.row, lane_outer, s.gate, s.panel, product.k);
  update.vectorize(lane_inner).unroll(s.row).unroll(lane_outer).unroll(s.panel).unroll(s.gate);
}

void schedule_cpu(const Machine &machine, const Tile &tile, ProductLoops &s) {
  Var panel_outer("po"), panel_inner("pi"), row_outer("ro"), row_inner("ri");
  const int vector = s.lanes / vectors_per_panel(machine);

  // The caller asks for whole tiles, so no tail is generated. Panels outermost: a panel's weights stay in the cache
  // while all rows pass.
  s.output.bound(s.lane, 0, s.lanes)
      .split(s.panel, panel_outer, panel_inner, tile.panels, TailStrategy::RoundUp)
      .split(s.row, row_outer, row_inner, tile.rows, TailStrategy::RoundUp);
  if (s.output_has_gate) {
    s.output.bound(s.gate, 0, s.gates).reorder(s.lane, s.gate, panel_inner, row_inner, row_outer, panel_outer);
    s.output.unroll(s.gate);
  } else {
    s.output.reorder(s.lane, panel_inner, row_inner, row_outer, panel_outer);
  }
  s.output.vectorize(s.lane, vector).unroll(s.lane).unroll(panel_inner).unroll(row_inner);

  for (Product &product : s.products) schedule_cpu_product(tile, product, s, row_outer, vector);
}

// One thread a hidden unit and row; a block covers `threads` units of one row. Every thread runs its own product, its
// gates side by side in registers; the 64-byte rows of weights are read coalesced.
void schedule_gpu(const Machine &machine, ProductLoops &s) {
  Var panel_outer("po"), panel_inner("pi");
  const int panels = std::max(1, machine.threads / s.lanes);
  s.output.bound(s.lane, 0, s.lanes).split(s.panel, panel_outer, panel_inner, panels, TailStrategy::GuardWithIf);
  if (s.output_has_gate) {
    s.output.bound(s.gate, 0, s.gates).reorder(s.gate, s.lane, panel_inner, panel_outer, s.row).unroll(s.gate);
  } else {
    s.output.reorder(s.lane, panel_inner, panel_outer, s.row);
  }
  s.output.gpu_blocks(panel_outer, s.row).gpu_threads(s.lane, panel_inner);
  for (Product &product : s.products) {
    product.func.compute_at(s.output, s.lane).bound(s.gate, 0, s.gates).unroll(s.gate);
    product.func.update().reorder(s.gate, product.k).unroll(s.gate);
  }
}

// Each of `wanted` once, and the same with one panel, for the remainder of the panels. Where latency is the limit, weights in
// the first-level cache, half as many panels at once are worth a kernel too: few layers that small have whole tiles.
std::vector<Tile> with_remainders(const std::vector<Tile> &wanted) {
  std::vector<Tile> all;
  auto add = [&](const Tile &tile) {
    for (const Tile &other : all)
      if (other.panels == tile.panels && other.rows == tile.rows) return;
    all.push_back(tile);
  };
  for (const Tile &tile : wanted) {
    add(tile);
    for (int panels = tile.panels / 2; panels > 1 && tile.cache_level == 1; panels /= 2)
      add({panels, tile.rows, tile.gate_by_gate, tile.cache_level});
    add({1, tile.rows, tile.gate_by_gate, 0});
  }
  return all;
}

// What is computed side by side.
int products_of(hrnn_kernel_kind kind) { return kind == HRNN_FUSED_STEP ? 2 : 1; }

std::vector<Tile> rules(const Machine &machine, hrnn_kernel_kind kind, int gates) {
  if (kind == HRNN_FUSED_STEP) return {streaming_tile(machine, gates, 2), first_level_tile(machine, gates, 2)};
  return {many_rows_tile(machine, gates), two_rows_tile(machine, gates), streaming_tile(machine, gates),
          first_level_tile(machine, gates)};
}

int registers_needed(const Machine &machine, const TiledProduct &product, const Tile &tile) {
  const int weights = tile.panels * vectors_per_panel(machine) * (tile.gate_by_gate ? 1 : product.gates);
  return registers_of(weights, tile.rows) + (products_of(product.kind) - 1) * weights * tile.rows;
}

// Tuned tiles take the place of those for the same use; where there is none, they are one more.
void apply_tuned(const Machine &machine, const TiledProduct &product, const std::vector<TunedTile> &tuned,
                 std::vector<Tile> *wanted) {
  for (const TunedTile &entry : tuned) {
    if (!(entry.product == product)) continue;
    const int needed = registers_needed(machine, product, entry.tile);
    if (needed > machine.registers)
      throw std::invalid_argument("schedules/tuned: " + describe(product) + ": a tile of " + describe(entry.tile) + " needs " +
                                  std::to_string(needed) + " vector registers; there are " + std::to_string(machine.registers));
    bool found = false;
    for (Tile &tile : *wanted)
      if (same_use(tile, entry.tile)) tile = entry.tile, found = true;
    if (!found) wanted->push_back(entry.tile);
  }
}

}  // namespace

std::vector<Tile> tiles(const TiledProduct &product, const std::vector<TunedTile> &tuned) {
  const Machine &machine = targets_by_name({product.target})[0]->machine;
  if (machine.gpu && product.kind == HRNN_FUSED_STEP) return {};  // a step is one launch anyway
  if (machine.gpu) return {{1, 1, false, 0}};                     // blocks handle their own remainders
  std::vector<Tile> wanted = rules(machine, product.kind, product.gates);
  apply_tuned(machine, product, tuned, &wanted);
  // Many rows first: of tiles that differ in nothing but the cache level, the first stays.
  std::stable_sort(wanted.begin(), wanted.end(), [](const Tile &a, const Tile &b) { return a.rows > b.rows; });
  return with_remainders(wanted);
}

std::vector<Tile> legal_tiles(const TiledProduct &product, const Tile &like) {
  const Machine &machine = targets_by_name({product.target})[0]->machine;
  std::vector<Tile> all;
  for (bool gate_by_gate : {false, true}) {
    if (gate_by_gate && product.gates == 1) continue;  // the same
    for (int panels : {1, 2, 4, 8}) {
      for (int rows : {1, 2, 3, 4, 6, 8, 10, 12, 14, 16}) {
        const Tile tile{panels, rows, gate_by_gate, like.cache_level};
        if (same_use(tile, like) && registers_needed(machine, product, tile) <= machine.registers) all.push_back(tile);
      }
    }
  }
  return all;
}

void schedule_product(const Machine &machine, const Tile &tile, ProductLoops loops) {
  if (machine.gpu)
    schedule_gpu(machine, loops);
  else
    schedule_cpu(machine, tile, loops);
}

}  // namespace hrnn
