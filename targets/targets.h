// SPDX-License-Identifier: Apache-2.0
//
// Where kernels run: one row a target. Everything else (emission, dispatch, tests, documentation) reads this table.
#pragma once
#include <string>
#include <vector>

#include "hrnn/hrnn.h"

namespace hrnn {

// What schedules may know of a machine.
struct Machine {
  bool gpu;
  int vector_bytes;         // CPU: width of a vector register
  int registers;            // CPU: vector registers
  int threads = 0;          // GPU: threads of a block that schedules aim at
  int shared_bytes = 0;     // GPU: memory of a block
  bool by_element = false;  // CPU: multiply-adds take one element of a vector register as a factor
};

struct TargetRow {
  const char *name;    // in options, file names and symbols
  const char *family;  // what users ask for: "x86", "arm", "cuda", "opencl"
  uint64_t features;   // what the runtime must find on the machine: bits 1 << hrnn_feature
  uint32_t rank;       // the runtime tries higher ones first
  hrnn_use use;
  const char *halide;  // Halide's target string, the full chain of features spelled out
  Machine machine;
  int elf_machine;     // e_machine of objects
  bool float64;        // kernels in double precision are right here
  const char *tested;  // how its kernels are executed in tests
};

const std::vector<TargetRow> &target_rows();

// The rows named by `names`: families or row names; throws std::invalid_argument naming the known ones.
std::vector<const TargetRow *> targets_by_name(const std::vector<std::string> &names);

}  // namespace hrnn
