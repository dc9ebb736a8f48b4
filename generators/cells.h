// SPDX-License-Identifier: Apache-2.0
//
// The cells there are: this library's own and those that were registered (hrnn/cell.h).
#pragma once
#include <string>
#include <vector>

#include "hrnn/cell.h"

namespace hrnn {

// The cell of that name; throws std::invalid_argument naming the known ones. Both throw what is wrong with a registered
// cell.
const Cell &cell_by_name(const std::string &name);
std::vector<std::string> cell_names();

// "" or what is wrong with a cell, naming it.
std::string cell_fault(const Cell &cell);

}  // namespace hrnn
