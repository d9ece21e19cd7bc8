// Numbers of 16 bits, and weights of 16 bits with their corrections: ../low_precision.py, in the same integers.

#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "vectors.h"

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
  static Words encode(Words b) {
    const Floats value = as_floats(b);
    return value != value ? Words{} + 0x7fc00000 : b;
  }
  static Words decode(Words code) { return code; }
};

struct Half {
  static constexpr uint32_t missing = 13, nan = 0x7e00u << 13;
  static constexpr uint32_t bias = (127 - 15) << 23, normal = 1 << 23, infinite = 31u << 23;
  uint16_t raw;
  operator float() const {
    const uint32_t code = uint32_t(raw & 0x7fff) << 13, sign = uint32_t(raw >> 15) << 31;
    uint32_t small = bits<uint32_t>(bits<float>(code + bias + normal) - bits<float>(bias + normal));
    uint32_t finite = code < normal ? small : code + bias;
    return bits<float>((code >= infinite ? code | 0x7f800000 : finite) | sign);
  }
  static Half from(float value) {
    uint32_t b = bits<uint32_t>(value), sign = (b >> 16) & 0x8000, size = b & 0x7fffffff;
    uint32_t large = (size - bias + 0xfff + ((size >> 13) & 1)) >> 13;
    // Adding 0.5 leaves a float whose last bit is worth 2^-24, half's smallest number.
    uint32_t small = bits<uint32_t>(bits<float>(size) + 0.5f) - bits<uint32_t>(0.5f);
    uint32_t finite = size < bias + normal ? small : large;
    uint32_t not_finite = size > 0x7f800000 ? 0x7e00 : 0x7c00;
    return {uint16_t(sign | (size >= 0x477ff000 ? not_finite : finite))};
  }
  static Words encode(Words b) {
    const Words size = b & 0x7fffffff, sign = b >> 31 << 28;
    // Adding 2^-14 leaves a float whose last bit is worth 2^-37, the smallest number that has a code.
    const Words small = as_words(as_floats(size) + bits<float>(bias + normal)) - (bias + normal);
    Words code = size < bias + normal ? small : size - bias;
    code = code > infinite ? Words{} + infinite : code;
    return (size > 0x7f800000 ? Words{} + nan : code) | sign;
  }
  static Words decode(Words signed_code) {
    const Words code = signed_code & 0x0fffffff, sign = signed_code >> 28 << 31;
    const Words small = as_words(as_floats(code + (bias + normal)) - bits<float>(bias + normal));
    const Words finite = code < normal ? small : code + bias;
    return (code >= infinite ? code | 0x7f800000 : finite) | sign;
  }
};

template <typename P>
constexpr bool IS_16_BITS = std::is_same_v<P, BFloat16> || std::is_same_v<P, Half>;

template <typename P>
inline Words load_raw(const P* from) {
  return (Words)load_integers(reinterpret_cast<const uint16_t*>(from));
}

inline Floats load(const BFloat16* from) { return as_floats(BFloat16::decode(load_raw(from) << BFloat16::missing)); }
inline Floats load(const Half* from) { return as_floats(Half::decode(load_raw(from) << Half::missing)); }

// Random bits of an element, from its place, to which a key is added. Of neighbours they are spread evenly: the factor
// is 2^32 over the square of the golden ratio.
template <typename Word>
constexpr Word draw_word(Word place) {
  return place * 0x61c88647;
}

// From the draws of a vector of places to those of the next.
constexpr uint32_t NEXT_WORDS = draw_word(uint32_t(LANES));

// Weights of dtype P in memory. kept: the bits of the corrections of weights of 16 bits, 0, 8 or 16, of which low has
// the last 8.
template <typename P, uint32_t kept>
struct Weights {
  P* weight;
  int8_t* correction;
  uint8_t* low;

  auto read(int64_t i) const {
    if constexpr (!IS_16_BITS<P>) {
      return load(weight + i);
    } else {
      const Words rounded = load_raw(weight + i) << P::missing;
      if constexpr (kept == 0) return as_floats(P::decode(rounded));
      Integers offset = load_integers(correction + i) * 256;
      if constexpr (kept == 16) offset += load_integers(low + i);
      const Words code = rounded + (Words)(offset >> (16 - P::missing));
      // A correction below 0 turns the sign of a weight that other hands have set to 0: it is left out.
      const Integers turned = (Integers)((rounded ^ code) << (16 - P::missing));
      return as_floats(P::decode(turned < 0 ? rounded : code));
    }
  }

  // Write a group of vectors of weights, and let it be what will be read. words: the draws of the first vector.
  template <typename V>
  void write(int64_t i, V (&theta)[GROUP], [[maybe_unused]] Words words) const {
    if constexpr (!IS_16_BITS<P>) {
      for (int k = 0; k < GROUP; ++k) store(weight + i + k * COUNT<V>, theta[k]);
    } else {
      constexpr uint32_t missing = P::missing, left_out = kept < missing ? missing - kept : 0;
      constexpr uint32_t below = (1u << left_out) - 1;
      // The upper half of a code is the weight, to be rounded, and what that takes away or adds is the lower half as a
      // number with a sign: from half a place of the weight below to half above.
      Words codes[GROUP], rounded[GROUP];
      for (int k = 0; k < GROUP; ++k) {
        Words code = P::encode(as_words(theta[k]));
        if constexpr (left_out > 0) code += (words + k * NEXT_WORDS) >> 8 & below;
        theta[k] = as_floats(P::decode(code & ~below));
        codes[k] = code << (16 - missing);
        rounded[k] = codes[k] + (kept > 0 ? 0x8000 : 0);
      }
      store_upper_halves(reinterpret_cast<uint16_t*>(weight + i), rounded);
      if constexpr (kept > 0) store_bytes<1>(reinterpret_cast<uint8_t*>(correction + i), codes);
      if constexpr (kept == 16) store_bytes<0>(low + i, codes);
    }
  }
};

}  // namespace
