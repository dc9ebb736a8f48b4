// SPDX-License-Identifier: Apache-2.0
//
// A tile as schedules/tuned/*.json and `hrnn tune --json` have it.
#pragma once
#include <nlohmann/json.hpp>

#include "tuned.h"

namespace hrnn {

inline nlohmann::ordered_json tile_json(const Tile &tile) {
  return {{"panels", tile.panels}, {"rows", tile.rows}, {"gate_by_gate", tile.gate_by_gate},
          {"unroll", tile.unroll}, {"chains", tile.chains}, {"cache_level", tile.cache_level}};
}

}  // namespace hrnn
