// Vectors as long as the CPU's registers, by extensions of the language that g++ and clang++ share: the operators work
// lane by lane, and a loop over the lanes that calls one function becomes one instruction.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
#elif defined(__AVX2__)
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;
#endif

constexpr int LANES = VECTOR_BYTES / 4;  // those of 32 bits

typedef float Floats __attribute__((vector_size(VECTOR_BYTES)));
typedef double Doubles __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t Integers __attribute__((vector_size(VECTOR_BYTES)));
typedef uint32_t Words __attribute__((vector_size(VECTOR_BYTES)));

template <typename Real>
using Vector = std::conditional_t<std::is_same_v<Real, double>, Doubles, Floats>;

template <typename V>
using Lane = std::conditional_t<std::is_same_v<V, Doubles>, double, float>;

// The lanes of a vector.
template <typename V>
constexpr int COUNT = VECTOR_BYTES / sizeof(Lane<V>);

// a * b + c, rounded once where the CPU can: always in the same places, so that a step that is measured gives the
// weights that it would give otherwise, to the bit; and roots. Near branches, compilers take a loop over lanes apart.
#if defined(__AVX512F__)
inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Doubles multiply_add(Doubles a, Doubles b, Doubles c) { return _mm512_fmadd_pd(a, b, c); }
inline Floats find_root(Floats x) { return _mm512_sqrt_ps(x); }
inline Doubles find_root(Doubles x) { return _mm512_sqrt_pd(x); }
#elif defined(__AVX2__) && defined(__FMA__)
inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
inline Doubles multiply_add(Doubles a, Doubles b, Doubles c) { return _mm256_fmadd_pd(a, b, c); }
inline Floats find_root(Floats x) { return _mm256_sqrt_ps(x); }
inline Doubles find_root(Doubles x) { return _mm256_sqrt_pd(x); }
#else
template <typename V>
inline V multiply_add(V a, V b, V c) {
#if defined(FP_FAST_FMA) && defined(FP_FAST_FMAF)
  V result;
  for (int i = 0; i < COUNT<V>; ++i) result[i] = std::fma(a[i], b[i], c[i]);
  return result;
#else
  return a * b + c;
#endif
}

template <typename V>
inline V find_root(V x) {
  V result;
  for (int i = 0; i < COUNT<V>; ++i) result[i] = std::sqrt(x[i]);
  return result;
}
#endif

inline Floats fill(float value) { return value - Floats{}; }
inline Doubles fill(double value) { return value - Doubles{}; }

inline Words count_from(uint32_t first) {
  Words lanes;
  for (int i = 0; i < LANES; ++i) lanes[i] = uint32_t(i);
  return lanes + first;
}

inline uint32_t find_largest(Words x) {
  uint32_t largest = 0;
  for (int i = 0; i < LANES; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

template <typename V>
inline double sum_lanes(V x) {
  double sum = 0;
  for (int i = 0; i < COUNT<V>; ++i) sum += x[i];
  return sum;
}

// 0, 1, 2, ...
template <typename V>
inline V count_lanes() {
  V lanes;
  for (int i = 0; i < COUNT<V>; ++i) lanes[i] = i;
  return lanes;
}

// The same bits.
inline Words as_words(Floats x) { return (Words)x; }
inline Floats as_floats(Words x) { return (Floats)x; }

inline Floats load(const float* from) {
  Floats result;
  std::memcpy(&result, from, sizeof(result));
  return result;
}

inline Doubles load(const double* from) {
  Doubles result;
  std::memcpy(&result, from, sizeof(result));
  return result;
}

inline void store(float* to, Floats x) { std::memcpy(to, &x, sizeof(x)); }
inline void store(double* to, Doubles x) { std::memcpy(to, &x, sizeof(x)); }

// Integers of 8 bits, with a sign or without, and of 16 bits without. Compilers find the long way from them to 32 bits.
template <typename Narrow>
inline Integers load_integers(const Narrow* from) {
  [[maybe_unused]] constexpr bool is_short = sizeof(Narrow) == 2, is_signed = std::is_signed_v<Narrow>;
#if defined(__AVX512F__)
  if constexpr (is_short) {
    return (Integers)_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  } else {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return (Integers)(is_signed ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes));
  }
#elif defined(__AVX2__)
  if constexpr (is_short) {
    return (Integers)_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  } else {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    return (Integers)(is_signed ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes));
  }
#else
  Integers result;
  for (int i = 0; i < LANES; ++i) result[i] = from[i];
  return result;
#endif
}

constexpr int GROUP = 4;  // vectors that are narrowed together

// Store the upper 16 bits of each number of a group, in their order.
inline void store_upper_halves(uint16_t* to, const Words (&x)[GROUP]) {
#if defined(__AVX512BW__)
  const Words index = (4 * count_from(0) + 1) * 0x10001 + 0x20000;  // of halves: 1, 3, 5, ...
  for (int k = 0; k < GROUP; k += 2)
    _mm512_storeu_si512(to + k * LANES, _mm512_permutex2var_epi16((__m512i)x[k], (__m512i)index, (__m512i)x[k + 1]));
#else
  for (int k = 0; k < GROUP; ++k)
    for (int i = 0; i < LANES; ++i) to[k * LANES + i] = uint16_t(x[k][i] >> 16);
#endif
}

// Store the byte-th byte of each number of a group, in their order; the last is number 0.
template <int byte>
inline void store_bytes(uint8_t* to, const Words (&x)[GROUP]) {
#if defined(__AVX512VBMI__)
  const Words index = (16 * count_from(0) + byte) * 0x1010101 + 0xc080400;  // of bytes: byte, byte + 4, byte + 8, ...
  const auto narrow = [&](int k) {
    return _mm512_permutex2var_epi8((__m512i)x[k], (__m512i)index, (__m512i)x[k + 1]);  // in the lower half
  };
  _mm512_storeu_si512(to, _mm512_inserti64x4(narrow(0), _mm512_castsi512_si256(narrow(2)), 1));
#elif defined(__AVX512F__)
  for (int k = 0; k < GROUP; ++k) {
    const __m128i bytes = _mm512_cvtepi32_epi8((__m512i)(x[k] >> (8 * byte)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + k * LANES), bytes);
  }
#elif defined(__AVX2__)
  const auto narrow = [&](int k) {
    const Words a = x[k] >> (8 * byte) & 0xff, b = x[k + 1] >> (8 * byte) & 0xff;
    return _mm256_packus_epi32((__m256i)a, (__m256i)b);
  };
  // Each half of a vector was narrowed by itself.
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(narrow(0), narrow(2)), order);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bytes);
#else
  for (int k = 0; k < GROUP; ++k)
    for (int i = 0; i < LANES; ++i) to[k * LANES + i] = uint8_t(x[k][i] >> (8 * byte));
#endif
}

}  // namespace
