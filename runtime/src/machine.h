// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "hrnn/hrnn.h"

namespace hrnn {

// The words that say what an x86-64 processor and its operating system offer.
struct X86Features {
  uint32_t leaf1_ecx, leaf7_ebx;  // CPUID 1 and 7.0
  uint64_t xcr0;                  // register state that the operating system saves; 0 without OSXSAVE
};

// Bits 1 << hrnn_isa. Pure. An instruction set counts only when the operating system saves its registers.
// `refused` gets one clause per missing set ("avx512: the processor lacks AVX512F; ...").
uint64_t x86_isas(const X86Features &features, char *refused, size_t refused_bytes);

}  // namespace hrnn
