// What cpu.py hands over, and how it is dealt to threads.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "low_precision.h"

extern "C" {

// What every element of a call shares; cpu.py holds the same struct.
struct Scalars {
  double sign;             // of the gradient: -1 to ascend
  double grad_scale;       // the gradient is divided by it in place; 0: left as it is
  double shrink;           // decoupled weight decay: what the weight is multiplied by
  double decay;            // coupled weight decay: added to the gradient times the weight
  double beta1_complement; // 1 - beta1
  double beta2;
  double residual_weight;  // (1 - beta2) c^2
  double eps;
  double step_size;
  double root_scale;       // negative: the denominator is 1
  double max_quotient;     // the most that m / denominator may be, infinite for no bound
};

// Tensors of one pair of dtypes.
struct Pack {
  int64_t tensors;
  const int64_t* offsets;  // tensors + 1 of them: where each begins if all stood in a row, in elements or in blocks
  const int64_t* row_lengths;  // elements of a row of each parameter; null unless the averages are packed
  void* const* params;
  void* const* grads;
  void* const* exp_avgs;
  void* const* exp_avg_vars;
  void* const* max_exp_avg_vars;  // null without amsgrad
  void* const* corrections;       // null unless the parameters are of 16 bits and have some
  void* const* corrections_low;   // null unless these have 16 bits
  const uint32_t* keys;           // of the stochastic rounding; null where there is none
  double* sums;                   // SUMS of them a tensor, to be written; null where none are asked for

  // The key of a stretch of tensor t from its element `at` on.
  uint32_t find_key(int64_t t, int64_t at) const { return (keys ? keys[t] : 0) + uint32_t(at); }
};

// The sums over a tensor's elements, in the order in which ../step_sums.py names them.
enum Sum {
  GRAD_SQUARE,
  USED_GRAD_SQUARE,
  GRAD_MOMENTUM,
  MOMENTUM_SQUARE,
  VARIANCE,
  UPDATE_SQUARE,
  WEIGHT_SQUARE,
  SUMS
};

typedef void (*Parallel)(void (*)(void*), void*, unsigned threads, unsigned flags);

}  // extern "C"

namespace {

// A tensor's element in a column of the pack; null where the column is.
template <typename T>
T* find_element(void* const* column, int64_t t, int64_t at) {
  return column ? static_cast<T*>(column[t]) + at : nullptr;
}

// Divide n gradients by their scale in place.
template <typename G>
void unscale(int64_t n, G* grad, double scale) {
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (IS_16_BITS<G>) grad[i] = G::from(grad[i] / float(scale));
    else grad[i] = grad[i] / G(scale);
  }
}

// A pack whose chunks are taken by threads, which need not be equally fast.
template <typename Step>
struct Deal {
  Step& step;
  const Pack& pack;
  int64_t chunk;  // elements, or blocks, as the offsets count
  std::atomic<int64_t> next{0};

  // Take chunks of the row of all tensors until none is left.
  static void run(void* self) {
    Deal& deal = *static_cast<Deal*>(self);
    const int64_t* offsets = deal.pack.offsets;
    const int64_t tensors = deal.pack.tensors, total = offsets[tensors];
    for (;;) {
      int64_t begin = deal.next.fetch_add(deal.chunk);
      if (begin >= total) return;
      const int64_t end = std::min(begin + deal.chunk, total);
      int64_t t = std::upper_bound(offsets, offsets + tensors + 1, begin) - offsets - 1;
      for (; begin < end; ++t) {
        const int64_t stop = std::min(end, offsets[t + 1]);
        deal.step.update(t, begin - offsets[t], stop - begin);
        begin = stop;
      }
    }
  }
};

// Call step.update(t, at, n) for stretches of n elements, or blocks, from `at` on of tensor t, until all were in one.
template <typename Step>
void deal(Step& step, const Pack& pack, Parallel parallel, unsigned threads, int64_t chunk) {
  Deal<Step> deal{step, pack, chunk};
  if (parallel && threads > 1 && pack.offsets[pack.tensors] > chunk)
    parallel(Deal<Step>::run, &deal, threads, 0);
  else
    Deal<Step>::run(&deal);
}

}  // namespace
