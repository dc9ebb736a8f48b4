// SPDX-License-Identifier: Apache-2.0
//
// hrnn run: a model on this machine, arrays in and arrays out.
#include "cli.h"
#include "session_arrays.h"

namespace hrnn {
namespace {

struct Options {
  std::string model, inputs, outputs, variant;
  uint32_t threads = 1;
  bool extract = false;
};

void run(const Options &options) {
  const CompiledModel model = lower(*load(options.model, options.extract));
  const Team team = make_team(options.threads);
  const Session session = make_session(model, options.variant, options.model, team.get());
  std::vector<NamedArray> inputs = read_npz(options.inputs);
  const std::vector<hrnn_tensor> in = bind_inputs(session.get(), inputs, options.inputs);
  std::vector<hrnn_tensor> out(hrnn_session_output_count(session.get()));
  hrnn_error error{};
  check(hrnn_session_reserve(session.get(), in.data(), in.size(), out.data(), out.size(), &error), error,
        options.inputs);
  std::vector<NamedArray> outputs = allocate_outputs(session.get(), out);
  for (size_t i = 0; i < out.size(); ++i) out[i] = tensor_of(outputs[i].second);
  check(hrnn_session_run(session.get(), in.data(), in.size(), out.data(), out.size(), &error), error, options.model);
  write_npz(options.outputs, outputs);
}

}  // namespace

void add_run(CLI::App &app) {
  CLI::App *command = app.add_subcommand("run", "Run a model on this machine, with arrays from and to .npz files");
  auto options = std::make_shared<Options>();
  command->add_option("MODEL", options->model, "Model file (.onnx)")->required();
  command->add_option("--inputs", options->inputs, "Arrays to read (.npz); the keys are the model's input names")
      ->required();
  command->add_option("--outputs", options->outputs, "Arrays to write (.npz); the keys are the model's output names")
      ->required();
  command->add_option("--variant", options->variant,
                      "Use this instruction set or kernel variant instead of choosing (see hrnn kernels)");
  add_extract(command, &options->extract);
  command->add_option("--threads", options->threads, "Threads for whole sequences")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  command->callback([options] { run(*options); });
}

}  // namespace hrnn
