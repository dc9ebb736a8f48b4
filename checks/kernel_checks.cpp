// SPDX-License-Identifier: Apache-2.0
#include "kernel_checks.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <set>

namespace hrnn_test {
namespace {

constexpr int kRowBytes = 64;  // a panel: one 64-byte row of hidden units

int lanes_of(hrnn_dtype dtype) { return kRowBytes / (dtype == HRNN_F64 ? 8 : 4); }

std::set<int> hidden_sizes(const Kernels &kernels) {
  std::set<int> sizes = {1, 37};
  const int lanes = lanes_of(kernels.dtype);
  std::set<int> edges = {lanes};
  if (kernels.gpu()) sizes.insert(8 * lanes + 3);  // 9 panels
  for (const hrnn_kernel &row : kernels.rows()) {
    edges.insert(int(row.panels) * lanes);
    if (row.inner > 0) sizes.insert(int(row.inner));
  }
  for (int edge : edges) sizes.insert({edge - 1, edge, edge + 1});
  return sizes;
}

std::set<int> batch_sizes(const Kernels &kernels) {
  std::set<int> sizes = {1, 2, 3, 7};
  if (kernels.gpu()) sizes.insert({33, 129});  // of 9 panels, more than 64 tiles of 4 rows, of 16
  for (const hrnn_kernel &row : kernels.rows())
    for (int edge : {int(row.rows) - 1, int(row.rows), int(row.rows) + 1})
      if (edge > 0) sizes.insert(edge);
  return sizes;
}

bool has_relu_kernels(const std::vector<hrnn_kernel> &rows) {
  return std::any_of(rows.begin(), rows.end(), [](const hrnn_kernel &row) {
    return row.kind == HRNN_STEP && row.activation_count == 1 && row.activations[0] == HRNN_RELU;
  });
}

template <typename T>
const T &pick(const std::vector<T> &values, std::mt19937 *random) {
  return values[(*random)() % values.size()];
}

// Activations for a run: by turns the cell's own, Relu for an RNN, and any.
void draw_activations(LayerRun *run, int turn, bool relu, std::mt19937 *random) {
  run->layer.activations = run->layer.default_activations();
  run->default_activations = turn % 3 == 0;
  run->layer.clip = HUGE_VAL;
  if (run->default_activations) return;
  if (turn % 3 == 1 && run->layer.cell == "rnn" && relu) {
    for (auto &f : run->layer.activations) f.name = "Relu";
    return;
  }
  for (auto &f : run->layer.activations) f = with_parameters(pick(reference::activation_names(), random));
  if ((*random)() % 2) run->layer.clip = 0.75;
}

// Draws data for the run until little hangs on roundings, runs it and compares. False when there are no such data.
bool try_run(LayerRun *run, const Shape &shape, const RandomParts &parts, const KernelChoice &kernels, std::mt19937 *random,
             Report *report, const std::vector<int> &stream_calls = {}) {
  for (double gain = 1; gain > 0.1; gain *= 0.8) {
    randomize(run, shape, parts, gain, random);
    Judge judge(*run);
    if (judge.ill_conditioned()) continue;
    const LayerResult result =
        stream_calls.empty() ? run_layer(*run, kernels) : stream_layer(*run, kernels, stream_calls);
    report->runs++;
    report->add(run->describe(), judge.compare(*run, result));
    report->worst = std::max(report->worst, judge.worst());
    report->largest = std::max(report->largest, judge.largest());
    return true;
  }
  return false;
}

void check_run(LayerRun *run, const Shape &shape, const RandomParts &parts, const KernelChoice &kernels, std::mt19937 *random,
               Report *report, const std::vector<int> &stream_calls = {}) {
  if (!try_run(run, shape, parts, kernels, random, report, stream_calls))
    report->add(run->describe(), "found no data that are well conditioned");
}

}  // namespace

std::vector<hrnn_kernel> Kernels::rows() const {
  std::vector<hrnn_kernel> chosen;
  for (const hrnn_kernel &row : tables->rows())
    if (has(row)) chosen.push_back(row);
  return chosen;
}

std::vector<std::string> Kernels::cells() const {
  std::set<std::string> cells;
  for (const hrnn_kernel &row : rows())
    if (row.kind == HRNN_STEP) cells.insert(row.cell);
  return {cells.begin(), cells.end()};
}

std::vector<std::string> Kernels::never_called() const {
  std::set<uint32_t> gates;  // others have projections for dense layers
  for (const hrnn_kernel &row : rows())
    if (row.kind == HRNN_STEP) gates.insert(row.gates);
  std::vector<std::string> symbols;
  for (size_t i = 0; i < tables->rows().size(); i++) {
    const hrnn_kernel &row = tables->rows()[i];
    if (has(row) && gates.count(row.gates) > 0 && tables->calls_of(i) == 0) symbols.push_back(row.symbol);
  }
  return symbols;
}

std::string Kernels::name() const { return std::string(target->name) + (dtype == HRNN_F64 ? "_f64" : "_f32"); }

std::vector<Kernels> kernels_in(const CountedTables &tables) {
  std::vector<Kernels> all;
  for (const hrnn_kernel &row : tables.rows()) {
    const bool known = std::any_of(all.begin(), all.end(), [&](const Kernels &kernels) { return kernels.has(row); });
    if (!known) all.push_back({&tables, row.target, hrnn_dtype(row.dtype)});
  }
  return all;
}

Report check_shapes(const Kernels &kernels, int draws) {
  Report report;
  std::mt19937 random(1);
  const bool relu = has_relu_kernels(kernels.rows());
  int turn = 0, single_turn = 0;
  std::mt19937 single_random(9);
  // `level`: where all weights lie: in the first-level cache, in the second, beyond. Where it is said, each step has all rows.
  auto check = [&](const std::string &cell, int hidden, int time, int batch, int turn, std::mt19937 &random,
                   std::optional<int> level = std::nullopt) {
    LayerRun run;
    run.layer.cell = cell;
    run.dtype = kernels.dtype;
    run.layer.direction = pick<std::string>({"forward", "reverse", "bidirectional"}, &random);
    draw_activations(&run, turn, relu, &random);
    const int input = pick<int>({1, 3, 16, 17, 31}, &random);
    const Shape shape = {input, hidden, time > 0 ? time : pick<int>({1, 2, 7}, &random), batch};
    const unsigned flags = random();
    const RandomParts parts = {flags % 4 != 0, (flags >> 2) % 3 != 0, (flags >> 4) % 2 == 0 && !level, (flags >> 13) % 4 != 0};
    run.batch_major = (flags >> 5) % 2;
    run.want_y = (flags >> 6) % 4 != 0;
    run.want_y_h = !run.want_y || (flags >> 8) % 4 != 0;
    run.spare_batch = int((flags >> 10) % 3);
    const int lie = level.value_or(1 + int((flags >> 15) % 3)), none = 4 << 10, all = 1 << 30;
    run.l1 = lie == 1 ? all : none;
    run.l2 = lie <= 2 ? all : none;
    if (try_run(&run, shape, parts, kernels.choice(), &random, &report)) return;
    // A cell may grow whatever the weights are, with a gate that is not bounded.
    draw_activations(&run, 0, relu, &random);
    check_run(&run, shape, parts, kernels.choice(), &random, &report);
  };
  std::set<int> compiled;  // sizes that have kernels of their own; these have the cell's own activations as well, or Relu
  for (const hrnn_kernel &row : kernels.rows()) compiled.insert(int(row.inner));
  for (const std::string &cell : kernels.cells()) {
    for (int hidden : hidden_sizes(kernels)) {
      const bool sized = compiled.count(hidden) > 0;
      for (int batch : batch_sizes(kernels))
        for (int draw = 0; draw < (sized ? std::max(draws, 6) : draws); draw++, turn++) {
          const bool each = sized && draw < 6;  // sized kernels with either activations, wherever weights lie
          check(cell, hidden, 0, batch, each ? draw % 2 : turn, random, each ? std::optional<int>(1 + draw / 2) : std::nullopt);
        }
      // One step of one row has kernels of its own.
      for (int draw = 0; draw < 12; draw++)
        check(cell, hidden, 1, 1, single_turn++, single_random, draw < 9 ? std::optional<int>(1 + draw / 3) : std::nullopt);
    }
  }
  return report;
}

Report check_empty(const Kernels &kernels) {
  Report report;
  std::mt19937 random(8);
  for (const std::string &cell : kernels.cells()) {
    for (const Shape &shape : {Shape{3, 17, 0, 3}, {3, 17, 4, 0}, {3, 17, 0, 0}, {3, 17, 4, 3}}) {
      for (bool lengths : {false, true}) {
        for (bool wanted : {false, true}) {
          LayerRun run;
          run.layer.cell = cell;
          run.dtype = kernels.dtype;
          run.layer.direction = "bidirectional";
          run.layer.activations = run.layer.default_activations();
          run.want_y = run.want_y_h = wanted;
          check_run(&run, shape, {true, true, lengths}, kernels.choice(), &random, &report);
        }
      }
    }
  }
  return report;
}

Report check_activations(const Kernels &kernels) {
  Report report;
  std::mt19937 random(2);
  for (const std::string &cell : kernels.cells()) {
    for (size_t place = 0; place < reference::cell(cell).activations.size(); place++) {
      for (const std::string &name : reference::activation_names()) {
        for (double clip : {HUGE_VAL, 0.375}) {
          LayerRun run;
          run.layer.cell = cell;
          run.dtype = kernels.dtype;
          run.default_activations = false;
          run.layer.clip = clip;
          run.layer.direction = "bidirectional";
          run.layer.activations = run.layer.default_activations();
          run.layer.activations[place] = with_parameters(name);  // in one direction: the two must not be mixed up
          check_run(&run, {3, 19, 3, 3}, {true, true, false}, kernels.choice(), &random, &report);
        }
      }
    }
  }
  return report;
}

Report check_large(const Kernels &kernels, bool quick) {
  Report report;
  std::mt19937 random(3);
  for (const std::string &cell : kernels.cells()) {
    const int gates = reference::cell(cell).gates;
    auto check = [&](const char *direction, const Shape &shape, bool lengths) {
      LayerRun run;
      run.layer.cell = cell;
      run.dtype = kernels.dtype;
      run.layer.direction = direction;
      run.layer.activations = run.layer.default_activations();
      run.batch_major = lengths;
      check_run(&run, shape, {true, true, lengths}, kernels.choice(), &random, &report);
    };
    for (bool lengths : {true, false}) {
      if (quick && !lengths) continue;
      if (kernels.gpu()) {
        // 4 MiB of inputs and states are some 88 steps of 700 sequences of a GRU.
        check("bidirectional", {1, 1, 130, 2100 / gates}, lengths);
      } else {
        for (const char *direction : {"bidirectional", "forward", "reverse"}) {
          if (quick && direction != std::string("bidirectional")) continue;
          // 256 KiB are 1365 rows of a GRU's 3 * 64 bytes: some 273 steps of 5 sequences.
          check(direction, {2, 5, 900 / gates, 5}, lengths);
          // More sequences than that: 8 steps of all of them.
          check(direction, {2, 20, 11, 2100 / gates}, lengths);
        }
      }
      // More than 512 KiB of weights.
      const int hidden = int(376 / std::sqrt(double(gates)));
      for (int batch : quick ? std::vector<int>{3} : std::vector<int>{1, 3, 9}) check("forward", {2, hidden, 3, batch}, lengths);
    }
  }
  return report;
}

Report check_streaming(const Kernels &kernels) {
  Report report;
  std::mt19937 random(4);
  for (const std::string &cell : kernels.cells()) {
    for (int hidden : {1, 8, 16, 37, 100}) {  // up to half a panel, one, some, more than the first-level cache holds
      for (int batch : {1, 4, 9}) {
        for (bool lengths : {false, true}) {
          if (hidden > 37 && batch > 1) continue;  // what depends on the weights' size is a step of one sequence
          // A step of a state's only sequence goes a way of its own, so it comes before and after calls of several.
          for (int spare : {0, 2}) {
            LayerRun run;
            run.layer.cell = cell;
            run.dtype = kernels.dtype;
            run.layer.activations = run.layer.default_activations();
            run.batch_major = lengths;
            run.spare_batch = spare;
            check_run(&run, {3, hidden, 8, batch}, {true, true, lengths, true}, kernels.choice(), &random, &report, {1, 1, 2, 3, 1});
          }
        }
      }
    }
  }
  return report;
}

}  // namespace hrnn_test
