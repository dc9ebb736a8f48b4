// SPDX-License-Identifier: Apache-2.0
#include "cli.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdio>

namespace hrnn {

void print(const Json &json) {
  // Names in a model may be any bytes; those that are no UTF-8 must not end the command.
  fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
}

Json dims_json(const Dims &dims, const std::vector<Symbol> &symbols) {
  Json result = Json::array();
  for (const Dim &dim : dims) {
    if (dim.literal()) {
      result.push_back(*dim.literal());
    } else {
      result.push_back(dim.text(symbols));
    }
  }
  return result;
}

const char *dtype_name(int32_t dtype) {
  switch (dtype) {
    case HRNN_F32:
      return "float32";
    case HRNN_F64:
      return "float64";
    case HRNN_I32:
      return "int32";
    case HRNN_I64:
      return "int64";
    case HRNN_F16:
      return "float16";
    case HRNN_BF16:
      return "bfloat16";
    case HRNN_BOOL:
      return "bool";
    default:
      return "?";
  }
}

void add_extract(CLI::App *command, bool *extract) {
  command->add_flag("--extract", *extract,
                    "Take only the recurrent part of a model that cannot be compiled as a whole; what is left out is "
                    "said on standard error");
}

Model load(const std::string &path, bool extract) {
  const Model model = load_model(path, extract);
  for (const std::string &warning : model->warnings) fmt::print(stderr, "hrnn: warning: {}: {}\n", path, warning);
  return model;
}

void check(hrnn_status status, const hrnn_error &error, const std::string &where) {
  if (status == HRNN_OK) return;
  throw ModelError(fmt::format("{}: {}", where, error.message[0] ? error.message : hrnn_status_name(status)));
}

Team make_team(uint32_t threads) {
  if (threads == 1) return nullptr;
  hrnn_team_options options{};
  options.struct_size = sizeof options;
  options.threads = threads;
  hrnn_team *team = nullptr;
  hrnn_error error{};
  check(hrnn_team_create(&options, &team, &error), error, "--threads");
  return Team(team);
}

Session make_session(const CompiledModel &model, const std::string &variant, const std::string &where, hrnn_team *team) {
  hrnn_options options{};
  options.struct_size = sizeof options;
  options.tables = hrnn_prebuilt_tables;
  options.table_count = static_cast<uint32_t>(hrnn_prebuilt_table_count);
  if (!variant.empty()) options.force_variant = variant.c_str();
  options.team = team;
  const hrnn_model view = model.view();
  hrnn_session *session = nullptr;
  hrnn_error error{};
  check(hrnn_session_create(&view, &options, &session, &error), error, where);
  return Session(session);
}

std::vector<hrnn_tensor_info> session_inputs(const hrnn_session *session) {
  std::vector<hrnn_tensor_info> infos(hrnn_session_input_count(session));
  for (size_t i = 0; i < infos.size(); ++i) hrnn_session_input(session, i, &infos[i]);
  return infos;
}

std::vector<hrnn_tensor_info> session_outputs(const hrnn_session *session) {
  std::vector<hrnn_tensor_info> infos(hrnn_session_output_count(session));
  for (size_t i = 0; i < infos.size(); ++i) hrnn_session_output(session, i, &infos[i]);
  return infos;
}

std::vector<hrnn_selection> session_selections(const hrnn_session *session) {
  std::vector<hrnn_selection> selections;
  for (;;) {
    hrnn_selection selection{};
    selection.struct_size = sizeof selection;
    if (hrnn_session_selection(session, selections.size(), &selection) != HRNN_OK) return selections;
    selections.push_back(selection);
  }
}

Sizes parse_sizes(const std::vector<std::string> &texts) {
  Sizes sizes;
  for (const std::string &text : texts) {
    const size_t equals = text.find('=');
    int64_t value = -1;
    const char *end = text.data() + text.size();
    if (equals != std::string::npos) {
      const auto result = std::from_chars(text.data() + equals + 1, end, value);
      if (result.ec != std::errc() || result.ptr != end) value = -1;
    }
    if (equals == 0 || value < 0) throw CLI::ValidationError("--dim", "'" + text + "' must be NAME=SIZE");
    sizes[text.substr(0, equals)] = value;
  }
  return sizes;
}

void check_names(const hrnn_session *session, const Sizes &sizes, const std::string &model) {
  for (const auto &[name, size] : sizes) {
    std::string known;
    bool found = false;
    for (size_t i = 0; const char *symbol = hrnn_session_symbol(session, i); ++i) {
      found = found || name == symbol;
      known += (known.empty() ? "'" : ", '") + std::string(symbol) + "'";
    }
    if (!found) {
      throw ModelError(fmt::format("{}: --dim {}={}: the model has no dynamic dimension '{}', it has {}", model, name,
                                   size, name, known.empty() ? "none" : known));
    }
  }
}

std::vector<hrnn_tensor> sized_inputs(const hrnn_session *session, const Sizes &sizes) {
  std::vector<hrnn_tensor> inputs;
  for (const hrnn_tensor_info &info : session_inputs(session)) {
    hrnn_tensor tensor{};
    tensor.dtype = info.dtype;
    tensor.rank = info.rank;
    for (int32_t i = 0; i < info.rank; ++i) {
      tensor.dims[i] = info.dims[i];
      if (info.dims[i] >= 0) continue;
      const auto size = sizes.find(hrnn_session_symbol(session, static_cast<size_t>(-1 - info.dims[i])));
      tensor.dims[i] = size == sizes.end() ? 1 : size->second;
    }
    inputs.push_back(tensor);
  }
  return inputs;
}

std::string dims_text(const hrnn_session *session, const hrnn_tensor_info &info) {
  std::string text;
  for (int32_t i = 0; i < info.rank; ++i) {
    const int64_t dim = info.dims[i];
    text += (i ? ", " : "") +
            (dim >= 0 ? std::to_string(dim) : std::string(hrnn_session_symbol(session, static_cast<size_t>(-1 - dim))));
  }
  return "[" + text + "]";
}

}  // namespace hrnn
