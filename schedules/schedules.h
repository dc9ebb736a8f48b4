// SPDX-License-Identifier: Apache-2.0
//
// How kernels are computed: functions of the machine's parameters and of schedule parameters. No algorithm here, and no
// number of a machine outside targets/.
#pragma once
#include <vector>

#include "Halide.h"
#include "targets.h"

namespace hrnn {

// What one kernel computes jointly: `panels` panels of hidden units x `rows` batch rows, all gates of a panel.
// gate_by_gate: one pass over k per gate instead of one for all, where all gates' accumulators do not fit the registers.
// unroll: values of k in one turn of the loop. chains: sums of every so many values of k, added at the end, where one sum
// would wait for itself.
// cache_level: made for weights that stay in the cache of this level, 0 = wherever they lie. A target's machines differ in
// their caches, so a schedule makes tiles for each case, and the runtime, which knows the sizes, takes those that apply.
struct Tile {
  int panels, rows;
  bool gate_by_gate;
  int unroll, chains;
  int cache_level;
};

// The tiles that cover any problem on this machine for a product of `gates` gates: for many rows (bound by arithmetic), for
// two (bound by the bandwidth of the weights), for one (bound by latency with weights in the first-level cache, by
// bandwidth beyond); each kind also with one panel, for the remainder.
std::vector<Tile> tiles(const Machine &machine, int gates);

// Those for kernels that compute two products of one row side by side.
std::vector<Tile> fused_tiles(const Machine &machine, int gates);

// The loops of products followed by something pointwise:
//   product(lane, gate, panel, row, chain) = bias of chain 0; product += weights * operand over the chain's k
//   output(lane, ..., panel, row) = f(products, ...)
// k runs over blocks of elements, of each chain in turn; where there is more than one of either, what is left of k follows
// in a second update. `operand` is a block of it.
struct Product {
  Halide::Func func, operand;
  Halide::RVar element, block, rest;
  Halide::Var chain;
};

struct ProductLoops {
  Halide::Func output;                 // the Func whose tiles are computed one after another
  std::vector<Product> products;
  Halide::Var lane, gate, panel, row;  // gate: undefined in output when it has no gate dimension
  int lanes, gates;
  bool output_has_gate;
};

// Elements of k in a block: a vector of them, where multiply-adds take a factor from a vector by its number.
int block_elements(const Machine &machine, const Halide::Type &type);

void schedule_product(const Machine &machine, const Tile &tile, ProductLoops loops);

}  // namespace hrnn
