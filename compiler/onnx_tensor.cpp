// SPDX-License-Identifier: Apache-2.0
#include "onnx_tensor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>

#include "hrnn/compiler.h"

namespace hrnn {
namespace {

namespace fs = std::filesystem;
using onnx::TensorProto;

[[noreturn]] void fail(const std::string &what, const std::string &message) { throw ModelError(what + ": " + message); }

std::vector<int64_t> checked_dims(const TensorProto &tensor, const std::string &what) {
  if (static_cast<size_t>(tensor.dims_size()) > kMaxRank) {
    fail(what, fmt::format("has {} dimensions; at most {} are supported", tensor.dims_size(), kMaxRank));
  }
  std::vector<int64_t> dims(tensor.dims().begin(), tensor.dims().end());
  if (!try_element_count(dims)) {
    fail(what, fmt::format("its shape [{}] is absurd; the file is damaged", fmt::join(dims, ", ")));
  }
  return dims;
}

// ---- External data ----

struct ExternalRange {
  std::string location;
  int64_t offset = 0, length = -1;  // -1: to the end of the file
};

int64_t parse_size(const std::string &value, const std::string &key, const std::string &what) {
  int64_t number = -1;
  const char *end = value.data() + value.size();
  const auto result = std::from_chars(value.data(), end, number);
  if (result.ec != std::errc() || result.ptr != end || number < 0) {
    fail(what, fmt::format("external data {} is '{}'; it must be a number of bytes", key, value));
  }
  return number;
}

ExternalRange external_range(const TensorProto &tensor, const std::string &what) {
  ExternalRange range;
  for (const auto &entry : tensor.external_data()) {
    if (entry.key() == "location") {
      range.location = entry.value();
    } else if (entry.key() == "offset") {
      range.offset = parse_size(entry.value(), "offset", what);
    } else if (entry.key() == "length") {
      range.length = parse_size(entry.value(), "length", what);
    } else if (entry.key() != "checksum") {  // optional, and of the whole file: the sizes below are what is checked
      fail(what,
           fmt::format("external data key '{}' is not known (known: location, offset, length, checksum)", entry.key()));
    }
  }
  if (range.location.empty()) fail(what, "is external data without a location; export the model again");
  return range;
}

// The file a location names. A model is data from elsewhere: it may name files beside it, and nothing else.
fs::path external_path(const std::string &location, const std::string &folder, const std::string &what) {
  const fs::path relative(location);
  const bool climbs = std::any_of(relative.begin(), relative.end(), [](const fs::path &part) { return part == ".."; });
  if (location.find('\0') != std::string::npos || relative.is_absolute() || climbs) {
    fail(what, fmt::format("external data location '{}' must be a relative path inside the model's folder '{}'",
                           location.c_str(), folder));
  }
  std::error_code error;
  const fs::path root = fs::canonical(folder, error);
  if (error) fail(what, fmt::format("folder '{}': {}", folder, error.message()));
  const fs::path file = fs::canonical(root / relative, error);
  if (error) {
    fail(what, fmt::format("external data file '{}' in '{}': {}; keep it beside the model", location, folder,
                           error.message()));
  }
  const auto inside = std::mismatch(root.begin(), root.end(), file.begin(), file.end());
  if (inside.first != root.end()) {
    fail(what, fmt::format("external data location '{}' leads to '{}', outside the model's folder '{}'; copy the file "
                           "there",
                           location, file.string(), root.string()));
  }
  return file;
}

class File {
 public:
  explicit File(const fs::path &path) : descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  ~File() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  File(const File &) = delete;
  File &operator=(const File &) = delete;

  int64_t regular_size() const {  // -1: cannot be opened, or is no regular file
    struct stat status {};
    if (descriptor_ < 0 || ::fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) return -1;
    return status.st_size;
  }
  bool read(int64_t offset, uint8_t *to, size_t bytes) const {
    while (bytes > 0) {
      const ssize_t got = ::pread(descriptor_, to, bytes, offset);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return false;
      to += got;
      offset += got;
      bytes -= static_cast<size_t>(got);
    }
    return true;
  }

 private:
  int descriptor_;
};

void read_external(const TensorProto &tensor, const std::string &folder, const std::string &what, int64_t bytes,
                   Constant *constant) {
  const ExternalRange range = external_range(tensor, what);
  const File file(external_path(range.location, folder, what));
  const int64_t size = file.regular_size();
  if (size < 0) fail(what, fmt::format("external data file '{}' is not a readable regular file", range.location));
  if (range.offset > size) {
    fail(what,
         fmt::format("external data offset {} is past the end of '{}' ({} bytes)", range.offset, range.location, size));
  }
  const int64_t length = range.length < 0 ? size - range.offset : range.length;
  if (length > size - range.offset) {
    fail(what, fmt::format("external data needs bytes {} to {} of '{}', which has {}; the file is truncated or another "
                           "model's",
                           range.offset, static_cast<double>(range.offset) + static_cast<double>(length),
                           range.location, size));
  }
  if (length != bytes) {
    fail(what, fmt::format("its shape [{}] needs {} bytes of data, its external data has {}",
                           fmt::join(constant->dims, ", "), bytes, length));
  }
  constant->bytes.resize(static_cast<size_t>(bytes));
  if (!file.read(range.offset, constant->bytes.data(), constant->bytes.size())) {
    fail(what, fmt::format("cannot read {} bytes at {} of '{}'", bytes, range.offset, range.location));
  }
}

// ---- Data inside the file ----

void read_raw(const TensorProto &tensor, const std::string &what, int64_t bytes, Constant *constant) {
  const std::string &raw = tensor.raw_data();
  if (static_cast<int64_t>(raw.size()) != bytes) {
    fail(what, fmt::format("its shape [{}] of {} needs {} bytes of data, the file has {}",
                           fmt::join(constant->dims, ", "), type_name(constant->type), bytes, raw.size()));
  }
  constant->bytes.assign(raw.begin(), raw.end());
}

template <class Stored, class Field>
void read_typed(const Field &field, const char *field_name, const std::string &what, int64_t count,
                Constant *constant) {
  if (static_cast<int64_t>(field.size()) != count) {
    fail(what, fmt::format("its shape [{}] needs {} values, {} has {}", fmt::join(constant->dims, ", "), count,
                           field_name, field.size()));
  }
  constant->bytes.resize(static_cast<size_t>(count) * sizeof(Stored));
  uint8_t *to = constant->bytes.data();
  for (const auto value : field) {
    const Stored stored = static_cast<Stored>(value);
    std::memcpy(to, &stored, sizeof stored);
    to += sizeof stored;
  }
}

// The fields that may hold values; exactly one may be in use, and it must be the one of the type.
const char *filled_field(const TensorProto &tensor, const std::string &what) {
  const std::pair<const char *, int> fields[] = {
      {"float_data", tensor.float_data_size()},   {"int32_data", tensor.int32_data_size()},
      {"int64_data", tensor.int64_data_size()},   {"double_data", tensor.double_data_size()},
      {"uint64_data", tensor.uint64_data_size()}, {"string_data", tensor.string_data_size()},
      {"raw_data", tensor.has_raw_data() ? 1 : 0}};
  const char *filled = nullptr;
  for (const auto &[name, size] : fields) {
    if (size == 0) continue;
    if (filled) fail(what, fmt::format("holds data in both {} and {}; the file is damaged", filled, name));
    filled = name;
  }
  return filled;
}

void read_inline(const TensorProto &tensor, const std::string &what, int64_t count, Constant *constant) {
  const char *filled = filled_field(tensor, what);
  if (tensor.has_raw_data()) return read_raw(tensor, what, count * type_bytes(constant->type), constant);
  const char *expected = constant->type == DataType::Float32   ? "float_data"
                         : constant->type == DataType::Float64 ? "double_data"
                         : constant->type == DataType::Int64   ? "int64_data"
                                                               : "int32_data";
  if (filled && std::strcmp(filled, expected) != 0) {
    fail(what, fmt::format("is {} but holds its data in {}; it belongs in {} or raw_data", type_name(constant->type),
                           filled, expected));
  }
  switch (constant->type) {
    case DataType::Float32:
      return read_typed<float>(tensor.float_data(), expected, what, count, constant);
    case DataType::Float64:
      return read_typed<double>(tensor.double_data(), expected, what, count, constant);
    case DataType::Int64:
      return read_typed<int64_t>(tensor.int64_data(), expected, what, count, constant);
    case DataType::Int32:
      return read_typed<int32_t>(tensor.int32_data(), expected, what, count, constant);
    case DataType::Bool:
      return read_typed<bool>(tensor.int32_data(), expected, what, count, constant);
    case DataType::Float16:
    case DataType::BFloat16:
      return read_typed<uint16_t>(tensor.int32_data(), expected, what, count, constant);  // their bits
  }
}

}  // namespace

std::string onnx_type_name(int32_t type) {
  static constexpr const char *kNames[] = {"undefined", "float32", "uint8",     "int8",       "uint16",  "int16",
                                           "int32",     "int64",   "string",    "bool",       "float16", "float64",
                                           "uint32",    "uint64",  "complex64", "complex128", "bfloat16"};
  if (type >= 0 && type < static_cast<int32_t>(std::size(kNames))) return kNames[type];
  return fmt::format("type {}", type);
}

DataType data_type(int32_t onnx_type, const std::string &what) {
  switch (onnx_type) {
    case TensorProto::FLOAT:
      return DataType::Float32;
    case TensorProto::DOUBLE:
      return DataType::Float64;
    case TensorProto::INT32:
      return DataType::Int32;
    case TensorProto::INT64:
      return DataType::Int64;
    case TensorProto::BOOL:
      return DataType::Bool;
    case TensorProto::FLOAT16:
      return DataType::Float16;
    case TensorProto::BFLOAT16:
      return DataType::BFloat16;
    default:
      fail(what, "element type " + onnx_type_name(onnx_type) +
                     " is not supported (supported: float32, float64, float16, bfloat16, int32, int64, bool)");
  }
}

Constant read_tensor(const TensorProto &tensor, const std::string &folder, const std::string &what) {
  Constant constant;
  constant.type = data_type(tensor.data_type(), what);
  constant.dims = checked_dims(tensor, what);
  if (tensor.has_segment()) fail(what, "is stored in segments, which is not supported; export the model again");
  const int64_t count = element_count(constant.dims);
  if (tensor.data_location() == TensorProto::EXTERNAL) {
    if (filled_field(tensor, what)) fail(what, "is declared external but also holds data; the file is damaged");
    read_external(tensor, folder, what, count * type_bytes(constant.type), &constant);
  } else {
    if (tensor.external_data_size() > 0) fail(what, "has external_data but data_location is not EXTERNAL");
    read_inline(tensor, what, count, &constant);
  }
  return constant;
}

}  // namespace hrnn
