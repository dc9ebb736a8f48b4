// SPDX-License-Identifier: Apache-2.0
//
// Tuned tiles: the files, and that schedules and the build take what they say.
#include "tuned.h"

#include <gtest/gtest.h>

#include "hrnn/prebuilt.h"
#include "variants.h"

namespace hrnn {
namespace {

const TiledProduct kStep{"avx2", HRNN_STEP, 3, HRNN_F32};

TunedTile entry(const TiledProduct &product, const Tile &tile) {
  return {product, tile, "a cpu", {1, tile.rows, false, 1, 1, tile.cache_level}, {{"gru:lbr:i8h8:b1:t1:fwd:f32", 1.25}}};
}

std::string file_with(const std::string &tiles) { return "{\"target\": \"avx2\", \"tiles\": [" + tiles + "]}"; }

std::string good_entry() {
  const std::string text = format_tuned("avx2", {entry(kStep, {2, 1, true, 1, 1, 1})});
  const size_t begin = text.find('[') + 1;
  return text.substr(begin, text.rfind(']') - begin);
}

std::string replaced(std::string text, const std::string &old, const std::string &with) {
  return text.replace(text.find(old), old.size(), with);
}

std::string error_of(const std::string &text) {
  try {
    parse_tuned("f.json", text);
  } catch (const std::invalid_argument &error) {
    return error.what();
  }
  return "";
}

TEST(TunedTiles, AreWrittenAndReadBack) {
  const std::vector<TunedTile> tiles = {entry(kStep, {2, 1, true, 1, 1, 1}), entry({"avx2", HRNN_FUSED_STEP, 1, HRNN_F64}, {4, 1, false, 1, 1, 0})};
  const std::vector<TunedTile> read = parse_tuned("f.json", format_tuned("avx2", tiles));
  ASSERT_EQ(read.size(), tiles.size());
  for (size_t i = 0; i < read.size(); i++) {
    EXPECT_EQ(read[i].product, tiles[i].product);
    EXPECT_EQ(read[i].tile, tiles[i].tile);
    EXPECT_EQ(read[i].against, tiles[i].against);
    EXPECT_EQ(read[i].cpu, tiles[i].cpu);
    EXPECT_EQ(read[i].gain, tiles[i].gain);
  }
}

TEST(TunedTiles, SayWhatIsWrongWithAFile) {
  const std::string good = good_entry();
  ASSERT_EQ(error_of(file_with(good)), "");
  struct Case {
    std::string text, message;
  };
  for (const Case &c : std::vector<Case>{
           {"{\"target\": \"avx2\", ", "f.json: "},
           {"[]", "f.json: is no object"},
           {"{\"tiles\": []}", "f.json: has no 'target'"},
           {"{\"target\": \"mmx\", \"tiles\": []}", "f.json: no target is called 'mmx'"},
           {"{\"target\": \"avx2\", \"tiles\": {}}", "f.json: has 'tiles' that are no array"},
           {file_with("7"), "f.json: tiles[0] is no object"},
           {file_with(good + "," + good), "f.json: tiles[1] is for the same as tiles[0]: step of 3 gates, f32, avx2"},
           {file_with(replaced(good, "\"step\"", "\"leap\"")), "f.json: tiles[0] has kind 'leap'; known: projection, step, fused step"},
           {file_with(replaced(good, "\"gates\": 3", "\"gates\": 9")), "f.json: tiles[0] has gates 9; it must be a number from 1 to 4"},
           {file_with(replaced(good, "\"panels\": 2", "\"panels\": 0")), "f.json: tiles[0], tile has panels 0; it must be a number from 1 to 8"},
           {file_with(replaced(good, "\"panels\": 2", "\"panels\": \"2\"")), "tiles[0], tile has panels \"2\""},
           {file_with(replaced(good, "\"unroll\": 1", "\"unroll\": 9")), "f.json: tiles[0], tile has unroll 9; it must be a number from 1 to 8"},
           {file_with(replaced(good, "\"chains\": 1", "\"chains\": 5")), "f.json: tiles[0], tile has chains 5; it must be a number from 1 to 4"},
           {file_with(replaced(good, "\"rows\": 1", "\"rows\": 4")), "f.json: tiles[0], tile is for a cache level; only tiles of one row are"},
           {file_with(replaced(good, "\"panels\": 2", "\"panels\": 2, \"cols\": 1")), "f.json: tiles[0], tile has fields that are not known"},
           {file_with(replaced(good, "1.25", "\"much\"")), "has gain \"much\" for 'gru:lbr:i8h8:b1:t1:fwd:f32'"},
       })
    EXPECT_NE(error_of(c.text).find(c.message), std::string::npos) << c.text << "\n" << error_of(c.text);
}

TEST(TunedTiles, TakeThePlaceOfTheRuleForTheirUse) {
  const std::vector<Tile> rules = tiles(kStep, {});
  const Tile tuned{2, 1, true, 1, 1, 1};
  ASSERT_EQ(std::count(rules.begin(), rules.end(), tuned), 0);
  const std::vector<Tile> with = tiles(kStep, {entry(kStep, tuned)});
  EXPECT_EQ(std::count(with.begin(), with.end(), tuned), 1);
  for (const Tile &tile : with) EXPECT_TRUE(tile == tuned || !same_use(tile, tuned)) << describe(tile);
  // Other products keep the rules.
  const TiledProduct others[] = {{"avx512", HRNN_STEP, 3, HRNN_F32}, {"avx2", HRNN_PROJECTION, 3, HRNN_F32},
                                 {"avx2", HRNN_STEP, 2, HRNN_F32}, {"avx2", HRNN_STEP, 3, HRNN_F64}};
  for (const TiledProduct &other : others) EXPECT_EQ(tiles(other, {entry(kStep, tuned)}), tiles(other, {})) << describe(other);
}

TEST(Tiles, AreThereForEveryNumberOfRowsUpToTheMost) {
  const auto most_rows = [](const std::vector<Tile> &all) { return all.front().rows; };
  EXPECT_EQ(most_rows(tiles({"avx512", HRNN_STEP, 3, HRNN_F32})), 8);
  EXPECT_EQ(most_rows(tiles({"avx2", HRNN_STEP, 3, HRNN_F32})), 6);
  for (const TargetRow &target : target_rows()) {
    if (target.machine.gpu) continue;
    for (int gates : {1, 2, 3}) {
      const std::vector<Tile> all = tiles({target.name, HRNN_STEP, gates, HRNN_F32});
      for (int rows = 1; rows <= most_rows(all); rows++)
        EXPECT_TRUE(std::any_of(all.begin(), all.end(), [&](const Tile &tile) { return tile.rows == rows && tile.panels == 1; }))
            << target.name << ", " << gates << " gates: " << rows << " rows";
    }
  }
}

// Of a GPU's block: a launch that asks for more than there is fails, on a real device only.
TEST(Tiles, OfAGpuFitItsBlocks) {
  int seen = 0;
  for (const TargetRow &target : target_rows()) {
    for (int gates = 1; gates <= HRNN_MAX_GATES && target.machine.gpu; gates++) {
      for (hrnn_dtype dtype : {HRNN_F32, HRNN_F64}) {
        for (const Tile &tile : tiles({target.name, HRNN_STEP, gates, dtype})) {
          // 64 bytes of sums a row, gate and chain, and as much for every eight chains where they are summed first.
          int bytes = 64 * tile.rows * gates * tile.chains;
          if (tile.chains > 8 && tile.rows <= 8) bytes += bytes / 8;
          EXPECT_LE(bytes, target.machine.shared_bytes) << target.name << ", " << gates << " gates: " << describe(tile);
          EXPECT_GE(tile.chains, 8) << target.name << ", " << gates << " gates: " << describe(tile);
          seen++;
        }
      }
    }
  }
  EXPECT_GE(seen, 2 * 2 * HRNN_MAX_GATES);
}

TEST(TunedTiles, ThatDoNotFitTheRegistersAreRefused) {
  try {
    tiles(kStep, {entry(kStep, {4, 8, false, 1, 1, 0})});
    FAIL();
  } catch (const std::invalid_argument &error) {
    EXPECT_STREQ(error.what(), "schedules/tuned: step of 3 gates, f32, avx2: a tile of 4 panels x 8 rows needs 201 vector "
                               "registers; there are 16");
  }
}

TEST(TunedTiles, LegalOnesFitTheRegistersAndTheUse) {
  for (const TargetRow &target : target_rows()) {
    if (target.machine.gpu) continue;
    for (hrnn_kernel_kind kind : {HRNN_PROJECTION, HRNN_STEP, HRNN_FUSED_STEP})
      for (int gates : {1, 2, 3})
        for (const Tile &use : {Tile{1, 8, false, 1, 1, 0}, Tile{1, 4, false, 1, 1, 0}, Tile{1, 2, false, 1, 1, 0}, Tile{1, 1, false, 1, 1, 1}}) {
          const TiledProduct product{target.name, kind, gates, HRNN_F32};
          for (const Tile &tile : legal_tiles(product, use)) {
            EXPECT_TRUE(same_use(tile, use));
            EXPECT_NO_THROW(tiles(product, {entry(product, tile)})) << describe(product) << ": " << describe(tile);
          }
        }
  }
}

// The prebuilt library was made from the files in schedules/tuned.
TEST(TunedTiles, AreInTheBuild) {
  ASSERT_FALSE(shipped_tiles().empty());
  for (const TunedTile &tuned : shipped_tiles()) {
    int found = 0;
    bool built = false;
    for (size_t t = 0; t < hrnn_prebuilt_table_count; t++) {
      for (uint32_t i = 0; i < hrnn_prebuilt_tables[t]->count; i++) {
        const hrnn_kernel &k = hrnn_prebuilt_tables[t]->kernels[i];
        if (k.target->name != tuned.product.target) continue;
        built = true;
        int gates = int(k.gates);
        if (k.kind != HRNN_PROJECTION) gates = __builtin_popcount(k.phase_gates);
        found += k.kind == tuned.product.kind && gates == tuned.product.gates && k.dtype == uint32_t(tuned.product.dtype) &&
                 int(k.panels) == tuned.tile.panels && int(k.rows) == tuned.tile.rows &&
                 (int(k.cache_level) == tuned.tile.cache_level || k.cache_level == 0);
      }
    }
    EXPECT_TRUE(found > 0 || !built) << describe(tuned.product) << ": " << describe(tuned.tile);
  }
}

}  // namespace
}  // namespace hrnn
