// SPDX-License-Identifier: Apache-2.0
//
// The `hrnn` command. Exit codes: 0 ok, 1 the input is wrong, 2 usage.
#include <fmt/format.h>

#include <cstdio>

#include "cli.h"

namespace {

int fail(int code, const std::string &message) {
  fmt::print(stderr, "hrnn: error: {}\n", message);
  return code;
}

// What is wrong with the arguments. CLI11 says of an unknown command that one is required.
std::string usage_fault(const CLI::App &app, const CLI::ParseError &error) {
  if (!app.get_subcommands().empty()) return error.what();
  std::string commands;
  for (const CLI::App *command : app.get_subcommands(nullptr)) commands += (commands.empty() ? "" : ", ") + command->get_name();
  const std::vector<std::string> unknown = app.remaining();
  return fmt::format("{}; the commands are {}", unknown.empty() ? "a command is missing" : fmt::format("there is no command '{}'", unknown[0]),
                     commands);
}

int run(CLI::App &app, int argc, char **argv) {
  try {
    app.parse(argc, argv);  // runs the command's callback
    return std::fflush(stdout) == 0 ? 0 : fail(1, "cannot write to standard output");
  } catch (const CLI::ParseError &error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    std::string command = "hrnn";
    for (const CLI::App *sub : app.get_subcommands()) command += " " + sub->get_name();
    return fail(2, fmt::format("{}\nRun `{} --help` for what it takes.", usage_fault(app, error), command));
  } catch (const std::bad_alloc &) {
    return fail(1, "there is not enough memory for this");
  } catch (const std::exception &error) {
    return fail(1, error.what());
  }
}

}  // namespace

int main(int argc, char **argv) {
  CLI::App app("Compiles recurrent networks ahead of time, for x86, ARM and CUDA.", "hrnn");
  app.set_version_flag("--version", std::string("hrnn ") + hrnn_version());
  app.require_subcommand(1);
  app.footer("Exit codes: 0 ok, 1 the input is wrong, 2 usage.");
  hrnn::add_compile(app);
  hrnn::add_run(app);
  hrnn::add_inspect(app);
  hrnn::add_explain(app);
  hrnn::add_kernels(app);
  hrnn::add_bench(app);
  hrnn::add_tune(app);
  return run(app, argc, argv);
}
