// Averages in 16 and in 8 bits, a block at a time: ../packing.py, and the step of ../rule.py on what they hold.
//
// A block's numbers in float32 stay in the first cache. Two passes over them, for a block's scale is not known before
// its last number is. Roots and quotients are the CPU's own: its divider works beside its multipliers, and
// approximations of them, refined, took as long.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "low_precision.h"
#include "pack.h"
#include "vectors.h"

namespace {

constexpr int64_t PACKED_BLOCK = 128;  // elements that share a scale

// Q, the largest code, of m and of s.
template <int code_bits>
struct Codes;

template <>
struct Codes<8> {
  using Signed = int8_t;
  using Unsigned = uint8_t;
  static constexpr float largest_signed = 127, largest_unsigned = 255;
};

template <>
struct Codes<16> {
  using Signed = int16_t;
  using Unsigned = uint16_t;
  static constexpr float largest_signed = 32767, largest_unsigned = 65535;
};

// The scalars of a step, in the precision of its arithmetic.
struct FloatScalars {
  float shrink, beta1_complement, beta2, residual_weight, eps, step_size, root_scale, max_quotient;
  bool adaptive, stays;

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
        stays(scalars.step_size == 0) {}
};

// One block of an average in memory.
struct CodedBlock {
  void* codes;
  float* scale;
};

constexpr uint32_t SIZE = 0x7fffffff, INFINITE = 0x7f800000;  // all bits of a float32 but the sign; those of infinity

inline float find_next_power_of_two(float value) {
  return bits<float>((bits<uint32_t>(value) + 0x7fffff) & INFINITE);
}

// m = M q |q| / Q^2, to the nearest.
template <int code_bits>
inline void code_momentum(const float* m, float largest, const CodedBlock& to) {
  using Code = typename Codes<code_bits>::Signed;
  constexpr float Q = Codes<code_bits>::largest_signed;
  constexpr float smallest_scale = 0x1p-96f;  // so that neither this factor nor that of the reading leaves float32
  const bool finite = bits<uint32_t>(largest) < INFINITE;
  const float scale = largest > 0 ? std::max(largest, smallest_scale) : largest;
  const Floats factor = fill(finite && scale > 0 ? Q * Q / scale : 0);
  Code* codes = static_cast<Code*>(to.codes);
  for (int64_t i = 0; i < PACKED_BLOCK; i += LANES) {
    const Floats number = load(m + i);
    // From (q - 1)^2 to q^2 the middle is (q - 1/2)^2 + 1/4.
    const Floats shifted = multiply_add(as_floats(as_words(number) & SIZE), factor, fill(-0.25f));
    const Floats size = find_root(shifted > 0.0f ? shifted : fill(0)) + 0.5f;
    const Floats code = as_floats(as_words(size) | (as_words(number) & ~SIZE));
    store_codes(codes + i, __builtin_convertvector(code, Integers));
  }
  *to.scale = finite ? scale : std::numeric_limits<float>::quiet_NaN();
}

// s = M (q / Q)^4, given sqrt(s): rounded up where the distance from the code below exceeds a share of the distance of
// the two codes, which is drawn, or half.
template <int code_bits, bool draws>
inline void code_variance(const float* roots, float scale, const CodedBlock& to, uint32_t key) {
  using Code = typename Codes<code_bits>::Unsigned;
  constexpr float Q = Codes<code_bits>::largest_unsigned;
  Code* codes = static_cast<Code*>(to.codes);
  if (bits<uint32_t>(scale) >= INFINITE) {
    std::fill_n(codes, PACKED_BLOCK, Code(0));
    *to.scale = std::numeric_limits<float>::quiet_NaN();
    return;
  }
  const float largest_root = std::sqrt(scale);
  float factor = scale > 0 ? Q * Q / largest_root : 0;
  if (factor * largest_root < Q * Q) factor = bits<float>(bits<uint32_t>(factor) + 1);  // of M the code is Q
  for (int64_t i = 0; i < PACKED_BLOCK; i += LANES) {
    const Floats root = load(roots + i);
    const Floats square = root * factor, exact = find_root(square);
    Floats below = round_down(exact);
    below = below < Q - 1 ? below : fill(Q - 1);
    // x^4 - k^4 = (x - k)(x + k)(x^2 + k^2), which loses no digits.
    const Floats square_below = below * below;
    const Floats distance = (exact - below) * (exact + below) * (square + square_below);
    const Floats odd = multiply_add(fill(2), below, fill(1));
    const Floats spacing = odd * multiply_add(fill(2), square_below, odd);
    // From 1 to 2, as these bits are.
    const Floats share = draws ? as_floats(mix(count_from(key + uint32_t(i))) >> 9 | 0x3f800000) : fill(1.5f);
    const Floats code = multiply_add(share, spacing, -distance) < spacing ? below + 1.0f : below;
    const Words smallest = as_words(root) < 1 ? as_words(root) : Words{} + 1;  // 0 of 0
    const Words number = (Words)__builtin_convertvector(code, Integers);
    store_codes(codes + i, (Integers)(number > smallest ? number : smallest));
  }
  *to.scale = scale;
}

// The step of ../rule.py on one block: theta and grad are float32, and grad is the gradient as the rule uses it.
template <int code_bits, bool amsgrad>
__attribute__((noinline)) void update_block(float* __restrict theta, const float* __restrict grad,
                                            const CodedBlock (&averages)[3], const FloatScalars& scalars,
                                            uint32_t key) {
  using Signed = typename Codes<code_bits>::Signed;
  using Unsigned = typename Codes<code_bits>::Unsigned;
  constexpr float Q_m = Codes<code_bits>::largest_signed, Q_s = Codes<code_bits>::largest_unsigned;
  const auto& [momentum, variance, maximum] = averages;
  alignas(64) float m[PACKED_BLOCK], roots[PACKED_BLOCK], largest_roots[amsgrad ? PACKED_BLOCK : 1];
  const Signed* m_codes = static_cast<const Signed*>(momentum.codes);
  const Unsigned* s_codes = static_cast<const Unsigned*>(variance.codes);
  const Unsigned* max_codes = static_cast<const Unsigned*>(maximum.codes);

  const Floats m_factor = fill(*momentum.scale / (Q_m * Q_m));
  // Squared with the code's square it is beta2 s. An infinite s times 0 would be NaN.
  const Floats s_factor = fill(scalars.beta2 != 0 ? std::sqrt(*variance.scale * scalars.beta2) / (Q_s * Q_s) : 0);
  const Floats max_scale = fill(amsgrad ? *maximum.scale : 0);
  const Floats beta1_complement = fill(scalars.beta1_complement), residual_weight = fill(scalars.residual_weight);
  const Floats eps = fill(scalars.eps), root_scale = fill(scalars.root_scale), step_size = fill(-scalars.step_size);
  const Floats max_quotient = fill(scalars.max_quotient);
  Words largest_m{}, largest_s{}, largest_max{};
  for (int64_t i = 0; i < PACKED_BLOCK; i += LANES) {
    const Floats m_code = __builtin_convertvector(load_codes(m_codes + i), Floats);
    const Floats m_before = m_code * as_floats(as_words(m_code) & SIZE) * m_factor;
    const Floats d = load(grad + i) - m_before;
    const Floats m_after = multiply_add(beta1_complement, d, m_before);
    const Floats s_code = __builtin_convertvector(load_codes(s_codes + i), Floats);
    const Floats s_root = s_code * s_code * s_factor;
    const Floats s = multiply_add(residual_weight * d, d, multiply_add(s_root, s_root, eps));
    store(m + i, m_after);

    // As integers numbers of one sign are in the same order, and a NaN is above all.
    const Words m_size = as_words(m_after) & SIZE;
    largest_m = m_size > largest_m ? m_size : largest_m;
    largest_s = as_words(s) > largest_s ? as_words(s) : largest_s;
    Floats root = find_root(s);
    store(roots + i, root);
    if constexpr (amsgrad) {
      const Floats max_code = __builtin_convertvector(load_codes(max_codes + i), Floats);
      const Floats max_root = max_code * max_code * (1 / (Q_s * Q_s));
      Floats s_max = max_root * max_root * max_scale;
      s_max = s > s_max || s != s ? s : s_max;  // a NaN stays one
      largest_max = as_words(s_max) > largest_max ? as_words(s_max) : largest_max;
      root = find_root(s_max);
      store(largest_roots + i, root);
    }

    const Floats denominator = scalars.adaptive ? multiply_add(root, root_scale, eps) : fill(1);
    Floats quotient = m_after / denominator;
    quotient = quotient > max_quotient ? max_quotient : quotient;  // a NaN stays one
    quotient = quotient < -max_quotient ? -max_quotient : quotient;
    const Floats shrunk = load(theta + i) * scalars.shrink;
    store(theta + i, scalars.stays ? shrunk : multiply_add(step_size, quotient, shrunk));
  }
  code_momentum<code_bits>(m, bits<float>(find_largest(largest_m)), momentum);
  code_variance<code_bits, true>(roots, bits<float>(find_largest(largest_s)), variance, key);
  if constexpr (amsgrad) {
    const float largest = find_next_power_of_two(bits<float>(find_largest(largest_max)));
    code_variance<code_bits, false>(largest_roots, largest, maximum, 0);
  }
}

}  // namespace
