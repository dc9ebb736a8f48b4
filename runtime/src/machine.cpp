// SPDX-License-Identifier: Apache-2.0
#include "machine.h"

#include <cstdio>
#include <cstring>

#include "hrnn/device.h"
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__unix__)
#include <unistd.h>  // sysconf
#endif

namespace hrnn {
namespace {

constexpr uint64_t bit(uint32_t feature) { return uint64_t(1) << feature; }

void append(char *text, size_t size, const char *addition) {
  size_t used = strlen(text);
  if (used + 1 < size) snprintf(text + used, size - used, "%s", addition);
}

// Registers that XCR0 says are saved: SSE and AVX; with opmask, the high halves of ZMM and ZMM16-31.
constexpr uint64_t kNoState = 0, kYmmState = 0x6, kZmmState = 0xe6;

// Where CPUID reports a feature (Intel SDM volume 2): leaf 1 ECX, leaf 7.0 EBX, leaf 7.0 ECX, leaf 7.1 EAX.
enum Word { kLeaf1Ecx, kLeaf7Ebx, kLeaf7Ecx, kLeaf71Eax };
struct FeatureRow {
  hrnn_feature feature;
  const char *name;
  Word word;
  int bit;
  uint64_t state;
};
constexpr FeatureRow kX86Features[] = {
    {HRNN_FEATURE_SSE41, "SSE4.1", kLeaf1Ecx, 19, kNoState},
    {HRNN_FEATURE_AVX, "AVX", kLeaf1Ecx, 28, kYmmState},
    {HRNN_FEATURE_FMA, "FMA", kLeaf1Ecx, 12, kYmmState},
    {HRNN_FEATURE_F16C, "F16C", kLeaf1Ecx, 29, kYmmState},
    {HRNN_FEATURE_AVX2, "AVX2", kLeaf7Ebx, 5, kYmmState},
    {HRNN_FEATURE_AVX512F, "AVX512F", kLeaf7Ebx, 16, kZmmState},
    {HRNN_FEATURE_AVX512DQ, "AVX512DQ", kLeaf7Ebx, 17, kZmmState},
    {HRNN_FEATURE_AVX512CD, "AVX512CD", kLeaf7Ebx, 28, kZmmState},
    {HRNN_FEATURE_AVX512BW, "AVX512BW", kLeaf7Ebx, 30, kZmmState},
    {HRNN_FEATURE_AVX512VL, "AVX512VL", kLeaf7Ebx, 31, kZmmState},
    {HRNN_FEATURE_AVX512VNNI, "AVX512_VNNI", kLeaf7Ecx, 11, kZmmState},
    {HRNN_FEATURE_AVX512BF16, "AVX512_BF16", kLeaf71Eax, 5, kZmmState},
};

const char *feature_name(uint32_t feature) {
  for (const FeatureRow &row : kX86Features)
    if (row.feature == feature) return row.name;
  switch (feature) {
    case HRNN_FEATURE_NEON: return "NEON (arm-64)";
    case HRNN_FEATURE_OPENCL: return "an OpenCL device";
    case HRNN_FEATURE_CUDA: return "a CUDA device";
    default: return "an unknown feature";
  }
}

// The names of the features in a set, separated by commas.
void append_features(char *text, size_t size, uint64_t features) {
  bool first = true;
  for (uint32_t f = 0; f < 64; f++) {
    if (!(features & bit(f))) continue;
    append(text, size, first ? "" : ", ");
    append(text, size, feature_name(f));
    first = false;
  }
}

#if defined(__x86_64__)
X86Features read_x86() {
  X86Features f = {};
  unsigned a, b, c, d;
  if (__get_cpuid(1, &a, &b, &c, &d)) f.words[kLeaf1Ecx] = c;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) f.words[kLeaf7Ebx] = b, f.words[kLeaf7Ecx] = c;
  if (f.words[kLeaf7Ebx] != 0 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) f.words[kLeaf71Eax] = a;
  if ((f.words[kLeaf1Ecx] >> 27) & 1) {  // OSXSAVE
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

// The number a text begins with, times what its unit says: "32K".
uint64_t parse_size(const char *text) {
  uint64_t size = 0;
  for (; *text >= '0' && *text <= '9'; text++) size = 10 * size + uint64_t(*text - '0');
  return size << (*text == 'M' ? 20 : *text == 'K' ? 10 : 0);
}

// Bytes of the data cache of a level as Linux describes the first core; 0 where it does not.
uint64_t cache_in_sysfs(uint64_t level) {
  for (int index = 0; index < 8; index++) {
    auto read = [index](const char *what, char *text, int size) {
      char path[80];
      snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/%s", index, what);
      FILE *file = fopen(path, "r");
      const bool done = file != nullptr && fgets(text, size, file) != nullptr;
      if (file != nullptr) fclose(file);
      return done;
    };
    char its_level[16], type[16], size[16];
    if (!read("level", its_level, sizeof its_level)) return 0;
    if (parse_size(its_level) == level && read("type", type, sizeof type) && type[0] != 'I' && read("size", size, sizeof size))
      return parse_size(size);
  }
  return 0;
}

// The C library is asked second: it knows fewer machines, and where cores share caches in groups it adds them up.
uint64_t detect_cache(int level) {
  if (const uint64_t bytes = cache_in_sysfs(uint64_t(level))) return bytes;
#if defined(_SC_LEVEL1_DCACHE_SIZE)
  constexpr int kNames[] = {_SC_LEVEL1_DCACHE_SIZE, _SC_LEVEL2_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE};
  const long said = sysconf(kNames[level - 1]);
  if (said > 0) return uint64_t(said);
#endif
  return 0;
}

void detect_cpu(hrnn_machine *machine) {
  for (int level = 1; level <= 3; level++) machine->cache_bytes[level - 1] = detect_cache(level);
#if defined(__x86_64__)
  read_x86_name(machine->cpu, sizeof machine->cpu);
  set_x86_features(read_x86(), machine);
#elif defined(__aarch64__)
  snprintf(machine->cpu, sizeof machine->cpu, "arm-64");
  machine->features = bit(HRNN_FEATURE_NEON);  // part of the architecture
#endif
}

void detect_device(const hrnn_device &device, hrnn_machine *machine) {
  char reason[200] = {};
  if (device.probe(reason, sizeof reason)) {
    machine->features |= bit(device.feature);
    return;
  }
  char clause[256];
  snprintf(clause, sizeof clause, "%s%s: %s", machine->device_refused[0] ? "; " : "", device.name, reason);
  append(machine->device_refused, sizeof machine->device_refused, clause);
}

}  // namespace

void set_x86_features(const X86Features &f, hrnn_machine *machine) {
  machine->features = machine->unsaved = 0;
  for (const FeatureRow &row : kX86Features) {
    if (!((f.words[row.word] >> row.bit) & 1)) continue;
    const bool saved = (f.xcr0 & row.state) == row.state;
    (saved ? machine->features : machine->unsaved) |= bit(row.feature);
  }
}

CacheSizes cache_sizes(const hrnn_machine &machine) {
  constexpr int64_t kLeastL1 = 32 * 1024, kLeastL2 = 256 * 1024, kMost = int64_t{1} << 40;
  auto sane = [](uint64_t said, int64_t otherwise) { return said > 0 && said < uint64_t(kMost) ? int64_t(said) : otherwise; };
  return {sane(machine.cache_bytes[0], kLeastL1), sane(machine.cache_bytes[1], kLeastL2)};
}

}  // namespace hrnn

extern "C" {

int hrnn_target_usable(const hrnn_target *target, const hrnn_machine *machine, char *why, size_t why_bytes) {
  using namespace hrnn;
  const uint64_t missing = target->features & ~machine->features;
  if (why == nullptr || why_bytes == 0) return missing == 0;
  why[0] = 0;
  if (missing == 0) return 1;
  const uint64_t unsaved = missing & machine->unsaved, absent = missing & ~unsaved;
  if (absent != 0) {
    append(why, why_bytes, "this machine lacks ");
    append_features(why, why_bytes, absent);
  }
  if (unsaved != 0) {
    append(why, why_bytes, absent != 0 ? "; " : "");
    append(why, why_bytes, "the operating system does not save the registers of ");
    append_features(why, why_bytes, unsaved);
  }
  if (target->use != HRNN_USE_CPU && machine->device_refused[0]) {
    append(why, why_bytes, " (");
    append(why, why_bytes, machine->device_refused);
    append(why, why_bytes, ")");
  }
  return 0;
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
