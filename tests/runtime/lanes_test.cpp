// SPDX-License-Identifier: Apache-2.0
//
// Sequences of different lengths on lanes: every step of every sequence once, in turn, and no state in another one's row.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "lanes.h"

namespace hrnn::test {
namespace {

using ::testing::ElementsAre;

struct Arranged {
  explicit Arranged(const std::vector<int32_t> &given, bool together = true, int64_t tile = 8) : lengths(given) {
    EXPECT_TRUE(lanes.allocate(int64_t(given.size())));
    ragged = lanes.arrange(given.data(), int64_t(given.size()), *std::max_element(given.begin(), given.end()), together, tile);
  }
  std::vector<int64_t> lane_steps() const {
    std::vector<int64_t> steps;
    for (int64_t l = 0; l < lanes.count(); l++) steps.push_back(lanes.steps(l));
    return steps;
  }

  std::vector<int32_t> lengths;
  Lanes lanes;
  bool ragged;
};

// A row of the state per sequence: follows what a run does with them.
void expect_states_in_turn(const Arranged &arranged) {
  const Lanes &lanes = arranged.lanes;
  std::vector<int32_t> holds(arranged.lengths.size(), -1);  // which sequence's state is in the row
  for (const LanePlace &place : lanes) holds.at(size_t(lanes.initial_row(place))) = place.sequence;
  int64_t change = lanes.first_change_after(0);
  EXPECT_EQ(change, 0);
  for (int64_t step = 0; lanes.count() > 0 && step < lanes.steps(0); step++) {
    EXPECT_EQ(lanes.first_change_after(step), change);
    for (int64_t l = 0; l < lanes.count() && lanes.steps(l) > step; l++)
      EXPECT_EQ(holds[size_t(l)], lanes.at(step, l).sequence) << "step " << step << " lane " << l;
    for (; change < lanes.changes() && lanes.change(change).begin == step + 1; change++) {
      const LanePlace &place = lanes.change(change);
      std::swap(holds[size_t(place.lane)], holds.at(size_t(lanes.waiting_row(place))));
    }
  }
  EXPECT_EQ(change, lanes.changes());
  for (const LanePlace &place : lanes) EXPECT_EQ(holds[size_t(lanes.final_row(place))], place.sequence);
}

void expect_all_steps_once(const Arranged &arranged) {
  const Lanes &lanes = arranged.lanes;
  std::vector<int32_t> done(arranged.lengths.size(), 0);
  for (int64_t l = 0; l < lanes.count(); l++) {
    for (int64_t step = 0; step < lanes.steps(l); step++) {
      const LanePlace &place = lanes.at(step, l);
      EXPECT_EQ(place.length, arranged.lengths.at(size_t(place.sequence)));
      EXPECT_EQ(step - place.begin, done[size_t(place.sequence)]++);
    }
  }
  EXPECT_EQ(done, arranged.lengths);
}

TEST(Lanes, EverySequenceRunsOnceAndKeepsItsState) {
  std::mt19937 random(5);
  for (int run = 0; run < 300; run++) {
    std::vector<int32_t> lengths(1 + random() % 40);
    const uint32_t longest = 1 + random() % 30;
    for (int32_t &length : lengths) length = int32_t(random() % (longest + 1));
    lengths[random() % lengths.size()] = int32_t(longest);
    const Arranged arranged(lengths, run % 4 != 0, 1 + int64_t(random() % 8));
    if (!arranged.ragged) continue;
    expect_all_steps_once(arranged);
    expect_states_in_turn(arranged);
    const std::vector<int64_t> steps = arranged.lane_steps();
    EXPECT_TRUE(std::is_sorted(steps.rbegin(), steps.rend()));
    EXPECT_LE(steps[0], longest + longest / 12);
    if (run % 4 == 0) {
      EXPECT_EQ(steps.size(), lengths.size());
    }
  }
}

TEST(Lanes, ShortSequencesFollowEachOther) {
  EXPECT_THAT(Arranged({3, 10, 6, 4, 7}).lane_steps(), ElementsAre(10, 10, 10));
  EXPECT_THAT(Arranged({10, 1, 1, 1, 0, 1}).lane_steps(), ElementsAre(10, 4, 0));
  EXPECT_THAT(Arranged({3, 10, 6, 4, 7}, false).lane_steps(), ElementsAre(10, 7, 6, 4, 3));
}

// 1 to 64 are 32.5 lanes of 64; 32 of 65 are four tiles of eight rows.
TEST(Lanes, AreWholeTilesWhereThatTakesFewMoreSteps) {
  std::vector<int32_t> lengths(64);
  std::iota(lengths.begin(), lengths.end(), 1);
  EXPECT_EQ(Arranged(lengths).lane_steps(), std::vector<int64_t>(32, 65));
  EXPECT_EQ(Arranged(lengths, true, 7).lanes.count(), 33);  // 28 lanes would take a seventh more
}

TEST(Lanes, OfEqualSequencesAreNotArranged) {
  EXPECT_FALSE(Arranged({4, 4, 4}).ragged);
  EXPECT_TRUE(Arranged({0, 0}).ragged);  // sequences of no step are not sequences of all steps
  EXPECT_THAT(Arranged({0, 0}).lane_steps(), ElementsAre(0, 0));
}

}  // namespace
}  // namespace hrnn::test
