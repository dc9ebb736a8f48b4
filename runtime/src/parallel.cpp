// SPDX-License-Identifier: Apache-2.0
//
// Layers by the threads of a team. Either the threads of a direction divide its panels (shares) and meet at a flag after
// each phase of a step; or a direction is one thread's at a time (strands): those that do not wait for each other run at
// the same time, and a layer that reads what another one writes follows it a few steps behind (a wavefront). An estimate
// says which is faster, or that one thread is. The caller begins alone, whether or not the others are awake.
#include <algorithm>

#include "plan_internal.h"

namespace hrnn {
namespace {

// ---- Estimates, in float32 multiply-adds of weights from the second-level cache: some 50 of them are a nanosecond --------

constexpr double kMeetWork = 25e3;      // meeting at a flag
constexpr double kLineWork = 2.5e3;     // reading a cache line that another core has written
constexpr double kHandOverWork = 50e3;  // calling threads that are awake, and seeing that they are done

// The steps of a direction, for the busiest of `shares` threads. What does not fit the second-level cache, part of which is others',
// comes from the next one, which is some 7 times slower; the rows of a batch share it.
double steps_work(const LayerRun &run, int64_t shares) {
  const hrnn_plan &plan = run.plan();
  const double batch = double(run.args.batch), panels = double((plan.panels + shares - 1) / shares);
  const double floats = double(plan.cell.gates * kRowBytes / 4) * panels;  // in the time of as many float32
  const double fits = 0.75 * double(plan.caches.l2) / (floats * 4 * double(plan.hidden));
  const double slower = fits >= 1 ? 1 : 1 + 6 * (1 - fits) / batch;
  return double(run.args.time) * batch * floats * (double(plan.hidden) * slower + double(plan.input));
}

double layer_work(const LayerRun &run) { return double(run.directions()) * steps_work(run, 1); }

// As many steps as are so much work for one thread, at least one.
int64_t steps_of_work(const LayerRun &run, double work) {
  return std::max<int64_t>(1, int64_t(work * double(run.args.time) / layer_work(run)));
}

// For a state with shares.
double shares_work(const LayerRun &run) {
  const int64_t shares = run.state().share_count, lines = run.args.batch * run.plan().panels * (shares - 1) / shares;
  const double meetings = double(run.args.time * run.plan().cell.phases);
  return steps_work(run, shares) + meetings * (kMeetWork + double(lines) * kLineWork) + kHandOverWork;
}

uint32_t shares_threads(const LayerRun &run) { return uint32_t(run.directions()) * run.state().share_count; }

bool worth_shares(const LayerRun &run) {
  return run.plan().team != nullptr && run.state().share_count > 1 && shares_work(run) < 0.95 * layer_work(run);
}

// ---- Which layers may run at the same time -----------------------------------------------------------------------------

// The memory of the rows of an array.
class Region {
 public:
  // Rows of `row` values at every combination of (extent, stride).
  Region(const void *base, int64_t row, const int64_t (*dims)[2], int count, int64_t element) : row_(row * element) {
    begin_ = end_ = uintptr_t(base);
    bool empty = base == nullptr;
    for (int i = 0; i < count; i++) empty |= dims[i][0] == 0;
    if (empty) return;
    for (int i = 0; i < count; i++) {
      const int64_t stride = dims[i][1] * element, reach = (dims[i][0] - 1) * stride;
      if (dims[i][0] == 1) continue;
      (reach < 0 ? begin_ : end_) += uintptr_t(reach);
      strides_[count_++] = stride < 0 ? -stride : stride;
    }
    end_ += uintptr_t(row_);
  }

  bool apart(const Region &other) const {
    if (begin_ == end_ || other.begin_ == other.end_ || begin_ >= other.end_ || other.begin_ >= end_) return true;
    return begin_ < other.begin_ ? in_turns(other) : other.in_turns(*this);
  }

 private:
  // True where the other's rows lie between these, as columns of one matrix do.
  bool in_turns(const Region &other) const {
    if (count_ == 0 || other.count_ != count_) return false;
    const int64_t between = int64_t(other.begin_ - begin_), pitch = *std::min_element(strides_, strides_ + count_);
    for (int i = 0; i < count_; i++)
      if (pitch == 0 || strides_[i] % pitch != 0 || other.strides_[i] != strides_[i]) return false;
    return between >= row_ && between + other.row_ <= pitch;
  }

  uintptr_t begin_, end_;
  int64_t row_, strides_[3];
  int count_ = 0;
};

Region x_region(const LayerRun &run) {
  const hrnn_run_args &a = run.args;
  const int64_t dims[][2] = {{a.time, a.x_time_stride}, {a.batch, a.x_batch_stride}};
  return {a.x, run.plan().input, dims, 2, run.plan().element};
}

Region y_region(const LayerRun &run) {
  const hrnn_run_args &a = run.args;
  const int64_t dims[][2] = {{a.time, a.y_time_stride}, {run.directions(), a.y_dir_stride}, {a.batch, a.y_batch_stride}};
  return {a.y, run.plan().hidden, dims, 3, run.plan().element};
}

Region state_region(const LayerRun &run, const void *base, int64_t dir_stride, int64_t batch_stride) {
  const int64_t dims[][2] = {{run.directions(), dir_stride}, {run.args.batch, batch_stride}};
  return {base, run.plan().hidden, dims, 2, run.plan().element};
}

// True where `later` reads as x what `earlier` writes as y, in the same order of steps.
bool follows(const LayerRun &later, const LayerRun &earlier) {
  const hrnn_run_args &to = later.args, &from = earlier.args;
  const bool same_lanes = to.lengths == from.lengths && (to.lengths == nullptr || later.tile() == earlier.tile());
  return to.x == from.y && to.time == from.time && to.batch == from.batch && same_lanes &&
         later.directions() == 1 && earlier.directions() == 1 && later.passes[0].reverse == earlier.passes[0].reverse &&
         later.plan().input == earlier.plan().hidden && later.plan().element == earlier.plan().element &&
         (to.time == 1 || to.x_time_stride == from.y_time_stride) &&
         (to.batch == 1 || to.x_batch_stride == from.y_batch_stride);
}

// True where nothing changes if `later` runs at the same time as `earlier`, or a few steps behind where it follows it, but
// that all initial states are read before and all final ones written after.
bool may_run_together(const LayerRun &later, const LayerRun &earlier) {
  const hrnn_run_args &to = later.args, &from = earlier.args;
  const Region y = y_region(later), y_before = y_region(earlier);
  const Region h0 = state_region(later, to.h0, to.h0_dir_stride, to.h0_batch_stride);
  const Region h_n = state_region(earlier, from.h_n, from.h_n_dir_stride, from.h_n_batch_stride);
  return (follows(later, earlier) || x_region(later).apart(y_before)) && x_region(later).apart(h_n) && h0.apart(y_before) &&
         h0.apart(h_n) && y.apart(x_region(earlier)) && y.apart(y_before) && y.apart(h_n);
}

// ---- Strands -----------------------------------------------------------------------------------------------------------

// A direction of a layer: its steps follow each other, whichever thread computes them. On a cache line of its own.
struct alignas(64) Strand {
  const Pass *pass;
  const Strand *source;  // writes what this one reads, or null
  int64_t total, block;  // steps: all, and those that are computed in one go
  int64_t done;          // steps whose outputs others may read
  uint32_t taken;        // a thread has it
  int code;

  int64_t steps_done() const { return __atomic_load_n(&done, __ATOMIC_ACQUIRE); }
  bool finished() const { return steps_done() == total; }
  int64_t next() const { return std::min(total, steps_done() + block); }
  bool ready() const { return !finished() && (source == nullptr || source->steps_done() >= next()); }

  // Takes it if it has steps to compute and no other thread has it.
  bool take() {
    return __atomic_load_n(&taken, __ATOMIC_RELAXED) == 0 && ready() && __atomic_exchange_n(&taken, 1, __ATOMIC_ACQUIRE) == 0;
  }

  // As many steps as can be computed; none, if another thread did them just before this one took it.
  void run() {
    while (ready()) {
      const int64_t end = next();
      if (source != nullptr) fetch_inputs(*pass, done, end);
      const int failed = run_alone(*pass, done, end);
      if (code == 0) code = failed;
      __atomic_store_n(&done, end, __ATOMIC_RELEASE);
    }
    __atomic_store_n(&taken, 0, __ATOMIC_RELEASE);
  }
};

struct Strands {
  Strand all[2 * kMostLayers];
  int count = 0;

  bool finished() const {
    return std::all_of(all, all + count, [](const Strand &s) { return s.finished(); });
  }
};

// Steps of a block where layers follow each other: few, since each begins a block later than the one before it; but as many
// rows as make up for reading all of W.
int64_t block_steps(const LayerRun &run) {
  constexpr int64_t kRows = 8, kBlocks = 12;
  const int64_t most = kRows / std::max<int64_t>(1, run.args.batch);
  return std::max<int64_t>(1, std::min(most, run.args.time / kBlocks));
}

// Computes strands until all are done. A thread stays with one as long as it has steps to compute.
void run_strands(void *argument, uint32_t) {
  Strands &strands = *static_cast<Strands *>(argument);
  for (int looks = 0; !strands.finished(); relax(&looks)) {
    for (int i = 0; i < strands.count; i++) {
      if (!strands.all[i].take()) continue;
      strands.all[i].run();
      looks = 0;
      break;
    }
  }
}

// Layers that may run together.
class Group {
 public:
  // False, and nothing changes, where the layer must wait for one of those before.
  bool add(LayerRun *run) {
    int source = kNone;
    for (int i = 0; i < count_; i++) {
      if (!may_run_together(*run, *runs_[i])) return false;
      if (follows(*run, *runs_[i])) source = i;
    }
    runs_[count_] = run;
    in_wavefront_[count_] = source != kNone;
    if (source != kNone) in_wavefront_[source] = true;
    sources_[count_++] = source;
    return true;
  }

  // Of the team, that can work at the same time.
  uint32_t threads() const {
    uint32_t strands = 0;
    for (int i = 0; i < count_; i++) strands += uint32_t(runs_[i]->directions());
    return std::min(strands, team_threads(team()));
  }

  // By one thread.
  double alone_work() const {
    double sum = 0;
    for (int i = 0; i < count_; i++) sum += layer_work(*runs_[i]);
    return sum;
  }

  // One after the other, each in its own best way.
  double in_order_work() const {
    double sum = 0;
    for (int i = 0; i < count_; i++) sum += worth_shares(*runs_[i]) ? shares_work(*runs_[i]) : layer_work(*runs_[i]);
    return sum;
  }

  double strands_work() const {
    double longest = 0, behind = 0;
    for (int i = 0; i < count_; i++) {
      const double work = steps_work(*runs_[i], 1);
      longest = std::max(longest, work);
      if (sources_[i] != kNone) behind += work * double(block_steps(*runs_[i])) / double(runs_[i]->args.time);
    }
    return std::max(longest, alone_work() / double(threads())) + behind + kHandOverWork;
  }

  // `*done`: the layers that succeeded.
  hrnn_status run(int *done, hrnn_error *error) {
    Strands strands;
    int first[kMostLayers];  // strand of a layer
    for (int i = 0; i < count_; i++) {
      runs_[i]->begin();
      first[i] = strands.count;
      for (int64_t d = 0; d < runs_[i]->directions(); d++) {
        const Pass &pass = runs_[i]->passes[d];
        const Strand *source = sources_[i] == kNone ? nullptr : &strands.all[first[sources_[i]]];
        const int64_t block = in_wavefront_[i] ? block_steps(*runs_[i]) : pass.steps();
        strands.all[strands.count++] = {&pass, source, pass.steps(), block, 0, 0, 0};
      }
    }
    team_run(team(), threads(), run_strands, &strands);
    hrnn_status status = HRNN_OK;
    for (*done = 0; *done < count_; ++*done) {
      LayerRun &run = *runs_[*done];
      for (int64_t d = 0; d < run.directions() && status == HRNN_OK; d++)
        status = finish_steps(run.passes[d], strands.all[first[*done] + d].code, error);
      if (status != HRNN_OK) break;
      run.end();
    }
    return status;
  }

 private:
  static constexpr int kNone = -1;

  hrnn_team *team() const { return runs_[0]->plan().team; }

  LayerRun *runs_[kMostLayers];
  int sources_[kMostLayers];  // the layers that they follow
  bool in_wavefront_[kMostLayers];
  int count_ = 0;
};

// ---- Shares ------------------------------------------------------------------------------------------------------------

struct Shares {
  LayerRun *run;
  Barrier barriers[2];
  int codes[2];
  uint32_t others, come;  // threads besides the caller: all, and those that are there
  int64_t done;           // steps of the caller alone, kNotYet: it has not stopped

  static constexpr int64_t kNotYet = -1;

  void note(int64_t direction, int code) {
    if (code != 0) __atomic_store_n(&codes[direction], code, __ATOMIC_RELAXED);
  }
};

// The caller alone, until all others are there: those that are awake come at once.
void begin_shares(Shares *work) {
  constexpr int kLooks = 100;  // 1 us
  const Pass *passes = work->run->passes;
  const int64_t total = passes[0].steps(), block = steps_of_work(*work->run, kWakeWork / 2);
  const auto all_there = [&] { return __atomic_load_n(&work->come, __ATOMIC_ACQUIRE) == work->others; };
  for (int looks = 0; looks < kLooks && !all_there();) relax(&looks);
  int64_t step = 0;
  while (step < total && !all_there()) {
    const int64_t end = std::min(total, step + block);
    for (int64_t d = 0; d < work->run->directions(); d++) work->note(d, run_alone(passes[d], step, end));
    step = end;
  }
  __atomic_store_n(&work->done, step, __ATOMIC_RELEASE);
}

void run_share(void *argument, uint32_t index) {
  Shares &work = *static_cast<Shares *>(argument);
  if (index == 0) {
    begin_shares(&work);
  } else {
    __atomic_add_fetch(&work.come, 1, __ATOMIC_ACQ_REL);
    for (int looks = 0; __atomic_load_n(&work.done, __ATOMIC_ACQUIRE) == Shares::kNotYet;) relax(&looks);
  }
  const uint32_t shares = work.run->state().share_count;
  const Pass &pass = work.run->passes[index / shares];
  DirectionState &d = pass.state->directions[pass.direction];
  if (work.done == pass.steps()) return;  // perhaps without all of the others
  work.note(pass.direction, run_steps(pass, d.shares[index % shares], work.done, pass.steps(), &work.barriers[pass.direction]));
}

hrnn_status run_shares(LayerRun *run, hrnn_error *error) {
  const uint32_t shares = run->state().share_count, threads = shares_threads(*run);
  Shares work = {run, {}, {}, threads - 1, 0, Shares::kNotYet};
  for (Barrier &barrier : work.barriers) barrier.init(shares);
  run->begin();
  team_run(run->plan().team, threads, run_share, &work);
  hrnn_status status = HRNN_OK;
  for (int64_t d = 0; d < run->directions() && status == HRNN_OK; d++)
    status = finish_steps(run->passes[d], work.codes[d], error);
  if (status == HRNN_OK) run->end();
  return status;
}

}  // namespace

hrnn_status run_layers(const LayerCall *calls, int count, int *done, hrnn_error *error) {
  LayerRun runs[kMostLayers];
  *done = 0;
  hrnn_status status = runs[0].check(calls[0], false, error);
  if (status != HRNN_OK) return status;
  hrnn_team *team = runs[0].plan().choice.device == nullptr ? runs[0].plan().team : nullptr;
  if (team != nullptr && runs[0].args.time > 0 && runs[0].args.batch > 0) {
    // What is wrong with a later layer is said when its turn comes.
    Group group;
    for (int i = 0; i < count && (i == 0 || runs[i].check(calls[i], false, nullptr) == HRNN_OK); i++)
      if (runs[i].plan().team != team || runs[i].plan().choice.device != nullptr || !group.add(&runs[i])) break;
    if (group.strands_work() < 0.95 * group.in_order_work()) {
      if (team_acquire(team, group.threads(), group.alone_work() - group.strands_work())) {
        status = group.run(done, error);
        team_release(team);
        return status;
      }
    } else if (worth_shares(runs[0]) && team_acquire(team, shares_threads(runs[0]), layer_work(runs[0]) - shares_work(runs[0]))) {
      status = run_shares(&runs[0], error);
      team_release(team);
      *done = status == HRNN_OK;
      return status;
    }
  }
  runs[0].begin();
  status = runs[0].run_alone(error);
  if (status == HRNN_OK) runs[0].end();
  *done = status == HRNN_OK;
  return status;
}

}  // namespace hrnn
