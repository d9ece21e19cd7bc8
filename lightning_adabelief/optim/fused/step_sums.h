// The sums of a step that is measured: ../step_sums.py.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "pack.h"
#include "vectors.h"

namespace {

// The elements that are added up in the arithmetic's dtype, before their sum is added to others in double: few
// enough that the rounding of a sum of floats is of no account.
constexpr int64_t BLOCK = 1024;

// The sums over vectors of elements. size: how many there are, of which the last may leave lanes over.
template <typename V>
struct VectorSums {
  const V size;
  V sums[SUMS] = {};

  explicit VectorSums(int64_t size) : size(fill(Lane<V>(size))) {}

  // at: the place of the vector's first element.
  void add_averages(int64_t at, V grad, V g, V m_before, V s) {
    const auto is_inside = find_inside(at);
    add(GRAD_SQUARE, grad * grad, is_inside);
    add(USED_GRAD_SQUARE, g * g, is_inside);
    add(GRAD_MOMENTUM, g * m_before, is_inside);
    add(MOMENTUM_SQUARE, m_before * m_before, is_inside);
    add(VARIANCE, s, is_inside);
  }

  // Of weights as they can be read afterwards: one of 16 bits may not move at all.
  void add_movement(int64_t at, V before, V after) {
    const auto is_inside = find_inside(at);
    const V update = before - after;
    add(UPDATE_SQUARE, update * update, is_inside);
    add(WEIGHT_SQUARE, after * after, is_inside);
  }

  void flush(double* totals) {
    for (int sum = 0; sum < SUMS; ++sum) {
      totals[sum] += sum_lanes(sums[sum]);
      sums[sum] = V{};
    }
  }

 private:
  auto find_inside(int64_t at) const { return count_lanes<V>() + Lane<V>(at) < size; }

  template <typename Mask>
  void add(Sum sum, V x, Mask is_inside) {
    sums[sum] = is_inside ? sums[sum] + x : sums[sum];  // what is in the other lanes may be NaN
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
