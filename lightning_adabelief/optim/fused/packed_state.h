// Averages in 16 and in 8 bits, a block at a time: ../packing.py, and the step of ../rule.py on what they hold.
//
// Two passes over a block, whose numbers in float32 stay in the first cache: its scales are not known before its last
// number is. Roots and quotients are the CPU's own: its divider works beside its multipliers, and approximations of
// them, refined, took as long.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "low_precision.h"
#include "pack.h"
#include "vectors.h"

namespace {

constexpr int64_t PACKED_BLOCK = 128;  // elements that share a scale

// The scalars of a step, in the precision of its arithmetic.
struct FloatScalars {
  float shrink, beta1_complement, beta2, residual_weight, eps, step_size, root_scale, max_quotient;
  bool adaptive, stays, bounded;

  explicit FloatScalars(const Scalars& scalars)
      : shrink(float(scalars.shrink)),
        beta1_complement(float(scalars.beta1_complement)),
        beta2(float(scalars.beta2)),
        residual_weight(float(scalars.residual_weight)),
        eps(float(scalars.eps)),
        step_size(float(scalars.step_size)),
        root_scale(float(scalars.root_scale)),
        max_quotient(float(scalars.max_quotient)),
        adaptive(scalars.root_scale >= 0),
        stays(scalars.step_size == 0),
        bounded(std::isfinite(scalars.max_quotient)) {}
};

// One block of an average in memory.
struct CodedBlock {
  void* codes;
  float* scale;
};

constexpr uint32_t SIZE = 0x7fffffff, INFINITE = 0x7f800000;  // all bits of a float32 but the sign; those of infinity

// Of a number >= 0; what is not finite stays so.
inline float find_next_power_of_two(float value) {
  const uint32_t b = bits<uint32_t>(value);
  return b < INFINITE ? bits<float>((b + 0x7fffff) & INFINITE) : value;
}

// The scale of a block in which the largest number is this: NaN if one is not finite.
inline float make_scale(float largest) {
  return bits<uint32_t>(largest) < INFINITE ? largest : std::numeric_limits<float>::quiet_NaN();
}

// m = M q |q| / Q^2, to the nearest.
template <int code_bits>
struct MomentumCode {
  using Code = std::conditional_t<code_bits == 8, int8_t, int16_t>;
  static constexpr float Q = std::numeric_limits<Code>::max();
  static constexpr float SMALLEST_SCALE = 0x1p-96f;  // the factor of a smaller one would be too large for a float32

  static float find_scale(float largest) {
    return make_scale(largest > 0 && largest < SMALLEST_SCALE ? SMALLEST_SCALE : largest);
  }
  static float find_factor(float scale) { return scale > 0 ? Q * Q / scale : 0; }

  static Floats decode(const void* codes, int64_t i, Floats scale_over_square) {
    const Floats code = __builtin_convertvector(load_codes(static_cast<const Code*>(codes) + i), Floats);
    return code * as_floats(as_words(code) & SIZE) * scale_over_square;
  }

  static void encode(void* codes, int64_t i, Floats m, Floats factor) {
    // From (q - 1)^2 to q^2 the middle is (q - 1/2)^2 + 1/4.
    const Floats shifted = multiply_add(as_floats(as_words(m) & SIZE), factor, fill(-0.25f));
    const Floats size = find_root(find_larger(shifted, Floats{})) + 0.5f;
    const Floats code = as_floats(as_words(size) | (as_words(m) & ~SIZE));
    store_codes(static_cast<Code*>(codes) + i, __builtin_convertvector(code, Integers));
  }
};

// s = M (q / Q)^4, of which sqrt(s) is what is read and written.
template <int code_bits>
struct VarianceCode {
  using Code = std::conditional_t<code_bits == 8, uint8_t, uint16_t>;
  static constexpr float Q = std::numeric_limits<Code>::max();

  static float find_factor(float scale) {
    const float root = std::sqrt(scale), factor = scale > 0 ? Q * Q / root : 0;
    const uint32_t is_below = factor * root < Q * Q;  // the code of M is to be Q, or above
    return bits<float>(bits<uint32_t>(factor) + is_below);
  }

  // The root, given the root of M over Q^2.
  static Floats decode(const void* codes, int64_t i, Floats root_over_square) {
    const Floats code = __builtin_convertvector(load_codes(static_cast<const Code*>(codes) + i), Floats);
    return code * code * root_over_square;
  }

  // share: from 1 to 2. It is rounded up where its distance from the code below exceeds that share, less 1, of the
  // distance of the two codes.
  static void encode(void* codes, int64_t i, Floats root, Floats factor, Floats share) {
    const Floats square = root * factor, exact = find_root(square);
    const Floats below = round_down(exact);
    // x^4 - k^4 = (x - k)(x + k)(x^2 + k^2), which loses no digits.
    const Floats square_below = below * below;
    const Floats distance = (exact - below) * (exact + below) * (square + square_below);
    const Floats odd = multiply_add(fill(2), below, fill(1));
    const Floats spacing = odd * multiply_add(fill(2), square_below, odd);
    const Floats code = multiply_add(share, spacing, -distance) < spacing ? below + 1.0f : below;
    const Integers number = __builtin_convertvector(code, Integers);
    const Integers one = Integers{} + 1, root_bits = (Integers)root;
    const Integers smallest = root_bits < one ? root_bits : one;  // 0 of 0
    store_codes(static_cast<Code*>(codes) + i, number > smallest ? number : smallest);
  }
};

// Numbers in [1, 2), of which each follows from its place's word.
inline Floats draw_shares(Words places) { return as_floats(mix(places) >> 9 | 0x3f800000); }

// One block between the two passes.
struct Block {
  CodedBlock momentum, variance, maximum;
  float* theta;  // its weights, or copies of them
  uint32_t key;  // of the draw, plus the place of the first element
  float m_scale, m_factor, s_scale, s_factor, max_scale, max_factor;
  alignas(64) float m[PACKED_BLOCK];
  alignas(64) float roots[PACKED_BLOCK];      // of s
  alignas(64) float max_roots[PACKED_BLOCK];  // of the largest s so far
};

// The first pass: both averages of ../rule.py, and their scales. grad is the gradient as the rule uses it.
template <int code_bits, bool amsgrad>
__attribute__((noinline)) void average_block(Block& block, const float* grad, const FloatScalars& scalars) {
  using OfMomentum = MomentumCode<code_bits>;
  using OfVariance = VarianceCode<code_bits>;
  constexpr float square_m = OfMomentum::Q * OfMomentum::Q, square_s = OfVariance::Q * OfVariance::Q;
  const void *m_codes = block.momentum.codes, *s_codes = block.variance.codes, *max_codes = block.maximum.codes;
  const Floats m_scale = fill(*block.momentum.scale / square_m);
  // Of beta2 s. An infinite s times 0 would be NaN.
  const Floats s_scale = fill(scalars.beta2 != 0 ? std::sqrt(*block.variance.scale * scalars.beta2) / square_s : 0);
  const Floats max_scale = fill(amsgrad ? *block.maximum.scale : 0);
  const Floats beta1_complement = fill(scalars.beta1_complement), residual_weight = fill(scalars.residual_weight);
  const Floats eps = fill(scalars.eps);
  Words largest_m{}, largest_s{}, largest_max{};
  for (int64_t i = 0; i < PACKED_BLOCK; i += LANES) {
    const Floats m_before = OfMomentum::decode(m_codes, i, m_scale);
    const Floats d = load(grad + i) - m_before;
    const Floats m = multiply_add(beta1_complement, d, m_before);
    const Floats s_root = OfVariance::decode(s_codes, i, s_scale);
    const Floats s = multiply_add(residual_weight * d, d, multiply_add(s_root, s_root, eps));
    store(block.m + i, m);
    store(block.roots + i, find_root(s));

    // As integers numbers of one sign are in the same order, and a NaN is above all.
    const Words m_size = as_words(m) & SIZE, s_size = as_words(s);
    largest_m = m_size > largest_m ? m_size : largest_m;
    largest_s = s_size > largest_s ? s_size : largest_s;
    if constexpr (amsgrad) {
      // A power of two times the square of a share, which for the largest code is 1: M is read as M.
      const Floats share = OfVariance::decode(max_codes, i, fill(1 / square_s));
      Floats s_max = share * share * max_scale;
      s_max = s > s_max || s != s ? s : s_max;  // a NaN stays one
      const Words max_size = as_words(s_max);
      largest_max = max_size > largest_max ? max_size : largest_max;
      store(block.max_roots + i, find_root(s_max));
    }
  }
  block.m_scale = OfMomentum::find_scale(bits<float>(find_largest(largest_m)));
  block.m_factor = OfMomentum::find_factor(block.m_scale);
  block.s_scale = make_scale(bits<float>(find_largest(largest_s)));
  block.s_factor = OfVariance::find_factor(block.s_scale);
  if constexpr (amsgrad) {
    block.max_scale = make_scale(find_next_power_of_two(bits<float>(find_largest(largest_max))));
    block.max_factor = OfVariance::find_factor(block.max_scale);
  }
}

// The second pass: moves the weights, and codes the averages.
template <int code_bits, bool amsgrad>
__attribute__((noinline)) void move_block(const Block& block, const FloatScalars& scalars) {
  float* theta = block.theta;
  void *m_codes = block.momentum.codes, *s_codes = block.variance.codes, *max_codes = block.maximum.codes;
  const Floats m_factor = fill(block.m_factor), s_factor = fill(block.s_factor), max_factor = fill(block.max_factor);
  const Floats eps = fill(scalars.eps), root_scale = fill(scalars.root_scale), step_size = fill(-scalars.step_size);
  const Floats max_quotient = fill(scalars.max_quotient), shrink = fill(scalars.shrink);
  const bool adaptive = scalars.adaptive, bounded = scalars.bounded, stays = scalars.stays;
  Words places = count_from(block.key);
  for (int64_t i = 0; i < PACKED_BLOCK; i += LANES, places += LANES) {
    const Floats m = load(block.m + i), root = load(block.roots + i);
    const Floats max_root = amsgrad ? load(block.max_roots + i) : root;
    const Floats denominator = adaptive ? multiply_add(max_root, root_scale, eps) : fill(1);
    Floats quotient = m / denominator;
    if (bounded) {
      quotient = quotient > max_quotient ? max_quotient : quotient;  // a NaN stays one
      quotient = quotient < -max_quotient ? -max_quotient : quotient;
    }
    const Floats shrunk = load(theta + i) * shrink;
    store(theta + i, stays ? shrunk : multiply_add(step_size, quotient, shrunk));

    MomentumCode<code_bits>::encode(m_codes, i, m, m_factor);
    VarianceCode<code_bits>::encode(s_codes, i, root, s_factor, draw_shares(places));
    if constexpr (amsgrad) VarianceCode<code_bits>::encode(max_codes, i, max_root, max_factor, fill(1.5f));
  }
  *block.momentum.scale = block.m_scale;
  *block.variance.scale = block.s_scale;
  if constexpr (amsgrad) *block.maximum.scale = block.max_scale;
}

}  // namespace
