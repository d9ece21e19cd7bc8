// Averages in 8 bits, some blocks at a time: ../packing.py, and the step of ../rule.py on what they hold.
//
// Two passes, whose numbers in float32 stay in the first cache: a block's scales are not known before its last number
// is.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "low_precision.h"
#include "pack.h"
#include "vectors.h"

namespace {

constexpr int64_t PACKED_BLOCK = 128;      // elements that share a scale
constexpr int RUN = PIECE / PACKED_BLOCK;  // blocks that go through a pass together

enum Average { M, S, MAX_S, AVERAGES };  // the largest s so far is there with amsgrad alone

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
  static constexpr uint32_t TWO = 0x40000000, HALF = 1u << (SHIFT - 1);  // the bits of 2; half the distance of two codes
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
    const Integers code = load_codes(reinterpret_cast<const int8_t*>(codes));
    const Floats size = expand((Words)(code < 0 ? -code : code), unit);
    return as_floats(as_words(size) | ((Words)code & ~SIZE));
  }

  static void encode(uint8_t* codes, Floats m, Floats factor) {
    const Integers size = (Integers)compress(as_floats(as_words(m) & SIZE), factor, Words{} + HALF);
    store_bytes(codes, (Integers)m < 0 ? -size : size);
  }
};

// s: of what is not 0 the code is 1 at least.
struct VarianceCode : Compander<uint8_t, 4> {
  static Floats decode(const uint8_t* codes, Floats unit) { return expand((Words)load_codes(codes), unit); }

  static void encode(uint8_t* codes, Floats s, Floats factor, Words draw) {
    const Words code = compress(s, factor, draw), one = Words{} + ((TWO >> SHIFT) + 1);
    const Words positive = code > one ? code : one;
    store_bytes(codes, (Integers)(as_words(s) > 0 ? positive : Words{}));
  }
};

// Consecutive blocks of a row on their way through a step.
struct Run {
  int64_t blocks;
  const char *param, *grad_in_memory;
  int64_t param_bytes, grad_bytes;  // of an element
  uint8_t *codes[AVERAGES], *stored[AVERAGES];
  float* scales[AVERAGES];
  const float* grad;  // as the rule uses it
  float* theta;
  uint32_t key;  // of the draw, plus the place of the first element
  Words largest[AVERAGES][RUN];
  alignas(64) float averages[AVERAGES][PIECE];
  // Copies, where the step can't work on what is in memory.
  alignas(64) float thetas[PIECE];
  alignas(64) float grads[PIECE];
  alignas(64) uint8_t all_codes[AVERAGES][PIECE];
};

// Ask for what the next run but one reads. The CPU does not see it coming, for the second pass reads nothing new.
inline void fetch_ahead(const Run& run, int64_t i) {
  constexpr int64_t DISTANCE = 2 * PIECE, LINE = 64;
  __builtin_prefetch(run.param + (i + DISTANCE) * run.param_bytes);
  __builtin_prefetch(run.grad_in_memory + (i + DISTANCE) * run.grad_bytes);
  if (i % LINE == 0) {
    __builtin_prefetch(run.codes[M] + i + DISTANCE);
    __builtin_prefetch(run.codes[S] + i + DISTANCE);
  }
}

// Decode m as it is before the step.
inline void decode_momentum(const Run& run, float* momentum) {
  for (int64_t i = 0; i < run.blocks * PACKED_BLOCK; i += LANES) {
    const Floats unit = fill(MomentumCode::find_unit(run.scales[M][i / PACKED_BLOCK]));
    store(momentum + i, MomentumCode::decode(run.codes[M] + i, unit));
  }
}

// The first pass: both averages of ../rule.py, and the largest number of each block.
template <bool amsgrad>
__attribute__((noinline)) void average_run(Run& run, const FloatScalars& scalars) {
  const Floats beta1_complement = fill(scalars.beta1_complement), residual_weight = fill(scalars.residual_weight);
  const Floats eps = fill(scalars.eps);
  const float beta2 = scalars.beta2;
  const uint8_t *m_codes = run.codes[M], *s_codes = run.codes[S], *max_codes = run.codes[MAX_S];
  const float* grad = run.grad;
  for (int64_t block = 0; block < run.blocks; ++block) {
    const Floats m_unit = fill(MomentumCode::find_unit(run.scales[M][block]));
    // Of beta2 s. An infinite s times 0 would be NaN.
    const Floats s_unit = fill(beta2 != 0 ? VarianceCode::find_unit(run.scales[S][block]) * beta2 : 0);
    const Floats max_unit = fill(amsgrad ? VarianceCode::find_unit(run.scales[MAX_S][block]) : 0);
    Words largest_m{}, largest_s{}, largest_max{};
    for (int64_t i = block * PACKED_BLOCK; i < (block + 1) * PACKED_BLOCK; i += LANES) {
      const Floats m_before = MomentumCode::decode(m_codes + i, m_unit);
      const Floats d = load(grad + i) - m_before;
      const Floats m = multiply_add(beta1_complement, d, m_before);
      const Floats s = multiply_add(residual_weight * d, d, VarianceCode::decode(s_codes + i, s_unit)) + eps;
      store(run.averages[M] + i, m);
      store(run.averages[S] + i, s);

      // As integers numbers of one sign are in the same order, and a NaN is above all.
      const Words m_size = as_words(m) & SIZE, s_size = as_words(s);
      largest_m = m_size > largest_m ? m_size : largest_m;
      largest_s = s_size > largest_s ? s_size : largest_s;
      Floats max_s = s;
      if constexpr (amsgrad) {
        max_s = VarianceCode::decode(max_codes + i, max_unit);
        max_s = s > max_s || s != s ? s : max_s;  // a NaN stays one
        const Words max_size = as_words(max_s);
        largest_max = max_size > largest_max ? max_size : largest_max;
        store(run.averages[MAX_S] + i, max_s);
      }
    }
    run.largest[M][block] = largest_m, run.largest[S][block] = largest_s, run.largest[MAX_S][block] = largest_max;
  }
}

// The second pass: moves the weights, and codes the averages.
template <bool amsgrad>
__attribute__((noinline)) void move_run(const Run& run, const FloatScalars& scalars) {
  float factors[AVERAGES][RUN];
  for (int average = 0; average < (amsgrad ? AVERAGES : MAX_S); ++average)
    for (int64_t block = 0; block < run.blocks; ++block) {
      float largest = bits<float>(find_largest(run.largest[average][block]));
      if (average == MAX_S) largest = find_next_power_of_two(largest);
      const float scale = run.scales[average][block] = make_scale(largest);
      factors[average][block] = average == M ? MomentumCode::find_factor(scale) : VarianceCode::find_factor(scale);
    }

  const Floats eps = fill(scalars.eps), root_scale = fill(scalars.root_scale), step_size = fill(-scalars.step_size);
  const Floats max_quotient = fill(scalars.max_quotient), shrink = fill(scalars.shrink);
  const bool adaptive = scalars.adaptive, bounded = scalars.bounded, stays = scalars.stays;
  uint8_t *m_codes = run.codes[M], *s_codes = run.codes[S], *max_codes = run.codes[MAX_S];
  float* theta = run.theta;
  Words words = draw_word(count_from(run.key));
  for (int64_t block = 0; block < run.blocks; ++block) {
    const Floats m_factor = fill(factors[M][block]), s_factor = fill(factors[S][block]);
    const Floats max_factor = fill(amsgrad ? factors[MAX_S][block] : 0);
    for (int64_t i = block * PACKED_BLOCK; i < (block + 1) * PACKED_BLOCK; i += LANES) {
      fetch_ahead(run, i);
      const Floats m = load(run.averages[M] + i), s = load(run.averages[S] + i);
      const Floats max_s = amsgrad ? load(run.averages[MAX_S] + i) : s;
      const Floats denominator = adaptive ? multiply_add(find_root(max_s), root_scale, eps) : fill(1);
      Floats quotient = m / denominator;
      if (bounded) {
        quotient = quotient > max_quotient ? max_quotient : quotient;  // a NaN stays one
        quotient = quotient < -max_quotient ? -max_quotient : quotient;
      }
      const Floats shrunk = load(theta + i) * shrink;
      store(theta + i, stays ? shrunk : multiply_add(step_size, quotient, shrunk));

      MomentumCode::encode(m_codes + i, m, m_factor);
      VarianceCode::encode(s_codes + i, s, s_factor, words >> (32 - VarianceCode::SHIFT));
      if constexpr (amsgrad) {
        const Words half = Words{} + VarianceCode::HALF;
        VarianceCode::encode(max_codes + i, max_s, max_factor, half);
      }
      words += draw_word(uint32_t(LANES));
    }
  }
}

}  // namespace
