// A step on parameters whose averages are numbers of some dtype.

#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "elements.h"
#include "low_precision.h"
#include "pack.h"
#include "rule.h"
#include "step_sums.h"
#include "vectors.h"

namespace {

// Store a group of vectors of an average. find_draw(k): what is added to the first of the bits that are left out of the
// k-th, up to all of them.
template <typename A, typename V, typename Draw>
inline void store_average(A* to, const V (&values)[GROUP], [[maybe_unused]] Draw find_draw) {
  if constexpr (std::is_same_v<A, BFloat16>) {
    Words rounded[GROUP];
    for (int k = 0; k < GROUP; ++k) rounded[k] = BFloat16::encode(as_words(values[k])) + find_draw(k);
    store_upper_halves(reinterpret_cast<uint16_t*>(to), rounded);
  } else {
    for (int k = 0; k < GROUP; ++k) store(to + k * COUNT<V>, values[k]);
  }
}

template <typename P, typename G, typename A, uint32_t kept>
struct PlainStep {
  using Real = std::conditional_t<std::is_same_v<A, double>, double, float>;  // of the arithmetic
  using V = Vector<Real>;
  using Part = Elements<P, G, A, kept>;
  static constexpr int64_t WIDTH = GROUP * COUNT<V>;

  const Pack& pack;
  const Scalars& scalars;
  PieceSums sums;
  const Rule<Real> rule{scalars};

  // Update n elements of tensor t, from the at-th on.
  void update(int64_t t, int64_t at, int64_t n) {
    const Part part(pack, t, at, at);
    if (scalars.grad_scale != 0) unscale(n, part.grad, scalars.grad_scale);
    double* sums_here = sums.find(t, at);
    const bool amsgrad = pack.max_exp_avg_vars != nullptr;
    auto* chosen = sums_here ? (amsgrad ? update_part<true, true> : update_part<false, true>)
                             : (amsgrad ? update_part<true, false> : update_part<false, false>);
    const int64_t rest = n % WIDTH, whole = n - rest;
    const uint32_t key = pack.find_key(t, at);
    chosen(part, whole, key, rule, sums_here);
    if (rest == 0) return;
    Copy<P, G, A, kept, WIDTH> copy(Part(pack, t, at + whole, at + whole), rest);
    chosen(copy.elements, rest, key + uint32_t(whole), rule, sums_here);
    copy.write_back();
  }

  // amsgrad and measured are known when it is compiled, so that a step without them pays nothing for them.
  // key: that of the draws, plus the place of the first element.
  template <bool amsgrad, bool measured>
  static void update_part(const Part part, int64_t n, uint32_t key, const Rule<Real> rule, double* sums) {
    Words words = draw_word(count_from(key));
    VectorSums<V> vector_sums(n);
    for (int64_t i = 0; i < n; i += WIDTH) {
      V before[GROUP], theta[GROUP], m[GROUP], s[GROUP];
      for (int k = 0; k < GROUP; ++k) {
        const int64_t at = i + k * COUNT<V>;
        before[k] = part.weights.read(at);
        const V grad = load(part.grad + at), g = rule.use(grad, before[k]);
        const V m_before = load(part.averages[M] + at), d = g - m_before;
        m[k] = multiply_add(rule.beta1_complement, d, m_before);
        s[k] = rule.find_variance(d, rule.remembers ? load(part.averages[S] + at) * rule.beta2 : V{});
        if constexpr (measured) vector_sums.add_averages(at, grad, g, m_before, s[k]);
      }
      store_average(part.averages[M] + i, m, [words](int k) { return (words + k * NEXT_WORDS) & 0xffff; });
      store_average(part.averages[S] + i, s, [words](int k) { return (words + k * NEXT_WORDS) >> 16; });
      if constexpr (amsgrad) {
        for (int k = 0; k < GROUP; ++k) {
          const V largest = load(part.averages[MAX_S] + i + k * COUNT<V>);
          s[k] = ((largest >= s[k]) | (largest != largest)) ? largest : s[k];  // a NaN stays one
        }
        store_average(part.averages[MAX_S] + i, s, [](int) { return Words{} + 0x8000; });
      }

      for (int k = 0; k < GROUP; ++k) theta[k] = rule.move(before[k], m[k], s[k]);
      part.weights.write(i, theta, words);
      if constexpr (measured) {
        for (int k = 0; k < GROUP; ++k) vector_sums.add_movement(i + k * COUNT<V>, before[k], theta[k]);
        if (i % BLOCK == 0) vector_sums.flush(sums);
      }
      words += GROUP * NEXT_WORDS;
    }
    if constexpr (measured) vector_sums.flush(sums);
  }
};

}  // namespace
