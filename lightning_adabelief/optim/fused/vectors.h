// Vectors of float32 as long as the CPU's registers, by extensions of the language that g++ and clang++ share: the
// operators work lane by lane, and a loop over the lanes that calls one function becomes one instruction.

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

inline Floats fill(float value) { return value - Floats{}; }

inline Words count_from(uint32_t first) {
  Words lanes;
  for (int i = 0; i < LANES; ++i) lanes[i] = uint32_t(i);
  return lanes + first;
}

inline Floats find_root(Floats x) {
  Floats result;
  for (int i = 0; i < LANES; ++i) result[i] = std::sqrt(x[i]);
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

inline Floats load(const float* from) {
  Floats result;
  std::memcpy(&result, from, sizeof(result));
  return result;
}

inline void store(float* to, Floats x) { std::memcpy(to, &x, sizeof(x)); }

// Bytes in memory, with a sign or without. Compilers find the long way from them to 32 bits, and back.
template <typename Byte>
inline Integers load_codes(const Byte* from) {
  [[maybe_unused]] constexpr bool is_signed = std::is_signed_v<Byte>;
#if defined(__AVX512F__)
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return (Integers)(is_signed ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes));
#elif defined(__AVX2__)
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  return (Integers)(is_signed ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes));
#else
  Integers result;
  for (int i = 0; i < LANES; ++i) result[i] = from[i];
  return result;
#endif
}

// The last 8 bits of each number.
inline void store_bytes(uint8_t* to, Integers x) {
#if defined(__AVX512F__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8((__m512i)x));
#elif defined(__AVX2__)
  const __m256i bytes = _mm256_and_si256((__m256i)x, _mm256_set1_epi32(0xff));
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packus_epi16(words, words));
#else
  for (int i = 0; i < LANES; ++i) to[i] = uint8_t(x[i]);
#endif
}

}  // namespace
