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

// What differs by dtypes and bits. It is chosen when it runs, so that not every combination has to be compiled.
struct PackedKind {
  int64_t param_bytes, grad_bytes, code_bytes;
  bool has_float_weights, has_correction, has_correction_low;
  decltype(&read_gradient<float>) read_gradient;
  decltype(&read_weight<float, 0>) read_weight;
  decltype(&write_weight<float, 0>) write_weight;
  decltype(&average_block<8, false>) average;
  decltype(&move_block<8, false>) move;
};

// A block on its way through a step, and what of it has to be copied.
struct BlockInTensor : Block {
  int64_t size;  // elements; fewer than a block's are filled up with zeros
  void* param;
  int8_t* correction;
  uint8_t* low;
  CodedBlock stored[3];
  alignas(64) float theta_copy[PACKED_BLOCK];
  alignas(64) uint8_t code_copies[3][2 * PACKED_BLOCK];
};

struct PackedStep {
  const Pack& pack;
  const Scalars& scalars;
  const PackedKind kind;
  const FloatScalars float_scalars{scalars};

  // Update n blocks of tensor t, from the number-th on. One is begun before the one before it is finished: the CPU then
  // has work to do while it waits for the scales.
  void update(int64_t t, int64_t number, int64_t n) {
    const RowLayout layout(pack.row_lengths[t], kind.code_bytes);
    int64_t row = number / layout.blocks, column = number % layout.blocks;
    BlockInTensor blocks[2];
    for (int64_t i = 0; i < n; ++i) {
      begin(blocks[i % 2], t, layout, row, column);
      if (i > 0) finish(blocks[(i - 1) % 2]);
      if (++column == layout.blocks) ++row, column = 0;
    }
    finish(blocks[(n - 1) % 2]);
  }

  void begin(BlockInTensor& block, int64_t t, const RowLayout& layout, int64_t row, int64_t column) const {
    const int64_t at = row * layout.length + column * PACKED_BLOCK;
    const int64_t size = std::min(PACKED_BLOCK, layout.length - column * PACKED_BLOCK);
    block.size = size;
    block.param = static_cast<char*>(pack.params[t]) + at * kind.param_bytes;
    block.correction = kind.has_correction ? static_cast<int8_t*>(pack.corrections[t]) + at : nullptr;
    block.low = kind.has_correction_low ? static_cast<uint8_t*>(pack.corrections_low[t]) + at : nullptr;
    block.key = (pack.keys ? pack.keys[t] : 0) + uint32_t(at);
    block.stored[0] = block.momentum = layout.find_block(pack.exp_avgs[t], row, column);
    block.stored[1] = block.variance = layout.find_block(pack.exp_avg_vars[t], row, column);
    if (pack.max_exp_avg_vars)
      block.stored[2] = block.maximum = layout.find_block(pack.max_exp_avg_vars[t], row, column);

    alignas(64) float g_copy[PACKED_BLOCK];
    if (size < PACKED_BLOCK) {
      std::fill_n(g_copy, PACKED_BLOCK, 0.0f);
      std::fill_n(block.theta_copy, PACKED_BLOCK, 0.0f);
      copy_codes(block);
    }
    block.theta = needs_copy(block) ? block.theta_copy : static_cast<float*>(block.param);
    if (needs_copy(block)) kind.read_weight(size, block.param, block.correction, block.low, block.theta);
    void* grad = static_cast<char*>(pack.grads[t]) + at * kind.grad_bytes;
    const float* g = kind.read_gradient(size, grad, scalars, g_copy);
    const float decay = float(scalars.decay);
    if (decay != 0)
      for (int64_t i = 0; i < size; ++i) g_copy[i] = multiply_add(decay, block.theta[i], g_copy[i]);
    kind.average(block, g, float_scalars);
  }

  void finish(const BlockInTensor& block) const {
    kind.move(block, float_scalars);
    if (needs_copy(block))
      kind.write_weight(block.size, block.param, block.correction, block.low, block.theta, block.key);
    if (block.size < PACKED_BLOCK)
      for (int i = 0; i < count_averages(); ++i)
        std::memcpy(block.stored[i].codes, block.code_copies[i], block.size * kind.code_bytes);
  }

  void copy_codes(BlockInTensor& block) const {
    std::memset(block.code_copies, 0, sizeof(block.code_copies));
    CodedBlock* const averages[3] = {&block.momentum, &block.variance, &block.maximum};
    for (int i = 0; i < count_averages(); ++i) {
      std::memcpy(block.code_copies[i], block.stored[i].codes, block.size * kind.code_bytes);
      averages[i]->codes = block.code_copies[i];
    }
  }

  bool needs_copy(const BlockInTensor& block) const { return !kind.has_float_weights || block.size < PACKED_BLOCK; }

  int count_averages() const { return pack.max_exp_avg_vars ? 3 : 2; }
};

// kept: the bits of the correction.
template <typename P, typename G, uint32_t kept, int code_bits>
void take_packed_step(const Pack& pack, const Scalars& scalars, Parallel parallel, unsigned threads, int64_t chunk) {
  const bool amsgrad = pack.max_exp_avg_vars;
  const PackedKind kind{
      sizeof(P),
      sizeof(G),
      code_bits / 8,
      std::is_same_v<P, float>,
      kept > 0,
      kept == 16,
      read_gradient<G>,
      read_weight<P, kept>,
      write_weight<P, kept>,
      amsgrad ? average_block<code_bits, true> : average_block<code_bits, false>,
      amsgrad ? move_block<code_bits, true> : move_block<code_bits, false>,
  };
  PackedStep step{pack, scalars, kind};
  deal(step, pack, parallel, threads, chunk / PACKED_BLOCK);
}

}  // namespace
