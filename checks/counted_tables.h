// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "hrnn/hrnn.h"

namespace hrnn_test {

// A copy of kernel tables whose entries count their calls and then go on to the kernel.
class CountedTables {
 public:
  explicit CountedTables(const std::vector<const hrnn_kernel_table *> &tables);

  const std::vector<const hrnn_kernel_table *> &tables() const { return pointers_; }
  const std::vector<hrnn_kernel> &rows() const { return originals_; }  // of all tables, entries as they were
  uint64_t calls_of(size_t row) const;

 private:
  size_t first_slot_ = 0;
  std::vector<hrnn_kernel> originals_;
  std::vector<std::vector<hrnn_kernel>> copies_;
  std::vector<std::unique_ptr<hrnn_kernel_table>> tables_;
  std::vector<const hrnn_kernel_table *> pointers_;
};

}  // namespace hrnn_test
