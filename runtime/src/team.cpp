// SPDX-License-Identifier: Apache-2.0
#include "team.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "array.h"
#include "status.h"

namespace hrnn {
namespace {

constexpr uint32_t kMostThreads = 256;

// How often a thread looks before it lets others run: some 20 us. There may be fewer cores than threads.
constexpr int kLooks = 2000;

// The core that this thread runs on, -1 where that is not known.
int core() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

uint32_t load(const uint32_t *value) { return __atomic_load_n(value, __ATOMIC_ACQUIRE); }

}  // namespace

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
    uint32_t asleep;
    bool kept_off;  // the caller's core
#if defined(__linux__)
    pid_t id;
    cpu_set_t cores;  // that it may use otherwise
#endif
    pthread_mutex_t mutex;
    pthread_cond_t wake;
  };
  hrnn_team_options options = {};
  uint32_t busy = 0;  // a run has it
  // The number of the round, whether members may join its work, and how many are in it (see below). What follows changes
  // only while none may be.
  uint64_t round = 0;
  uint32_t count = 0;  // members whose index is below it have a part
  int core = -1;       // the caller's
  bool stopping = false;
  void (*task)(void *, uint32_t) = nullptr;
  void *argument = nullptr;
  // Since members were last woken, multiply-adds: what they saved, and what they could have saved while they slept; and how
  // much of the latter makes them be woken.
  double saved = 0, missed = 0, patience = kWakeWork;
  Member *members = nullptr;  // all but the caller
  uint32_t started = 0;
};

namespace hrnn {
namespace {

using Member = hrnn_team::Member;

// hrnn_team::round, from the lowest bit: members inside, open or not, the number of the round.
constexpr uint64_t kInside = 0xffff, kOpen = 0x10000, kRound = 0x20000;

uint64_t load_round(const hrnn_team *team) { return __atomic_load_n(&team->round, __ATOMIC_SEQ_CST); }
uint64_t number(uint64_t round) { return round / kRound; }

// Keeps a member off the caller's core, if it may use others, or lets it use all again. A system may wake a thread on its
// caller's core and leave it there, and then they wait for each other by turns of the scheduler, several times slower than
// one of them alone.
void keep_off(Member *member, bool off) {
#if defined(__linux__)
  const int core = member->team->core;
  if (off && !member->kept_off && sched_getaffinity(member->id, sizeof member->cores, &member->cores) != 0) return;
  cpu_set_t cores = member->cores;
  if (off && (core < 0 || core >= CPU_SETSIZE)) return;
  if (off) CPU_CLR(core, &cores);
  if (CPU_COUNT(&cores) == 0) return;
  sched_setaffinity(member->id, sizeof cores, &cores);
  member->kept_off = off;
#else
  (void)member, (void)off;
#endif
}

// Waits until there is another round than `seen`: awake for a while, since runs often follow each other, then asleep until
// woken.
void next_round(Member *member, uint64_t seen) {
  const hrnn_team *team = member->team;
  for (int looks = 0; looks < kLooks; relax(&looks))
    if (number(load_round(team)) != seen) return;
  pthread_mutex_lock(&member->mutex);
  __atomic_store_n(&member->asleep, 1, __ATOMIC_SEQ_CST);
  while (number(load_round(team)) == seen) pthread_cond_wait(&member->wake, &member->mutex);
  __atomic_store_n(&member->asleep, 0, __ATOMIC_SEQ_CST);
  pthread_mutex_unlock(&member->mutex);
}

// Joins the round if it is still open; `*seen` becomes its number.
bool join_round(hrnn_team *team, uint64_t *seen) {
  uint64_t round = load_round(team);
  while ((round & kOpen) != 0 &&
         !__atomic_compare_exchange_n(&team->round, &round, round + 1, true, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
  }
  *seen = number(round);
  return (round & kOpen) != 0;
}

void *member_main(void *argument) {
  Member *member = static_cast<Member *>(argument);
  hrnn_team *team = member->team;
#if defined(__linux__)
  member->id = gettid();
#endif
  for (uint64_t seen = 0;;) {
    next_round(member, seen);
    if (!join_round(team, &seen)) continue;
    if (team->stopping) return nullptr;
    if (member->index < team->count) {
      if (core() == team->core) keep_off(member, true);
      if (member->kept_off) keep_off(member, false);
      team->task(team->argument, member->index);
    }
    __atomic_sub_fetch(&team->round, 1, __ATOMIC_RELEASE);
  }
}

// Opens a round to the members below `count`. Those that are awake see it.
void begin_round(hrnn_team *team, uint32_t count) {
  const uint32_t others = count - 1;
  team->count = count;
  for (uint32_t i = 0; i < others; i++)
    if (load(&team->members[i].asleep) != 0) keep_off(&team->members[i], true);
  __atomic_store_n(&team->round, (number(team->round) + 1) * kRound + kOpen, __ATOMIC_SEQ_CST);
  for (uint32_t i = 0; i < others; i++) {
    Member &member = team->members[i];
    if (__atomic_load_n(&member.asleep, __ATOMIC_SEQ_CST) == 0) continue;
    pthread_mutex_lock(&member.mutex);
    pthread_cond_signal(&member.wake);
    pthread_mutex_unlock(&member.mutex);
  }
}

void end_round(hrnn_team *team) {
  __atomic_and_fetch(&team->round, ~kOpen, __ATOMIC_ACQ_REL);
  for (int looks = 0; (load_round(team) & kInside) != 0;) relax(&looks);
}

// Whether to call for a run in which others can save so much, though some may sleep. What small runs miss adds up, or else
// runs that follow each other would never get help; where waking did not pay last time, since runs are rare, it waits longer.
bool worth_calling(hrnn_team *team, uint32_t count, double saved) {
  constexpr double kMostPatience = 64 * kWakeWork;
  if (team->options.parallel != nullptr) return saved >= kWakeWork;  // it may have to wake its threads
  bool asleep = false;
  for (uint32_t i = 0; i + 1 < count; i++) asleep |= load(&team->members[i].asleep) != 0;
  if (!asleep) {
    team->saved += saved;
    return true;
  }
  team->missed += saved;
  if (saved < 2 * kWakeWork) {  // they begin with cold caches, too
    if (team->missed < team->patience) return false;
    const bool paid = team->saved > team->missed;
    team->patience = paid ? kWakeWork : team->patience < kMostPatience ? 2 * team->patience : kMostPatience;
  }
  team->saved = team->missed = 0;
  return true;
}

}  // namespace

bool team_acquire(hrnn_team *team, uint32_t count, double saved) {
  if (__atomic_exchange_n(&team->busy, 1, __ATOMIC_ACQUIRE) != 0) return false;
  if (worth_calling(team, count, saved)) return true;
  team_release(team);
  return false;
}

void team_release(hrnn_team *team) { __atomic_store_n(&team->busy, 0, __ATOMIC_RELEASE); }
uint32_t team_threads(const hrnn_team *team) { return team->options.threads; }

void team_run(hrnn_team *team, uint32_t count, void (*task)(void *, uint32_t), void *argument) {
  if (team->options.parallel != nullptr) return team->options.parallel(team->options.pool, count, task, argument);
  team->task = task;
  team->argument = argument;
  team->core = core();
  begin_round(team, count);
  task(argument, 0);
  end_round(team);
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
    pthread_mutex_init(&member.mutex, nullptr);
    pthread_cond_init(&member.wake, nullptr);
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
  begin_round(team, team->started + 1);
  for (uint32_t i = 0; i < team->started; i++) {
    pthread_join(team->members[i].thread, nullptr);
    pthread_cond_destroy(&team->members[i].wake);
    pthread_mutex_destroy(&team->members[i].mutex);
  }
  free(team->members);
  destroy_object(team);
}

}  // extern "C"
