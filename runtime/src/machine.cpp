// SPDX-License-Identifier: Apache-2.0
#include "machine.h"

#include <cstdio>
#include <cstring>

#include "hrnn/device.h"
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace hrnn {
namespace {

constexpr uint64_t bit(uint32_t isa) { return uint64_t(1) << isa; }

void append(char *text, size_t size, const char *addition) {
  size_t used = strlen(text);
  if (used + 1 < size) snprintf(text + used, size - used, "%s", addition);
}

struct Need {
  const char *name;
  bool leaf7;
  int bit;
};
// Intel SDM volume 2, CPUID: leaf 1 ECX and leaf 7 EBX.
constexpr Need kSse41[] = {{"SSE4.1", false, 19}};
constexpr Need kAvx2[] = {{"AVX", false, 28}, {"FMA", false, 12}, {"F16C", false, 29}, {"AVX2", true, 5}};
constexpr Need kAvx512[] = {{"AVX512F", true, 16},
                            {"AVX512DQ", true, 17},
                            {"AVX512CD", true, 28},
                            {"AVX512BW", true, 30},
                            {"AVX512VL", true, 31}};
constexpr uint64_t kYmmState = 0x6, kZmmState = 0xe6;  // XCR0: SSE and AVX; also opmask, ZMM high halves and ZMM16-31

template <size_t N>
bool offers(const X86Features &f, const Need (&needs)[N], uint64_t state, const char *isa, char *refused, size_t size) {
  for (const Need &need : needs) {
    if (((need.leaf7 ? f.leaf7_ebx : f.leaf1_ecx) >> need.bit) & 1) continue;
    char clause[96];
    snprintf(clause, sizeof clause, "%s: the processor lacks %s; ", isa, need.name);
    append(refused, size, clause);
    return false;
  }
  if ((f.xcr0 & state) == state) return true;
  char clause[160];
  snprintf(clause, sizeof clause, "%s: the operating system does not save its registers (XCR0 is 0x%llx, needs 0x%llx); ",
           isa, static_cast<unsigned long long>(f.xcr0), static_cast<unsigned long long>(state));
  append(refused, size, clause);
  return false;
}

#if defined(__x86_64__)
X86Features read_x86() {
  X86Features f = {};
  unsigned a, b, c, d;
  if (__get_cpuid(1, &a, &b, &c, &d)) f.leaf1_ecx = c;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) f.leaf7_ebx = b;
  if ((f.leaf1_ecx >> 27) & 1) {  // OSXSAVE
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    f.xcr0 = (uint64_t(high) << 32) | low;
  }
  return f;
}

void read_x86_name(char *name, size_t size) {
  unsigned words[12] = {};
  for (unsigned i = 0; i < 3; i++)
    if (!__get_cpuid(0x80000002u + i, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2], &words[4 * i + 3])) break;
  char text[49] = {};
  memcpy(text, words, 48);
  snprintf(name, size, "%s", text[0] ? text : "x86-64");
}
#endif

void detect_cpu(hrnn_machine *machine) {
#if defined(__x86_64__)
  read_x86_name(machine->cpu, sizeof machine->cpu);
  machine->isas = x86_isas(read_x86(), machine->isa_refused, sizeof machine->isa_refused);
#elif defined(__aarch64__)
  snprintf(machine->cpu, sizeof machine->cpu, "arm-64");
  machine->isas = bit(HRNN_ARM64_NEON);  // part of the architecture
#endif
}

void detect_device(const hrnn_device &device, hrnn_machine *machine) {
  char reason[200] = {};
  if (device.probe(reason, sizeof reason)) {
    machine->isas |= bit(device.isa);
    return;
  }
  char clause[256];
  snprintf(clause, sizeof clause, "%s: %s; ", hrnn_isa_name(device.isa), reason);
  append(machine->device_refused, sizeof machine->device_refused, clause);
}

}  // namespace

uint64_t x86_isas(const X86Features &f, char *refused, size_t size) {
  if (size > 0) refused[0] = 0;
  uint64_t isas = 0;
  if (!offers(f, kSse41, 0, "sse41", refused, size)) return 0;
  isas |= bit(HRNN_X86_SSE41);
  if (!offers(f, kAvx2, kYmmState, "avx2", refused, size)) return isas;
  isas |= bit(HRNN_X86_AVX2);
  if (offers(f, kAvx512, kZmmState, "avx512", refused, size)) isas |= bit(HRNN_X86_AVX512);
  return isas;
}

}  // namespace hrnn

extern "C" {

const char *hrnn_isa_name(uint32_t isa) {
  switch (isa) {
    case HRNN_X86_SSE41: return "sse41";
    case HRNN_X86_AVX2: return "avx2";
    case HRNN_X86_AVX512: return "avx512";
    case HRNN_ARM64_NEON: return "neon";
    case HRNN_OPENCL: return "opencl";
    case HRNN_CUDA: return "cuda";
    default: return "unknown";
  }
}

hrnn_status hrnn_machine_detect(const hrnn_kernel_table *const *tables, size_t table_count, hrnn_machine *machine) {
  if (machine == nullptr || machine->struct_size < sizeof(hrnn_machine)) return HRNN_INVALID_ARGUMENT;
  const uint32_t size = machine->struct_size;
  memset(machine, 0, sizeof *machine);
  machine->struct_size = size;
  hrnn::detect_cpu(machine);
  for (size_t i = 0; i < table_count; i++)
    if (tables[i] != nullptr && tables[i]->device != nullptr) hrnn::detect_device(*tables[i]->device, machine);
  return HRNN_OK;
}

}  // extern "C"
