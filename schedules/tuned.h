// SPDX-License-Identifier: Apache-2.0
//
// Tiles found by measuring (`hrnn tune`), which take the place of what the rules of schedules.cpp say. They come from
// schedules/tuned/TARGET.json, one file a target, embedded when hrnn is built.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "hrnn/hrnn.h"
#include "targets.h"

namespace hrnn {

// What one kernel computes jointly: `panels` panels of hidden units x `rows` batch rows, all gates of a panel.
// gate_by_gate: one pass over k per gate instead of one for all, where all gates' accumulators do not fit the registers.
// unroll: values of k in one turn of the loop. chains: sums of every so many values of k, added at the end, where one sum
// would wait for itself.
// cache_level: made for weights that stay in the cache of this level, or lie beyond the second, 0 = wherever they lie. A target's
// machines differ in their caches, so a schedule makes tiles for each case, and the runtime, which knows the sizes, takes those that
// apply.
struct Tile {
  int panels, rows;
  bool gate_by_gate;
  int unroll, chains;
  int cache_level;
  bool half = false;  // only the first half of a panel's units, for layers that have no more
};
bool operator==(const Tile &a, const Tile &b);
// The cache_level of tiles for weights from beyond the second; those of several rows prefetch them (prefetch.h).
constexpr int kBeyondSecondLevel = 3;
// The widest: runtime/src/product_call.cpp walks weights in stretches of whole tiles.
constexpr int kMostPanels = 8, kMostChains = 4;

// What a tile is made for: one row, two, a few (up to 4) or many; weights in which cache.
bool same_use(const Tile &a, const Tile &b);

// The product whose tiles are asked for.
struct TiledProduct {
  std::string target;
  hrnn_kernel_kind kind;
  int gates;
  hrnn_dtype dtype;
};
bool operator==(const TiledProduct &a, const TiledProduct &b);
std::string describe(const TiledProduct &product);  // "step of 3 gates, f32, avx512"
std::string describe(const Tile &tile);             // "2 panels x 8 rows, gate by gate"

struct TunedTile {
  TiledProduct product;
  Tile tile;
  // Why: measured on `cpu`, by how much problems got faster than with the tile `against`.
  std::string cpu;
  Tile against;
  std::map<std::string, double> gain;
};

// Reads the text of a file. Throws std::invalid_argument that names `file`, the entry and what is wrong with it.
std::vector<TunedTile> parse_tuned(const std::string &file, const std::string &text);
std::string format_tuned(const std::string &target, const std::vector<TunedTile> &tiles);

// The embedded files, and what they say.
struct TunedFile {
  const char *name, *text;
};
std::vector<TunedFile> tuned_files();
const std::vector<TunedTile> &shipped_tiles();

}  // namespace hrnn
