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

// An average in memory, A, and in the arithmetic, S.
template <typename S>
inline void store_average(S* to, S value, uint32_t) { *to = value; }

// draw: what is added to the first of the bits that are left out, up to all of them.
inline void store_average(BFloat16* to, float value, uint32_t draw) {
  const uint32_t rounded = (bits<uint32_t>(value) + draw) >> 16;
  to->raw = uint16_t(value != value ? 0x7fc0 : rounded);
}

// amsgrad and measured are known when it is compiled, so that a step without them pays nothing for them.
// key: that of the draws, plus the place of the first element.
template <bool amsgrad, bool measured, typename S, typename A>
void update_elements(int64_t n, S* __restrict param, const S* __restrict grad, A* __restrict exp_avg,
                     A* __restrict exp_avg_var, A* __restrict max_exp_avg_var, uint32_t key, const Scalars& scalars,
                     double* sums) {
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
    uint32_t place = key + uint32_t(begin);
#pragma omp simd reduction(+ : grad_square, used_grad_square, grad_momentum, momentum_square) \
    reduction(+ : variance, update_square, weight_square) linear(place)
    for (int64_t i = begin; i < end; ++i) {
      const S before = param[i];
      S theta = before * shrink;
      S g = grad[i] * sign;
      g = coupled ? multiply_add(decay, theta, g) : g;

      const S m_before = exp_avg[i];
      S d = g - m_before;
      S m = multiply_add(beta1_complement, d, m_before);
      S s = multiply_add(residual_weight * d, d, remembers ? S(exp_avg_var[i]) * beta2 : S(0)) + eps;
      const uint32_t word = draw_word(place++);
      store_average(exp_avg + i, m, word & 0xffff);
      store_average(exp_avg_var + i, s, word >> 16);
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
        store_average(max_exp_avg_var + i, s, 0x8000);
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

template <typename S, typename A>
void update(int64_t n, S* param, const S* grad, A* exp_avg, A* exp_avg_var, A* largest, uint32_t key,
            const Scalars& scalars, double* sums) {
  auto* chosen = sums ? (largest ? update_elements<true, true, S, A> : update_elements<false, true, S, A>)
                      : (largest ? update_elements<true, false, S, A> : update_elements<false, false, S, A>);
  chosen(n, param, grad, exp_avg, exp_avg_var, largest, key, scalars, sums);
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

// On tensors of one dtype, S, but for the averages, which are of A.
template <typename S, typename A>
struct WholeStep {
  const Pack& pack;
  const Scalars& scalars;
  PieceSums sums;

  void update(int64_t t, int64_t at, int64_t n) {
    S* param = find_element<S>(pack.params, t, at);
    S* grad = find_element<S>(pack.grads, t, at);
    A* exp_avg = find_element<A>(pack.exp_avgs, t, at);
    A* exp_avg_var = find_element<A>(pack.exp_avg_vars, t, at);
    A* largest = find_element<A>(pack.max_exp_avg_vars, t, at);
    if (scalars.grad_scale != 0) unscale(n, grad, S(scalars.grad_scale));
    ::update(n, param, grad, exp_avg, exp_avg_var, largest, pack.find_key(t, at), scalars, sums.find(t, at));
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
template <typename A>
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
    int8_t* correction = kind.has_correction ? find_element<int8_t>(pack.corrections, t, at) : nullptr;
    uint8_t* low = kind.has_correction_low ? find_element<uint8_t>(pack.corrections_low, t, at) : nullptr;
    A* exp_avg = find_element<A>(pack.exp_avgs, t, at);
    A* exp_avg_var = find_element<A>(pack.exp_avg_vars, t, at);
    A* largest = find_element<A>(pack.max_exp_avg_vars, t, at);
    const uint32_t key = pack.find_key(t, at);
    kind.read_weight(n, param, correction, low, theta);
    kind.copy_gradient(n, grad, scalars, g);
    Movement movement;
    if (sums_here) movement.begin(n, theta, sums_here);
    ::update(n, theta, g, exp_avg, exp_avg_var, largest, key, scalars, sums_here);
    kind.write_weight(n, param, correction, low, theta, key);
    if (sums_here) {
      kind.read_weight(n, param, correction, low, theta);
      movement.end(n, theta, sums_here);
    }
  }
};

// P, G, A: the dtypes of parameter, gradient and averages; kept: the bits of the correction.
template <typename P, typename G, uint32_t kept, typename A>
void take_step(const Pack& pack, const Scalars& scalars, Parallel parallel, unsigned threads, int64_t chunk) {
  if constexpr (std::is_same_v<P, G> && sizeof(P) >= 4) {
    WholeStep<P, A> step{pack, scalars, PieceSums(pack, chunk)};
    deal(step, pack, parallel, threads, chunk);
    step.sums.add_up();
  } else {
    const NarrowKind kind{sizeof(P),  sizeof(G), kept > 0, kept == 16, copy_gradient<G>, read_weight<P, kept>,
                          write_weight<P, kept>};
    NarrowStep<A> step{pack, scalars, PieceSums(pack, chunk), kind};
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
#define STEPS(name, master, P, G, kept)                           \
  STEP(name##_float32##master, (take_step<P, G, kept, float>))     \
  STEP(name##_bfloat16##master, (take_step<P, G, kept, BFloat16>)) \
  STEP(name##_packed##master, (take_packed_step<P, G, kept>))
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
