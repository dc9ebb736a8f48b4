// SPDX-License-Identifier: Apache-2.0
#include "lanes.h"

#include <algorithm>
#include <climits>
#include <functional>

namespace hrnn {
namespace {

int64_t key(int64_t number, int64_t of) { return number << 32 | of; }
int64_t number_of(int64_t key) { return key >> 32; }
int64_t index_of(int64_t key) { return key & UINT32_MAX; }

// A heap sort: no memory, and never slow.
void sort(int64_t *begin, int64_t *end) {
  std::make_heap(begin, end);
  std::sort_heap(begin, end);
}

}  // namespace

bool Lanes::allocate(int64_t most) {
  const size_t n = size_t(most);
  return places_.resize(n) && sorted_.resize(n) && first_.resize(n + 1) && next_.resize(n) && keys_.resize(n);
}

size_t Lanes::bytes() const { return places_.bytes() + sorted_.bytes() + first_.bytes() + next_.bytes() + keys_.bytes(); }

// Those of the same length in their own order.
void Lanes::by_falling_length(const int32_t *lengths) {
  for (int64_t s = 0; s < sequences_; s++) keys_[size_t(s)] = key(INT32_MAX - lengths[s], s);
  sort(keys_.begin(), keys_.begin() + sequences_);
  for (int64_t i = 0; i < sequences_; i++) {
    const int32_t sequence = int32_t(index_of(keys_[size_t(i)]));
    sorted_[size_t(i)] = {sequence, lengths[sequence], 0, 0};
  }
}

// How long a lane may be: as the longest sequence; or a little more, where steps then have whole tiles of rows.
int64_t Lanes::capacity(int64_t tile) const {
  const int64_t longest = sorted_[0].length;
  int64_t total = 0;
  for (int64_t i = 0; i < sequences_; i++) total += sorted_[size_t(i)].length;
  const int64_t lanes = longest == 0 ? 0 : total / longest / tile * tile;
  if (lanes == 0) return longest;
  const int64_t even = (total + lanes - 1) / lanes, most = std::min<int64_t>(longest + longest / 12, INT32_MAX);
  return even <= most ? std::max(even, longest) : longest;
}

// Each sequence, from the longest to the shortest, goes to the lane with the fewest steps, or to a new one.
void Lanes::fill(int64_t capacity) {
  const std::greater<int64_t> fewest_on_top;
  int64_t *lanes = keys_.data();
  count_ = 0;
  for (int64_t i = 0; i < sequences_; i++) {
    LanePlace &place = sorted_[size_t(i)];
    if (count_ > 0 && place.length > 0 && number_of(lanes[0]) + place.length <= capacity) {
      std::pop_heap(lanes, lanes + count_, fewest_on_top);
      place.begin = int32_t(number_of(lanes[count_ - 1]));
      place.lane = int32_t(index_of(lanes[count_ - 1]));
    } else {
      place.lane = int32_t(count_++);
    }
    lanes[count_ - 1] = key(place.begin + place.length, place.lane);
    std::push_heap(lanes, lanes + count_, fewest_on_top);
  }
}

// Lanes by falling length, places by lane.
void Lanes::order() {
  for (int64_t l = 0; l < count_; l++) {
    const int64_t lane = keys_[size_t(l)];
    keys_[size_t(l)] = key(INT32_MAX - number_of(lane), index_of(lane));
  }
  sort(keys_.begin(), keys_.begin() + count_);
  int32_t *next = next_.data(), *first = first_.data();
  for (int64_t l = 0; l < count_; l++) next[index_of(keys_[size_t(l)])] = int32_t(l);
  std::fill_n(first, count_ + 1, 0);
  for (int64_t i = 0; i < sequences_; i++) {
    LanePlace &place = sorted_[size_t(i)];
    place.lane = next[place.lane];
    first[place.lane + 1]++;
  }
  for (int64_t l = 0; l < count_; l++) {
    next[l] = first[l];
    first[l + 1] += first[l];
  }
  for (int64_t i = 0; i < sequences_; i++) places_[size_t(next[sorted_[size_t(i)].lane]++)] = sorted_[size_t(i)];
}

void Lanes::list_changes() {
  changes_ = 0;
  for (int64_t i = 0; i < sequences_; i++)
    if (!begins_lane(places_[size_t(i)])) keys_[size_t(changes_++)] = key(places_[size_t(i)].begin, i);
  sort(keys_.begin(), keys_.begin() + changes_);
}

int64_t Lanes::first_change_after(int64_t step) const {
  return std::lower_bound(keys_.begin(), keys_.begin() + changes_, key(step + 1, 0)) - keys_.begin();
}

bool Lanes::arrange(const int32_t *lengths, int64_t sequences, int64_t time, bool together, int64_t tile) {
  bool ragged = false;
  for (int64_t s = 0; s < sequences; s++) ragged |= lengths[s] != time || lengths[s] == 0;
  if (!ragged) return false;
  sequences_ = sequences;
  by_falling_length(lengths);
  fill(together ? capacity(tile) : 0);
  order();
  list_changes();
  return true;
}

}  // namespace hrnn
