// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "hrnn/hrnn.h"

// The kernels that the tests of sessions run on: plain C++ (plain_kernels.cpp) in one program, so that the tests need
// no code generator, and the prebuilt library's (prebuilt_kernels.cpp) in another.
const hrnn_kernel_table *session_kernels();
