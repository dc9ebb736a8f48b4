// SPDX-License-Identifier: Apache-2.0
//
// NumPy's .npz files: a zip of named .npy arrays. Reads and writes float32, float64, int32 and int64, little-endian.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "constant.h"

namespace hrnn {

using NamedArray = std::pair<std::string, Constant>;

// Arrays in the order of the file, always row-major (column-major ones are transposed). Throws ModelError.
std::vector<NamedArray> read_npz(const std::string &path);

// Replaces `path` when everything is written. Throws ModelError.
void write_npz(const std::string &path, const std::vector<NamedArray> &arrays);

// One array in .npy format (versions 1 to 3), without the zip around it. `what` names it in messages.
Constant parse_npy(const std::vector<uint8_t> &file, const std::string &what);
std::vector<uint8_t> format_npy(const Constant &array);

}  // namespace hrnn
