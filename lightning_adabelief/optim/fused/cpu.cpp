// The rule of ../rule.py in one pass over memory, for the CPU.
//
// Compiled by build.py with whatever C++ compiler the machine has, and called by cpu.py through
// ctypes: no header of PyTorch's, and of OpenMP only what needs no runtime. Threads come from the OpenMP
// runtime that torch itself uses, whose entry point GOMP_parallel is handed in, so that there is never a
// second one.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "low_precision.h"
#include "pack.h"
#include "packed_step.h"
#include "vectors.h"

namespace {

// The elements that are added up in the state's dtype, before their sum is added to others in double: few
// enough that the rounding of a sum of floats is of no account.
constexpr int64_t BLOCK = 1024;

// amsgrad and measured are known when it is compiled, so that a step without them pays nothing for them.
template <bool amsgrad, bool measured, typename S>
void update_elements(int64_t n, S* __restrict param, const S* __restrict grad, S* __restrict exp_avg,
                     S* __restrict exp_avg_var, S* __restrict max_exp_avg_var, const Scalars& scalars, double* sums) {
  const S sign = S(scalars.sign), shrink = S(scalars.shrink), decay = S(scalars.decay);
  const S beta1_complement = S(scalars.beta1_complement), beta2 = S(scalars.beta2);
  const S residual_weight = S(scalars.residual_weight), eps = S(scalars.eps);
  const S step_size = S(scalars.step_size), root_scale = S(scalars.root_scale);
  const S max_quotient = S(scalars.max_quotient);
  const bool coupled = scalars.decay != 0, adaptive = scalars.root_scale >= 0;
  const bool stays = scalars.step_size == 0;      // even where m is infinite
  const bool remembers = scalars.beta2 != 0;      // an infinite s times 0 would be NaN
  for (int64_t begin = 0; begin < n; begin += measured ? BLOCK : n) {
    const int64_t end = measured ? std::min(begin + BLOCK, n) : n;
    S grad_square = 0, used_grad_square = 0, grad_momentum = 0, momentum_square = 0;
    S variance = 0, update_square = 0, weight_square = 0;
#pragma omp simd reduction(+ : grad_square, used_grad_square, grad_momentum, momentum_square) \
    reduction(+ : variance, update_square, weight_square)
    for (int64_t i = begin; i < end; ++i) {
      const S before = param[i];
      S theta = before * shrink;
      S g = grad[i] * sign;
      g = coupled ? multiply_add(decay, theta, g) : g;

      const S m_before = exp_avg[i];
      S d = g - m_before;
      S m = multiply_add(beta1_complement, d, m_before);
      S s = multiply_add(residual_weight * d, d, remembers ? exp_avg_var[i] * beta2 : S(0)) + eps;
      exp_avg[i] = m;
      exp_avg_var[i] = s;
      if (measured) {
        grad_square += grad[i] * grad[i];
        used_grad_square += g * g;
        grad_momentum += g * m_before;
        momentum_square += m_before * m_before;
        variance += s;
      }
      if (amsgrad) {
        S largest = max_exp_avg_var[i];
        s = (largest >= s) | (largest != largest) ? largest : s;  // a NaN stays one
        max_exp_avg_var[i] = s;
      }

      S denominator = adaptive ? multiply_add(std::sqrt(s), root_scale, eps) : S(1);
      S quotient = m / denominator;
      quotient = quotient > max_quotient ? max_quotient : quotient;  // a NaN stays one
      quotient = quotient < -max_quotient ? -max_quotient : quotient;
      const S after = stays ? theta : multiply_add(-step_size, quotient, theta);
      param[i] = after;
      if (measured) {
        const S update = before - after;
        update_square += update * update;
        weight_square += after * after;
      }
    }
    if (measured) {
      sums[GRAD_SQUARE] += grad_square;
      sums[USED_GRAD_SQUARE] += used_grad_square;
      sums[GRAD_MOMENTUM] += grad_momentum;
      sums[MOMENTUM_SQUARE] += momentum_square;
      sums[VARIANCE] += variance;
      sums[UPDATE_SQUARE] += update_square;
      sums[WEIGHT_SQUARE] += weight_square;
    }
  }
}

template <typename S>
void update(int64_t n, S* param, const S* grad, S* exp_avg, S* exp_avg_var, S* largest, const Scalars& scalars,
            double* sums) {
  auto* chosen = sums ? (largest ? update_elements<true, true, S> : update_elements<false, true, S>)
                      : (largest ? update_elements<true, false, S> : update_elements<false, false, S>);
  chosen(n, param, grad, exp_avg, exp_avg_var, largest, scalars, sums);
}

constexpr int64_t PIECE = 256;  // elements of a parameter of 16 bits whose float32 copies stay in the cache

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

// One stretch of a tensor. P, G, S: the dtypes of parameter, gradient and state. The arithmetic runs in the state's:
// on float32 copies of parameters and gradients of 16 bits. kept: the bits of the correction.
template <typename P, typename G, uint32_t kept, typename S>
void update_stretch(int64_t n, P* param, const G* grad, int8_t* correction, uint8_t* low, S* exp_avg, S* exp_avg_var,
                    S* largest, const Scalars& scalars, uint32_t key, double* sums) {
  if constexpr (std::is_same_v<P, S>) {
    update(n, param, grad, exp_avg, exp_avg_var, largest, scalars, sums);
  } else {
    alignas(64) S theta[PIECE], g[PIECE];
    for (int64_t at = 0; at < n; at += PIECE) {
      const int64_t size = std::min(PIECE, n - at);
      int8_t* correction_here = kept > 0 ? correction + at : nullptr;
      uint8_t* low_here = kept == 16 ? low + at : nullptr;
      read_master<P, kept>(size, param + at, correction_here, low_here, theta);
      for (int64_t i = 0; i < size; ++i) g[i] = S(grad[at + i]);
      Movement movement;
      if (sums) movement.begin(size, theta, sums);
      update(size, theta, g, exp_avg + at, exp_avg_var + at, largest ? largest + at : nullptr, scalars, sums);
      write_master<P, kept>(size, param + at, correction_here, low_here, theta, key + uint32_t(at));
      if (sums) {
        read_master<P, kept>(size, param + at, correction_here, low_here, theta);
        movement.end(size, theta, sums);
      }
    }
  }
}

template <typename P, typename G, uint32_t kept, typename S>
struct Step {
  const Pack& pack;
  const Scalars& scalars;
  int64_t chunk;
  std::vector<double> piece_sums;  // SUMS of them for each piece of a tensor that one thread updates

  Step(const Pack& pack, const Scalars& scalars, int64_t chunk) : pack(pack), scalars(scalars), chunk(chunk) {
    if (pack.sums) piece_sums.resize(SUMS * (find_piece(pack.offsets[pack.tensors], pack.tensors) + 1));
  }

  // The number of the piece of tensor t that begins there: a new one begins with each chunk and each tensor.
  int64_t find_piece(int64_t begin, int64_t t) const { return begin / chunk + t; }

  void update(int64_t t, int64_t at, int64_t n) {
    P* param = static_cast<P*>(pack.params[t]) + at;
    G* grad = static_cast<G*>(pack.grads[t]) + at;
    S* exp_avg = static_cast<S*>(pack.exp_avgs[t]) + at;
    S* exp_avg_var = static_cast<S*>(pack.exp_avg_vars[t]) + at;
    S* largest = pack.max_exp_avg_vars ? static_cast<S*>(pack.max_exp_avg_vars[t]) + at : nullptr;
    int8_t* correction = kept > 0 ? static_cast<int8_t*>(pack.corrections[t]) + at : nullptr;
    uint8_t* low = kept == 16 ? static_cast<uint8_t*>(pack.corrections_low[t]) + at : nullptr;
    if (scalars.grad_scale != 0) unscale(n, grad, S(scalars.grad_scale));
    double* sums = pack.sums ? &piece_sums[SUMS * find_piece(pack.offsets[t] + at, t)] : nullptr;
    update_stretch<P, G, kept>(n, param, grad, correction, low, exp_avg, exp_avg_var, largest, scalars,
                               pack.keys ? pack.keys[t] + uint32_t(at) : 0, sums);
  }

  // In the order of the pieces, so that the sums do not depend on which thread came first.
  void add_up_pieces() const {
    std::fill_n(pack.sums, SUMS * pack.tensors, 0.0);
    for (int64_t t = 0; t < pack.tensors; ++t) {
      const int64_t begin = pack.offsets[t], end = pack.offsets[t + 1];
      if (begin == end) continue;
      for (int64_t piece = find_piece(begin, t); piece <= find_piece(end - 1, t); ++piece)
        for (int sum = 0; sum < SUMS; ++sum) pack.sums[SUMS * t + sum] += piece_sums[SUMS * piece + sum];
    }
  }
};

template <typename P, typename G, uint32_t kept, typename S>
void take_step(const Pack& pack, const Scalars& scalars, Parallel parallel, unsigned threads, int64_t chunk) {
  Step<P, G, kept, S> step(pack, scalars, chunk);
  deal(step, pack, parallel, threads, chunk);
  if (pack.sums) step.add_up_pieces();
}

}  // namespace

extern "C" {

// One step on a pack; named by the dtypes of parameter and gradient, by what the averages are, and for parameters of
// 16 bits by the bits of the master weight.
#define STEP(name, call)                                                                    \
  void name(const Pack* p, const Scalars* s, Parallel f, unsigned threads, int64_t chunk) { \
    call(*p, *s, f, threads, chunk);                                                        \
  }
#define STEPS(name, master, P, G, kept)                             \
  STEP(name##_float32##master, (take_step<P, G, kept, float>))      \
  STEP(name##_packed16##master, (take_packed_step<P, G, kept, 16>)) \
  STEP(name##_packed8##master, (take_packed_step<P, G, kept, 8>))
#define STEPS_16_BITS(name, P, G)  \
  STEPS(name, _master32, P, G, 16) \
  STEPS(name, _master24, P, G, 8)  \
  STEPS(name, _master16, P, G, 0)
STEP(float64_float64_float64, (take_step<double, double, 0, double>))
STEPS(float32_float32, , float, float, 0)
STEPS_16_BITS(bfloat16_bfloat16, BFloat16, BFloat16)
STEPS_16_BITS(bfloat16_float32, BFloat16, float)
STEPS_16_BITS(float16_float16, Half, Half)
STEPS_16_BITS(float16_float32, Half, float)

// Add 1 to each step count and tell what it is now.
void advance(int64_t n, float* const* steps, float* now) {
  for (int64_t i = 0; i < n; ++i) now[i] = *steps[i] += 1;
}

}  // extern "C"
