// A step on parameters whose averages are packed: finds each block of a tensor in memory, and makes float32 of it.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "low_precision.h"
#include "pack.h"
#include "packed_state.h"

namespace {

// A row of a packed average: the codes of its elements, padded to a multiple of 4 bytes, then its blocks' scales.
struct RowLayout {
  int64_t length, blocks, code_bytes, scales_at, bytes;

  RowLayout(int64_t length, int64_t code_bytes)
      : length(length),
        blocks((length + PACKED_BLOCK - 1) / PACKED_BLOCK),
        code_bytes(code_bytes),
        scales_at((length * code_bytes + 3) / 4 * 4),
        bytes(scales_at + 4 * blocks) {}

  CodedBlock find_block(void* average, int64_t row, int64_t column) const {
    uint8_t* begin = static_cast<uint8_t*>(average) + row * bytes;
    return {begin + column * PACKED_BLOCK * code_bytes, reinterpret_cast<float*>(begin + scales_at) + column};
  }
};

// Divide n gradients by their scale in place, if they have one, and return them in float32, with the sign that the rule
// uses: themselves where nothing is to be done, else the copy.
template <typename G>
const float* read_gradient(int64_t n, void* gradient, const Scalars& scalars, float* copy) {
  G* grad = static_cast<G*>(gradient);
  if (scalars.grad_scale != 0) unscale(n, grad, float(scalars.grad_scale));
  if constexpr (std::is_same_v<G, float>)
    if (scalars.sign == 1 && scalars.decay == 0 && n == PACKED_BLOCK) return grad;
  const float sign = float(scalars.sign);
  for (int64_t i = 0; i < n; ++i) copy[i] = float(grad[i]) * sign;
  return copy;
}

// kept: the bits of the correction. What a gradient and a code are is known only when it runs, so that not every
// combination has to be compiled.
template <typename P, uint32_t kept>
struct PackedStep {
  const Pack& pack;
  const Scalars& scalars;
  int64_t code_bytes, grad_bytes;
  decltype(&read_gradient<float>) read_grad;
  decltype(&update_block<8, false>) update_coded;
  const FloatScalars float_scalars{scalars};

  // Update n blocks of tensor t, from the number-th on.
  void update(int64_t t, int64_t number, int64_t n) {
    const RowLayout layout(pack.row_lengths[t], code_bytes);
    int64_t row = number / layout.blocks, column = number % layout.blocks;
    for (; n > 0; --n) {
      update_one(t, layout, row, column);
      if (++column == layout.blocks) ++row, column = 0;
    }
  }

  void update_one(int64_t t, const RowLayout& layout, int64_t row, int64_t column) {
    const int64_t at = row * layout.length + column * PACKED_BLOCK;
    const int64_t size = std::min(PACKED_BLOCK, layout.length - column * PACKED_BLOCK);
    const bool whole = size == PACKED_BLOCK;  // else it is filled up with zeros
    P* param = static_cast<P*>(pack.params[t]) + at;
    int8_t* correction = kept > 0 ? static_cast<int8_t*>(pack.corrections[t]) + at : nullptr;
    uint8_t* low = kept == 16 ? static_cast<uint8_t*>(pack.corrections_low[t]) + at : nullptr;
    const uint32_t key = (pack.keys ? pack.keys[t] : 0) + uint32_t(at);

    void* const* const averages[3] = {pack.exp_avgs, pack.exp_avg_vars, pack.max_exp_avg_vars};
    CodedBlock stored[3] = {}, coded[3] = {};
    for (int i = 0; i < 3; ++i)
      if (averages[i]) coded[i] = stored[i] = layout.find_block(averages[i][t], row, column);
    alignas(64) float theta_copy[PACKED_BLOCK], g_copy[PACKED_BLOCK];
    alignas(64) uint8_t code_copies[3][2 * PACKED_BLOCK];
    if (!whole) {
      std::fill_n(theta_copy, PACKED_BLOCK, 0.0f);
      std::fill_n(g_copy, PACKED_BLOCK, 0.0f);
      std::memset(code_copies, 0, sizeof(code_copies));
      for (int i = 0; i < 3 && averages[i]; ++i) {
        std::memcpy(code_copies[i], stored[i].codes, size * code_bytes);
        coded[i].codes = code_copies[i];
      }
    }

    float* theta = theta_copy;
    if constexpr (!std::is_same_v<P, float>)
      read_master<P, kept>(size, param, correction, low, theta);
    else if (whole)
      theta = param;
    else
      std::copy_n(param, size, theta);
    const float* g = read_grad(size, static_cast<char*>(pack.grads[t]) + at * grad_bytes, scalars, g_copy);
    const float decay = float(scalars.decay);
    if (decay != 0)
      for (int64_t i = 0; i < size; ++i) g_copy[i] = multiply_add(decay, theta[i], g_copy[i]);

    update_coded(theta, g, coded, float_scalars, key);

    if constexpr (!std::is_same_v<P, float>)
      write_master<P, kept>(size, param, correction, low, theta, key);
    else if (!whole)
      std::copy_n(theta, size, param);
    if (!whole)
      for (int i = 0; i < 3 && averages[i]; ++i) std::memcpy(stored[i].codes, code_copies[i], size * code_bytes);
  }
};

template <typename P, typename G, uint32_t kept, int code_bits>
void take_packed_step(const Pack& pack, const Scalars& scalars, Parallel parallel, unsigned threads, int64_t chunk) {
  auto* update_coded = pack.max_exp_avg_vars ? update_block<code_bits, true> : update_block<code_bits, false>;
  PackedStep<P, kept> step{pack, scalars, code_bits / 8, sizeof(G), read_gradient<G>, update_coded};
  deal(step, pack, parallel, threads, chunk / PACKED_BLOCK);
}

}  // namespace
