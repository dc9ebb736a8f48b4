// SPDX-License-Identifier: Apache-2.0
//
// What kernels for weights beyond the second-level cache ask for, and when. A wrong address changes no result, so their prefetches
// become calls here, in a kernel compiled in this process.
#include "prefetch.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <regex>
#include <sstream>

#include "jit_kernel.h"
#include "kernels.h"
#include "schedules.h"

namespace {
std::vector<const char *> asked_for;
}

extern "C" int hrnn_test_prefetch(const char *address, int for_writing, int locality, int is_data) {
  EXPECT_EQ(for_writing, 0);
  EXPECT_EQ(locality, 2);
  EXPECT_EQ(is_data, 1);
  asked_for.push_back(address);
  return 0;
}

namespace hrnn {
namespace {

using Halide::Internal::Call;

constexpr int kLine = 64, kGates = 3, kLength = 10;  // bytes; gates and k of the products

// Calls of the function above where the kernel has prefetches.
class Record : public Halide::Internal::IRMutator {
 public:
  Halide::Module of(const Halide::Module &module) {
    Halide::Module recorded(module.name(), module.target());
    for (Halide::Internal::LoweredFunc f : module.functions()) {
      f.body = mutate(f.body);
      recorded.append(f);
    }
    return recorded;
  }

 private:
  using IRMutator::visit;
  Halide::Expr visit(const Call *op) override {
    if (op->name != "llvm.prefetch.p0") return IRMutator::visit(op);
    return Call::make(op->type, "hrnn_test_prefetch", op->args, Call::Extern);
  }
};

// A projection of `panels` panels and `rows` rows by kernels of `tile`: SSE4.1, which every x86 has.
class Projection {
 public:
  Projection(const Tile &tile, int panels, int rows)
      : weights_(16, kGates, kLength, panels), bias_(16, kGates, panels), x_(kLength, rows), out_(16, kGates, panels, rows) {
    spec_.kind = HRNN_PROJECTION;
    spec_.gates = kGates;
    spec_.tile = tile;
    int value = 0;
    for (Halide::Buffer<float> *buffer : {&weights_, &bias_, &x_})
      for (float &element : *buffer) element = float(value++ % 31) / 31;
  }

  // What the prefetches of a run asked for, in bytes from the first weight.
  std::vector<int64_t> run() {
    const auto kernel = jit_module(Record().of(module()), kSymbol);
    asked_for.clear();
    void *args[] = {weights_.raw_buffer(), bias_.raw_buffer(), x_.raw_buffer(), out_.raw_buffer()};
    EXPECT_EQ(kernel->entry(args), 0);
    std::vector<int64_t> offsets;
    for (const char *address : asked_for) offsets.push_back(address - reinterpret_cast<const char *>(weights_.data()));
    return offsets;
  }

  std::vector<float> out() const { return {out_.begin(), out_.end()}; }

  std::string assembly() const {
    const std::string file = testing::TempDir() + "prefetch_test.s";
    module().compile({{Halide::OutputFileType::assembly, file}});
    std::ostringstream text;
    text << std::ifstream(file).rdbuf();
    std::remove(file.c_str());
    return text.str();
  }

 private:
  static constexpr const char *kSymbol = "projection";
  Halide::Module module() const { return build_kernel(spec_, *targets_by_name({"sse41"})[0], kSymbol); }

  KernelSpec spec_;
  Halide::Buffer<float> weights_, bias_, x_, out_;
};

Tile tile_of(int panels, int rows, bool gate_by_gate, int unroll) {
  return {panels, rows, gate_by_gate, unroll, 1, kBeyondSecondLevel};
}

constexpr int64_t kPanelBytes = int64_t(kGates) * kLength * kLine;

// Of rows that take three tiles, each value of k asks for one of the next panel's lines, in order.
TEST(Prefetch, AsksForTheNextPanelWhileThisOneIsReadSeveralTimes) {
  for (int unroll : {1, 2}) {
    const std::vector<int64_t> offsets = Projection(tile_of(1, 2, false, unroll), 4, 6).run();
    ASSERT_EQ(offsets.size(), size_t(4 * 3 * kLength));
    for (size_t i = 0; i < offsets.size(); i++) EXPECT_EQ(offsets[i], kPanelBytes + int64_t(i) * kLine) << i;
  }
}

// Gates one after another are passes over a panel, too.
TEST(Prefetch, SpreadsOverPassesOfGates) {
  const std::vector<int64_t> offsets = Projection(tile_of(1, 2, true, 1), 2, 4).run();
  ASSERT_EQ(offsets.size(), size_t(2 * 2 * kGates * kLength));
  for (size_t i = 0; i < offsets.size(); i++) EXPECT_EQ(offsets[i], kPanelBytes + int64_t(i) * kLine / 2) << i;
}

// Of tiles of two panels, the next two.
TEST(Prefetch, AsksForAllPanelsOfTheNextTile) {
  const std::vector<int64_t> offsets = Projection(tile_of(2, 2, false, 2), 4, 12).run();
  ASSERT_EQ(offsets.size(), size_t(2 * 6 * kLength));
  for (size_t i = 0; i < offsets.size(); i++) EXPECT_EQ(offsets[i], 2 * kPanelBytes + int64_t(i) * kLine) << i;
}

// What is read once is a stream: each value of k asks for what is as far ahead.
TEST(Prefetch, LooksAheadWhereWeightsAreReadOnce) {
  const std::vector<int64_t> offsets = Projection(tile_of(1, 2, false, 1), 3, 2).run();
  ASSERT_EQ(offsets.size(), size_t(3 * kLength));
  for (size_t i = 0; i < offsets.size(); i++) EXPECT_EQ(offsets[i], 8192 + int64_t(i) * kGates * kLine) << i;
  // Two panels are two streams.
  const std::vector<int64_t> pair = Projection(tile_of(2, 2, false, 2), 2, 2).run();
  ASSERT_EQ(pair.size(), size_t(kLength));
  for (size_t i = 0; i < pair.size(); i++)
    EXPECT_EQ(pair[i], 8192 + int64_t(i) * kGates * kLine + int64_t(i % 2) * kPanelBytes) << i;
}

TEST(Prefetch, ChangesNothingElse) {
  Tile tile = tile_of(1, 2, false, 2);
  Projection with(tile, 4, 6);
  tile.cache_level = 0;
  Projection without(tile, 4, 6);
  EXPECT_FALSE(with.run().empty());
  EXPECT_TRUE(without.run().empty());
  EXPECT_EQ(with.out(), without.out());
  auto prefetches = [](const Projection &projection) {
    const std::string text = projection.assembly();
    const std::regex instruction("\tprefetch[a-z0-9]+");
    std::vector<std::string> found;
    for (std::sregex_iterator i(text.begin(), text.end(), instruction), end; i != end; ++i) found.push_back(i->str());
    return found;
  };
  EXPECT_EQ(prefetches(with), std::vector<std::string>(2, "\tprefetcht1"));
  EXPECT_TRUE(prefetches(without).empty());
  EXPECT_TRUE(Projection(tile_of(4, 1, false, 1), 4, 1).run().empty());
}

// Of many rows, enough to hide a line of weights; fewer would only disturb. Of one, more panels than elsewhere.
TEST(TilesBeyondTheSecondLevelCache, AreOfManyRowsOrManyPanels) {
  auto beyond = [](const char *target, int gates) {
    std::vector<std::pair<int, int>> of;
    for (const Tile &tile : tiles({target, HRNN_STEP, gates, HRNN_F32}))
      if (tile.cache_level == kBeyondSecondLevel) of.push_back({tile.panels, tile.rows});
    return of;
  };
  using Sizes = std::vector<std::pair<int, int>>;
  EXPECT_EQ(beyond("avx512", 3), Sizes({{1, 8}, {4, 1}}));
  EXPECT_EQ(beyond("avx512", 1), Sizes({{2, 8}}));
  EXPECT_EQ(beyond("avx2", 3), Sizes({{1, 6}, {1, 4}, {2, 1}}));
  EXPECT_EQ(beyond("sse41", 3), Sizes({{1, 2}}));
  EXPECT_EQ(beyond("neon", 3), Sizes());
  for (const Tile &tile : tiles({"avx512", HRNN_FUSED_STEP, 3, HRNN_F32})) EXPECT_NE(tile.cache_level, kBeyondSecondLevel);
}

}  // namespace
}  // namespace hrnn
