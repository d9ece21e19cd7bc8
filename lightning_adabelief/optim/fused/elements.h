// Consecutive elements of one parameter, with their gradients, averages and corrections.

#pragma once

#include <algorithm>
#include <cstdint>

#include "low_precision.h"
#include "pack.h"

namespace {

enum Average { M, S, MAX_S, AVERAGES };  // the largest s so far is there with amsgrad alone

// P, G, A: the dtypes of weights, gradients and averages; averages that are packed are codes, of uint8_t.
// kept: the bits of the weights' corrections.
template <typename P, typename G, typename A, uint32_t kept>
struct Elements {
  Weights<P, kept> weights;
  G* grad;
  A* averages[AVERAGES];

  // From element `at` on of tensor t, where its averages are at `average_at`.
  Elements(const Pack& pack, int64_t t, int64_t at, int64_t average_at)
      : weights{find_element<P>(pack.params, t, at),
                kept > 0 ? find_element<int8_t>(pack.corrections, t, at) : nullptr,
                kept == 16 ? find_element<uint8_t>(pack.corrections_low, t, at) : nullptr},
        grad(find_element<G>(pack.grads, t, at)),
        averages{find_element<A>(pack.exp_avgs, t, average_at), find_element<A>(pack.exp_avg_vars, t, average_at),
                 find_element<A>(pack.max_exp_avg_vars, t, average_at)} {}

  // Call f(an array of these, that of the others) for each of the arrays.
  template <typename F>
  void pair(const Elements& others, F f) const {
    f(weights.weight, others.weights.weight);
    if (kept > 0) f(weights.correction, others.weights.correction);
    if (kept == 16) f(weights.low, others.weights.low);
    f(grad, others.grad);
    for (int average = 0; average < AVERAGES; ++average)
      if (averages[average]) f(averages[average], others.averages[average]);
  }
};

// A copy of n elements, padded with zeros to `size`: elements that fill no whole vectors or blocks are updated there.
template <typename P, typename G, typename A, uint32_t kept, int64_t size>
class Copy {
 public:
  using Original = Elements<P, G, A, kept>;
  Original elements;

  Copy(const Original& original, int64_t n) : elements(original), original(original), n(n) {
    elements.weights = {weights, corrections, low};
    elements.grad = grads;
    for (int average = 0; average < AVERAGES; ++average)
      elements.averages[average] = original.averages[average] ? averages[average] : nullptr;
    elements.pair(original, [n](auto* to, auto* from) { std::copy_n(from, n, to); });
  }

  // All but the gradients, which a step leaves as they are.
  void write_back() const {
    original.pair(elements, [this](auto* to, auto* from) {
      if (static_cast<const void*>(from) != grads) std::copy_n(from, n, to);
    });
  }

 private:
  const Original original;
  const int64_t n;
  P weights[size] = {};
  int8_t corrections[size] = {};
  uint8_t low[size] = {};
  G grads[size] = {};
  A averages[AVERAGES][size] = {};
};

}  // namespace
