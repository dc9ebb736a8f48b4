// SPDX-License-Identifier: Apache-2.0
#include "npz.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zip.h>

#include <fstream>

#include "hrnn/compiler.h"
#include "onnx_models.h"

namespace hrnn {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Bytes = std::vector<uint8_t>;

Constant counting(DataType type, std::vector<int64_t> dims) {
  Constant array = make_constant(type, std::move(dims));
  for (int64_t i = 0; i < array.elements(); ++i) array.set(i, static_cast<double>(i) + 0.5);
  return array;
}

Bytes npy(const std::string &header, const Bytes &data, int version = 1) {
  Bytes file = {0x93, 'N', 'U', 'M', 'P', 'Y', static_cast<uint8_t>(version), 0};
  file.push_back(static_cast<uint8_t>(header.size()));
  file.push_back(static_cast<uint8_t>(header.size() >> 8));
  if (version > 1) file.insert(file.end(), {0, 0});
  file.insert(file.end(), header.begin(), header.end());
  file.insert(file.end(), data.begin(), data.end());
  return file;
}

template <class T>
Bytes bytes_of(const std::vector<T> &values) {
  const auto *begin = reinterpret_cast<const uint8_t *>(values.data());
  return Bytes(begin, begin + values.size() * sizeof(T));
}

std::string npy_error(const Bytes &file) {
  try {
    parse_npy(file, "x");
    return "";
  } catch (const ModelError &error) {
    return error.what();
  }
}

std::string npz_error(const std::string &path) {
  try {
    read_npz(path);
    return "";
  } catch (const ModelError &error) {
    return error.what();
  }
}

// A zip made by libzip directly: what write_npz would not write.
void write_zip(const std::string &path, const std::vector<std::pair<std::string, Bytes>> &entries, int method) {
  int code = 0;
  zip_t *archive = zip_open(path.c_str(), ZIP_CREATE | ZIP_TRUNCATE, &code);
  ASSERT_NE(archive, nullptr);
  for (const auto &[name, data] : entries) {
    const zip_int64_t index =
        zip_file_add(archive, name.c_str(), zip_source_buffer(archive, data.data(), data.size(), 0), ZIP_FL_ENC_UTF_8);
    ASSERT_GE(index, 0);
    zip_set_file_compression(archive, static_cast<zip_uint64_t>(index), method, 0);
  }
  ASSERT_EQ(zip_close(archive), 0);
}

// ---- Reading ----

TEST(Npy, ReadsEveryType) {
  const Constant f4 =
      parse_npy(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", bytes_of<float>({1, 2})), "x");
  EXPECT_EQ(f4.type, DataType::Float32);
  EXPECT_EQ(f4.at<float>(1), 2);
  const Constant f8 =
      parse_npy(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 1), }", bytes_of<double>({3})), "x");
  EXPECT_EQ(f8.type, DataType::Float64);
  EXPECT_EQ(f8.at<double>(0), 3);
  const Constant i4 =
      parse_npy(npy("{'descr': '<i4', 'fortran_order': False, 'shape': (), }", bytes_of<int32_t>({-4})), "x");
  EXPECT_EQ(i4.type, DataType::Int32);
  EXPECT_TRUE(i4.dims.empty());
  EXPECT_EQ(i4.at<int32_t>(0), -4);
  const Constant i8 = parse_npy(npy("{'descr': '<i8', 'fortran_order': False, 'shape': (0, 7), }", {}), "x");
  EXPECT_EQ(i8.type, DataType::Int64);
  EXPECT_THAT(i8.dims, ElementsAre(0, 7));
}

TEST(Npy, ReadsVersions2And3AndOtherOrdersOfKeys) {
  for (int version : {1, 2, 3}) {
    const Constant array = parse_npy(
        npy("{\"shape\": (2L,), 'fortran_order': False, 'descr': '<f4'}\n", bytes_of<float>({1, 2}), version), "x");
    EXPECT_THAT(array.dims, ElementsAre(2)) << version;
  }
}

TEST(Npy, TransposesColumnMajorArrays) {
  const Constant array = parse_npy(
      npy("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }", bytes_of<float>({0, 10, 1, 11, 2, 12})), "x");
  EXPECT_THAT(array.dims, ElementsAre(2, 3));
  std::vector<double> values;
  for (int64_t i = 0; i < 6; ++i) values.push_back(array.real(i));
  EXPECT_THAT(values, ElementsAre(0, 1, 2, 10, 11, 12));
}

TEST(Npy, ReadsAndWritesSmallTypes) {
  for (const auto &[descr, type] : {std::pair{"<f2", DataType::Float16}, {"<V2", DataType::BFloat16}}) {
    const auto file = npy(std::string("{'descr': '") + descr + "', 'fortran_order': False, 'shape': (2,), }",
                          bytes_of<uint16_t>({0x3f80, 0xbc00}));
    const Constant array = parse_npy(file, "x");
    EXPECT_EQ(array.type, type);
    EXPECT_EQ(array.real(0), type == DataType::BFloat16 ? 1 : 1.875);
    EXPECT_EQ(parse_npy(format_npy(array), "x").type, type);
  }
  const Constant flags = parse_npy(npy("{'descr': '|b1', 'fortran_order': False, 'shape': (2,), }", Bytes{1, 0}), "x");
  EXPECT_EQ(flags.type, DataType::Bool);
  EXPECT_EQ(flags.real(0), 1);
}

TEST(Npy, RefusesOtherTypes) {
  EXPECT_THAT(npy_error(npy("{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }", Bytes(4))),
              AllOf(HasSubstr("'>f4'"), HasSubstr("big-endian")));
  EXPECT_THAT(npy_error(npy("{'descr': '<u2', 'fortran_order': False, 'shape': (1,), }", Bytes(2))),
              AllOf(HasSubstr("'<u2'"), HasSubstr("float32")));
  EXPECT_THAT(npy_error(npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", Bytes(8))), HasSubstr("'|O'"));
  EXPECT_THAT(npy_error(npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", Bytes(4))),
              HasSubstr("records"));
}

TEST(Npy, RefusesDataOfAnotherSizeWithBothSizes) {
  const std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
  EXPECT_THAT(npy_error(npy(header, Bytes(23))),
              AllOf(HasSubstr("(2, 3)"), HasSubstr("24 bytes"), HasSubstr("23 are")));
  EXPECT_THAT(npy_error(npy(header, Bytes(25))), AllOf(HasSubstr("24 bytes"), HasSubstr("25 are")));
}

TEST(Npy, RefusesAbsurdShapesWithoutAllocating) {
  for (const char *shape : {"(9223372036854775807,)", "(4294967296, 4294967296)", "(1000000000000,)",
                            "(0, 9223372036854775807)", "(99999999999999999999,)", "(1, 1, 1, 1, 1, 1, 1, 1, 1)"}) {
    const Bytes file = npy("{'descr': '<f4', 'fortran_order': False, 'shape': " + std::string(shape) + ", }", Bytes(4));
    EXPECT_NE(npy_error(file), "") << shape;
  }
}

TEST(Npy, RefusesDamagedHeaders) {
  for (const char *header :
       {"", "{", "{}", "{'descr': '<f4'}", "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), } x",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 1}",
        "{'descr': '<f4, 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4' 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1 1)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}"}) {
    EXPECT_NE(npy_error(npy(header, Bytes(4))), "") << header;
  }
  EXPECT_THAT(npy_error(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", Bytes(4), 4)),
              HasSubstr("version 4"));
  EXPECT_THAT(npy_error({'n', 'o'}), HasSubstr("no .npy array"));
  Bytes long_header = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", Bytes(4 + (1 << 20)), 2);
  long_header[10] = 16;  // the length's third byte: a megabyte, which is there
  EXPECT_THAT(npy_error(long_header), HasSubstr("at most 65536"));
}

TEST(Npy, EveryTruncationIsAnError) {
  const Bytes file = format_npy(counting(DataType::Float32, {2, 2}));
  ASSERT_EQ(npy_error(file), "");
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_NE(npy_error(Bytes(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(size))), "") << size;
  }
}

TEST(Npy, DataIsAligned) {
  const Bytes file = format_npy(counting(DataType::Float64, {3}));
  EXPECT_EQ((file.size() - 24) % 64, 0u);
}

// ---- The zip ----

TEST(Npz, WritesWhatItReads) {
  const test::TemporaryFolder folder;
  const std::vector<NamedArray> arrays = {{"x", counting(DataType::Float32, {2, 3})},
                                          {"/odd name:0", counting(DataType::Float64, {})},
                                          {"lengths", counting(DataType::Int32, {4})},
                                          {"empty", counting(DataType::Int64, {0, 2})}};
  write_npz(folder.file("a.npz"), arrays);
  const std::vector<NamedArray> read = read_npz(folder.file("a.npz"));
  ASSERT_EQ(read.size(), arrays.size());
  for (size_t i = 0; i < arrays.size(); ++i) {
    EXPECT_EQ(read[i].first, arrays[i].first);
    EXPECT_EQ(read[i].second.type, arrays[i].second.type);
    EXPECT_EQ(read[i].second.dims, arrays[i].second.dims);
    EXPECT_EQ(read[i].second.bytes, arrays[i].second.bytes);
  }
}

TEST(Npz, ReadsDeflatedEntries) {
  const test::TemporaryFolder folder;
  const Constant zeros = make_constant(DataType::Float32, {100, 100});
  write_zip(folder.file("a.npz"), {{"x.npy", format_npy(zeros)}}, ZIP_CM_DEFLATE);
  EXPECT_LT(std::filesystem::file_size(folder.file("a.npz")), 2000u);
  EXPECT_EQ(read_npz(folder.file("a.npz")).at(0).second.bytes, zeros.bytes);
}

TEST(Npz, EqualArraysGiveEqualFiles) {
  const test::TemporaryFolder folder;
  for (const char *name : {"a.npz", "b.npz"}) write_npz(folder.file(name), {{"x", counting(DataType::Float32, {5})}});
  const auto contents = [&](const char *name) {
    std::ifstream file(folder.file(name), std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  EXPECT_EQ(contents("a.npz"), contents("b.npz"));
}

TEST(Npz, NamesTheFileAndTheArray) {
  const test::TemporaryFolder folder;
  EXPECT_THAT(npz_error(folder.file("missing.npz")), HasSubstr("missing.npz"));
  EXPECT_THAT(npz_error(folder.path()), HasSubstr("not a regular file"));
  EXPECT_THAT(npz_error(folder.write("text.npz", "this is no zip file at all")),
              HasSubstr("text.npz: cannot be opened"));
  write_zip(folder.file("a.npz"), {{"x.npy", npy("{}", {})}}, ZIP_CM_STORE);
  EXPECT_THAT(npz_error(folder.file("a.npz")), HasSubstr("a.npz: array 'x': "));
  write_zip(folder.file("b.npz"), {{"readme.txt", {1, 2}}}, ZIP_CM_STORE);
  EXPECT_THAT(npz_error(folder.file("b.npz")), HasSubstr("'readme.txt'"));
}

TEST(Npz, CannotWriteToAFolderThatIsNotThere) {
  EXPECT_THROW(write_npz("/nonexistent/folder/a.npz", {{"x", counting(DataType::Float32, {1})}}), ModelError);
}

TEST(Npz, EveryTruncationAndFlippedByteIsHandled) {
  const test::TemporaryFolder folder;
  for (int method : {ZIP_CM_STORE, ZIP_CM_DEFLATE}) {
    write_zip(folder.file("a.npz"), {{"x.npy", format_npy(counting(DataType::Float32, {2}))}}, method);
    std::ifstream file(folder.file("a.npz"), std::ios::binary);
    const std::string bytes(std::istreambuf_iterator<char>(file), {});
    for (size_t size = 0; size < bytes.size(); ++size) {
      EXPECT_NE(npz_error(folder.write("cut.npz", bytes.substr(0, size))), "") << size;
    }
    for (size_t at = 0; at < bytes.size(); ++at) {
      std::string damaged = bytes;
      damaged[at] = static_cast<char>(damaged[at] ^ 0x55);
      npz_error(folder.write("damaged.npz", damaged));  // an error or not, but nothing worse
    }
  }
}

}  // namespace
}  // namespace hrnn
