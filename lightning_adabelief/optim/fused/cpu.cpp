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

template <typename S>
S* find_largest(const Pack& pack, int64_t t, int64_t at) {
  return pack.max_exp_avg_vars ? static_cast<S*>(pack.max_exp_avg_vars[t]) + at : nullptr;
}

// On tensors that all have one dtype, S.
template <typename S>
struct WholeStep {
  const Pack& pack;
  const Scalars& scalars;
  PieceSums sums;

  void update(int64_t t, int64_t at, int64_t n) {
    S* param = static_cast<S*>(pack.params[t]) + at;
    S* grad = static_cast<S*>(pack.grads[t]) + at;
    S* exp_avg = static_cast<S*>(pack.exp_avgs[t]) + at;
    S* exp_avg_var = static_cast<S*>(pack.exp_avg_vars[t]) + at;
    if (scalars.grad_scale != 0) unscale(n, grad, S(scalars.grad_scale));
    ::update(n, param, grad, exp_avg, exp_avg_var, find_largest<S>(pack, t, at), scalars, sums.find(t, at));
  }
};

// Divide n gradients by their scale in place, if they have one, and copy them in float32.
template <typename G>
void copy_gradient(int64_t n, void* gradient, const Scalars& scalars, float* copy) {
  G* grad = static_cast<G*>(gradient);
  if (scalars.grad_scale != 0) unscale(n, grad, float(scalars.grad_scale));
  for (int64_t i = 0; i < n; ++i) copy[i] = float(grad[i]);
}

// What differs by dtypes and bits. It is chosen when it runs, so that not every combination has to be compiled.
struct NarrowKind {
  int64_t param_bytes, grad_bytes;
  bool has_correction, has_correction_low;
  decltype(&copy_gradient<float>) copy_gradient;
  decltype(&read_weight<float, 0>) read_weight;
  decltype(&write_weight<float, 0>) write_weight;
};

// On parameters of 16 bits: the arithmetic runs on float32 copies of pieces of them.
struct NarrowStep {
  const Pack& pack;
  const Scalars& scalars;
  PieceSums sums;
  const NarrowKind kind;

  void update(int64_t t, int64_t begin, int64_t n) {
    for (int64_t at = begin; at < begin + n; at += PIECE)
      update_piece(t, at, std::min(PIECE, begin + n - at), sums.find(t, begin));
  }

  void update_piece(int64_t t, int64_t at, int64_t n, double* sums_here) const {
    alignas(64) float theta[PIECE], g[PIECE];
    void* param = static_cast<char*>(pack.params[t]) + at * kind.param_bytes;
    void* grad = static_cast<char*>(pack.grads[t]) + at * kind.grad_bytes;
    int8_t* correction = kind.has_correction ? static_cast<int8_t*>(pack.corrections[t]) + at : nullptr;
    uint8_t* low = kind.has_correction_low ? static_cast<uint8_t*>(pack.corrections_low[t]) + at : nullptr;
    float* exp_avg = static_cast<float*>(pack.exp_avgs[t]) + at;
    float* exp_avg_var = static_cast<float*>(pack.exp_avg_vars[t]) + at;
    const uint32_t key = pack.keys ? pack.keys[t] + uint32_t(at) : 0;
    kind.read_weight(n, param, correction, low, theta);
    kind.copy_gradient(n, grad, scalars, g);
    Movement movement;
    if (sums_here) movement.begin(n, theta, sums_here);
    ::update(n, theta, g, exp_avg, exp_avg_var, find_largest<float>(pack, t, at), scalars, sums_here);
    kind.write_weight(n, param, correction, low, theta, key);
    if (sums_here) {
      kind.read_weight(n, param, correction, low, theta);
      movement.end(n, theta, sums_here);
    }
  }
};

// P, G, S: the dtypes of parameter, gradient and state; kept: the bits of the correction.
template <typename P, typename G, uint32_t kept, typename S>
void take_step(const Pack& pack, const Scalars& scalars, Parallel parallel, unsigned threads, int64_t chunk) {
  if constexpr (std::is_same_v<P, S>) {
    WholeStep<S> step{pack, scalars, PieceSums(pack, chunk)};
    deal(step, pack, parallel, threads, chunk);
    step.sums.add_up();
  } else {
    const NarrowKind kind{sizeof(P),  sizeof(G), kept > 0, kept == 16, copy_gradient<G>, read_weight<P, kept>,
                          write_weight<P, kept>};
    NarrowStep step{pack, scalars, PieceSums(pack, chunk), kind};
    deal(step, pack, parallel, threads, chunk);
    step.sums.add_up();
  }
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
