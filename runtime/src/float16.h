// SPDX-License-Identifier: Apache-2.0
//
// The 16-bit floating-point types: IEEE binary16 and bfloat16. They are stored, never computed with.
#pragma once
#include <cstdint>
#include <cstring>

namespace hrnn {

struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

inline uint32_t float_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}
inline float float_of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

inline float to_float(BFloat16 value) { return float_of_bits(uint32_t{value.bits} << 16); }
inline float to_float(Float16 value) {
  const uint32_t sign = uint32_t{value.bits & 0x8000u} << 16, magnitude = value.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return float_of_bits(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  if (magnitude >= 0x400u) return float_of_bits(sign | ((magnitude << 13) + (uint32_t{127 - 15} << 23)));
  const float subnormal = static_cast<float>(magnitude) * 0x1p-24f;
  return float_of_bits(sign | float_bits(subnormal));
}

// Rounded to nearest, ties to even; too large becomes infinite.
inline BFloat16 to_bfloat16(float value) {
  const uint32_t bits = float_bits(value);
  if (value != value) return {static_cast<uint16_t>(bits >> 16 | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}
inline Float16 to_float16(float value) {
  const uint32_t bits = float_bits(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu))};
  if (magnitude >= 0x47800000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // 2^16 and more
  if (magnitude < 0x38800000u) {  // below 2^-14: adding 2^-1 leaves the multiples of 2^-24 in the low bits, rounded
    const uint32_t rounded = float_bits(float_of_bits(magnitude) + 0.5f) - float_bits(0.5f);
    return {static_cast<uint16_t>(sign | rounded)};
  }
  const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u) - (uint32_t{127 - 15} << 23);
  return {static_cast<uint16_t>(sign | rounded >> 13)};
}

// A double as a float that rounds on to 16 bits as the double itself would: what is lost sets the last bit.
inline float to_odd_float(double value) {
  float nearest = static_cast<float>(value);
  const double back = static_cast<double>(nearest);
  if (back == value || value != value) return nearest;
  uint32_t bits = float_bits(nearest);
  const bool grew = (back < 0 ? -back : back) > (value < 0 ? -value : value);
  if (grew) --bits;  // towards zero; the magnitude is above zero then
  return float_of_bits(bits | 1u);
}

}  // namespace hrnn
