// SPDX-License-Identifier: Apache-2.0
//
// Sequences of different lengths on lanes. A step computes one row of each lane that has not ended, and where a sequence
// ends another one begins on its lane: steps have about as many rows as each other. With one sequence a lane the last steps
// would have few rows, and few rows wait for the weights.
#pragma once
#include <cstdint>

#include "array.h"

namespace hrnn {

// A sequence on its lane.
struct LanePlace {
  int32_t sequence, length;
  int32_t begin;  // the step of the lane that is its first
  int32_t lane;
};

class Lanes {
 public:
  // For at most so many sequences. False where there is no memory.
  [[nodiscard]] bool allocate(int64_t most);
  size_t bytes() const;

  // Puts sequences on lanes, which are in order of falling length. `together`: several on one; a multiple of `tile` lanes is
  // preferred. False, and nothing is arranged, where all have `time` steps, at least one.
  bool arrange(const int32_t *lengths, int64_t sequences, int64_t time, bool together, int64_t tile);

  int64_t count() const { return count_; }
  int64_t steps(int64_t lane) const {
    const LanePlace &last = places_[size_t(first_[size_t(lane) + 1] - 1)];
    return int64_t{last.begin} + last.length;
  }
  const LanePlace &at(int64_t step, int64_t lane) const {
    const LanePlace *low = &places_[size_t(first_[size_t(lane)])], *high = &places_[size_t(first_[size_t(lane) + 1])];
    while (high - low > 1) {
      const LanePlace *middle = low + (high - low) / 2;
      (middle->begin <= step ? low : high) = middle;
    }
    return *low;
  }

  // Places where a sequence follows another one, by the step it begins at; those from `first_after(step)` on begin later.
  int64_t changes() const { return changes_; }
  const LanePlace &change(int64_t index) const { return places_[size_t(keys_[size_t(index)] & UINT32_MAX)]; }
  int64_t first_change_after(int64_t step) const;

  // A row of the state is a lane's, or holds the initial state of a sequence that has not begun. When it begins, that
  // row takes the state of the one before it.
  int64_t waiting_row(const LanePlace &place) const { return count_ + (&place - places_.data()) - place.lane - 1; }
  bool begins_lane(const LanePlace &place) const { return place.begin == 0; }
  bool ends_lane(const LanePlace &place) const { return &place + 1 == &places_[0] + first_[size_t(place.lane) + 1]; }
  int64_t initial_row(const LanePlace &place) const { return begins_lane(place) ? place.lane : waiting_row(place); }
  int64_t final_row(const LanePlace &place) const { return ends_lane(place) ? place.lane : waiting_row(place) + 1; }

  const LanePlace *begin() const { return places_.begin(); }
  const LanePlace *end() const { return places_.begin() + sequences_; }

 private:
  void by_falling_length(const int32_t *lengths);
  int64_t capacity(int64_t tile) const;
  void fill(int64_t capacity);
  void order();
  void list_changes();

  Array<LanePlace> places_, sorted_;  // lane after lane; by falling length
  Array<int32_t> first_, next_;   // place of each lane, then the end; where its next sequence goes
  Array<int64_t> keys_;           // what is sorted: a number of 32 bits, then what it is of
  int64_t sequences_ = 0, count_ = 0, changes_ = 0;
};

}  // namespace hrnn
