// SPDX-License-Identifier: Apache-2.0
#include "tuned.h"

#include <cmath>
#include <stdexcept>

#include "tile_json.h"

namespace hrnn {
namespace {

using Json = nlohmann::ordered_json;

const std::map<hrnn_kernel_kind, std::string> kKinds = {
    {HRNN_PROJECTION, "projection"}, {HRNN_STEP, "step"}, {HRNN_FUSED_STEP, "fused step"}};
const std::map<hrnn_dtype, std::string> kTypes = {{HRNN_F32, "f32"}, {HRNN_F64, "f64"}};

constexpr int kMostRows = 16, kMostUnroll = 8, kCacheLevels = 2;

int rows_class(const Tile &tile) { return tile.rows <= 2 ? tile.rows : tile.rows <= 4 ? 4 : 8; }

// One JSON object being read: every field is asked for once, and none may be left over.
class Fields {
 public:
  Fields(const Json &json, std::string where) : json_(json), where_(std::move(where)) {
    if (!json.is_object()) refuse("is no object");
  }

  [[noreturn]] void refuse(const std::string &why) const { throw std::invalid_argument(where_ + " " + why); }

  const Json &get(const char *name) {
    const auto found = json_.find(name);
    if (found == json_.end()) refuse("has no '" + std::string(name) + "'");
    asked_++;
    return *found;
  }
  int integer(const char *name, int low, int high) {
    const Json &value = get(name);
    if (!value.is_number_integer() || value < low || value > high)
      refuse("has " + std::string(name) + " " + value.dump() + "; it must be a number from " + std::to_string(low) + " to " +
             std::to_string(high));
    return value.get<int>();
  }
  bool boolean(const char *name) {
    const Json &value = get(name);
    if (!value.is_boolean()) refuse("has " + std::string(name) + " " + value.dump() + "; it must be true or false");
    return value.get<bool>();
  }
  std::string text(const char *name) {
    const Json &value = get(name);
    if (!value.is_string()) refuse("has " + std::string(name) + " " + value.dump() + "; it must be a string");
    return value.get<std::string>();
  }
  template <class Enum>
  Enum one_of(const char *name, const std::map<Enum, std::string> &names) {
    const std::string value = text(name);
    std::string known;
    for (const auto &[key, known_name] : names) {
      if (value == known_name) return key;
      known += (known.empty() ? "" : ", ") + known_name;
    }
    refuse("has " + std::string(name) + " '" + value + "'; known: " + known);
  }
  void end() const {
    if (asked_ != json_.size()) refuse("has fields that are not known, beside " + std::to_string(asked_) + " that are");
  }

 private:
  const Json &json_;
  std::string where_;
  size_t asked_ = 0;
};

Tile parse_tile(const Json &json, const std::string &where) {
  Fields fields(json, where);
  Tile tile;
  tile.panels = fields.integer("panels", 1, kMostPanels);
  tile.rows = fields.integer("rows", 1, kMostRows);
  tile.gate_by_gate = fields.boolean("gate_by_gate");
  tile.unroll = fields.integer("unroll", 1, kMostUnroll);
  tile.chains = fields.integer("chains", 1, kMostChains);
  tile.cache_level = fields.integer("cache_level", 0, kCacheLevels);
  if (tile.rows > 1 && tile.cache_level > 0) fields.refuse("is for a cache level; only tiles of one row are");
  if (tile.rows > 1 && tile.chains > 1) fields.refuse("has several chains; only tiles of one row may");
  fields.end();
  return tile;
}

TunedTile parse_entry(const Json &json, const std::string &where, const std::string &target) {
  Fields fields(json, where);
  TunedTile entry;
  entry.product.target = target;
  entry.product.kind = fields.one_of("kind", kKinds);
  entry.product.gates = fields.integer("gates", 1, HRNN_MAX_GATES);
  entry.product.dtype = fields.one_of("type", kTypes);
  entry.tile = parse_tile(fields.get("tile"), where + ", tile");
  Fields evidence(fields.get("evidence"), where + ", evidence");
  entry.cpu = evidence.text("cpu");
  entry.against = parse_tile(evidence.get("against"), where + ", evidence, against");
  for (const auto &[problem, gain] : evidence.get("gain").items()) {
    if (!gain.is_number()) evidence.refuse("has gain " + gain.dump() + " for '" + problem + "'; it must be a number");
    entry.gain[problem] = gain.get<double>();
  }
  evidence.end();
  fields.end();
  return entry;
}

}  // namespace

bool operator==(const Tile &a, const Tile &b) {
  return a.panels == b.panels && a.rows == b.rows && a.gate_by_gate == b.gate_by_gate && a.unroll == b.unroll &&
         a.chains == b.chains && a.cache_level == b.cache_level && a.half == b.half;
}

bool same_use(const Tile &a, const Tile &b) {
  return rows_class(a) == rows_class(b) && a.cache_level == b.cache_level && a.half == b.half;
}

bool operator==(const TiledProduct &a, const TiledProduct &b) {
  return a.target == b.target && a.kind == b.kind && a.gates == b.gates && a.dtype == b.dtype;
}

std::string describe(const TiledProduct &product) {
  return kKinds.at(product.kind) + " of " + std::to_string(product.gates) + (product.gates == 1 ? " gate, " : " gates, ") +
         kTypes.at(product.dtype) + ", " + product.target;
}

std::string describe(const Tile &tile) {
  std::string text = std::to_string(tile.panels) + (tile.panels == 1 ? " panel x " : " panels x ") +
                     std::to_string(tile.rows) + (tile.rows == 1 ? " row" : " rows");
  if (tile.gate_by_gate) text += ", gate by gate";
  if (tile.unroll > 1) text += ", " + std::to_string(tile.unroll) + " of k a turn";
  if (tile.chains > 1) text += ", " + std::to_string(tile.chains) + " chains";
  if (tile.cache_level > 0) text += ", weights in L" + std::to_string(tile.cache_level);
  return text;
}

std::vector<TunedTile> parse_tuned(const std::string &file, const std::string &text) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Json::exception &error) {
    throw std::invalid_argument(file + ": " + error.what());
  }
  Fields fields(json, file + ":");
  const std::string target = fields.text("target");
  try {
    targets_by_name({target});
  } catch (const std::invalid_argument &error) {
    throw std::invalid_argument(file + ": " + error.what());
  }
  const Json &entries = fields.get("tiles");
  if (!entries.is_array()) fields.refuse("has 'tiles' that are no array");
  fields.end();
  std::vector<TunedTile> tiles;
  for (size_t i = 0; i < entries.size(); i++) {
    const std::string where = file + ": tiles[" + std::to_string(i) + "]";
    tiles.push_back(parse_entry(entries[i], where, target));
    for (size_t other = 0; other < i; other++)
      if (tiles[other].product == tiles[i].product && same_use(tiles[other].tile, tiles[i].tile))
        throw std::invalid_argument(where + " is for the same as tiles[" + std::to_string(other) + "]: " +
                                    describe(tiles[i].product));
  }
  return tiles;
}

std::string format_tuned(const std::string &target, const std::vector<TunedTile> &tiles) {
  Json json = {{"target", target}, {"tiles", Json::array()}};
  for (const TunedTile &entry : tiles) {
    Json gain = Json::object();
    for (const auto &[problem, factor] : entry.gain) gain[problem] = std::round(factor * 1000) / 1000;
    json["tiles"].push_back({{"kind", kKinds.at(entry.product.kind)},
                             {"gates", entry.product.gates},
                             {"type", kTypes.at(entry.product.dtype)},
                             {"tile", tile_json(entry.tile)},
                             {"evidence", {{"cpu", entry.cpu}, {"against", tile_json(entry.against)}, {"gain", gain}}}});
  }
  return json.dump(2) + "\n";
}

const std::vector<TunedTile> &shipped_tiles() {
  static const std::vector<TunedTile> all = [] {
    std::vector<TunedTile> tiles;
    for (const TunedFile &file : tuned_files())
      for (const TunedTile &tile : parse_tuned(file.name, file.text)) tiles.push_back(tile);
    return tiles;
  }();
  return all;
}

}  // namespace hrnn
