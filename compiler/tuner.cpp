// SPDX-License-Identifier: Apache-2.0
#include "tuner.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <random>

#include "tune_layer.h"
#include "variants.h"

namespace hrnn {
namespace {

// After these rounds of a race the slower half drops out.
constexpr int kHalvings[] = {3, 6, 12};
// The first ones after a race are measured again, so often. 25 pairs put the 99 % confidence interval of a median between
// the 7th and the 19th of them.
constexpr size_t kFinalists = 2;
constexpr int kConfirmations = 25;
constexpr double kConfidence = 2.576;  // 99 %, in standard deviations
// Less is no reason for a table of its own, even where it is certain.
constexpr double kLeastGain = 0.01;
// Of the race, to be worth a confirmation.
constexpr double kPromising = 1.004;

// ---- Tables of candidates ----------------------------------------------------------------------------------------------

std::vector<KernelFamily> families_of(const Problem &problem) {
  const Cell &cell = cell_by_name(problem.cell);
  std::vector<KernelFamily> families = {{HRNN_PROJECTION, "", {}, cell.gates, HRNN_F32, 0}};
  add_steps(&families, {HRNN_STEP, problem.cell, cell.default_activations, 0, HRNN_F32, 0});
  return families;
}

class Compiler {
 public:
  Compiler(const TargetRow &target, const CompileKernel &compile) : target_(target), compile_(compile) {}

  const JitKernel &get(const KernelSpec &spec) {
    std::shared_ptr<const JitKernel> &kernel =
        kernels_[kernel_symbol("k", spec, target_) + describe(spec.tile)];
    if (!kernel) kernel = compile_(spec, target_);
    return *kernel;
  }

 private:
  const TargetRow &target_;
  const CompileKernel &compile_;
  std::map<std::string, std::shared_ptr<const JitKernel>> kernels_;
};

// The kernels of a problem's layer, as a library made with these tuned tiles has them.
class KernelTable {
 public:
  KernelTable(const Problem &problem, const TargetRow &target, const std::vector<TunedTile> &tuned, Compiler *compiler)
      : target_{target.name, target.features, target.rank, uint32_t(target.use)} {
    std::string identities;
    for (const KernelFamily &family : families_of(problem)) {
      for (const KernelSpec &spec : expand(family, target, tuned)) {
        const JitKernel &kernel = compiler->get(spec);
        hrnn_kernel row = kernel_row(spec);
        row.symbol = kernel.symbol.c_str();
        row.cell = spec.kind == HRNN_PROJECTION ? "" : problem.cell;
        row.target = &target_;
        row.entry = kernel.entry;
        rows_.push_back(row);
        identities += fmt::format("{}:{} ", kernel.identity, row.cache_level);
      }
    }
    identity_ = hash_text(identities + hrnn_version());
    table_.abi_version = HRNN_ABI_VERSION;
    table_.count = uint32_t(rows_.size());
    table_.kernels = rows_.data();
  }
  KernelTable(const KernelTable &) = delete;
  KernelTable &operator=(const KernelTable &) = delete;

  const hrnn_kernel_table *get() const { return &table_; }
  const std::string &identity() const { return identity_; }
  std::vector<hrnn_kernel> &rows() { return rows_; }

 private:
  hrnn_target target_;
  std::vector<hrnn_kernel> rows_;
  hrnn_kernel_table table_{};
  std::string identity_;
};

// Tells whether kernels of `table` that `other` has not are called. An entry takes nothing but its arguments, so each needs a function
// of its own; a table differs from today's in a tile, those for the remainder of the panels and the one that
// prefetches.
class Probe {
 public:
  Probe(KernelTable *table, const KernelTable &other) : table_(table) {
    int used = 0;
    called_ = false;
    for (hrnn_kernel &row : table->rows()) {
      entries_.push_back(row.entry);
      const hrnn_kernel_table &old = *other.get();
      const bool known = std::any_of(old.kernels, old.kernels + old.count, [&](const hrnn_kernel &k) {
        return k.entry == row.entry && k.cache_level == row.cache_level;
      });
      if (known || used == kSlots) continue;
      originals_[used] = row.entry;
      row.entry = kEntries[used++];
    }
  }
  ~Probe() {
    for (size_t i = 0; i < entries_.size(); i++) table_->rows()[i].entry = entries_[i];
  }
  bool called() const { return called_; }

 private:
  static constexpr int kSlots = 8;
  template <int N>
  static int call(void **args) {
    called_ = true;
    return originals_[N](args);
  }

  static constexpr hrnn_kernel_entry kEntries[kSlots] = {call<0>, call<1>, call<2>, call<3>, call<4>, call<5>, call<6>, call<7>};
  static bool called_;
  static hrnn_kernel_entry originals_[kSlots];
  KernelTable *table_;
  std::vector<hrnn_kernel_entry> entries_;
};
bool Probe::called_;
hrnn_kernel_entry Probe::originals_[Probe::kSlots];

// ---- What is searched ----------------------------------------------------------------------------------------------------

// A use of a product's kernels that may have a tile of its own, and the tile that serves it today.
struct Slot {
  TiledProduct product;
  Tile use, today;
};

// Many rows, a few, two, one; one with weights in the first-level and in the second-level cache.
const Tile kUses[] = {{1, 8, false, 1, 1, 0}, {1, 4, false, 1, 1, 0}, {1, 2, false, 1, 1, 0},
                      {1, 1, false, 1, 1, 0}, {1, 1, false, 1, 1, 1}, {1, 1, false, 1, 1, 2}};

std::string use_name(const Tile &use) {
  if (use.rows > 1) return use.rows > 4 ? "many rows" : use.rows > 2 ? "a few rows" : "two rows";
  return use.cache_level == 0 ? "one row" : fmt::format("one row, weights in L{}", use.cache_level);
}

// Where no tile is made for this very use, the one for the next more general use serves it.
Tile tile_today(const TiledProduct &product, const Tile &use) {
  const std::vector<Tile> all = tiles(product);
  auto made_for = [&](const Tile &wanted) {
    return std::find_if(all.begin(), all.end(), [&](const Tile &tile) { return same_use(tile, wanted); });
  };
  auto found = made_for(use);
  if (found == all.end()) found = use.rows > 2 ? all.begin() : made_for({1, 1, false, 1, 1, 0});
  Tile today = *found;
  today.cache_level = use.cache_level;
  return today;
}

std::vector<TiledProduct> products_of(const Problem &problem, const TargetRow &target) {
  std::vector<TiledProduct> products;
  for (const KernelFamily &family : families_of(problem)) {
    if (family.kind == HRNN_PROJECTION) {
      products.push_back({target.name, family.kind, family.gates, family.dtype});
      continue;
    }
    for (const Phase &phase : cell_by_name(family.cell).phases)
      products.push_back({target.name, family.kind, int(phase.gates.size()), family.dtype});
  }
  return products;
}

std::vector<Slot> slots_of(const TuneRequest &request) {
  std::vector<Slot> slots;
  for (const Problem &problem : request.problems)
    for (const TiledProduct &product : products_of(problem, *request.target))
      for (const Tile &use : kUses) {
        if (product.kind == HRNN_FUSED_STEP && use.rows > 1) continue;
        const bool known = std::any_of(slots.begin(), slots.end(), [&](const Slot &slot) {
          return slot.product == product && same_use(slot.use, use);
        });
        if (!known) slots.push_back({product, use, tile_today(product, use)});
      }
  return slots;
}

std::vector<TunedTile> with(std::vector<TunedTile> tuned, const TunedTile &entry) {
  tuned.erase(std::remove_if(tuned.begin(), tuned.end(),
                             [&](const TunedTile &old) { return old.product == entry.product && same_use(old.tile, entry.tile); }),
              tuned.end());
  tuned.push_back(entry);
  return tuned;
}

// ---- The search ------------------------------------------------------------------------------------------------------------

struct Candidate {
  Trial trial;
  std::map<size_t, std::unique_ptr<KernelTable>> tables;  // by problem, those that it changes
  std::map<size_t, std::vector<Sample>> raced;

  // The geometric mean of its gains.
  double score() const {
    double sum = 0;
    for (const auto &[problem, samples] : raced) sum += std::log(gain_of(samples).median);
    return raced.empty() ? 0 : std::exp(sum / double(raced.size()));
  }
};

struct Search {
  Slot slot;
  std::vector<Candidate> candidates;
  bool finished;
};

class Tuner {
 public:
  Tuner(const TuneRequest &request, const hrnn_machine &machine, SampleStore *store)
      : request_(request), store_(store), compiler_(*request.target, request.compile), end_(now() + request.seconds) {
    for (const Problem &problem : request.problems) {
      layers_.push_back(std::make_unique<TuneLayer>(problem, request.target->name, machine));
      today_.push_back(std::make_unique<KernelTable>(problem, *request.target, shipped_tiles(), &compiler_));
      const std::string wrong = layers_.back()->check(today_.back()->get());
      if (!wrong.empty()) throw std::runtime_error(problem.text + ": today's kernels are wrong: " + wrong);
    }
  }

  TuneResult run(const std::string &cpu) {
    std::vector<Search> searches;
    for (const Slot &slot : slots_of(request_)) searches.push_back({slot, candidates(slot), false});
    // Each gets its share of the time that is left; who needs more than that gets what others leave.
    size_t unfinished = searches.size();
    while (unfinished > 0 && now() < end_) {
      size_t waiting = unfinished;
      for (Search &search : searches) {
        if (search.finished) continue;
        slot_end_ = now() + (end_ - now()) / double(waiting--);
        search.finished = measure(&search);
        unfinished -= search.finished;
      }
    }
    TuneResult result{{}, {}, unfinished == 0 && now() < end_};
    for (const Search &search : searches) add_to(&result, search, cpu);
    return result;
  }

 private:
  static double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }
  bool late() const { return now() >= slot_end_; }

  void tell(const Slot &slot, const std::string &what) {
    request_.progress(fmt::format("{}, {}: {}; {:.0f} s left", describe(slot.product), use_name(slot.use), what, end_ - now()));
  }

  bool measure(Search *search) {
    std::vector<Candidate *> alive;
    for (Candidate &candidate : search->candidates) {
      candidate.raced.clear();
      if (candidate.trial.verdict != Verdict::Wrong) alive.push_back(&candidate);
    }
    return race(search->slot, &alive) && confirm(search->slot, alive);
  }

  static void add_to(TuneResult *result, const Search &search, const std::string &cpu) {
    const Candidate *best = nullptr;
    for (const Candidate &candidate : search.candidates) {
      result->trials.push_back(candidate.trial);
      if (candidate.trial.verdict == Verdict::Faster && (best == nullptr || candidate.score() > best->score())) best = &candidate;
    }
    if (best == nullptr) return;
    TunedTile change{best->trial.product, best->trial.tile, cpu, best->trial.today, {}};
    for (const auto &[problem, gain] : best->trial.gains) change.gain[problem] = gain.median;
    result->changes.push_back(change);
  }

  // Compiled and checked. What changes nothing for any of the problems is left out.
  std::vector<Candidate> candidates(const Slot &slot) {
    std::vector<Candidate> all;
    for (const Tile &tile : legal_tiles(slot.product, slot.use)) {
      if (tile == slot.today) continue;
      if (now() >= end_) break;
      tell(slot, "compiling and checking " + describe(tile));
      Candidate candidate{{slot.product, tile, slot.today, Verdict::Unfinished, "", {}}, {}, {}};
      const std::vector<TunedTile> tuned = with(shipped_tiles(), {slot.product, tile, "", {}, {}});
      for (size_t i = 0; i < layers_.size() && candidate.trial.wrong.empty(); i++) {
        auto table = std::make_unique<KernelTable>(request_.problems[i], *request_.target, tuned, &compiler_);
        if (table->identity() == today_[i]->identity()) continue;
        const std::string wrong = layers_[i]->check(table->get());
        if (!wrong.empty()) {
          candidate.trial.verdict = Verdict::Wrong;
          candidate.trial.wrong = request_.problems[i].text + ": " + wrong;
        } else if (!changes_calls(i, table.get())) {
          continue;
        }
        candidate.tables[i] = std::move(table);
      }
      if (!candidate.tables.empty()) all.push_back(std::move(candidate));
    }
    return all;
  }

  // A candidate matters where its own kernels are called, and where those that it takes away are called today.
  bool changes_calls(size_t problem, KernelTable *candidate) const {
    return calls_its_own(problem, candidate, *today_[problem]) || calls_its_own(problem, today_[problem].get(), *candidate);
  }
  bool calls_its_own(size_t problem, KernelTable *table, const KernelTable &other) const {
    const Probe probe(table, other);
    layers_[problem]->run(table->get());
    return probe.called();
  }

  // Takes turns, and halves. False when time is up.
  bool race(const Slot &slot, std::vector<Candidate *> *alive) {
    int round = 0;
    for (int until : kHalvings) {
      for (; round < until; round++) {
        std::shuffle(alive->begin(), alive->end(), random_);
        tell(slot, fmt::format("{} candidates, round {} of {}", alive->size(), round + 1, kHalvings[std::size(kHalvings) - 1]));
        for (Candidate *candidate : *alive) {
          for (const auto &[problem, table] : candidate->tables) {
            if (late()) return false;
            candidate->raced[problem].push_back(sample("race", problem, *table, round));
          }
        }
      }
      std::sort(alive->begin(), alive->end(), [](const Candidate *a, const Candidate *b) { return a->score() > b->score(); });
      const size_t keep = std::max(kFinalists, (alive->size() + 1) / 2);
      for (size_t i = keep; i < alive->size(); i++) drop((*alive)[i]);
      alive->resize(std::min(keep, alive->size()));
    }
    return true;
  }

  // What a race has found of a candidate that ends there.
  void drop(Candidate *candidate) {
    Trial &trial = candidate->trial;
    trial.verdict = candidate->score() < 1 ? Verdict::Slower : Verdict::NoGain;
    for (const auto &[problem, samples] : candidate->raced) trial.gains[request_.problems[problem].text] = gain_of(samples);
  }

  bool confirm(const Slot &slot, const std::vector<Candidate *> &finalists) {
    for (Candidate *candidate : finalists) {
      drop(candidate);
      const bool promising = std::any_of(candidate->raced.begin(), candidate->raced.end(),
                                         [](const auto &raced) { return gain_of(raced.second).median > kPromising; });
      if (!promising) continue;
      candidate->trial.verdict = Verdict::Unfinished;
      std::map<size_t, std::vector<Sample>> samples, controls;
      for (int round = 0; round < kConfirmations; round++) {
        tell(slot, fmt::format("confirming {}, {} of {}", describe(candidate->trial.tile), round + 1, kConfirmations));
        for (const auto &[problem, table] : candidate->tables) {
          if (late()) return false;
          samples[problem].push_back(sample("confirm", problem, *table, round));
          controls[problem].push_back(sample("confirm", problem, *today_[problem], round));
        }
      }
      judge(candidate, samples, controls);
    }
    return true;
  }

  // Faster: certain for one problem, by more than today's kernels seem faster than themselves, and slower for none.
  void judge(Candidate *candidate, const std::map<size_t, std::vector<Sample>> &samples,
             const std::map<size_t, std::vector<Sample>> &controls) {
    Trial &trial = candidate->trial;
    bool gains = false, loses = false;
    for (const auto &[problem, of_problem] : samples) {
      const Gain gain = gain_of(of_problem), control = gain_of(controls.at(problem));
      const double noise = std::max({kLeastGain, control.high - 1, 1 - control.low});
      trial.gains[request_.problems[problem].text] = gain;
      gains = gains || gain.low > 1 + noise;
      loses = loses || gain.high < 1 || gain.median < 1 - noise;
    }
    trial.verdict = loses ? Verdict::Slower : gains ? Verdict::Faster : Verdict::NoGain;
  }

  // Measures, unless an earlier run has. Which of the two is first changes from round to round.
  Sample sample(const char *stage, size_t problem, const KernelTable &candidate, int round) {
    const SampleKey key{stage, request_.problems[problem].text, candidate.identity(), today_[problem]->identity()};
    if (const std::optional<Sample> known = store_->find(key, round)) return *known;
    Sample s{};
    const TuneLayer &layer = *layers_[problem];
    if (round % 2 == 0) s.today = layer.time(today_[problem]->get());
    s.candidate = layer.time(candidate.get());
    if (round % 2 == 1) s.today = layer.time(today_[problem]->get());
    store_->add(key, round, s);
    return s;
  }

  const TuneRequest &request_;
  SampleStore *store_;
  Compiler compiler_;
  double end_, slot_end_ = 0;
  std::vector<std::unique_ptr<TuneLayer>> layers_;
  std::vector<std::unique_ptr<KernelTable>> today_;
  std::mt19937 random_{1};
};

}  // namespace

Gain gain_of(const std::vector<Sample> &samples) {
  std::vector<double> ratios;
  for (const Sample &sample : samples) ratios.push_back(sample.today / sample.candidate);
  std::sort(ratios.begin(), ratios.end());
  const size_t n = ratios.size();
  const double below = (double(n) - kConfidence * std::sqrt(double(n))) / 2;
  const size_t at = below < 1 ? 0 : size_t(below);
  return {ratios[n / 2], ratios[at], ratios[n - 1 - at], int(n)};
}

const char *verdict_name(Verdict verdict) {
  switch (verdict) {
    case Verdict::Faster: return "faster";
    case Verdict::NoGain: return "no gain";
    case Verdict::Slower: return "slower";
    case Verdict::Wrong: return "wrong";
    case Verdict::Unfinished: return "unfinished";
  }
  return "?";
}

TuneResult tune(const TuneRequest &request, const hrnn_machine &machine, SampleStore *store) {
  return Tuner(request, machine, store).run(machine.cpu);
}

}  // namespace hrnn
