// SPDX-License-Identifier: Apache-2.0
//
// Constant tensors, and the operations on them the compiler folds away: moving elements (transpose, slice, expand, ...)
// and integer or real arithmetic on small ones.
#pragma once
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "hrnn/hrnn.h"

namespace hrnn {

enum class DataType { Float32, Float64, Int32, Int64, Bool, Float16, BFloat16 };

const char *type_name(DataType type);  // "float32"
int64_t type_bytes(DataType type);
bool is_float(DataType type);
hrnn_dtype runtime_type(DataType type);  // the runtime's number for it
// What values of a type are while a model runs: float16 and bfloat16 are computed in float32.
DataType computed_type(DataType type);

constexpr size_t kMaxRank = HRNN_MAX_RANK;

struct Constant {
  DataType type = DataType::Float32;
  std::vector<int64_t> dims;
  std::vector<uint8_t> bytes;  // dense, little-endian

  int64_t elements() const { return static_cast<int64_t>(bytes.size()) / type_bytes(type); }
  bool all_zero() const;  // every element equals zero (minus zero does)

  template <class T>
  T at(int64_t index) const {
    T value;
    std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
    return value;
  }
  double real(int64_t index) const;      // any type, converted
  int64_t integer(int64_t index) const;  // any type, truncated; out of range clamps, NaN is 0
  void set(int64_t index, double value);
  void set(int64_t index, int64_t value);
};

Constant make_constant(DataType type, std::vector<int64_t> dims);  // zeros
Constant cast(const Constant &constant, DataType type);

// Elements of a dense array picked by strides (which may be zero or negative): what transpose, slice and expand are.
struct StridedView {
  std::vector<int64_t> dims, strides;
  int64_t offset = 0;
};
std::vector<int64_t> dense_strides(const std::vector<int64_t> &dims);
// Elements of a tensor, or nothing where its dimensions are absurd: one is negative, or those that are not zero
// multiply to more than 2^56, so that neither sizes in bytes nor strides can overflow. The other throws ModelError
// instead.
std::optional<int64_t> try_element_count(const std::vector<int64_t> &dims);
int64_t element_count(const std::vector<int64_t> &dims);

// Calls visit(source index) for every element of the view, in order.
template <class Visit>
void for_each_element(const StridedView &view, Visit visit) {
  const int64_t count = element_count(view.dims);
  std::vector<int64_t> position(view.dims.size(), 0);
  int64_t source = view.offset;
  for (int64_t i = 0; i < count; ++i) {
    visit(source);
    for (size_t axis = view.dims.size(); axis-- > 0;) {
      source += view.strides[axis];
      if (++position[axis] < view.dims[axis]) break;
      source -= view.strides[axis] * view.dims[axis];
      position[axis] = 0;
    }
  }
}

Constant copy_view(const Constant &constant, const StridedView &view);

}  // namespace hrnn
