// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include "hrnn/prebuilt.h"
#include "session_kernels.h"

const hrnn_kernel_table *session_kernels() {
  // One table, as a compiled model has it.
  static const std::vector<hrnn_kernel> kernels = [] {
    std::vector<hrnn_kernel> all;
    for (size_t i = 0; i < hrnn_prebuilt_table_count; ++i) {
      const hrnn_kernel_table &table = *hrnn_prebuilt_tables[i];
      all.insert(all.end(), table.kernels, table.kernels + table.count);
    }
    return all;
  }();
  static const hrnn_kernel_table table = {HRNN_ABI_VERSION, static_cast<uint32_t>(kernels.size()), kernels.data(),
                                          nullptr};
  return &table;
}
