// SPDX-License-Identifier: Apache-2.0
//
// What the commands of `hrnn` share. Each command is a file cmd_NAME.cpp that adds itself to the command line; it
// throws ModelError when its input is wrong (exit code 1) and prints results on standard output only.
#pragma once
#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "graph.h"
#include "hrnn/compiler.h"
#include "hrnn/hrnn.h"
#include "hrnn/prebuilt.h"

namespace hrnn {

void add_inspect(CLI::App &app);
void add_run(CLI::App &app);
void add_explain(CLI::App &app);
void add_kernels(CLI::App &app);
void add_compile(CLI::App &app);
void add_bench(CLI::App &app);
void add_tune(CLI::App &app);

// ordered: keys come out in the order they are written here, the same every time.
using Json = nlohmann::ordered_json;
void print(const Json &json);
Json dims_json(const Dims &dims, const std::vector<Symbol> &symbols);  // numbers, or names of dynamic dimensions

const char *dtype_name(int32_t dtype);  // of hrnn_dtype: "float32"

// load_model, with the model's warnings on standard error.
Model load(const std::string &path, bool extract = false);
// Adds --extract.
void add_extract(CLI::App *command, bool *extract);

// Throws ModelError with the runtime's message where a call failed.
void check(hrnn_status status, const hrnn_error &error, const std::string &where);

struct SessionDeleter {
  void operator()(hrnn_session *session) const { hrnn_session_destroy(session); }
};
using Session = std::unique_ptr<hrnn_session, SessionDeleter>;

// A session over `model` (which must outlive it) with the prebuilt kernels. `variant`: force one, "" = choose.
Session make_session(const CompiledModel &model, const std::string &variant, const std::string &where,
                     hrnn_team *team = nullptr);

struct TeamDeleter {
  void operator()(hrnn_team *team) const { hrnn_team_destroy(team); }
};
using Team = std::unique_ptr<hrnn_team, TeamDeleter>;
Team make_team(uint32_t threads);  // null for one

// What the session says of itself.
std::vector<hrnn_tensor_info> session_inputs(const hrnn_session *session);
std::vector<hrnn_tensor_info> session_outputs(const hrnn_session *session);
std::vector<hrnn_selection> session_selections(const hrnn_session *session);
// Sizes of dynamic dimensions, as --dim NAME=SIZE gives them.
using Sizes = std::map<std::string, int64_t>;
Sizes parse_sizes(const std::vector<std::string> &texts);
void check_names(const hrnn_session *session, const Sizes &sizes, const std::string &model);
// The session's inputs with these sizes, without data; dimensions not given are 1.
std::vector<hrnn_tensor> sized_inputs(const hrnn_session *session, const Sizes &sizes);

std::string dims_text(const hrnn_session *session, const hrnn_tensor_info &info);  // "[batch, 8]"

}  // namespace hrnn
