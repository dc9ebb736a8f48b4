// SPDX-License-Identifier: Apache-2.0
//
// hrnn tune: measures which tiles are fastest on this machine, and writes those that beat today's into files that the
// build reads.
#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "cli.h"
#include "tile_json.h"
#include "tune_autoscheduler.h"
#include "tuner.h"

namespace hrnn {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::vector<std::string> problems;
  std::string variant, database = "hrnn-tune.db", output = "schedules/tuned";
  double budget = 600;
  int core = -1;
  bool json = false;
};

hrnn_machine this_machine() {
  hrnn_machine machine{};
  machine.struct_size = sizeof machine;
  check(hrnn_machine_detect(nullptr, 0, &machine), hrnn_error{}, "this machine");
  return machine;
}

// The CPU target to tune: the one named, or the best that this machine can run.
const TargetRow *choose_target(const std::string &name, const hrnn_machine &machine) {
  const TargetRow *best = nullptr;
  for (const TargetRow *row : name.empty() ? targets_by_name({"x86", "arm"}) : targets_by_name({name})) {
    const hrnn_target target{row->name, row->features, row->rank, uint32_t(row->use)};
    char why[512] = "its tiles are not tuned";
    const bool usable = row->use == HRNN_USE_CPU && hrnn_target_usable(&target, &machine, why, sizeof why) != 0;
    if (!usable && !name.empty()) throw ModelError(fmt::format("--variant {}: {}", row->name, why));
    if (usable && (best == nullptr || row->rank > best->rank)) best = row;
  }
  if (best == nullptr) throw ModelError("this machine can run none of the targets");
  return best;
}

// On one core all along: a change of cores costs the caches.
void pin(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(size_t(core < 0 ? sched_getcpu() : core), &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) throw ModelError(fmt::format("--core {}: there is no such core", core));
}

// Caches count: the same processor may show other ones in a virtual machine.
std::string machine_key(const hrnn_machine &machine) {
  std::string key = machine.cpu;
  for (uint64_t bytes : machine.cache_bytes) key += fmt::format(" {}", bytes);
  return key;
}

// ---- The file that the build reads ----------------------------------------------------------------------------------------

class OutputFile {
 public:
  // Reads what it holds, and finds out whether it can be written, before hours of measuring.
  OutputFile(const std::string &folder, const std::string &target) : target_(target), path_(fs::path(folder) / (target + ".json")) {
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) fail(error.message());
    if (access(folder.c_str(), W_OK) != 0) fail(std::error_code(errno, std::generic_category()).message());
    std::ifstream file(path_);
    if (!file) return;
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    tiles_ = parse_tuned(path_.string(), text);
  }

  const fs::path &path() const { return path_; }

  // New entries take the place of those for the same use.
  void write(const std::vector<TunedTile> &changes) {
    for (const TunedTile &change : changes) {
      auto same = [&](const TunedTile &old) { return old.product == change.product && same_use(old.tile, change.tile); };
      tiles_.erase(std::remove_if(tiles_.begin(), tiles_.end(), same), tiles_.end());
      tiles_.push_back(change);
    }
    const fs::path part = path_.string() + ".part";
    std::ofstream file(part);
    file << format_tuned(target_, tiles_);
    file.close();
    std::error_code error;
    if (file) fs::rename(part, path_, error);
    if (!file || error) fail(error ? error.message() : "it could not be written");
  }

 private:
  [[noreturn]] void fail(const std::string &why) const {
    throw ModelError(fmt::format("{}: {}; --output names the folder", path_.string(), why));
  }

  std::string target_;
  fs::path path_;
  std::vector<TunedTile> tiles_;
};

// ---- What came out ---------------------------------------------------------------------------------------------------------

struct Results {
  std::string target, file;
  TuneResult tuned;
  std::vector<AutoscheduledStep> autoscheduled;
};

Json autoscheduled_json(const AutoscheduledStep &step) {
  if (!step.unusable.empty()) return {{"problem", step.problem}, {"unusable", step.unusable}};
  return {{"problem", step.problem}, {"today", step.today}, {"today_us", step.today_us}, {"its_us", step.its_us}};
}

Json result_json(const Results &results, const hrnn_machine &machine) {
  const TuneResult &result = results.tuned;
  Json trials = Json::array();
  for (const Trial &trial : result.trials) {
    Json gains = Json::object();
    for (const auto &[problem, gain] : trial.gains)
      gains[problem] = {{"median", gain.median}, {"low", gain.low}, {"high", gain.high}, {"samples", gain.samples}};
    trials.push_back({{"product", describe(trial.product)},
                      {"tile", tile_json(trial.tile)},
                      {"today", tile_json(trial.today)},
                      {"verdict", verdict_name(trial.verdict)},
                      {"wrong", trial.wrong},
                      {"gain", gains}});
  }
  Json changes = Json::array();
  for (const TunedTile &change : result.changes)
    changes.push_back({{"product", describe(change.product)}, {"tile", tile_json(change.tile)}, {"gain", change.gain}});
  Json autoscheduled = Json::array();
  for (const AutoscheduledStep &step : results.autoscheduled) autoscheduled.push_back(autoscheduled_json(step));
  return {{"cpu", machine.cpu},
          {"cache_bytes", machine.cache_bytes},
          {"target", results.target},
          {"finished", result.finished},
          {"candidates", trials},
          {"adams2019", autoscheduled},
          {"changes", changes},
          {"file", result.changes.empty() ? "" : results.file}};
}

void print_result(const Results &results, const hrnn_machine &machine) {
  const TuneResult &result = results.tuned;
  fmt::print("machine  {}\ntarget   {}\n", machine.cpu, results.target);
  for (const Trial &trial : result.trials) {
    fmt::print("{:<10} {}: {} (today {})\n", verdict_name(trial.verdict), describe(trial.product), describe(trial.tile),
               describe(trial.today));
    if (!trial.wrong.empty()) fmt::print("{:10} {}\n", "", trial.wrong);
    for (const auto &[problem, gain] : trial.gains)
      fmt::print("{:10} {:<40} {:.3f}x  ({:.3f} to {:.3f}, {} samples)\n", "", problem, gain.median, gain.low, gain.high, gain.samples);
  }
  for (const AutoscheduledStep &step : results.autoscheduled) {
    if (step.unusable.empty())
      fmt::print("Adams2019  {}: a step alone takes {:.3f} us, {:.2f}x the {:.3f} us of {}\n", step.problem, step.its_us,
                 step.its_us / step.today_us, step.today_us, step.today);
    else
      fmt::print("Adams2019  {}: not usable: {}\n", step.problem, step.unusable);
  }
  for (const TunedTile &change : result.changes)
    fmt::print("change   {}: {} instead of {}\n", describe(change.product), describe(change.tile), describe(change.against));
  if (result.changes.empty())
    fmt::print("nothing beats today's tiles by more than noise\n");
  else
    fmt::print("wrote    {}; the next build takes it\n", results.file);
  if (!result.finished) fmt::print("time was up before all was measured: the same command goes on from here\n");
}

void tune_problems(const Options &options) {
  TuneRequest request;
  try {
    request.problems = read_problems(options.problems);
  } catch (const std::invalid_argument &error) {
    throw ModelError(error.what());
  }
  if (request.problems.empty()) throw ModelError("no problem was given");
  for (const Problem &problem : request.problems)
    if (problem.layers > 1)
      throw ModelError(fmt::format("problem '{}': it has {} layers; tiles are tuned on one: name each size of them as a problem of its own",
                                   problem.text, problem.layers));
  const hrnn_machine machine = this_machine();
  request.target = choose_target(options.variant, machine);
  request.seconds = options.budget;
  const bool terminal = isatty(STDERR_FILENO) != 0;
  if (terminal) request.progress = [](const std::string &text) { fmt::print(stderr, "\r\033[K{}", text); };
  OutputFile output(options.output, request.target->name);
  SampleStore store(options.database, machine_key(machine));
  pin(options.core);
  Results results{request.target->name, output.path().string(), tune(request, machine, &store), {}};
  if (!results.tuned.changes.empty()) output.write(results.tuned.changes);
  for (const Problem &problem : request.problems) {
    if (!results.tuned.finished) break;
    request.progress("Adams2019: " + problem.text);
    results.autoscheduled.push_back(measure_autoscheduled(problem, *request.target, machine));
  }
  if (terminal) fmt::print(stderr, "\r\033[K");
  if (options.json)
    print(result_json(results, machine));
  else
    print_result(results, machine);
}

}  // namespace

void add_tune(CLI::App &app) {
  CLI::App *command = app.add_subcommand("tune", "Measure which tiles of kernels are fastest on this machine");
  auto options = std::make_shared<Options>();
  command->add_option("DESCRIPTOR", options->problems, "Problems such as gru:lbr:i64h64:b1:t100:fwd:f32, or files of them")
      ->required();
  command->add_option("--budget", options->budget, "Seconds")->check(CLI::Range(1.0, 1e6))->capture_default_str();
  command->add_option("--database", options->database, "Samples of this run and of earlier ones")->capture_default_str();
  command->add_option("-o,--output", options->output, "Folder of the files that the build reads")->capture_default_str();
  command->add_option("--variant", options->variant, "Tune this instruction set instead of the best one");
  command->add_option("--core", options->core, "Measure on this core")->check(CLI::Range(0, 1023));
  command->add_flag("--json", options->json, "Print JSON");
  command->callback([options] { tune_problems(*options); });
}

}  // namespace hrnn
