// Vectors of float32 as long as the CPU's registers, by extensions of the language that g++ and clang++ share: the
// operators work lane by lane, and a loop over the lanes that calls one function becomes one instruction.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));

// a * b + c, rounded once where the CPU can: always in the same places, so that a step that is measured
// gives the weights that it would give otherwise, to the bit.
template <typename S>
inline S multiply_add(S a, S b, S c) {
#if defined(FP_FAST_FMA) && defined(FP_FAST_FMAF)
  return std::fma(a, b, c);
#else
  return a * b + c;
#endif
}

inline Floats multiply_add(Floats a, Floats b, Floats c) {
  Floats result;
  for (int i = 0; i < LANES; ++i) result[i] = multiply_add(a[i], b[i], c[i]);
  return result;
}

inline Floats fill(float value) {
  Floats result;
  for (int i = 0; i < LANES; ++i) result[i] = value;
  return result;
}

inline Words count_from(uint32_t first) {
  Words result;
  for (int i = 0; i < LANES; ++i) result[i] = first + uint32_t(i);
  return result;
}

inline Floats find_root(Floats x) {
  Floats result;
  for (int i = 0; i < LANES; ++i) result[i] = std::sqrt(x[i]);
  return result;
}

inline Floats round_down(Floats x) {
  Floats result;
  for (int i = 0; i < LANES; ++i) result[i] = std::floor(x[i]);
  return result;
}

inline uint32_t find_largest(Words x) {
  uint32_t largest = 0;
  for (int i = 0; i < LANES; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

// The same bits.
inline Words as_words(Floats x) { return (Words)x; }
inline Floats as_floats(Words x) { return (Floats)x; }

// Of numbers of which one at least is not negative: compared as integers, for which there are more units.
inline Floats find_larger(Floats a, Floats b) {
  const Integers x = (Integers)a, y = (Integers)b;
  return (Floats)(x > y ? x : y);
}

inline Floats load(const float* from) {
  Floats result;
  std::memcpy(&result, from, sizeof(result));
  return result;
}

inline void store(float* to, Floats x) { std::memcpy(to, &x, sizeof(x)); }

// Integers of 8 or 16 bits in memory. Compilers find the long way from them to 32 bits, and back.
template <typename Code>
inline Integers load_codes(const Code* from) {
#if defined(__AVX512F__)
  constexpr bool is_signed = std::is_signed_v<Code>;
  if constexpr (sizeof(Code) == 1) {
    const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return (Integers)(is_signed ? _mm512_cvtepi8_epi32(codes) : _mm512_cvtepu8_epi32(codes));
  } else {
    const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return (Integers)(is_signed ? _mm512_cvtepi16_epi32(codes) : _mm512_cvtepu16_epi32(codes));
  }
#elif defined(__AVX2__)
  constexpr bool is_signed = std::is_signed_v<Code>;
  if constexpr (sizeof(Code) == 1) {
    const __m128i codes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    return (Integers)(is_signed ? _mm256_cvtepi8_epi32(codes) : _mm256_cvtepu8_epi32(codes));
  } else {
    const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return (Integers)(is_signed ? _mm256_cvtepi16_epi32(codes) : _mm256_cvtepu16_epi32(codes));
  }
#else
  Integers result;
  for (int i = 0; i < LANES; ++i) result[i] = from[i];
  return result;
#endif
}

// What is beyond the largest code of a kind becomes it.
template <typename Code>
inline void store_codes(Code* to, Integers x) {
#if defined(__AVX512F__)
  constexpr bool is_signed = std::is_signed_v<Code>;
  if constexpr (sizeof(Code) == 1) {
    const __m128i codes = is_signed ? _mm512_cvtsepi32_epi8((__m512i)x) : _mm512_cvtusepi32_epi8((__m512i)x);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), codes);
  } else {
    const __m256i codes = is_signed ? _mm512_cvtsepi32_epi16((__m512i)x) : _mm512_cvtusepi32_epi16((__m512i)x);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), codes);
  }
#elif defined(__AVX2__)
  constexpr bool is_signed = std::is_signed_v<Code>;
  const __m128i low = _mm256_castsi256_si128((__m256i)x), high = _mm256_extracti128_si256((__m256i)x, 1);
  const __m128i codes = is_signed ? _mm_packs_epi32(low, high) : _mm_packus_epi32(low, high);
  if constexpr (sizeof(Code) == 1) {
    const __m128i bytes = is_signed ? _mm_packs_epi16(codes, codes) : _mm_packus_epi16(codes, codes);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), bytes);
  } else {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), codes);
  }
#else
  const Integers largest = Integers{} + std::numeric_limits<Code>::max();
  x = x < largest ? x : largest;
  for (int i = 0; i < LANES; ++i) to[i] = Code(x[i]);
#endif
}

}  // namespace
