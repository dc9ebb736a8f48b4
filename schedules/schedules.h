// SPDX-License-Identifier: Apache-2.0
//
// How kernels are computed: functions of the machine's parameters and of schedule parameters. No algorithm here, and no
// number of a machine outside targets/.
#pragma once
#include <vector>

#include "Halide.h"
#include "targets.h"
#include "tuned.h"

namespace hrnn {

// The tiles that cover any problem on this machine for a product of `gates` gates: for many rows (bound by arithmetic), for
// two (bound by the bandwidth of the weights), for one (bound by latency with weights in the first-level cache, by
// bandwidth beyond), for as many as remain beside whole tiles; each kind also with one panel, for the remainder. Fused steps have
// those for one row, and one for half a panel. What is in `tuned` for the product takes the place of what the rules say.
std::vector<Tile> tiles(const TiledProduct &product, const std::vector<TunedTile> &tuned = shipped_tiles());

// Everything that may be tried for the use that `like` is made for: tiles whose accumulators fit the registers.
std::vector<Tile> legal_tiles(const TiledProduct &product, const Tile &like);

// The loops of sums of products followed by something pointwise:
//   product(lane, gate, panel, row, chain) = bias of chain 0; product += weights * operand over the chain's k, for each term
//   output(lane, ..., panel, row) = f(product, ...)
// k runs over blocks of elements, of each chain in turn; where there is more than one of either, what is left of k follows
// in a second update. `operand` is a block of it, `sums` the chains' sum, which the output reads; `groups`, undefined with few
// chains, the sums of some chains each, whose sum it is then.
struct ProductTerm {
  Halide::Func operand;
  Halide::RVar element, block, rest;
  bool has_rest;
};

struct Product {
  Halide::Func func, sums;
  std::vector<ProductTerm> terms;
  Halide::Var chain;
  Halide::Func groups;
};

struct ProductLoops {
  Halide::Func output;                 // the Func whose tiles are computed one after another
  Product product;
  Halide::Var lane, gate, panel, row;  // gate: undefined in output when it has no gate dimension
  int lanes, gates;                    // gates: of the product
  bool output_has_gate;
};

// Elements of k in a block: a vector of them, where multiply-adds take a factor from a vector by its number.
int block_elements(const Machine &machine, const Halide::Type &type);

// Whether sums of that many chains are those of groups of them first, which threads share out: where few rows would leave
// most threads without work.
constexpr int kChainGroup = 8;
bool has_chain_groups(int chains, int rows);

void schedule_product(const Machine &machine, const Tile &tile, ProductLoops loops);

}  // namespace hrnn
