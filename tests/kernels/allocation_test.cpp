// SPDX-License-Identifier: Apache-2.0
//
// After a plan and a state exist, running and streaming neither allocate nor lock nor make a system call.
#include <gtest/gtest.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <vector>

#include "hrnn/prebuilt.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HRNN_SANITIZED 1
#endif

namespace {
std::atomic<long> allocations{0};
}

#if defined(__GLIBC__) && !defined(HRNN_SANITIZED)
// In front of the C library's own, for the whole program.
extern "C" {
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

void *malloc(size_t size) { return allocations++, __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return allocations++, __libc_calloc(count, size); }
void *realloc(void *memory, size_t size) { return allocations++, __libc_realloc(memory, size); }
void *memalign(size_t alignment, size_t size) { return allocations++, __libc_memalign(alignment, size); }
void *aligned_alloc(size_t alignment, size_t size) { return allocations++, __libc_memalign(alignment, size); }
int posix_memalign(void **memory, size_t alignment, size_t size) {
  allocations++;
  *memory = __libc_memalign(alignment, size);
  return *memory == nullptr;
}
void free(void *memory) {
  if (memory != nullptr) allocations++;
  __libc_free(memory);
}
}
#define HRNN_COUNTS_ALLOCATIONS 1
#endif

namespace {

struct Layer {
  const char *cell;
  int dtype, direction;
  bool lengths, general;
};

// A plan with a state and arrays, ready to run.
class Ready {
 public:
  Ready(const Layer &layer, const char *target) {
    hrnn_problem problem = {};
    problem.struct_size = sizeof problem;
    problem.dtype = layer.dtype;
    problem.cell = layer.cell;
    problem.direction = layer.direction;
    problem.input_size = kInput;
    problem.hidden_size = kHidden;
    problem.clip_set = layer.general;
    problem.clip = 2;
    const std::vector<double> zeros(4 * 3 * kHidden * (kHidden + kInput), 0.0);  // enough for either type
    hrnn_weights weights = {};
    weights.struct_size = sizeof weights;
    weights.w = weights.r = zeros.data();
    hrnn_options options = {};
    options.struct_size = sizeof options;
    options.tables = hrnn_prebuilt_tables;
    options.table_count = uint32_t(hrnn_prebuilt_table_count);
    options.force_variant = target;
    hrnn_error error;
    if (hrnn_plan_create(&problem, &weights, &options, &plan, &error) != HRNN_OK) {
      ADD_FAILURE() << error.message;
      return;
    }
    EXPECT_EQ(hrnn_state_create(plan, kBatch, &state, &error), HRNN_OK);
    x.assign(kTime * kBatch * kInput, 0.5);
    y.assign(2 * kTime * kBatch * kHidden, 0.5);
    h.assign(2 * kBatch * kHidden, 0.5);
    lengths = {3, 0, kTime, 1, 2};
    args.struct_size = sizeof args;
    args.time = kTime;
    args.batch = kBatch;
    args.x = x.data();
    args.y = y.data();
    args.h_n = h.data();
    args.lengths = layer.lengths ? lengths.data() : nullptr;
  }
  ~Ready() {
    hrnn_state_destroy(state);
    hrnn_plan_destroy(plan);
  }

  // Everything that is promised to be fit for a real-time thread.
  bool run_and_stream(bool forward) {
    bool ok = hrnn_plan_run(plan, state, &args, nullptr) == HRNN_OK;
    hrnn_state_reset(state);
    ok &= hrnn_state_set(state, kBatch, h.data(), nullptr) == HRNN_OK;
    for (int i = 0; i < 3 && forward; i++) ok &= hrnn_stream(plan, state, &args, nullptr) == HRNN_OK;
    ok &= hrnn_state_get(state, kBatch, h.data(), nullptr) == HRNN_OK;
    // A call that fails says so by the same rules.
    hrnn_run_args wrong = args;
    wrong.batch = kBatch + 1;
    hrnn_error error;
    return ok && hrnn_plan_run(plan, state, &wrong, &error) == HRNN_CAPACITY;
  }

  // More steps than are projected at once.
  static constexpr int kInput = 3, kHidden = 37, kTime = 200, kBatch = 5;
  hrnn_plan *plan = nullptr;
  hrnn_state *state = nullptr;
  hrnn_run_args args = {};
  std::vector<double> x, y, h;
  std::vector<int32_t> lengths;
};

template <class Visit>
void for_each_layer(Visit visit) {
  hrnn_machine machine = {};
  machine.struct_size = sizeof machine;
  hrnn_machine_detect(nullptr, 0, &machine);
  std::vector<const hrnn_target *> targets;
  for (size_t i = 0; i < hrnn_prebuilt_table_count; i++) {
    const hrnn_target *target = hrnn_prebuilt_tables[i]->kernels[0].target;
    if (hrnn_target_usable(target, &machine, nullptr, 0)) targets.push_back(target);
  }
  ASSERT_FALSE(targets.empty());
  for (const hrnn_target *target : targets)
    for (const char *cell : {"rnn", "gru", "gru_reset_before"})
      for (int dtype : {HRNN_F32, HRNN_F64})
        for (int direction : {HRNN_FORWARD, HRNN_REVERSE, HRNN_BIDIRECTIONAL})
          for (bool lengths : {false, true})
            for (bool general : {false, true}) {
              const Layer layer = {cell, dtype, direction, lengths, general};
              SCOPED_TRACE(std::string(target->name) + " " + cell + " type " + std::to_string(dtype) + " direction " +
                           std::to_string(direction) + (lengths ? " lengths" : "") + (general ? " clip" : ""));
              Ready ready(layer, target->name);
              if (ready.state != nullptr) visit(layer, ready);
            }
}

TEST(Run, DoesNotAllocate) {
#if defined(HRNN_COUNTS_ALLOCATIONS)
  const long at_start = allocations;
  delete new int;
  free(malloc(1));
  ASSERT_GE(allocations - at_start, 2) << "allocations are not counted";
  for_each_layer([](const Layer &layer, Ready &ready) {
    const long before = allocations;
    const bool ok = ready.run_and_stream(layer.direction == HRNN_FORWARD);
    const long after = allocations;
    EXPECT_TRUE(ok);
    EXPECT_EQ(after - before, 0);
  });
#else
  GTEST_SKIP() << "allocations are counted with glibc and without a sanitizer";
#endif
}

// How `work` ended in a child that may use no system call but read, write and _exit: its exit code, or -signal.
template <class Work>
int in_strict_child(Work work) {
  const pid_t child = fork();
  if (child == 0) {
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0) _exit(77);
    const int code = work() ? 0 : 1;
    syscall(SYS_exit, code);  // not exit_group, which strict mode forbids
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

// A lock that is free costs no system call: that none is used at all is checked by
// runtime_symbols_test.cpp.
TEST(Run, MakesNoSystemCall) {
#if defined(HRNN_SANITIZED)
  GTEST_SKIP() << "sanitizers make system calls of their own";
#endif
  if (in_strict_child([] { return true; }) != 0) GTEST_SKIP() << "no seccomp here";
  ASSERT_EQ(in_strict_child([] { return getppid() > 0; }), -SIGKILL) << "system calls are not noticed";
  for_each_layer([](const Layer &layer, Ready &ready) {
    EXPECT_EQ(in_strict_child([&] { return ready.run_and_stream(layer.direction == HRNN_FORWARD); }), 0);
  });
}

}  // namespace
