// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <vector>

#include "hrnn/hrnn.h"

namespace hrnn_test {

// The program NAME_check of a user's cell (hrnn_add_cell(NAME ... REFERENCE ...)): every kernel in `tables` that this
// machine can run, compared with the cell's reference. Prints a line a check; 0 when all of them hold.
// With --quick, fewer cases: for an emulator.
int check_main(const std::string &cell, const std::vector<const hrnn_kernel_table *> &tables, int argc, char **argv);

}  // namespace hrnn_test
