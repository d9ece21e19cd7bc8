// Weights of 16 bits and their corrections: ../low_precision.py, in the same integers.
//
// Integer arithmetic is exact, needs no particular compiler or CPU, and vectorizes.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace {

template <typename To, typename From>
inline To bits(From value) {
  static_assert(sizeof(To) == sizeof(From), "the same bits");
  To result;
  std::memcpy(&result, &value, sizeof(To));
  return result;
}

// Of each format: the last bits of a float32's code that it does not have; from the bits of a float32 to its code, and
// back. The sign of a code is where the weight has it: `missing` bits above its 15th.

struct BFloat16 {
  static constexpr uint32_t missing = 16;
  uint16_t raw;
  operator float() const { return bits<float>(uint32_t(raw) << 16); }
  static BFloat16 from(float value) {  // to nearest, ties to even, as in PyTorch
    uint32_t b = bits<uint32_t>(value);
    uint32_t rounded = (b + 0x7fff + ((b >> 16) & 1)) >> 16;
    return {uint16_t(value != value ? 0x7fc0 : rounded)};
  }
  static uint32_t encode(uint32_t b) {
    const float value = bits<float>(b);
    return value != value ? 0x7fc00000 : b;
  }
  static uint32_t decode(uint32_t code) { return code; }
};

struct Half {
  static constexpr uint32_t missing = 13, nan = 0x7e00u << 13;
  static constexpr uint32_t bias = (127 - 15) << 23, normal = 1 << 23, infinite = 31u << 23;
  uint16_t raw;
  operator float() const { return bits<float>(decode(uint32_t(raw) << 13)); }
  static Half from(float value) {
    uint32_t b = bits<uint32_t>(value), sign = (b >> 16) & 0x8000, size = b & 0x7fffffff;
    uint32_t large = (size - bias + 0xfff + ((size >> 13) & 1)) >> 13;
    // Adding 0.5 leaves a float whose last bit is worth 2^-24, half's smallest number.
    uint32_t small = bits<uint32_t>(bits<float>(size) + 0.5f) - bits<uint32_t>(0.5f);
    uint32_t finite = size < bias + normal ? small : large;
    uint32_t not_finite = size > 0x7f800000 ? 0x7e00 : 0x7c00;
    return {uint16_t(sign | (size >= 0x477ff000 ? not_finite : finite))};
  }
  static uint32_t encode(uint32_t b) {
    const uint32_t size = b & 0x7fffffff, sign = b >> 31 << 28;
    // Adding 2^-14 leaves a float whose last bit is worth 2^-37, the smallest number that has a code.
    uint32_t small = bits<uint32_t>(bits<float>(size) + bits<float>(bias + normal)) - (bias + normal);
    uint32_t code = size < bias + normal ? small : size - bias;
    code = code > infinite ? infinite : code;
    return (size > 0x7f800000 ? nan : code) | sign;
  }
  static uint32_t decode(uint32_t signed_code) {
    const uint32_t code = signed_code & 0x0fffffff, sign = signed_code >> 28 << 31;
    uint32_t small = bits<uint32_t>(bits<float>(code + bias + normal) - bits<float>(bias + normal));
    uint32_t finite = code < normal ? small : code + bias;
    return (code >= infinite ? code | 0x7f800000 : finite) | sign;
  }
};

// Random bits of an element, from its place, to which a key is added. Of neighbours they are spread evenly: the factor
// is 2^32 over the square of the golden ratio.
template <typename Word>
inline Word draw_word(Word place) {
  return place * 0x61c88647;
}

// P: the format of the weight. kept: the bits of the correction, 0, 8 or 16, of which low has the last 8.
// Not inlined, so that it is compiled once for all who call it.
template <typename P, uint32_t kept>
__attribute__((noinline)) void read_master(int64_t n, const P* __restrict weight, const int8_t* __restrict correction,
                                           const uint8_t* __restrict low, float* __restrict master) {
  constexpr uint32_t missing = P::missing;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t raw = weight[i].raw;
    int32_t offset = 0;
    if constexpr (kept == 16) offset = (int32_t(correction[i]) * 256 + low[i]) >> (16 - missing);
    else if constexpr (kept == 8) offset = int32_t(correction[i]) * (1 << (missing - 8));
    if (kept > 0 && (raw & 0x7fff) == 0) offset = offset < 0 ? 0 : offset;  // a weight that other hands have set to 0
    master[i] = bits<float>(P::decode((raw << missing) + uint32_t(offset)));
  }
}

// key: that of the draw, plus the place of the first element.
template <typename P, uint32_t kept>
__attribute__((noinline)) void write_master(int64_t n, P* __restrict weight, int8_t* __restrict correction,
                                            uint8_t* __restrict low, const float* __restrict master, uint32_t key) {
  constexpr uint32_t missing = P::missing, left_out = kept < missing ? missing - kept : 0;
  uint32_t place = key;
  for (int64_t i = 0; i < n; ++i, ++place) {
    uint32_t code = P::encode(bits<uint32_t>(master[i]));
    if constexpr (left_out > 0) {
      const uint32_t below = (1u << left_out) - 1;
      code = (code + (draw_word(place) >> 8 & below)) & ~below;
    }
    weight[i].raw = uint16_t((code + (1u << (missing - 1))) >> missing);
    // What that rounding takes away or adds: from half a place below, which is the sign of 16 bits, to half above.
    const uint32_t difference = code << (16 - missing);
    if constexpr (kept > 0) correction[i] = int8_t(difference >> 8);
    if constexpr (kept == 16) low[i] = uint8_t(difference);
  }
}

// Weights of any dtype by their address, n of them, in float32: those in float32 are copied.
template <typename P, uint32_t kept>
void read_weight(int64_t n, const void* param, const int8_t* correction, const uint8_t* low, float* theta) {
  if constexpr (std::is_same_v<P, float>)
    std::copy_n(static_cast<const float*>(param), n, theta);
  else
    read_master<P, kept>(n, static_cast<const P*>(param), correction, low, theta);
}

template <typename P, uint32_t kept>
void write_weight(int64_t n, void* param, int8_t* correction, uint8_t* low, const float* theta, uint32_t key) {
  if constexpr (std::is_same_v<P, float>)
    std::copy_n(theta, n, static_cast<float*>(param));
  else
    write_master<P, kept>(n, static_cast<P*>(param), correction, low, theta, key);
}

}  // namespace
