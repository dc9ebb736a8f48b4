// SPDX-License-Identifier: Apache-2.0
#include "session_arrays.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli.h"

namespace hrnn {
namespace {

std::string names(const std::vector<hrnn_tensor_info> &infos) {
  std::string list;
  for (const hrnn_tensor_info &info : infos) list += (list.empty() ? "'" : ", '") + std::string(info.name) + "'";
  return list.empty() ? "none" : list;
}

std::string names(const std::vector<NamedArray> &arrays) {
  std::string list;
  for (const NamedArray &array : arrays) list += (list.empty() ? "'" : ", '") + array.first + "'";
  return list.empty() ? "none" : list;
}

Constant *find(std::vector<NamedArray> &arrays, const std::string &key) {
  for (NamedArray &array : arrays) {
    if (array.first == key) return &array.second;
  }
  return nullptr;
}

void check_keys(const std::vector<hrnn_tensor_info> &infos, std::vector<NamedArray> &arrays, const std::string &path) {
  for (const hrnn_tensor_info &info : infos) {
    if (find(arrays, info.name)) continue;
    throw ModelError(
        fmt::format("{}: there is no array '{}', which the model takes; the file has {}, the model takes {}", path,
                    info.name, names(arrays), names(infos)));
  }
  for (const NamedArray &array : arrays) {
    const bool known =
        std::any_of(infos.begin(), infos.end(), [&](const hrnn_tensor_info &info) { return info.name == array.first; });
    if (known) continue;
    throw ModelError(fmt::format("{}: array '{}' is no input of the model, which takes {}; leave it out", path,
                                 array.first, names(infos)));
  }
}

// Type and shape of one array; what a dynamic dimension must be follows from the first array that has it.
class ArrayChecker {
 public:
  ArrayChecker(const hrnn_session *session, const std::string &path) : session_(session), path_(path) {}

  void check(const hrnn_tensor_info &info, const Constant &array) {
    if (runtime_type(array.type) != info.dtype) {
      throw ModelError(fmt::format("{}: array '{}' is {}, the model takes {}; convert it with array.astype(numpy.{})",
                                   path_, info.name, type_name(array.type), dtype_name(info.dtype),
                                   dtype_name(info.dtype)));
    }
    bool fits = array.dims.size() == static_cast<size_t>(info.rank);
    for (size_t i = 0; fits && i < array.dims.size(); ++i) fits = info.dims[i] < 0 || info.dims[i] == array.dims[i];
    if (!fits) {
      throw ModelError(fmt::format("{}: array '{}' has shape [{}], the model takes {}", path_, info.name,
                                   fmt::join(array.dims, ", "), dims_text(session_, info)));
    }
    for (size_t i = 0; i < array.dims.size(); ++i) {
      if (info.dims[i] < 0) check_symbol(info, i, array.dims[i]);
    }
  }

 private:
  struct Use {
    std::string key;
    int64_t value;
  };

  void check_symbol(const hrnn_tensor_info &info, size_t axis, int64_t value) {
    const size_t symbol = static_cast<size_t>(-1 - info.dims[axis]);
    const auto [use, first] = uses_.emplace(symbol, Use{info.name, value});
    if (first || use->second.value == value) return;
    throw ModelError(fmt::format("{}: array '{}' has {} at dimension {} ('{}'), array '{}' says it is {}", path_,
                                 info.name, value, axis, hrnn_session_symbol(session_, symbol), use->second.key,
                                 use->second.value));
  }

  const hrnn_session *session_;
  const std::string &path_;
  std::map<size_t, Use> uses_;
};

}  // namespace

hrnn_tensor tensor_of(Constant &array) {
  hrnn_tensor tensor{};
  tensor.dtype = runtime_type(array.type);
  tensor.rank = static_cast<int32_t>(array.dims.size());
  std::copy(array.dims.begin(), array.dims.end(), tensor.dims);
  tensor.data = array.bytes.data();
  tensor.bytes = array.bytes.size();
  return tensor;
}

DataType data_type_of(int32_t dtype) {
  switch (dtype) {
    case HRNN_F64:
      return DataType::Float64;
    case HRNN_I32:
      return DataType::Int32;
    case HRNN_I64:
      return DataType::Int64;
    case HRNN_F16:
      return DataType::Float16;
    case HRNN_BF16:
      return DataType::BFloat16;
    case HRNN_BOOL:
      return DataType::Bool;
    default:
      return DataType::Float32;
  }
}

std::vector<hrnn_tensor> bind_inputs(const hrnn_session *session, std::vector<NamedArray> &arrays,
                                     const std::string &path) {
  const std::vector<hrnn_tensor_info> infos = session_inputs(session);
  check_keys(infos, arrays, path);
  ArrayChecker checker(session, path);
  std::vector<hrnn_tensor> tensors;
  for (const hrnn_tensor_info &info : infos) {
    Constant &array = *find(arrays, info.name);
    checker.check(info, array);
    tensors.push_back(tensor_of(array));
  }
  return tensors;
}

std::vector<NamedArray> allocate_outputs(const hrnn_session *session, const std::vector<hrnn_tensor> &tensors) {
  const std::vector<hrnn_tensor_info> infos = session_outputs(session);
  std::vector<NamedArray> arrays;
  for (size_t i = 0; i < infos.size(); ++i) {
    const hrnn_tensor &tensor = tensors[i];
    arrays.emplace_back(infos[i].name,
                        make_constant(data_type_of(tensor.dtype), {tensor.dims, tensor.dims + tensor.rank}));
  }
  return arrays;
}

}  // namespace hrnn
