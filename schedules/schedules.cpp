// SPDX-License-Identifier: Apache-2.0
#include "schedules.h"

#include <algorithm>
#include <stdexcept>

#include "pack.h"

namespace hrnn {
namespace {

using Halide::Func;
using Halide::RVar;
using Halide::TailStrategy;
using Halide::Var;

// Independent accumulators that hide the latency of a multiply-add on every core we know: latency 4, two a cycle.
constexpr int kAccumulatorsForLatency = 8;

// Turns of the loop over k that tiles of several rows take at once: its end costs a tenth where arithmetic is the limit. (With
// one row it is not, and loops may be too short.) Vectors of 16 bytes here are those of SSE, where a product needs a register
// of its own before it is added, and NEON, which takes blocks anyway.
int unroll_of_rows(const Machine &machine) { return machine.vector_bytes > 16 ? 2 : 1; }

int vectors_per_panel(const Machine &machine) { return static_cast<int>(kRowBytes) / machine.vector_bytes; }

// What the second-level cache delivers at most in the latency of a multiply-add, in panel rows of 64 bytes: 48 bytes a
// cycle (measured: 32 on Zen 4, 48 on Golden Cove).
constexpr int kPanelRowsFromSecondLevel = 3;

// Results of steps and projections do not depend on the tiles, which depend on threads and batch: they have one chain.
int most_chains(hrnn_kernel_kind kind) { return kind == HRNN_FUSED_STEP ? kMostChains : 1; }

// As many chains as hide latency, and no more, since short products pay for adding them up.
void add_chains(const Machine &machine, hrnn_kernel_kind kind, int gates, Tile *tile) {
  const int one = tile->panels * gates * std::max(1, vectors_per_panel(machine) / (tile->half ? 2 : 1));
  while (2 * tile->chains <= most_chains(kind) && !machine.by_element && 2 * tile->chains * one <= kAccumulatorsForLatency)
    tile->chains *= 2;
}

// One panel, or half of one, of one row.
Tile one_panel_tile(const Machine &machine, hrnn_kernel_kind kind, int gates, bool half = false) {
  Tile tile{1, 1, false, 1, 1, 0, half};
  add_chains(machine, kind, gates, &tile);
  return tile;
}

// Sums of a step with products of `gates` gates. Of a fused one most gates have one sum for both products, but not the candidate
// of a GRU.
int sums_of(hrnn_kernel_kind kind, int gates) { return kind == HRNN_FUSED_STEP && gates > 1 ? gates + 1 : gates; }

// One row, every weight used once: panels, up to a most, until the accumulators of a product are enough, those of all sums
// fitting the registers; then chains.
Tile one_row_tile(const Machine &machine, hrnn_kernel_kind kind, int gates, int accumulators, int most_panels, int most_chains,
                  int cache_level) {
  const int vectors = vectors_per_panel(machine);
  Tile tile{1, 1, false, 1, 1, cache_level};
  auto wants_more = [&] {
    const int now = tile.panels * tile.chains * vectors;
    return now * gates < accumulators && 2 * now * sums_of(kind, gates) + 2 <= machine.registers;
  };
  while (tile.panels < most_panels && wants_more()) tile.panels *= 2;
  while (tile.chains < most_chains && !machine.by_element && wants_more()) tile.chains *= 2;
  return tile;
}

// Weights in the first-level cache: bound by latency, or by two loads a cycle, with some to spare; not in fused steps, which have
// a second product to go on with, and whose weights never fit when there are many panels.
Tile first_level_tile(const Machine &machine, hrnn_kernel_kind kind, int gates) {
  const bool fused = kind == HRNN_FUSED_STEP;
  return one_row_tile(machine, kind, gates, kAccumulatorsForLatency + (fused ? 0 : 4), fused ? kMostPanels / 2 : kMostPanels,
                      most_chains(kind), 1);
}

// Weights from beyond: as few panels as keep up with the cache, since each is a stream of its own to the prefetcher.
Tile streaming_tile(const Machine &machine, hrnn_kernel_kind kind, int gates) {
  Tile tile = one_row_tile(machine, kind, gates, kPanelRowsFromSecondLevel * vectors_per_panel(machine), kMostPanels, 1, 0);
  add_chains(machine, kind, gates, &tile);
  return tile;
}

// Vector registers that a tile needs: its accumulators, the operands or the weights in use, one to spare. By element: a
// block of every row's operand, and a panel's row of weights of a gate.
int registers_of(const Machine &machine, int weights, int rows) {
  if (machine.by_element) return weights * rows + rows + vectors_per_panel(machine);
  return weights * rows + std::min(weights, rows) + 1;
}

// Several rows: the tile with the fewest loads a multiply-add whose registers suffice, gate by gate only where they do not for
// all gates. No panels: there is none.
Tile rows_tile(const Machine &machine, int gates, int rows) {
  Tile best{0, rows, false, unroll_of_rows(machine), 1, 0};
  double best_loads = 1e9;
  for (bool gate_by_gate : {false, true}) {
    if (best.panels > 0) break;
    for (int panels : {1, 2, 4}) {
      int weights = panels * vectors_per_panel(machine) * (gate_by_gate ? 1 : gates);
      int accumulators = weights * rows;
      if (registers_of(machine, weights, rows) > machine.registers || accumulators < kAccumulatorsForLatency) continue;
      double loads = double(weights + rows) / accumulators;
      if (loads < best_loads - 1e-9) best_loads = loads, best.panels = panels, best.gate_by_gate = gate_by_gate;
    }
  }
  return best;
}

void schedule_cpu_product(const Machine &machine, const Tile &tile, ProductLoops &s, const Var &tile_loop, int vector) {
  Product &product = s.product;
  product.func.compute_at(s.output, tile_loop)
      .bound(s.lane, 0, s.lanes)
      .bound(s.gate, 0, s.gates)
      .bound_extent(s.panel, tile.panels)
      .bound_extent(s.row, tile.rows)
      .bound(product.chain, 0, tile.chains);
  Var lane_outer("lo"), lane_inner("li");
  product.func.split(s.lane, lane_outer, lane_inner, vector)
      .reorder(lane_inner, lane_outer, s.gate, s.panel, s.row, product.chain)
      .vectorize(lane_inner)
      .unroll(lane_outer)
      .unroll(s.gate)
      .unroll(s.panel)
      .unroll(s.row)
      .unroll(product.chain);
  // Whatever there are fewer of, weights or rows, stays in registers while the others pass. Where the operand is in
  // registers anyway, a panel's row of weights is loaded at once: in-order cores wait for loads less often.
  const bool by_element = machine.by_element;
  const int weights = tile.panels * (s.lanes / vector) * (tile.gate_by_gate ? 1 : s.gates);
  auto order = [&](Halide::Stage update, const std::vector<Halide::VarOrRVar> &k) {
    std::vector<Halide::VarOrRVar> loops = {lane_inner, lane_outer};
    if (!tile.gate_by_gate) loops.push_back(s.gate);
    loops.push_back(s.panel);
    loops.insert(weights < tile.rows ? loops.end() : loops.begin() + (by_element ? 2 : 1), s.row);
    loops.insert(loops.end(), k.begin(), k.end());
    if (tile.gate_by_gate) loops.push_back(s.gate);
    update.split(s.lane, lane_outer, lane_inner, vector).reorder(loops).vectorize(lane_inner);
    update.unroll(s.row).unroll(lane_outer).unroll(s.panel);
    // Gate by gate is a loop: sums of gates before lie in memory, where the compiler would not put all of them by itself.
    if (!tile.gate_by_gate) update.unroll(s.gate);
  };
  int next = 0;
  for (const ProductTerm &term : product.terms) {
    auto update = product.func.update(next++).unroll(term.element).unroll(product.chain);
    if (by_element) {
      // A block is loaded as one vector, and its elements are taken from the register. It is as good as unrolling.
      order(update, {product.chain, term.element, term.block});
      const std::vector<Var> of = term.operand.args();
      Func(term.operand).compute_at(product.func, term.block).vectorize(of[0]).unroll(of[1]);
    } else {
      RVar k_outer("ko"), k_inner("ki");
      update.split(term.block, k_outer, k_inner, tile.unroll).unroll(k_inner);
      order(update, {product.chain, term.element, k_inner, k_outer});
    }
    if (term.has_rest) order(product.func.update(next++), {term.rest});
  }
}

// The sums of a tile, out of their registers.
void keep_sums(const Tile &tile, ProductLoops &s, const Var &tile_loop, int vector) {
  s.product.sums.compute_at(s.output, tile_loop)
      .store_in(Halide::MemoryType::Stack)
      .bound(s.lane, 0, s.lanes)
      .bound(s.gate, 0, s.gates)
      .bound_extent(s.panel, tile.panels)
      .bound_extent(s.row, tile.rows)
      .vectorize(s.lane, vector)
      .unroll(s.lane)
      .unroll(s.gate)
      .unroll(s.panel)
      .unroll(s.row);
}

void schedule_cpu(const Machine &machine, const Tile &tile, ProductLoops &s) {
  Var panel_outer("po"), panel_inner("pi"), row_outer("ro"), row_inner("ri");
  const int widest = s.lanes / vectors_per_panel(machine);
  if (tile.half) s.lanes /= 2;
  const int vector = std::min(s.lanes, widest);

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
  s.output.vectorize(s.lane, vector).unroll(s.lane).unroll(panel_inner);
  // What is pointwise in several rows loops over them, from sums on the stack: as fast as unrolled, and half the code.
  const bool rows_loop = tile.rows > 1 && !s.output_has_gate;
  if (!rows_loop) s.output.unroll(row_inner);

  schedule_cpu_product(machine, tile, s, row_outer, vector);
  if (rows_loop) keep_sums(tile, s, row_outer, vector);
}

// What a thread loads at once, the sums it keeps in registers, and the chains worth adding up.
constexpr int kGpuVectorBytes = 16, kGpuSums = 64, kMostGpuChains = 64;

// What a thread computes of a tile: `lanes` units side by side of `rows` rows.
struct GpuThread {
  int lanes, rows;
};

GpuThread gpu_thread(const Tile &tile, int gates, int lanes) {
  GpuThread thread = {kGpuVectorBytes * lanes / static_cast<int>(kRowBytes), tile.rows};
  while (thread.rows > 1 && thread.lanes * thread.rows * gates > kGpuSums) thread.rows /= 2;
  return thread;
}

// A block computes a panel of some rows. Its threads share out units, rows and k: each keeps the sums of its chain in registers.
// The chains' sums meet in the block's memory, from where threads add them up and go on. Rows beyond the last whole tile
// are computed twice.
void schedule_gpu(const Tile &tile, ProductLoops &s) {
  const GpuThread thread = gpu_thread(tile, s.gates, s.lanes);
  Product &product = s.product;
  const Func reader = product.groups.defined() ? product.groups : product.sums;
  Func shared = product.func.in(reader);
  Var vector("v"), row_outer("ro"), row_inner("ri"), row_group("rg"), group_and_row("gr"), group_and_chain("gc");

  s.output.bound(s.lane, 0, s.lanes)
      .split(s.lane, s.lane, vector, thread.lanes)
      .split(s.row, row_outer, row_inner, tile.rows, TailStrategy::ShiftInwards);
  if (s.output_has_gate) {
    s.output.bound(s.gate, 0, s.gates).reorder(vector, s.gate, s.lane, row_inner, s.panel, row_outer).unroll(s.gate);
  } else {
    s.output.reorder(vector, s.lane, row_inner, s.panel, row_outer);
  }
  s.output.vectorize(vector).gpu_blocks(s.panel, row_outer).gpu_threads(s.lane, row_inner);

  if (product.groups.defined()) {
    product.groups.compute_at(s.output, s.panel)
        .store_in(Halide::MemoryType::GPUShared)
        .split(s.lane, s.lane, vector, thread.lanes)
        .fuse(product.chain, s.row, group_and_row)
        .reorder(vector, s.gate, s.lane, group_and_row, s.panel)
        .vectorize(vector)
        .unroll(s.gate)
        .gpu_threads(s.lane, group_and_row);
  }
  shared.compute_at(s.output, s.panel)
      .store_in(Halide::MemoryType::GPUShared)
      .bound(s.lane, 0, s.lanes)
      .bound(s.gate, 0, s.gates)
      .bound_extent(s.row, tile.rows)
      .bound(product.chain, 0, tile.chains)
      .split(s.lane, s.lane, vector, thread.lanes)
      .split(s.row, row_group, row_inner, thread.rows)
      .fuse(row_group, product.chain, group_and_chain)
      .reorder(vector, s.gate, row_inner, s.lane, group_and_chain, s.panel)
      .vectorize(vector)
      .unroll(s.gate)
      .unroll(row_inner)
      .gpu_threads(s.lane, group_and_chain);

  product.func.compute_at(shared, s.lane).vectorize(s.lane).unroll(s.gate).unroll(s.row);
  int next = 0;
  for (const ProductTerm &term : product.terms) {
    auto update = product.func.update(next++).reorder(s.lane, s.gate, s.row, term.element, term.block);
    update.vectorize(s.lane).unroll(s.gate).unroll(s.row).unroll(term.element);
    const std::vector<Var> of = term.operand.args();
    Func(term.operand).compute_at(product.func, term.block).vectorize(of[0]).unroll(of[1]);
    if (!term.has_rest) continue;
    auto rest = product.func.update(next++).reorder(s.lane, s.gate, s.row, term.rest);
    rest.vectorize(s.lane).unroll(s.gate).unroll(s.row);
  }
}

// Tiles of a GPU, for many rows, for some and for one: as many chains as threads and memory of a block allow, which holds the
// sums of all chains and of groups of them.
std::vector<Tile> gpu_tiles(const Machine &machine, const TiledProduct &product) {
  std::vector<Tile> all;
  const int lanes = static_cast<int>(lanes_of(product.dtype));
  for (int rows : {16, 4, 1}) {
    Tile tile{1, rows, false, 1, 1, 0};
    const GpuThread thread = gpu_thread(tile, product.gates, lanes);
    const int others = lanes / thread.lanes * (rows / thread.rows), bytes = static_cast<int>(kRowBytes) * product.gates * rows;
    auto fits = [&](int chains) {
      const int groups = has_chain_groups(chains, rows) ? chains / kChainGroup : 0;
      return chains <= kMostGpuChains && chains * others <= machine.threads && (chains + groups) * bytes <= machine.shared_bytes;
    };
    while (fits(2 * tile.chains)) tile.chains *= 2;
    all.push_back(tile);
  }
  return all;
}

// Each of `wanted` once, and the same with one panel, for the remainder of the panels. Where latency is the limit, weights in
// the first-level cache, half as many panels with twice as many chains are worth a kernel too: few layers that small have whole tiles.
std::vector<Tile> with_remainders(const Machine &machine, const TiledProduct &product, const std::vector<Tile> &wanted) {
  std::vector<Tile> all;
  auto add = [&](const Tile &tile) {
    for (const Tile &other : all)
      if (other.panels == tile.panels && other.rows == tile.rows && other.chains == tile.chains) return;
    all.push_back(tile);
  };
  for (Tile tile : wanted) {
    add(tile);
    for (Tile fewer = tile; tile.cache_level == 1 && fewer.panels > 2;) {
      fewer.panels /= 2;
      fewer.chains = std::min(2 * fewer.chains, most_chains(product.kind));
      add(fewer);
    }
    const Tile one = one_panel_tile(machine, product.kind, product.gates);
    tile.panels = 1;
    tile.chains = one.chains;
    tile.cache_level = 0;
    add(tile);
  }
  if (product.kind == HRNN_FUSED_STEP) all.push_back(one_panel_tile(machine, product.kind, product.gates, true));
  return all;
}

std::vector<Tile> rules(const Machine &machine, hrnn_kernel_kind kind, int gates) {
  std::vector<Tile> wanted;
  for (int rows : {8, 6, 4, 2}) {
    if (kind == HRNN_FUSED_STEP) break;
    if (rows == 6 && !wanted.empty()) continue;  // for registers that do not hold 8
    const Tile tile = rows_tile(machine, gates, rows);
    if (tile.panels > 0) wanted.push_back(tile);
  }
  wanted.push_back(streaming_tile(machine, kind, gates));
  wanted.push_back(first_level_tile(machine, kind, gates));
  return wanted;
}

// Tiles for the numbers of rows between those there are tiles for: rows that remain beside whole tiles would otherwise take
// several small ones, each of which reads all weights.
void add_rows_between(const Machine &machine, int gates, std::vector<Tile> *wanted) {
  int most = 1;
  for (const Tile &tile : *wanted) most = std::max(most, tile.rows);
  for (int rows = 2; rows < most; rows++) {
    const bool known = std::any_of(wanted->begin(), wanted->end(), [&](const Tile &tile) { return tile.rows == rows; });
    const Tile tile = rows_tile(machine, gates, rows);
    if (!known && tile.panels > 0) wanted->push_back(tile);
  }
}

// Multiply-adds that hide a line of weights (64 bytes) from beyond the second-level cache: 4 cycles, some 45 GB/s. With fewer, the
// bandwidth is the limit, and prefetches only disturb the hardware's.
constexpr int kMultiplyAddsPerLine = 8;

// Panels that one row reads at once from there: memory answers as many streams faster than one.
constexpr int kStreamsFromMemory = 4;

// Tiles for weights from beyond the second-level cache: those of several rows once more, which prefetch, and a wider one of one row. (On
// ARM it was not measured.)
std::vector<Tile> tiles_beyond_second_level(const Machine &machine, const TiledProduct &product, const std::vector<Tile> &wanted) {
  std::vector<Tile> all;
  if (machine.by_element || product.kind == HRNN_FUSED_STEP) return all;
  const Tile one = one_row_tile(machine, product.kind, product.gates, machine.registers, kStreamsFromMemory, 1, kBeyondSecondLevel);
  for (Tile tile : wanted) {
    if (tile.cache_level != 0) continue;
    if (tile.rows == 1 && one.panels > tile.panels) all.push_back(one);
    if (tile.rows == 1 || tile.rows * vectors_per_panel(machine) < kMultiplyAddsPerLine) continue;
    tile.cache_level = kBeyondSecondLevel;
    all.push_back(tile);
  }
  return all;
}

int registers_needed(const Machine &machine, const TiledProduct &product, const Tile &tile) {
  const int sums = tile.gate_by_gate ? 1 : sums_of(product.kind, product.gates);
  return registers_of(machine, tile.panels * vectors_per_panel(machine) * sums * tile.chains, tile.rows);
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
  if (machine.gpu) return gpu_tiles(machine, product);
  std::vector<Tile> wanted = rules(machine, product.kind, product.gates);
  apply_tuned(machine, product, tuned, &wanted);
  const std::vector<Tile> beyond = tiles_beyond_second_level(machine, product, wanted);
  add_rows_between(machine, product.gates, &wanted);
  // Many rows first, and before a cache's tile the one for weights anywhere: of tiles that differ in nothing else, the first stays.
  std::stable_sort(wanted.begin(), wanted.end(), [](const Tile &a, const Tile &b) {
    return a.rows != b.rows ? a.rows > b.rows : a.cache_level < b.cache_level;
  });
  std::vector<Tile> all = with_remainders(machine, product, wanted);
  all.insert(all.end(), beyond.begin(), beyond.end());
  return all;
}

std::vector<Tile> legal_tiles(const TiledProduct &product, const Tile &like) {
  const Machine &machine = targets_by_name({product.target})[0]->machine;
  const int chains = like.cache_level == 1 && !machine.by_element ? most_chains(product.kind) : 1;
  std::vector<Tile> all;
  auto add = [&](const Tile &tile) {
    if (same_use(tile, like) && registers_needed(machine, product, tile) <= machine.registers) all.push_back(tile);
  };
  for (bool gate_by_gate : {false, true}) {
    if (gate_by_gate && (product.gates == 1 || product.kind == HRNN_FUSED_STEP)) continue;  // the same; unrolled
    for (int panels : {1, 2, 3, 4, 8})
      for (int rows : {1, 2, 3, 4, 6, 8, 10, 12, 14, 16})
        for (int unroll : {1, 2, 4})
          if (unroll == 1 || !machine.by_element) add({panels, rows, gate_by_gate, unroll, 1, like.cache_level});
    for (int panels : {1, 2, 4, 8})
      for (int more = 2; more <= chains; more *= 2) add({panels, 1, gate_by_gate, 1, more, like.cache_level});
  }
  return all;
}

bool has_chain_groups(int chains, int rows) { return chains > kChainGroup && rows <= kChainGroup; }

int block_elements(const Machine &machine, const Halide::Type &type) {
  if (machine.gpu) return kGpuVectorBytes / type.bytes();
  return machine.by_element ? machine.vector_bytes / type.bytes() : 1;
}

void schedule_product(const Machine &machine, const Tile &tile, ProductLoops loops) {
  if (machine.gpu)
    schedule_gpu(tile, loops);
  else
    schedule_cpu(machine, tile, loops);
}

}  // namespace hrnn
