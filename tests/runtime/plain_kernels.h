// SPDX-License-Identifier: Apache-2.0
//
// Kernels in plain C++ behind the calling convention of the generated ones: with them the tests of the runtime need no
// code generator, and compute every cell in both types.
#pragma once
#include "hrnn/hrnn.h"

const hrnn_kernel_table *plain_kernels();
