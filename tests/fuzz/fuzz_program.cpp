// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as a program of the runtime: rejected with a message, or it runs. An input is the number of weight bytes (in
// units of 64, one byte), flags (bit 0: magic and length are put right, so that mutations get past them), the program.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "program.h"
#include "run_model.h"

namespace {

// Exactly the size asked for, aligned as embedded weights are.
struct Free {
  void operator()(void *memory) const { free(memory); }
};
using Memory = std::unique_ptr<void, Free>;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2 || size > 1 << 16) return 0;
  const size_t weights_bytes = size_t(data[0]) * 64;
  const bool repair = data[1] & 1;
  std::vector<uint8_t> program(data + 2, data + size);
  if (repair && program.size() >= sizeof(hrnn::ProgramHeader)) {
    const uint32_t bytes = uint32_t(program.size());
    memcpy(program.data(), hrnn::kProgramMagic, sizeof hrnn::kProgramMagic);
    memcpy(program.data() + offsetof(hrnn::ProgramHeader, bytes), &bytes, sizeof bytes);
  }
  const Memory weights(aligned_alloc(64, weights_bytes + 64));
  memset(weights.get(), 0x3c, weights_bytes);  // small numbers, in float and double
  hrnn_model model = {};
  model.abi_version = HRNN_ABI_VERSION;
  model.name = "fuzz";
  model.program = program.data();
  model.program_bytes = program.size();
  model.weights = weights.get();
  model.weights_bytes = weights_bytes;
  hrnn_fuzz::run_model(model);
  return 0;
}
