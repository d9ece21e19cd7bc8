// A step on parameters whose averages are packed.
//
// Some blocks at a time go through two passes, and between them their averages are in the first cache in float32: a
// block's scales are not known before its last number is.

#pragma once

#include <algorithm>
#include <cstdint>

#include "elements.h"
#include "low_precision.h"
#include "pack.h"
#include "packed_codes.h"
#include "rule.h"
#include "step_sums.h"
#include "vectors.h"

namespace {

constexpr int64_t RUN = 4;  // blocks that go through a pass together
constexpr int64_t RUN_ELEMENTS = RUN * PACKED_BLOCK;

// A row of a packed average: the codes of its elements, padded to a multiple of 4 bytes, then its blocks' scales.
struct RowLayout {
  int64_t length, blocks, scales_at, bytes;

  explicit RowLayout(int64_t length)
      : length(length),
        blocks((length + PACKED_BLOCK - 1) / PACKED_BLOCK),
        scales_at((length + 3) / 4 * 4),
        bytes(scales_at + 4 * blocks) {}
};

template <typename P, typename G, uint32_t kept>
struct PackedStep {
  using Part = Elements<P, G, uint8_t, kept>;

  // Consecutive blocks of a row on their way through a step.
  struct Run {
    int64_t blocks, size;  // size: the elements that are updated; the others, of the last block of a row, are zeros
    float* scales[AVERAGES];
    uint32_t key;  // of the draw, plus the place of the first element
    double* sums;  // null in a step that is not measured
    Words largest[AVERAGES][RUN];
    alignas(64) float averages[AVERAGES][RUN_ELEMENTS];
  };

  const Pack& pack;
  const Scalars& scalars;
  PieceSums sums;
  const Rule<float> rule{scalars};
  const bool amsgrad = pack.max_exp_avg_vars != nullptr;

  // Update n blocks of tensor t, from the number-th on.
  void update(int64_t t, int64_t number, int64_t n) {
    const RowLayout layout(pack.row_lengths[t]);
    Run run;
    run.sums = sums.find(t, number);
    while (n > 0) {
      const int64_t row = number / layout.blocks, block = number % layout.blocks, at = block * PACKED_BLOCK;
      run.blocks = std::min({RUN, n, layout.blocks - block});
      run.size = std::min(run.blocks * PACKED_BLOCK, layout.length - at);
      run.key = pack.find_key(t, row * layout.length + at);
      void* const* const columns[AVERAGES] = {pack.exp_avgs, pack.exp_avg_vars, pack.max_exp_avg_vars};
      for (int average = 0; average < (amsgrad ? AVERAGES : MAX_S); ++average) {
        uint8_t* scales = static_cast<uint8_t*>(columns[average][t]) + row * layout.bytes + layout.scales_at;
        run.scales[average] = reinterpret_cast<float*>(scales) + block;
      }

      const Part part(pack, t, row * layout.length + at, row * layout.bytes + at);
      if (scalars.grad_scale != 0) unscale(run.size, part.grad, scalars.grad_scale);
      if (run.size == run.blocks * PACKED_BLOCK) {
        update_run(part, run);
      } else {
        Copy<P, G, uint8_t, kept, RUN_ELEMENTS> copy(part, run.size);
        update_run(copy.elements, run);
        copy.write_back();
      }
      number += run.blocks;
      n -= run.blocks;
    }
  }

  void update_run(const Part& part, Run& run) const {
    if (run.sums) {
      (amsgrad ? average_run<true, true> : average_run<false, true>)(part, run, rule);
      (amsgrad ? move_run<true, true> : move_run<false, true>)(part, run, rule);
    } else {
      (amsgrad ? average_run<true, false> : average_run<false, false>)(part, run, rule);
      (amsgrad ? move_run<true, false> : move_run<false, false>)(part, run, rule);
    }
  }

  // The first pass: both averages, and the largest number of each block.
  template <bool amsgrad, bool measured>
  static void average_run(const Part part, Run& run, const Rule<float>& rule) {
    const float beta2 = rule.beta2[0];
    VectorSums<Floats> sums(run.size);
    for (int64_t block = 0; block < run.blocks; ++block) {
      const Floats m_unit = fill(MomentumCode::find_unit(run.scales[M][block]));
      const Floats s_unit = fill(rule.remembers ? VarianceCode::find_unit(run.scales[S][block]) * beta2 : 0);
      const Floats max_unit = fill(amsgrad ? VarianceCode::find_unit(run.scales[MAX_S][block]) : 0);
      Words largest_m{}, largest_s{}, largest_max{};
      for (int64_t i = block * PACKED_BLOCK; i < (block + 1) * PACKED_BLOCK; i += LANES) {
        const Floats grad = load(part.grad + i);
        const Floats g = rule.coupled ? rule.use(grad, part.weights.read(i)) : grad * rule.sign;
        const Floats m_before = MomentumCode::decode(part.averages[M] + i, m_unit), d = g - m_before;
        const Floats m = multiply_add(rule.beta1_complement, d, m_before);
        const Floats s = rule.find_variance(d, VarianceCode::decode(part.averages[S] + i, s_unit));
        store(run.averages[M] + i, m);
        store(run.averages[S] + i, s);
        if constexpr (measured) sums.add_averages(i, grad, g, m_before, s);

        // As integers numbers of one sign are in the same order, and a NaN is above all.
        const Words m_size = as_words(m) & SIZE, s_size = as_words(s);
        largest_m = m_size > largest_m ? m_size : largest_m;
        largest_s = s_size > largest_s ? s_size : largest_s;
        if constexpr (amsgrad) {
          Floats max_s = VarianceCode::decode(part.averages[MAX_S] + i, max_unit);
          max_s = ((s > max_s) | (s != s)) ? s : max_s;  // a NaN stays one
          const Words max_size = as_words(max_s);
          largest_max = max_size > largest_max ? max_size : largest_max;
          store(run.averages[MAX_S] + i, max_s);
        }
      }
      run.largest[M][block] = largest_m, run.largest[S][block] = largest_s, run.largest[MAX_S][block] = largest_max;
    }
    if constexpr (measured) sums.flush(run.sums);
  }

  // The second pass: moves the weights, and codes the averages.
  template <bool amsgrad, bool measured>
  static void move_run(const Part part, const Run& run, const Rule<float>& rule) {
    float factors[AVERAGES][RUN];
    for (int average = 0; average < (amsgrad ? AVERAGES : MAX_S); ++average)
      for (int64_t block = 0; block < run.blocks; ++block) {
        float largest = bits<float>(find_largest(run.largest[average][block]));
        if (average == MAX_S) largest = find_next_power_of_two(largest);
        const float scale = run.scales[average][block] = make_scale(largest);
        factors[average][block] = average == M ? MomentumCode::find_factor(scale) : VarianceCode::find_factor(scale);
      }

    VectorSums<Floats> sums(run.size);
    Words words = draw_word(count_from(run.key));
    for (int64_t block = 0; block < run.blocks; ++block) {
      const Floats m_factor = fill(factors[M][block]), s_factor = fill(factors[S][block]);
      const Floats max_factor = fill(amsgrad ? factors[MAX_S][block] : 0);
      for (int64_t i = block * PACKED_BLOCK; i < (block + 1) * PACKED_BLOCK; i += GROUP * LANES) {
        Floats before[GROUP], theta[GROUP];
        Words codes[AVERAGES][GROUP];
        for (int k = 0; k < GROUP; ++k) {
          const int64_t at = i + k * LANES;
          const Floats m = load(run.averages[M] + at), s = load(run.averages[S] + at);
          const Floats max_s = amsgrad ? load(run.averages[MAX_S] + at) : s;
          before[k] = part.weights.read(at);
          theta[k] = rule.move(before[k], m, max_s);
          codes[M][k] = MomentumCode::encode(m, m_factor);
          const Words draw = (words + k * NEXT_WORDS) >> (32 - VarianceCode::SHIFT);
          codes[S][k] = VarianceCode::encode(s, s_factor, draw);
          if constexpr (amsgrad)
            codes[MAX_S][k] = VarianceCode::encode(max_s, max_factor, Words{} + VarianceCode::HALF);
        }
        if constexpr (IS_16_BITS<P>) fetch_ahead(part, i);
        part.weights.write(i, theta, words);
        if constexpr (measured)
          for (int k = 0; k < GROUP; ++k) sums.add_movement(i + k * LANES, before[k], theta[k]);
        store_bytes<0>(part.averages[M] + i, codes[M]);
        store_bytes<0>(part.averages[S] + i, codes[S]);
        if constexpr (amsgrad) store_bytes<0>(part.averages[MAX_S] + i, codes[MAX_S]);
        words += GROUP * NEXT_WORDS;
      }
    }
    if constexpr (measured) sums.flush(run.sums);
  }

  // Ask for the lines of memory that are read some runs later. With weights of 32 bits the CPU does well without.
  __attribute__((always_inline)) static void fetch_ahead(const Part& part, int64_t i) {  // else it is left out
    constexpr int64_t DISTANCE = 4 * RUN_ELEMENTS, LINE = 64;
    const auto fetch = [i](const auto* elements) {
      const char* begin = reinterpret_cast<const char*>(elements + i + DISTANCE);
      for (int64_t at = 0; at < GROUP * LANES * int64_t(sizeof(*elements)); at += LINE) __builtin_prefetch(begin + at);
    };
    fetch(part.weights.weight);
    fetch(part.grad);
    fetch(part.averages[M]);
    fetch(part.averages[S]);
    if (kept > 0) fetch(part.weights.correction);
  }
};

}  // namespace
