// The sums of a step that is measured: ../step_sums.py.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "pack.h"

namespace {

inline float sum_products(int64_t n, const float* a, const float* b) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

inline float sum_up(int64_t n, const float* numbers) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += numbers[i];
  return sum;
}

// The sums over a movement as it was applied: a weight of 16 bits may not move at all.
struct Movement {
  float before[PIECE];
  double update_square, weight_square;

  void begin(int64_t n, const float* theta, const double* sums) {
    std::copy_n(theta, n, before);
    update_square = sums[UPDATE_SQUARE], weight_square = sums[WEIGHT_SQUARE];
  }

  void end(int64_t n, const float* theta, double* sums) const {
    float updates = 0, weights = 0;
#pragma omp simd reduction(+ : updates, weights)
    for (int64_t i = 0; i < n; ++i) {
      const float update = before[i] - theta[i];
      updates += update * update;
      weights += theta[i] * theta[i];
    }
    sums[UPDATE_SQUARE] = update_square + updates;
    sums[WEIGHT_SQUARE] = weight_square + weights;
  }
};

// The sums of a step, for each piece of a tensor that one thread updates.
struct PieceSums {
  const Pack& pack;
  int64_t chunk;
  std::vector<double> sums;

  PieceSums(const Pack& pack, int64_t chunk) : pack(pack), chunk(chunk) {
    if (pack.sums) sums.resize(SUMS * (find_piece(pack.offsets[pack.tensors], pack.tensors) + 1));
  }

  // The number of the piece of tensor t that begins there: a new one begins with each chunk and each tensor.
  int64_t find_piece(int64_t begin, int64_t t) const { return begin / chunk + t; }

  // Those of the piece that begins at an element of tensor t; null where none are asked for.
  double* find(int64_t t, int64_t at) {
    return pack.sums ? &sums[SUMS * find_piece(pack.offsets[t] + at, t)] : nullptr;
  }

  // In the order of the pieces, so that the sums do not depend on which thread came first.
  void add_up() const {
    if (!pack.sums) return;
    std::fill_n(pack.sums, SUMS * pack.tensors, 0.0);
    for (int64_t t = 0; t < pack.tensors; ++t) {
      const int64_t begin = pack.offsets[t], end = pack.offsets[t + 1];
      if (begin == end) continue;
      for (int64_t piece = find_piece(begin, t); piece <= find_piece(end - 1, t); ++piece)
        for (int sum = 0; sum < SUMS; ++sum) pack.sums[SUMS * t + sum] += sums[SUMS * piece + sum];
    }
  }
};

}  // namespace
