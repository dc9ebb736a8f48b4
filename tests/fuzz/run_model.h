// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "hrnn/hrnn.h"

namespace hrnn_fuzz {

// Creates a session over the model with plain kernels and, where it has one and its shapes stay tiny, runs it twice:
// once as it is, once streaming. Whatever the model is, this must end without a crash.
void run_model(const hrnn_model &model);

}  // namespace hrnn_fuzz
