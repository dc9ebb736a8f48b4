// SPDX-License-Identifier: Apache-2.0
//
// How the runtime reports failure: a status is returned, the message goes where the caller asked for it.
#pragma once
#include "hrnn/hrnn.h"

namespace hrnn {

// Formats a message into `error` (which may be null: then only the status is returned) and returns `status`. Neither
// allocates nor locks. A message too long for hrnn_error is cut and ends in "...". An argument may point into
// `error->message`, so that a caller can put a name in front of the message it got.
#if defined(__GNUC__) && !defined(__MINGW32__)
__attribute__((format(printf, 3, 4)))
#endif
hrnn_status
fail(hrnn_error *error, hrnn_status status, const char *format, ...);

}  // namespace hrnn
