// SPDX-License-Identifier: Apache-2.0
#include "npz.h"

#include <fmt/format.h>
#include <zip.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>

#include "hrnn/compiler.h"

namespace hrnn {
namespace {

constexpr char kMagic[] = "\x93NUMPY";
constexpr size_t kMagicBytes = 6;
constexpr size_t kMaxHeaderBytes = 64 << 10;  // names of structured types aside, headers have about 100 bytes

[[noreturn]] void fail(const std::string &what, const std::string &message) { throw ModelError(what + ": " + message); }

// ---- The header of a .npy file: a Python dictionary in text ----

struct Header {
  std::optional<std::string> descr;
  std::optional<bool> fortran_order;
  std::optional<std::vector<int64_t>> shape;
};

// A parser of exactly what numpy writes: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
class HeaderParser {
 public:
  HeaderParser(std::string text, const std::string &what) : text_(std::move(text)), what_(what) {}

  Header parse() {
    Header header;
    expect('{');
    while (!accept('}')) {
      const std::string key = quoted();
      expect(':');
      if (key == "descr" && !header.descr) {
        header.descr = quoted();
      } else if (key == "fortran_order" && !header.fortran_order) {
        header.fortran_order = boolean();
      } else if (key == "shape" && !header.shape) {
        header.shape = tuple();
      } else {
        bad();
      }
      if (!accept(',') && peek() != '}') bad();
    }
    if (peek() != '\0' || at_ < text_.size()) bad();
    if (!header.descr || !header.fortran_order || !header.shape) bad();
    return header;
  }

 private:
  [[noreturn]] void bad() const {
    fail(what_, fmt::format(
                    "its .npy header is not what numpy writes (at character {}); save it again with numpy.savez", at_));
  }
  char peek() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool accept(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) bad();
  }
  std::string quoted() {
    const char quote = peek();
    if (quote == '[') fail(what_, "is an array of records; save its columns as arrays of their own");
    if (quote != '\'' && quote != '"') bad();
    const size_t end = text_.find(quote, at_ + 1);
    if (end == std::string::npos) bad();
    const std::string result = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return result;
  }
  bool boolean() {
    peek();
    for (const bool value : {true, false}) {
      const std::string word = value ? "True" : "False";
      if (text_.compare(at_, word.size(), word) != 0) continue;
      at_ += word.size();
      return value;
    }
    bad();
  }
  int64_t number() {
    peek();
    int64_t value = 0;
    const size_t begin = at_;
    for (; at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_])); ++at_) {
      if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, text_[at_] - '0', &value)) {
        fail(what_, "a dimension of it does not fit 64 bits; the file is damaged");
      }
    }
    if (at_ == begin) bad();
    if (at_ < text_.size() && text_[at_] == 'L') ++at_;  // Python 2 wrote long integers so
    return value;
  }
  std::vector<int64_t> tuple() {
    std::vector<int64_t> result;
    expect('(');
    while (!accept(')')) {
      result.push_back(number());
      if (!accept(',') && peek() != ')') bad();
    }
    return result;
  }

  std::string text_;
  const std::string &what_;
  size_t at_ = 0;
};

DataType npy_type(const std::string &descr, const std::string &what) {
  if (descr == "<f4") return DataType::Float32;
  if (descr == "<f8") return DataType::Float64;
  if (descr == "<i4") return DataType::Int32;
  if (descr == "<i8") return DataType::Int64;
  if (descr == "<f2") return DataType::Float16;
  // How numpy writes arrays of ml_dtypes.bfloat16, which it knows as two bytes without a meaning.
  if (descr == "<V2" || descr == "|V2") return DataType::BFloat16;
  if (descr == "|b1" || descr == "<b1") return DataType::Bool;
  if (!descr.empty() && descr[0] == '>') {
    fail(what, fmt::format("is big-endian ('{}'); convert it with array.astype('<{}')", descr, descr.substr(1)));
  }
  fail(what, fmt::format("has dtype '{}'; supported are float32 ('<f4'), float64 ('<f8'), float16 ('<f2'), bfloat16 "
                         "('<V2'), int32 ('<i4'), int64 ('<i8') and bool ('|b1'): convert it with array.astype",
                         descr));
}

const char *npy_descr(DataType type) {
  switch (type) {
    case DataType::Float32:
      return "<f4";
    case DataType::Float64:
      return "<f8";
    case DataType::Int32:
      return "<i4";
    case DataType::Int64:
      return "<i8";
    case DataType::Bool:
      return "|b1";
    case DataType::Float16:
      return "<f2";
    case DataType::BFloat16:
      return "<V2";
  }
  return "";
}

struct Preamble {
  size_t header_begin, header_bytes;
};

Preamble parse_preamble(const std::vector<uint8_t> &file, const std::string &what) {
  if (file.size() < kMagicBytes + 4 || std::memcmp(file.data(), kMagic, kMagicBytes) != 0) {
    fail(what, "is no .npy array (it does not start with \\x93NUMPY); save it with numpy.savez");
  }
  const int version = file[kMagicBytes];
  if (version < 1 || version > 3)
    fail(what, fmt::format("has .npy version {}; versions 1 to 3 are supported", version));
  const size_t length_bytes = version == 1 ? 2 : 4;
  const size_t begin = kMagicBytes + 2 + length_bytes;
  if (file.size() < begin) fail(what, "is truncated inside its .npy header");
  size_t length = 0;
  for (size_t i = 0; i < length_bytes; ++i) length |= static_cast<size_t>(file[kMagicBytes + 2 + i]) << (8 * i);
  if (length > kMaxHeaderBytes) {
    fail(what, fmt::format("its .npy header claims {} bytes; at most {} are supported", length, kMaxHeaderBytes));
  }
  if (file.size() - begin < length) {
    fail(what, fmt::format("is truncated: its .npy header needs {} bytes, {} are there", length, file.size() - begin));
  }
  return {begin, length};
}

int64_t checked_bytes(const Header &header, DataType type, const std::string &what) {
  const auto count = try_element_count(*header.shape);
  if (!count) fail(what, fmt::format("its shape ({}) is absurd; the file is damaged", fmt::join(*header.shape, ", ")));
  return *count * type_bytes(type);
}

// Column-major data with these dimensions as row-major.
Constant transposed(const Constant &stored) {
  StridedView view{stored.dims, std::vector<int64_t>(stored.dims.size()), 0};
  int64_t stride = 1;
  for (size_t i = 0; i < stored.dims.size(); ++i) {
    view.strides[i] = stride;
    stride *= stored.dims[i];
  }
  return copy_view(stored, view);
}

// ---- The zip ----

std::string zip_message(int code) {
  zip_error_t error;
  zip_error_init_with_code(&error, code);
  std::string message = zip_error_strerror(&error);
  zip_error_fini(&error);
  return message;
}

struct Discard {
  void operator()(zip_t *archive) const { zip_discard(archive); }
  void operator()(zip_file_t *file) const { zip_fclose(file); }
};
using Archive = std::unique_ptr<zip_t, Discard>;
using Entry = std::unique_ptr<zip_file_t, Discard>;

Archive open_archive(const std::string &path, int flags) {
  int code = 0;
  Archive archive(zip_open(path.c_str(), flags, &code));
  if (!archive) fail(path, fmt::format("cannot be opened as .npz: {}", zip_message(code)));
  return archive;
}

// Memory grows with what is really there, never with what the file claims.
std::vector<uint8_t> read_entry(zip_t *archive, zip_uint64_t index, zip_uint64_t claimed, const std::string &what) {
  const Entry entry(zip_fopen_index(archive, index, 0));
  if (!entry) fail(what, fmt::format("cannot be read: {}", zip_strerror(archive)));
  std::vector<uint8_t> data;
  std::vector<uint8_t> chunk(std::min<zip_uint64_t>(claimed + 1, 1 << 20));
  for (;;) {
    const zip_int64_t got = zip_fread(entry.get(), chunk.data(), chunk.size());
    if (got < 0) fail(what, fmt::format("cannot be read: {}", zip_file_strerror(entry.get())));
    if (got == 0) break;
    data.insert(data.end(), chunk.begin(), chunk.begin() + got);
    if (data.size() > claimed) fail(what, fmt::format("has more than the {} bytes its zip entry claims", claimed));
  }
  if (data.size() != claimed) {
    fail(what, fmt::format("has {} bytes, its zip entry claims {}; the file is damaged", data.size(), claimed));
  }
  return data;
}

NamedArray read_array(zip_t *archive, zip_uint64_t index, const std::string &path) {
  zip_stat_t stat;
  zip_stat_init(&stat);
  if (zip_stat_index(archive, index, 0, &stat) != 0 || !(stat.valid & ZIP_STAT_NAME) || !(stat.valid & ZIP_STAT_SIZE)) {
    fail(path, fmt::format("entry {} of the zip cannot be read: {}", index, zip_strerror(archive)));
  }
  const std::string entry = stat.name, ending = ".npy";
  if (entry.size() <= ending.size() || entry.compare(entry.size() - ending.size(), ending.size(), ending) != 0) {
    fail(path, fmt::format("entry '{}' of the zip is no array; all must be .npy", entry));
  }
  const std::string key = entry.substr(0, entry.size() - ending.size());
  const std::string what = fmt::format("{}: array '{}'", path, key);
  return {key, parse_npy(read_entry(archive, index, stat.size, what), what)};
}

void add_array(zip_t *archive, const NamedArray &array, const std::vector<uint8_t> &data, const std::string &path) {
  zip_source_t *source = zip_source_buffer(archive, data.data(), data.size(), 0);
  if (!source) fail(path, fmt::format("cannot hold array '{}': {}", array.first, zip_strerror(archive)));
  const std::string name = array.first + ".npy";
  const zip_int64_t index = zip_file_add(archive, name.c_str(), source, ZIP_FL_ENC_UTF_8);
  if (index < 0) {
    zip_source_free(source);
    fail(path, fmt::format("cannot hold array '{}': {}", array.first, zip_strerror(archive)));
  }
  const auto added = static_cast<zip_uint64_t>(index);
  zip_set_file_compression(archive, added, ZIP_CM_STORE, 0);  // as numpy.savez does: it may be mapped, and is fast
  zip_file_set_dostime(archive, added, 0, (1 << 5) | 1, 0);   // 1980-01-01: equal arrays give equal files
}

}  // namespace

Constant parse_npy(const std::vector<uint8_t> &file, const std::string &what) {
  const Preamble preamble = parse_preamble(file, what);
  const auto begin = file.begin() + static_cast<std::ptrdiff_t>(preamble.header_begin);
  const auto data = begin + static_cast<std::ptrdiff_t>(preamble.header_bytes);
  const Header header = HeaderParser(std::string(begin, data), what).parse();
  const DataType type = npy_type(*header.descr, what);
  if (header.shape->size() > kMaxRank) {
    fail(what, fmt::format("has {} dimensions; at most {} are supported", header.shape->size(), kMaxRank));
  }
  const int64_t bytes = checked_bytes(header, type, what);
  if (bytes != file.end() - data) {
    fail(what, fmt::format("its shape ({}) of {} needs {} bytes of data, {} are there; the file is damaged",
                           fmt::join(*header.shape, ", "), type_name(type), bytes, file.end() - data));
  }
  Constant array;
  array.type = type;
  array.dims = *header.shape;
  array.bytes.assign(data, file.end());
  return *header.fortran_order && array.dims.size() > 1 ? transposed(array) : array;
}

std::vector<uint8_t> format_npy(const Constant &array) {
  const char *comma = array.dims.size() == 1 ? "," : "";
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}{}), }}",
                                   npy_descr(array.type), fmt::join(array.dims, ", "), comma);
  // The data starts on a 64-byte boundary, as numpy has it: readers may map the file.
  const size_t before = kMagicBytes + 4;
  header.append(63 - (before + header.size()) % 64, ' ').push_back('\n');
  std::string preamble(kMagic, kMagic + kMagicBytes);
  for (size_t byte : {size_t{1}, size_t{0}, header.size() & 0xff, header.size() >> 8})  // version 1.0, little-endian length
    preamble += static_cast<char>(byte);
  preamble += header;
  std::vector<uint8_t> file(preamble.size() + array.bytes.size());
  std::copy(preamble.begin(), preamble.end(), file.begin());
  std::copy(array.bytes.begin(), array.bytes.end(), file.begin() + static_cast<std::ptrdiff_t>(preamble.size()));
  return file;
}

std::vector<NamedArray> read_npz(const std::string &path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    fail(path, error ? error.message() : "is not a regular file; name a .npz file");
  }
  const Archive archive = open_archive(path, ZIP_RDONLY | ZIP_CHECKCONS);
  std::vector<NamedArray> arrays;
  std::set<std::string> keys;
  const zip_int64_t count = zip_get_num_entries(archive.get(), 0);
  for (zip_int64_t i = 0; i < count; ++i) {
    arrays.push_back(read_array(archive.get(), static_cast<zip_uint64_t>(i), path));
    if (!keys.insert(arrays.back().first).second) {
      fail(path, fmt::format("array '{}' is there twice; the file is damaged", arrays.back().first));
    }
  }
  return arrays;
}

void write_npz(const std::string &path, const std::vector<NamedArray> &arrays) {
  Archive archive = open_archive(path, ZIP_CREATE | ZIP_TRUNCATE);
  std::vector<std::vector<uint8_t>> files;  // must live until the archive is closed, which writes it
  for (const NamedArray &array : arrays) files.push_back(format_npy(array.second));
  for (size_t i = 0; i < arrays.size(); ++i) add_array(archive.get(), arrays[i], files[i], path);
  if (zip_close(archive.get()) != 0) fail(path, fmt::format("cannot be written: {}", zip_strerror(archive.get())));
  archive.release();
}

}  // namespace hrnn
