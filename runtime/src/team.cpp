// SPDX-License-Identifier: Apache-2.0
#include "team.h"

#include <pthread.h>
#include <sched.h>

#include "array.h"
#include "status.h"

namespace hrnn {
namespace {

constexpr uint32_t kMostThreads = 256;

// How often a thread looks before it lets others run: some 20 us. There may be fewer cores than threads.
constexpr int kLooks = 2000;

void relax(int *looks) {
  if (++*looks > kLooks) {
    sched_yield();
    return;
  }
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// The core that this thread runs on, -1 where that is not known.
int core() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

// To another core than this one, if it may use any. A system may wake a thread on its caller's core and leave it there,
// and then they wait for each other by turns of the scheduler, several times slower than one of them alone.
void leave_core(int core) {
#if defined(__linux__)
  cpu_set_t allowed;
  if (core < 0 || core >= CPU_SETSIZE || sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  cpu_set_t others = allowed;
  CPU_CLR(core, &others);
  if (CPU_COUNT(&others) == 0) return;
  sched_setaffinity(0, sizeof others, &others);
  sched_setaffinity(0, sizeof allowed, &allowed);
#else
  (void)core;
#endif
}

uint32_t load(const uint32_t *value) { return __atomic_load_n(value, __ATOMIC_ACQUIRE); }

}  // namespace

void Barrier::wait() {
  const uint32_t turn = load(&turn_);
  if (__atomic_add_fetch(&arrived_, 1, __ATOMIC_ACQ_REL) == count_) {
    __atomic_store_n(&arrived_, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&turn_, turn + 1, __ATOMIC_RELEASE);
    return;
  }
  for (int looks = 0; load(&turn_) == turn;) relax(&looks);
}

}  // namespace hrnn

using namespace hrnn;

struct hrnn_team {
  struct Member {
    hrnn_team *team;
    uint32_t index;
    pthread_t thread;
  };
  hrnn_team_options options = {};
  uint32_t busy = 0;  // a run has it
  // The work of a run. `round` is raised when there is some; a member whose index is below `count` does its part.
  uint32_t round = 0, count = 0, pending = 0;
  int core = -1;  // the caller's
  bool stopping = false;
  void (*task)(void *, uint32_t) = nullptr;
  void *argument = nullptr;
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
  Member *members = nullptr;  // all but the caller
  uint32_t started = 0;
};

namespace hrnn {
namespace {

// Waits for the next round: awake for a while, since runs often follow each other, then asleep.
void next_round(hrnn_team *team, uint32_t seen) {
  for (int looks = 0; looks < kLooks; relax(&looks))
    if (load(&team->round) != seen) return;
  pthread_mutex_lock(&team->mutex);
  while (load(&team->round) == seen) pthread_cond_wait(&team->wake, &team->mutex);
  pthread_mutex_unlock(&team->mutex);
}

void *member_main(void *argument) {
  hrnn_team::Member *member = static_cast<hrnn_team::Member *>(argument);
  hrnn_team *team = member->team;
  for (uint32_t seen = 0;;) {
    next_round(team, seen);
    seen = load(&team->round);
    if (team->stopping) return nullptr;
    if (core() == team->core) leave_core(team->core);
    if (member->index < team->count) team->task(team->argument, member->index);
    __atomic_sub_fetch(&team->pending, 1, __ATOMIC_ACQ_REL);
  }
}

void begin_round(hrnn_team *team) {
  __atomic_store_n(&team->pending, team->started, __ATOMIC_RELAXED);
  pthread_mutex_lock(&team->mutex);
  __atomic_add_fetch(&team->round, 1, __ATOMIC_ACQ_REL);
  pthread_cond_broadcast(&team->wake);
  pthread_mutex_unlock(&team->mutex);
}

}  // namespace

bool team_acquire(hrnn_team *team) { return __atomic_exchange_n(&team->busy, 1, __ATOMIC_ACQUIRE) == 0; }
void team_release(hrnn_team *team) { __atomic_store_n(&team->busy, 0, __ATOMIC_RELEASE); }
uint32_t team_threads(const hrnn_team *team) { return team->options.threads; }

void team_run(hrnn_team *team, uint32_t count, void (*task)(void *, uint32_t), void *argument) {
  if (count == 1) return task(argument, 0);
  if (team->options.parallel != nullptr) return team->options.parallel(team->options.pool, count, task, argument);
  team->count = count;
  team->task = task;
  team->argument = argument;
  team->core = core();
  begin_round(team);
  task(argument, 0);
  for (int looks = 0; load(&team->pending) != 0;) relax(&looks);
}

}  // namespace hrnn

extern "C" {

hrnn_status hrnn_team_create(const hrnn_team_options *options, hrnn_team **out, hrnn_error *error) {
  if (out == nullptr) return fail(error, HRNN_INVALID_ARGUMENT, "team is NULL");
  *out = nullptr;
  if (options == nullptr || options->struct_size != sizeof(hrnn_team_options))
    return fail(error, HRNN_INVALID_ARGUMENT, "options.struct_size is %u; this library expects %u",
                options == nullptr ? 0 : options->struct_size, unsigned(sizeof(hrnn_team_options)));
  if (options->threads < 1 || options->threads > kMostThreads)
    return fail(error, HRNN_INVALID_ARGUMENT, "options.threads is %u; it must be between 1 and %u", options->threads,
                kMostThreads);
  hrnn_team *team = create_object<hrnn_team>();
  if (team == nullptr) return fail(error, HRNN_OUT_OF_MEMORY, "no memory for a team");
  team->options = *options;
  const uint32_t others = options->parallel != nullptr ? 0 : options->threads - 1;
  team->members = static_cast<hrnn_team::Member *>(calloc(others > 0 ? others : 1, sizeof(hrnn_team::Member)));
  if (team->members == nullptr) {
    hrnn_team_destroy(team);
    return fail(error, HRNN_OUT_OF_MEMORY, "no memory for a team of %u threads", options->threads);
  }
  for (; team->started < others; team->started++) {
    hrnn_team::Member &member = team->members[team->started];
    member.team = team;
    member.index = team->started + 1;
    const int code = pthread_create(&member.thread, nullptr, member_main, &member);
    if (code == 0) continue;
    const uint32_t failed = member.index;
    hrnn_team_destroy(team);
    return fail(error, HRNN_OUT_OF_MEMORY, "thread %u of %u cannot be started (error %d)", failed, options->threads - 1, code);
  }
  *out = team;
  return HRNN_OK;
}

void hrnn_team_destroy(hrnn_team *team) {
  if (team == nullptr) return;
  team->stopping = true;
  begin_round(team);
  for (uint32_t i = 0; i < team->started; i++) pthread_join(team->members[i].thread, nullptr);
  pthread_cond_destroy(&team->wake);
  pthread_mutex_destroy(&team->mutex);
  free(team->members);
  destroy_object(team);
}

}  // extern "C"
