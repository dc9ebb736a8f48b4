// SPDX-License-Identifier: Apache-2.0
#include "status.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

#ifndef HRNN_VERSION_STRING
#define HRNN_VERSION_STRING "0.1.0"
#endif

namespace hrnn {

hrnn_status fail(hrnn_error *error, hrnn_status status, const char *format, ...) {
  if (error == nullptr) return status;
  // Through a buffer of its own: an argument may be the old message.
  char message[sizeof(error->message)];
  va_list arguments;
  va_start(arguments, format);
  const int length = vsnprintf(message, sizeof(message), format, arguments);
  va_end(arguments);
  if (length < 0) {
    constexpr char kUnformatted[] = "(a message that could not be formatted)";
    memcpy(message, kUnformatted, sizeof(kUnformatted));
  } else if (static_cast<size_t>(length) >= sizeof(message)) {
    memcpy(message + sizeof(message) - 4, "...", 4);
  }
  memcpy(error->message, message, strlen(message) + 1);
  error->status = status;
  return status;
}

}  // namespace hrnn

extern "C" const char *hrnn_status_name(hrnn_status status) {
  switch (status) {
    case HRNN_OK: return "ok";
    case HRNN_INVALID_ARGUMENT: return "invalid argument";
    case HRNN_UNSUPPORTED: return "unsupported";
    case HRNN_OUT_OF_MEMORY: return "out of memory";
    case HRNN_CAPACITY: return "capacity";
    case HRNN_DEVICE_ERROR: return "device error";
    case HRNN_CORRUPT_MODEL: return "corrupt model";
  }
  return "unknown status";
}

extern "C" const char *hrnn_version(void) { return HRNN_VERSION_STRING; }
