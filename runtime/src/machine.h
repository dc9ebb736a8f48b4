// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "hrnn/hrnn.h"

namespace hrnn {

// The words that say what an x86-64 processor and its operating system offer.
struct X86Features {
  uint32_t words[4];  // CPUID: leaf 1 ECX, leaf 7.0 EBX, leaf 7.0 ECX, leaf 7.1 EAX
  uint64_t xcr0;      // register state that the operating system saves; 0 without OSXSAVE
};

// Sets machine->features and machine->unsaved. Pure. An instruction set counts only when the operating system saves its
// registers.
void set_x86_features(const X86Features &features, hrnn_machine *machine);

// What the walk through weights and the choice of tiles depend on, in bytes.
struct CacheSizes {
  int64_t l1, l2;
  // Weights that stay in the second-level cache from step to step are not more than half of it: the rest is for everything else.
  int64_t kept_by_l2() const { return l2 / 2; }
};
// Those of a machine; where it does not say, the smallest that processors with these instruction sets have.
CacheSizes cache_sizes(const hrnn_machine &machine);

}  // namespace hrnn
