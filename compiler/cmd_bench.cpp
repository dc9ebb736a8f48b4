// SPDX-License-Identifier: Apache-2.0
//
// hrnn bench: time of models and of recurrent layers on this machine, as a share of what its cores can do.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <random>
#include <sstream>

#include "cli.h"
#include "layer.h"
#include "pack.h"
#include "session_arrays.h"

namespace hrnn {
namespace {

struct Options {
  std::vector<std::string> arguments, dims;
  std::string inputs, variant;
  uint32_t threads = 1;
  int rounds = 25;
  bool extract = false, json = false, limits = false, serve = false;
};

// A whole model, with arrays made up or given.
class ModelWork : public Workload {
 public:
  ModelWork(const std::string &path, const Options &options)
      : path_(path),
        graph_(load(path, options.extract)),
        model_(lower(*graph_)),
        team_(make_team(options.threads)),
        session_(make_session(model_, options.variant, path, team_.get())) {
    const Sizes sizes = parse_sizes(options.dims);
    check_names(session_.get(), sizes, path);
    if (options.inputs.empty())
      make_inputs(sizes);
    else
      read_inputs(options.inputs);
    hrnn_error error{};
    out_.resize(hrnn_session_output_count(session_.get()));
    check(hrnn_session_reserve(session_.get(), in_.data(), in_.size(), out_.data(), out_.size(), &error), error, path);
    outputs_ = allocate_outputs(session_.get(), out_);
    for (size_t i = 0; i < out_.size(); ++i) out_[i] = tensor_of(outputs_[i].second);
    add_costs(options.threads);
    const std::vector<hrnn_selection> layers = session_selections(session_.get());
    runs(layers.empty() ? hrnn_selection{} : layers.front(), {hrnn_prebuilt_tables, hrnn_prebuilt_tables + hrnn_prebuilt_table_count},
         options.threads);
  }

  void run() override {
    hrnn_error error{};
    check(hrnn_session_run(session_.get(), in_.data(), in_.size(), out_.data(), out_.size(), &error), error, path_);
  }

 private:
  void make_inputs(const Sizes &sizes) {
    std::mt19937 random(1);
    std::uniform_real_distribution<double> uniform(-1, 1);
    const std::vector<hrnn_tensor_info> infos = session_inputs(session_.get());
    const std::vector<hrnn_tensor> tensors = sized_inputs(session_.get(), sizes);
    for (size_t i = 0; i < infos.size(); ++i) {
      const hrnn_tensor &tensor = tensors[i];
      const DataType type = data_type_of(tensor.dtype);
      if (!is_float(type)) {
        throw ModelError(
            fmt::format("{}: input '{}' is {}: such values mean something and cannot be made up; give the arrays "
                        "with --inputs FILE.npz",
                        path_, infos[i].name, dtype_name(tensor.dtype)));
      }
      Constant array = make_constant(type, {tensor.dims, tensor.dims + tensor.rank});
      for (int64_t k = 0; k < array.elements(); ++k) array.set(k, uniform(random));
      inputs_.emplace_back(infos[i].name, std::move(array));
    }
    for (NamedArray &array : inputs_) in_.push_back(tensor_of(array.second));
  }

  void read_inputs(const std::string &file) {
    inputs_ = read_npz(file);
    in_ = bind_inputs(session_.get(), inputs_, file);
  }

  // Of the recurrent layers; of none where one's size is not known, or is not in the numbers that the limits are for.
  void add_costs(uint32_t threads) {
    std::vector<std::optional<int64_t>> symbols(graph_->symbols.size());
    const std::vector<hrnn_tensor_info> infos = session_inputs(session_.get());
    for (size_t i = 0; i < infos.size(); ++i) {
      for (int32_t axis = 0; axis < infos[i].rank; ++axis)
        if (infos[i].dims[axis] < 0) symbols.at(static_cast<size_t>(-1 - infos[i].dims[axis])) = in_[i].dims[axis];
    }
    for (const Node &node : graph_->nodes) {
      const auto *layer = std::get_if<op::Recurrent>(&node.op);
      if (!layer) continue;
      const Tensor &x = graph_->tensor(node.inputs[0]);
      const std::optional<int64_t> time = x.dims.at(layer->layout).value(symbols);
      const std::optional<int64_t> batch = x.dims.at(1 - layer->layout).value(symbols);
      if (!time || !batch || computed_type(x.type) != DataType::Float32) {
        costs_.clear();
        return;
      }
      CellShape cell;
      builtin_cell_shape(layer->cell.c_str(), &cell);
      const LayerSize size{cell.gates,    layer->input_size, layer->hidden_size, *batch, layer->directions(),
                           double(*time), *time == 1};
      costs_.push_back(layer_cost(size, threads));
    }
  }

  std::string path_;
  Model graph_;
  CompiledModel model_;
  Team team_;
  Session session_;
  std::vector<NamedArray> inputs_, outputs_;
  std::vector<hrnn_tensor> in_, out_;
};

// ---- What comes out ----

Json limits_json(const Limits &limits) {
  Json json = {{"cache_bytes", {cache_bytes(1), cache_bytes(2), cache_bytes(3)}},
               {"gflops", Json::object()},
               {"int8", nullptr},
               {"read", Json::array()},
               {"flag_ns", nullptr}};
  for (const Limits::Peak &peak : limits.multiply_add) json["gflops"][peak.isa] = peak.giga;
  if (limits.int8) json["int8"] = {{"isa", limits.int8->isa}, {"gops", limits.int8->giga}};
  for (const Limits::Read &read : limits.read)
    json["read"].push_back({{"level", read.level}, {"bytes", read.bytes}, {"gbs", read.gbs}});
  if (limits.flag_ns) json["flag_ns"] = *limits.flag_ns;
  json["call_ns"] = measure_call_ns();
  return json;
}

void print_limits(const Limits &limits) {
  for (const Limits::Peak &peak : limits.multiply_add)
    fmt::print("multiply-add  {:12} {:8.1f} GFLOP/s\n", peak.isa, peak.giga);
  if (limits.int8) fmt::print("int8          {:12} {:8.1f} GOP/s\n", limits.int8->isa, limits.int8->giga);
  for (const Limits::Read &read : limits.read)
    fmt::print("read          {:12} {:8.1f} GB/s     ({} KiB)\n", read.level, read.gbs, read.bytes / 1024);
  if (limits.flag_ns)
    fmt::print("flag          {:12} {:8.1f} ns       (until another core sees it)\n", "2 threads", *limits.flag_ns);
  fmt::print("call          {:12} {:8.1f} ns       (of hrnn_stream, without a step)\n", "", measure_call_ns());
}

Json result_json(const std::string &name, const std::string &what, const Workload &work, const char *unit,
                 const Figures &f) {
  Json json = {{"name", name}, {"of", what}, {"variant", work.variant()}, {"threads", work.threads()}, {"unit", unit}};
  json.update({{"us", f.us}, {"us_p10", f.fast}, {"us_p90", f.slow}, {"limit_us", nullptr}, {"share", nullptr}});
  if (!work.costs().empty()) json["limit_us"] = f.floor, json["share"] = f.floor / f.us;
  return json;
}

void print_row(const Json &row) {
  const bool limited = !row["share"].is_null();
  fmt::print("| {} | {} | {} | {:.3f} | {:.3f}-{:.3f} | {} | {} |\n", row["name"].get<std::string>(),
             row["variant"].get<std::string>(), row["unit"].get<std::string>(), row["us"].get<double>(),
             row["us_p10"].get<double>(), row["us_p90"].get<double>(),
             limited ? fmt::format("{:.3f}", row["limit_us"].get<double>()) : "-",
             limited ? fmt::format("{:.0f} %", 100 * row["share"].get<double>()) : "-");
  std::fflush(stdout);
}

bool is_model(const std::string &argument) { return std::filesystem::path(argument).extension() == ".onnx"; }

void measure(const Options &options) {
  // Everything is read before anything is measured.
  std::vector<std::pair<std::string, std::vector<Problem>>> work;
  for (const std::string &argument : options.arguments)
    work.emplace_back(argument, is_model(argument) ? std::vector<Problem>() : read_problems({argument}));

  Json results = Json::array();
  auto report = [&](const Json &row) {
    if (!options.json) print_row(row);
    results.push_back(row);
  };
  std::vector<std::unique_ptr<ModelWork>> models;
  for (const auto &[argument, problems] : work)
    if (problems.empty() && is_model(argument)) models.push_back(std::make_unique<ModelWork>(argument, options));

  const Limits limits = measure_limits();
  if (!options.json) {
    print_limits(limits);
    if (!work.empty())
      fmt::print(
          "\n| what | variant | of a | us | 80 % lie in | limit us | share of limit "
          "|\n|---|---|---|--:|--:|--:|--:|\n");
  }
  size_t next_model = 0;
  for (const auto &[argument, problems] : work) {
    if (is_model(argument)) {
      ModelWork &model = *models[next_model++];
      report(result_json(argument, argument, model, "run", Measurement(model).bursts(options.rounds)));
    }
    for (const Problem &problem : problems) {
      Layer layer(problem, options.variant, options.threads);
      report(result_json(problem.name, problem.text, layer, "step", Measurement(layer).bursts(options.rounds)));
    }
  }
  if (options.json) print({{"limits", limits_json(limits)}, {"results", results}});
}

// One line of JSON for each line of input:
//   limits                                the cores' limits
//   read ARGUMENT                         the problems that it names
//   problem DESCRIPTOR DIRECTORY THREADS  makes a layer, runs it from zeros, writes w, r, b, x and y
//   burst                                 measures it and its limits once
void serve(const std::string &variant) {
  std::unique_ptr<Layer> layer;
  std::unique_ptr<Measurement> measurement;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command, argument, directory;
    uint32_t threads = 1;
    words >> command >> argument >> directory >> threads;
    Json answer;
    if (command == "limits") {
      answer = limits_json(measure_limits());
    } else if (command == "read") {
      for (const Problem &problem : read_problems({argument}))
        answer.push_back({{"name", problem.name}, {"problem", problem.text}});
    } else if (command == "problem" && !directory.empty()) {
      measurement.reset();
      layer = std::make_unique<Layer>(parse_problem(argument), variant, threads);
      measurement = std::make_unique<Measurement>(*layer);
      layer->write(directory);
      const Problem &p = layer->problem();
      double flops = 0;
      for (const Cost &cost : layer->costs()) flops += cost.total_flops(threads) / layer->steps();
      const bool limited = !layer->costs().empty();
      answer = {{"variant", layer->variant()},
                {"cell", p.cell},
                {"directions", p.directions()},
                {"layers", p.layers},
                {"input", p.input},
                {"hidden", p.hidden},
                {"batch", p.batch},
                {"time", p.time},
                {"steps", p.steps()},
                {"lengths", layer->lengths()},
                {"reverse", p.direction == HRNN_REVERSE},
                {"streaming", p.streaming()},
                {"threads", threads},
                {"flops", flops},
                {"held_in", limited ? cache_holding(layer->costs().front().bytes) : ""}};
    } else if (command == "burst" && measurement) {
      const Figures f = measurement->burst();
      answer = {{"us", f.us}, {"floor", f.floor}, {"gflops", f.gflops}, {"gbs", f.gbs}};
    } else {
      throw std::invalid_argument("not understood: '" + line + "'");
    }
    std::cout << answer.dump() << std::endl;
  }
}

void bench(const Options &options) {
  if (options.serve) return serve(options.variant);
  if (options.arguments.empty() && !options.limits)
    throw CLI::ValidationError("nothing to measure", "give models, problems or --limits");
  measure(options);
}

}  // namespace

void add_bench(CLI::App &app) {
  CLI::App *command =
      app.add_subcommand("bench", "Measure models and recurrent layers as a share of what this machine can do");
  auto options = std::make_shared<Options>();
  command->add_option(
      "MODEL|PROBLEM", options->arguments,
      "Model files (.onnx), descriptors of layers such as gru:lbr:i64h64:b1:t100:fwd:f32, files of those");
  command->add_option("--variant", options->variant,
                      "Use this instruction set or kernel variant instead of choosing (see hrnn kernels)");
  command->add_option("--threads", options->threads, "Threads for whole sequences")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  command->add_option("--dim", options->dims, "NAME=SIZE of a model's dynamic dimension (others are 1)");
  command->add_option("--inputs", options->inputs, "Arrays for a model instead of random ones (.npz)")
      ->excludes("--dim");
  command->add_option("--rounds", options->rounds, "Bursts of each")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  command->add_flag("--limits", options->limits, "Print the limits, whether there is anything to measure or not");
  add_extract(command, &options->extract);
  command->add_flag("--json", options->json, "Print JSON");
  command->add_flag("--serve", options->serve)->group("");  // for bench/compare.py: commands on the standard input
  command->callback([options] { bench(*options); });
}

}  // namespace hrnn
