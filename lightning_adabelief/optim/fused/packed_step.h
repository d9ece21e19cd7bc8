// A step on parameters whose averages are packed: finds each block of a tensor in memory, and makes float32 of it.

#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "low_precision.h"
#include "pack.h"
#include "packed_state.h"
#include "step_sums.h"

namespace {

// A row of a packed average: the codes of its elements, padded to a multiple of 4 bytes, then its blocks' scales.
struct RowLayout {
  int64_t length, blocks, scales_at, bytes;

  explicit RowLayout(int64_t length)
      : length(length),
        blocks((length + PACKED_BLOCK - 1) / PACKED_BLOCK),
        scales_at((length + 3) / 4 * 4),
        bytes(scales_at + 4 * blocks) {}
};

// Divide n gradients by their scale in place, if they have one, and return them in float32, with the sign that the rule
// uses: themselves where they are whole and nothing is to be done, else the copy.
template <typename G>
const float* read_gradient(int64_t n, void* gradient, const Scalars& scalars, bool is_whole, float* copy) {
  G* grad = static_cast<G*>(gradient);
  if (scalars.grad_scale != 0) unscale(n, grad, float(scalars.grad_scale));
  if constexpr (std::is_same_v<G, float>)
    if (scalars.sign == 1 && scalars.decay == 0 && is_whole) return grad;
  const float sign = float(scalars.sign);
  for (int64_t i = 0; i < n; ++i) copy[i] = float(grad[i]) * sign;
  return copy;
}

// What differs by dtypes and bits. It is chosen when it runs, so that not every combination has to be compiled.
struct PackedKind {
  int64_t param_bytes, grad_bytes;
  bool has_float_weights, has_correction, has_correction_low;
  decltype(&read_gradient<float>) read_gradient;
  decltype(&read_weight<float, 0>) read_weight;
  decltype(&write_weight<float, 0>) write_weight;
};

struct PackedStep {
  const Pack& pack;
  const Scalars& scalars;
  PieceSums sums;
  const PackedKind kind;
  const FloatScalars float_scalars{scalars};
  const bool amsgrad = pack.max_exp_avg_vars != nullptr;
  const int averages = amsgrad ? AVERAGES : MAX_S;

  // Update n blocks of tensor t, from the number-th on.
  void update(int64_t t, int64_t number, int64_t n) {
    const RowLayout layout(pack.row_lengths[t]);
    double* sums_here = sums.find(t, number);
    Run run;
    while (n > 0) {
      const int64_t row = number / layout.blocks, block = number % layout.blocks;
      run.blocks = std::min({int64_t(RUN), n, layout.blocks - block});
      update_run(run, t, layout, row, block, sums_here);
      number += run.blocks;
      n -= run.blocks;
    }
  }

  void update_run(Run& run, int64_t t, const RowLayout& layout, int64_t row, int64_t block, double* sums_here) const {
    const int64_t column = block * PACKED_BLOCK, at = row * layout.length + column;
    const int64_t size = std::min(run.blocks * PACKED_BLOCK, layout.length - column);
    const bool is_whole = size == run.blocks * PACKED_BLOCK;  // else it is filled up with zeros
    void* const* const columns[AVERAGES] = {pack.exp_avgs, pack.exp_avg_vars, pack.max_exp_avg_vars};
    for (int average = 0; average < averages; ++average) {
      uint8_t* begin = static_cast<uint8_t*>(columns[average][t]) + row * layout.bytes;
      run.codes[average] = begin + column;
      run.scales[average] = reinterpret_cast<float*>(begin + layout.scales_at) + block;
    }
    void* param = static_cast<char*>(pack.params[t]) + at * kind.param_bytes;
    void* grad = static_cast<char*>(pack.grads[t]) + at * kind.grad_bytes;
    int8_t* correction = kind.has_correction ? find_element<int8_t>(pack.corrections, t, at) : nullptr;
    uint8_t* low = kind.has_correction_low ? find_element<uint8_t>(pack.corrections_low, t, at) : nullptr;
    run.param = static_cast<char*>(param), run.param_bytes = kind.param_bytes;
    run.grad_in_memory = static_cast<char*>(grad), run.grad_bytes = kind.grad_bytes;
    run.key = pack.find_key(t, at);

    const bool copies_weights = !(kind.has_float_weights && is_whole);
    run.theta = copies_weights ? run.thetas : static_cast<float*>(param);
    if (copies_weights) kind.read_weight(size, param, correction, low, run.thetas);
    run.grad = kind.read_gradient(size, grad, scalars, is_whole, run.grads);
    if (sums_here) sums_here[GRAD_SQUARE] += sum_products(size, run.grad, run.grad);
    const float decay = float(scalars.decay);
    if (decay != 0)
      for (int64_t i = 0; i < size; ++i) run.grads[i] = multiply_add(decay, run.theta[i], run.grads[i]);
    if (!is_whole) copy_codes(run, size);
    Movement movement;
    if (sums_here) {
      float* momentum = run.averages[M];
      decode_momentum(run, momentum);
      sums_here[USED_GRAD_SQUARE] += sum_products(size, run.grad, run.grad);
      sums_here[GRAD_MOMENTUM] += sum_products(size, run.grad, momentum);
      sums_here[MOMENTUM_SQUARE] += sum_products(size, momentum, momentum);
      movement.begin(size, run.theta, sums_here);
    }

    (amsgrad ? average_run<true> : average_run<false>)(run, float_scalars);
    (amsgrad ? move_run<true> : move_run<false>)(run, float_scalars);

    if (copies_weights) kind.write_weight(size, param, correction, low, run.thetas, run.key);
    if (!is_whole)
      for (int average = 0; average < averages; ++average)
        std::copy_n(run.all_codes[average], size, run.stored[average]);
    if (sums_here) {
      sums_here[VARIANCE] += sum_up(size, run.averages[S]);
      if (copies_weights) kind.read_weight(size, param, correction, low, run.thetas);
      movement.end(size, run.theta, sums_here);
    }
  }

  // Copy the codes of the last block of a row, and fill it up with zeros, its weights and gradients too.
  void copy_codes(Run& run, int64_t size) const {
    const int64_t whole = run.blocks * PACKED_BLOCK;
    std::fill(run.thetas + size, run.thetas + whole, 0.0f);
    std::fill(run.grads + size, run.grads + whole, 0.0f);
    for (int average = 0; average < averages; ++average) {
      run.stored[average] = run.codes[average];
      std::copy_n(run.codes[average], size, run.all_codes[average]);
      std::fill(run.all_codes[average] + size, run.all_codes[average] + whole, 0);
      run.codes[average] = run.all_codes[average];
    }
  }
};

// kept: the bits of the correction.
template <typename P, typename G, uint32_t kept>
void take_packed_step(const Pack& pack, const Scalars& scalars, Parallel parallel, unsigned threads, int64_t chunk) {
  const PackedKind kind{
      sizeof(P),        sizeof(G),            std::is_same_v<P, float>, kept > 0, kept == 16,
      read_gradient<G>, read_weight<P, kept>, write_weight<P, kept>,
  };
  chunk /= PACKED_BLOCK;
  PackedStep step{pack, scalars, PieceSums(pack, chunk), kind};
  deal(step, pack, parallel, threads, chunk);
  step.sums.add_up();
}

}  // namespace
