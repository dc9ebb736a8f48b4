// SPDX-License-Identifier: Apache-2.0
#include "status.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

namespace {

TEST(Status, FormatsTheMessageAndReturnsTheStatus) {
  hrnn_error error = {};
  EXPECT_EQ(hrnn::fail(&error, HRNN_CAPACITY, "%s needs %d, has %lld", "buffer", 7, 5ll), HRNN_CAPACITY);
  EXPECT_EQ(error.status, HRNN_CAPACITY);
  EXPECT_STREQ(error.message, "buffer needs 7, has 5");
}

TEST(Status, NeedsNoPlaceForTheMessage) {
  EXPECT_EQ(hrnn::fail(nullptr, HRNN_UNSUPPORTED, "nobody listens to %s", "this"), HRNN_UNSUPPORTED);
}

TEST(Status, CutsALongMessageVisibly) {
  hrnn_error error;
  memset(&error, 'x', sizeof(error));
  const std::string text(5000, 'a');
  hrnn::fail(&error, HRNN_INVALID_ARGUMENT, "%s", text.c_str());
  const std::string message = error.message;
  EXPECT_EQ(message, std::string(sizeof(error.message) - 4, 'a') + "...");
}

TEST(Status, KeepsAMessageThatJustFits) {
  hrnn_error error;
  const std::string text(sizeof(error.message) - 1, 'a');
  hrnn::fail(&error, HRNN_INVALID_ARGUMENT, "%s", text.c_str());
  EXPECT_EQ(error.message, text);
}

TEST(Status, PutsANameBeforeItsOwnMessage) {
  hrnn_error error = {};
  hrnn::fail(&error, HRNN_INVALID_ARGUMENT, "args.time is %d", -1);
  hrnn::fail(&error, HRNN_INVALID_ARGUMENT, "layer '%s': %s", "gru", error.message);
  EXPECT_STREQ(error.message, "layer 'gru': args.time is -1");
}

TEST(Status, EveryStatusHasAName) {
  const struct {
    hrnn_status status;
    const char *name;
  } names[] = {{HRNN_OK, "ok"},
               {HRNN_INVALID_ARGUMENT, "invalid argument"},
               {HRNN_UNSUPPORTED, "unsupported"},
               {HRNN_OUT_OF_MEMORY, "out of memory"},
               {HRNN_CAPACITY, "capacity"},
               {HRNN_DEVICE_ERROR, "device error"},
               {HRNN_CORRUPT_MODEL, "corrupt model"}};
  for (const auto &entry : names) EXPECT_STREQ(hrnn_status_name(entry.status), entry.name);
  EXPECT_STREQ(hrnn_status_name(static_cast<hrnn_status>(99)), "unknown status");
}

TEST(Status, VersionIsThreeNumbers) {
  int major = -1, minor = -1, patch = -1;
  char rest = 0;
  EXPECT_EQ(sscanf(hrnn_version(), "%d.%d.%d%c", &major, &minor, &patch, &rest), 3) << hrnn_version();
}

}  // namespace
