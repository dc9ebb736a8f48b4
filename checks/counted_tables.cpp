// SPDX-License-Identifier: Apache-2.0
#include "counted_tables.h"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace hrnn_test {
namespace {

// A kernel's entry takes nothing but its arguments, so every counted kernel needs a function of its own.
constexpr size_t kSlots = 2048;
struct Slot {
  hrnn_kernel_entry entry;
  uint64_t calls;
};
Slot slots[kSlots];
size_t used_slots = 0;

template <size_t N>
int count_and_call(void **args) {
  slots[N].calls++;
  return slots[N].entry(args);
}

template <size_t... N>
constexpr std::array<hrnn_kernel_entry, sizeof...(N)> make_entries(std::index_sequence<N...>) {
  return {count_and_call<N>...};
}
constexpr auto kEntries = make_entries(std::make_index_sequence<kSlots>());

}  // namespace

CountedTables::CountedTables(const std::vector<const hrnn_kernel_table *> &tables) : first_slot_(used_slots) {
  for (const hrnn_kernel_table *table : tables) {
    copies_.emplace_back(table->kernels, table->kernels + table->count);
    for (hrnn_kernel &kernel : copies_.back()) {
      if (used_slots == kSlots) {
        fprintf(stderr, "more than %zu kernels: raise kSlots\n", kSlots);
        abort();
      }
      originals_.push_back(kernel);
      slots[used_slots] = {kernel.entry, 0};
      kernel.entry = kEntries[used_slots++];
    }
  }
  for (size_t i = 0; i < tables.size(); i++) {
    tables_.push_back(std::make_unique<hrnn_kernel_table>(*tables[i]));
    tables_.back()->kernels = copies_[i].data();
    pointers_.push_back(tables_.back().get());
  }
}

uint64_t CountedTables::calls_of(size_t row) const { return slots[first_slot_ + row].calls; }

}  // namespace hrnn_test
