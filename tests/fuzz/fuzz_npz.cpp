// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as an .npz file, and as the .npy within one: an error, or arrays that come out again as they are.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "hrnn/compiler.h"
#include "npz.h"

namespace {

void read_as_npy(const uint8_t *data, size_t size) try {
  const hrnn::Constant array = hrnn::parse_npy({data, data + size}, "fuzz");
  const std::vector<uint8_t> again = hrnn::format_npy(array);
  if (hrnn::format_npy(hrnn::parse_npy(again, "again")) != again) abort();
} catch (const hrnn::ModelError &error) {
  if (error.what()[0] == 0) abort();
}

void read_as_npz(const uint8_t *data, size_t size) try {
  static const int file = memfd_create("fuzz.npz", 0);
  if (ftruncate(file, 0) != 0 || pwrite(file, data, size, 0) != ssize_t(size)) abort();
  for (const hrnn::NamedArray &array : hrnn::read_npz("/proc/self/fd/" + std::to_string(file)))
    hrnn::format_npy(array.second);
} catch (const hrnn::ModelError &error) {
  if (error.what()[0] == 0) abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size > 1 << 16) return 0;
  if (size >= 2 && data[0] == 'P' && data[1] == 'K')
    read_as_npz(data, size);
  else
    read_as_npy(data, size);
  return 0;
}
