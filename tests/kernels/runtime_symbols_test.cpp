// SPDX-License-Identifier: Apache-2.0
//
// What the runtime's archive expects from elsewhere: memory, strings and mathematics of the C library. So it cannot lock,
// start threads, print, read files, load libraries or end the program, whatever its inputs.
#include <gtest/gtest.h>

#include <cstdio>
#include <set>
#include <sstream>
#include <string>

namespace {

const std::set<std::string> kAllowed = {
    // Memory. Plans, states and sessions are made with it; that runs are not is allocation_test.cpp's.
    "malloc", "calloc", "realloc", "free", "memcpy", "memmove", "memset", "memcmp",
    // Strings, for messages and names; one environment variable, HRNN_FORCE_VARIANT.
    "strlen", "strcmp", "strncmp", "strchr", "strrchr", "strstr", "snprintf", "vsnprintf", "getenv",
    // Teams.
    "pthread_create", "pthread_join", "pthread_mutex_init", "pthread_mutex_lock", "pthread_mutex_unlock",
    "pthread_mutex_destroy", "pthread_cond_init", "pthread_cond_wait", "pthread_cond_signal", "pthread_cond_destroy",
    "gettid", "sched_yield", "sched_getcpu", "sched_getaffinity", "sched_setaffinity", "__sched_cpucount",
    // The sizes of caches.
    "fopen", "fgets", "fclose", "sysconf",
    // Mathematics, for what runs between recurrent layers.
    "exp", "expf", "expm1", "expm1f", "log", "logf", "log1p", "log1pf", "sqrt", "sqrtf", "pow", "powf",
    "fmod", "fmodf", "erf", "erff", "erfc", "erfcf", "sin", "sinf", "cos", "cosf", "tan", "tanf", "asin", "asinf",
    "acos", "acosf", "atan", "atanf", "sinh", "sinhf", "cosh", "coshf", "tanh", "tanhf", "asinh", "asinhf",
    "acosh", "acoshf", "atanh", "atanhf", "floor", "floorf", "ceil", "ceilf", "nearbyint", "nearbyintf",
    // What a compiler may put in.
    "__stack_chk_fail", "__memcpy_chk", "__memmove_chk", "__memset_chk", "__snprintf_chk", "__vsnprintf_chk",
    "_GLOBAL_OFFSET_TABLE_"};

TEST(Runtime, ExpectsLittleOfTheCLibrary) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "sanitizers add symbols of their own";
#endif
  FILE *pipe = popen("nm --format=posix '" HRNN_RUNTIME_ARCHIVE "' 2>/dev/null", "r");
  ASSERT_NE(pipe, nullptr);
  std::string listing;
  char buffer[4096];
  while (const size_t n = fread(buffer, 1, sizeof buffer, pipe)) listing.append(buffer, n);
  if (pclose(pipe) != 0) GTEST_SKIP() << "no nm here";

  std::set<std::string> defined, expected;
  std::istringstream lines(listing);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::string name, type;
    if (!(fields >> name >> type)) continue;
    (type == "U" || type == "w" ? expected : defined).insert(name);
  }
  ASSERT_TRUE(defined.count("hrnn_plan_run")) << "nm lists no symbols";
  for (const std::string &name : expected) EXPECT_TRUE(defined.count(name) || kAllowed.count(name)) << name;
}

}  // namespace
