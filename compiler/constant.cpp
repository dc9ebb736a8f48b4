// SPDX-License-Identifier: Apache-2.0
#include "constant.h"

#include <cmath>
#include <limits>

#include "float16.h"
#include "hrnn/compiler.h"

namespace hrnn {
namespace {

template <size_t Size>
void copy_elements(const Constant &from, const StridedView &view, uint8_t *to) {
  for_each_element(view, [&](int64_t source) {
    std::memcpy(to, from.bytes.data() + source * Size, Size);
    to += Size;
  });
}

int64_t truncated(double value) {
  if (std::isnan(value)) return 0;
  if (value >= 9223372036854775808.0) return std::numeric_limits<int64_t>::max();
  if (value < -9223372036854775808.0) return std::numeric_limits<int64_t>::min();
  return static_cast<int64_t>(value);
}

}  // namespace

const char *type_name(DataType type) {
  switch (type) {
    case DataType::Float32:
      return "float32";
    case DataType::Float64:
      return "float64";
    case DataType::Int32:
      return "int32";
    case DataType::Int64:
      return "int64";
    case DataType::Bool:
      return "bool";
    case DataType::Float16:
      return "float16";
    case DataType::BFloat16:
      return "bfloat16";
  }
  return "?";
}

int64_t type_bytes(DataType type) {
  switch (type) {
    case DataType::Float32:
    case DataType::Int32:
      return 4;
    case DataType::Float64:
    case DataType::Int64:
      return 8;
    case DataType::Float16:
    case DataType::BFloat16:
      return 2;
    case DataType::Bool:
      return 1;
  }
  return 1;
}

bool is_float(DataType type) {
  return type == DataType::Float32 || type == DataType::Float64 || computed_type(type) != type;
}

DataType computed_type(DataType type) {
  return type == DataType::Float16 || type == DataType::BFloat16 ? DataType::Float32 : type;
}

hrnn_dtype runtime_type(DataType type) {
  switch (type) {
    case DataType::Float32:
      return HRNN_F32;
    case DataType::Float64:
      return HRNN_F64;
    case DataType::Int32:
      return HRNN_I32;
    case DataType::Int64:
      return HRNN_I64;
    case DataType::Bool:
      return HRNN_BOOL;
    case DataType::Float16:
      return HRNN_F16;
    case DataType::BFloat16:
      return HRNN_BF16;
  }
  return HRNN_F32;
}

bool Constant::all_zero() const {
  for (int64_t i = 0; i < elements(); ++i) {
    if (!(real(i) == 0)) return false;
  }
  return true;
}

double Constant::real(int64_t index) const {
  switch (type) {
    case DataType::Float32:
      return at<float>(index);
    case DataType::Float64:
      return at<double>(index);
    case DataType::Int32:
      return at<int32_t>(index);
    case DataType::Int64:
      return static_cast<double>(at<int64_t>(index));
    case DataType::Bool:
      return at<uint8_t>(index) != 0;
    case DataType::Float16:
      return static_cast<double>(to_float(at<Float16>(index)));
    case DataType::BFloat16:
      return static_cast<double>(to_float(at<BFloat16>(index)));
  }
  return 0;
}

int64_t Constant::integer(int64_t index) const {
  switch (type) {
    case DataType::Int32:
      return at<int32_t>(index);
    case DataType::Int64:
      return at<int64_t>(index);
    default:
      return truncated(real(index));
  }
}

void Constant::set(int64_t index, double value) {
  if (type == DataType::Float32) {
    const float narrow = static_cast<float>(value);
    std::memcpy(bytes.data() + index * 4, &narrow, 4);
  } else if (type == DataType::Float64) {
    std::memcpy(bytes.data() + index * 8, &value, 8);
  } else if (type == DataType::Bool) {
    bytes[index] = value != 0;
  } else if (computed_type(type) != type) {
    const float rounded = to_odd_float(value);
    const uint16_t bits = type == DataType::Float16 ? to_float16(rounded).bits : to_bfloat16(rounded).bits;
    std::memcpy(bytes.data() + index * 2, &bits, 2);
  } else {
    set(index, truncated(value));
  }
}

void Constant::set(int64_t index, int64_t value) {
  if (type == DataType::Int64) {
    std::memcpy(bytes.data() + index * 8, &value, 8);
  } else if (type == DataType::Int32) {
    const int32_t narrow = static_cast<int32_t>(value);
    std::memcpy(bytes.data() + index * 4, &narrow, 4);
  } else if (type == DataType::Bool) {
    bytes[index] = value != 0;
  } else {
    set(index, static_cast<double>(value));
  }
}

Constant make_constant(DataType type, std::vector<int64_t> dims) {
  Constant result;
  result.type = type;
  result.bytes.resize(static_cast<size_t>(element_count(dims) * type_bytes(type)));
  result.dims = std::move(dims);
  return result;
}

Constant cast(const Constant &constant, DataType type) {
  Constant result = make_constant(type, constant.dims);
  const bool integers = !is_float(constant.type);
  for (int64_t i = 0; i < result.elements(); ++i) {
    if (integers) {
      result.set(i, constant.integer(i));
    } else {
      result.set(i, constant.real(i));
    }
  }
  return result;
}

std::optional<int64_t> try_element_count(const std::vector<int64_t> &dims) {
  constexpr int64_t kMost = int64_t{1} << 56;
  int64_t count = 1;
  bool empty = false;
  for (int64_t dim : dims) {
    if (dim < 0) return std::nullopt;
    empty = empty || dim == 0;
    if (dim == 0) continue;
    if (__builtin_mul_overflow(count, dim, &count) || count > kMost) return std::nullopt;
  }
  return empty ? 0 : count;
}

int64_t element_count(const std::vector<int64_t> &dims) {
  if (const auto count = try_element_count(dims)) return *count;
  throw ModelError("a tensor's dimensions multiply to more than 2^56: its shape is absurd or the file is damaged");
}

std::vector<int64_t> dense_strides(const std::vector<int64_t> &dims) {
  std::vector<int64_t> strides(dims.size());
  int64_t stride = 1;
  for (size_t axis = dims.size(); axis-- > 0;) {
    strides[axis] = stride;
    stride *= dims[axis];
  }
  return strides;
}

Constant copy_view(const Constant &constant, const StridedView &view) {
  Constant result = make_constant(constant.type, view.dims);
  switch (type_bytes(constant.type)) {
    case 1:
      copy_elements<1>(constant, view, result.bytes.data());
      break;
    case 2:
      copy_elements<2>(constant, view, result.bytes.data());
      break;
    case 4:
      copy_elements<4>(constant, view, result.bytes.data());
      break;
    default:
      copy_elements<8>(constant, view, result.bytes.data());
      break;
  }
  return result;
}

}  // namespace hrnn
