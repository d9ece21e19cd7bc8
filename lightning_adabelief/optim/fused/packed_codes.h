// Averages in 8 bits: ../packing.py, in the same integers.

#pragma once

#include <cstdint>
#include <limits>

#include "low_precision.h"
#include "vectors.h"

namespace {

constexpr int64_t PACKED_BLOCK = 128;  // elements that share a scale

constexpr uint32_t SIZE = 0x7fffffff, INFINITE = 0x7f800000;  // all bits of a float32 but the sign; those of infinity
constexpr float SMALLEST_SCALE = 0x1p-108f;  // above 0; of a smaller one the factor would be too large for a float32

// Of a number >= 0; what is not finite stays so.
inline float find_next_power_of_two(float value) {
  const uint32_t b = bits<uint32_t>(value);
  return b < INFINITE ? bits<float>((b + 0x7fffff) & INFINITE) : value;
}

// The scale of a block in which the largest number is this: NaN if one is not finite.
inline float make_scale(float largest) {
  const float finite = largest > 0 && largest < SMALLEST_SCALE ? SMALLEST_SCALE : largest;
  return bits<uint32_t>(largest) < INFINITE ? finite : std::numeric_limits<float>::quiet_NaN();
}

// A logarithm of 1 + x made of float32's own bits, linear between powers of two: E(q) = (1 + f) 2^e - 1, where
// q = 2^mantissa (e + f). A number is its block's scale times E(q) / E(Q).
//
// Everything is doubled, because the bits of 2 end in zeros: of the first bits of 2 + 2 x the last 8 are q itself, and
// nothing need be subtracted.
template <typename Code, int mantissa>
struct Compander {
  static constexpr int SHIFT = 23 - mantissa;
  static constexpr uint32_t TWO = 0x40000000;          // the bits of 2
  static constexpr uint32_t HALF = 1u << (SHIFT - 1);  // half the distance of two codes
  static constexpr uint32_t Q = std::numeric_limits<Code>::max();
  static constexpr float LARGEST = (2u << (Q >> mantissa)) * (1 + (Q % (1u << mantissa)) / float(1u << mantissa)) - 2;

  // Of a scale: by which a doubled E(q) is multiplied, and what a number is multiplied by to get one.
  static float find_unit(float scale) { return scale / LARGEST; }
  static float find_factor(float scale) {
    const float factor = scale > 0 ? LARGEST / scale : 0;
    const uint32_t is_above = factor * scale > LARGEST;  // the largest number's code is not to exceed Q
    return bits<float>(bits<uint32_t>(factor) - is_above);
  }

  static Floats expand(Words codes, Floats unit) {
    const Floats shifted = as_floats((codes << SHIFT) + TWO);
#if defined(FP_FAST_FMAF)
    return multiply_add(shifted, unit, -unit - unit);  // rounded once, as below: the difference is exact
#else
    return (shifted - 2.0f) * unit;
#endif
  }

  // Of numbers >= 0; q in the last 8 bits. draw is added to the bits that are left out: half for the nearest.
  static Words compress(Floats numbers, Floats factor, Words draw) {
    return (as_words(numbers * factor + 2.0f) + draw) >> SHIFT;
  }
};

// m: the sign, and the code of the magnitude.
struct MomentumCode : Compander<int8_t, 5> {
  static Floats decode(const uint8_t* codes, Floats unit) {
    const Integers code = load_integers(reinterpret_cast<const int8_t*>(codes));
    const Floats size = expand((Words)(code < 0 ? -code : code), unit);
    return as_floats(as_words(size) | ((Words)code & ~SIZE));
  }

  // The codes are in the last 8 bits.
  static Words encode(Floats m, Floats factor) {
    const Integers code = (Integers)compress(as_floats(as_words(m) & SIZE), factor, Words{} + HALF);
    return (Words)((Integers)as_words(m) < 0 ? -code : code);
  }
};

// s: of what is not 0 the code is 1 at least.
struct VarianceCode : Compander<uint8_t, 4> {
  static Floats decode(const uint8_t* codes, Floats unit) { return expand((Words)load_integers(codes), unit); }

  // The codes are in the last 8 bits. draw: what is added to the bits that are left out.
  static Words encode(Floats s, Floats factor, Words draw) {
    const Words code = compress(s, factor, draw), s_bits = as_words(s);
    const Words smallest = (s_bits < 1 ? s_bits : Words{} + 1) + (TWO >> SHIFT);
    return code > smallest ? code : smallest;
  }
};

}  // namespace
