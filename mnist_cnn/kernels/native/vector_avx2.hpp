// AVX2 with FMA: registers of eight float32. See vector_scalar.hpp for what each function means.
#pragma once

#include <immintrin.h>

#include "bfloat16.hpp"
#include "register_blocking.hpp"

namespace native {
namespace {

constexpr int WIDTH = 8;
using Floats = __m256;
using Words = __m256i;
struct Mask {
  __m256 lanes;  // all bits of a lane, or none
};

inline Floats zero() { return _mm256_setzero_ps(); }
inline Floats fill(float x) { return _mm256_set1_ps(x); }
inline Floats load(const float* from) { return _mm256_loadu_ps(from); }
inline void store(float* to, Floats x) { _mm256_storeu_ps(to, x); }
inline Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
inline Floats max(Floats a, Floats b) { return _mm256_max_ps(a, b); }
inline Floats min(Floats a, Floats b) { return _mm256_min_ps(a, b); }
inline Floats floor(Floats x) { return _mm256_floor_ps(x); }

inline __m256i* words(u32* p) { return reinterpret_cast<__m256i*>(p); }
inline const __m256i* words(const u32* p) { return reinterpret_cast<const __m256i*>(p); }
inline Words fill_words(u32 x) { return _mm256_set1_epi32(int(x)); }
inline Words load(const u32* from) { return _mm256_loadu_si256(words(from)); }
inline void store(u32* to, Words x) { _mm256_storeu_si256(words(to), x); }
inline Words iota() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
inline Words add(Words a, Words b) { return _mm256_add_epi32(a, b); }
inline Words multiply(Words a, Words b) { return _mm256_mullo_epi32(a, b); }
template <int BITS>
inline Words shift_right(Words x) {
  return _mm256_srli_epi32(x, BITS);
}
inline Words to_words(Floats x) { return _mm256_cvtps_epi32(x); }
inline Words as_words(Floats x) { return _mm256_castps_si256(x); }
inline Floats to_floats(Words x) { return _mm256_cvtepi32_ps(x); }
inline Words gather(const u16* from, Words index) {
  return _mm256_i32gather_epi32(reinterpret_cast<const int*>(from), index, 2);
}

template <int COUNT>
inline __m256i first_words() {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(COUNT), iota());
}
template <int COUNT>
inline void store_first(float* to, Floats x) {
  if constexpr (COUNT == WIDTH)
    store(to, x);
  else if constexpr (COUNT == 4)
    _mm_storeu_ps(to, _mm256_castps256_ps128(x));
  else
    _mm256_maskstore_ps(to, first_words<COUNT>(), x);
}
template <int COUNT>
inline void store_first(u32* to, Words x) {
  store_first<COUNT>(reinterpret_cast<float*>(to), _mm256_castsi256_ps(x));
}
template <int COUNT>
inline Words load_first(const u32* from) {
  if constexpr (COUNT == WIDTH) return load(from);
  return _mm256_maskload_epi32(reinterpret_cast<const int*>(from), first_words<COUNT>());
}
template <int COUNT>
inline Mask first_lanes() {
  return {_mm256_castsi256_ps(first_words<COUNT>())};
}
inline Mask mask_of(u32 bits) {
  const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(fill_words(bits), lane), lane))};
}
inline Mask both(Mask a, Mask b) { return {_mm256_and_ps(a.lanes, b.lanes)}; }
inline Mask either(Mask a, Mask b) { return {_mm256_or_ps(a.lanes, b.lanes)}; }
inline Mask without(Mask a, Mask b) { return {_mm256_andnot_ps(b.lanes, a.lanes)}; }
inline Mask greater(Floats a, Floats b) { return {_mm256_cmp_ps(a, b, _CMP_GT_OQ)}; }
inline Mask equal(Floats a, Floats b) { return {_mm256_cmp_ps(a, b, _CMP_EQ_OQ)}; }
inline Mask at_least(Words a, Words b) {
  return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_max_epu32(a, b), a))};
}
inline Floats where(Mask mask, Floats x) { return _mm256_and_ps(mask.lanes, x); }
inline Floats where(Mask mask, Floats x, Floats other) {
  return _mm256_blendv_ps(other, x, mask.lanes);
}
inline Floats add_where(Mask mask, Floats a, Floats b) { return a + where(mask, b); }
inline Words where(Mask mask, Words x) {
  return _mm256_and_si256(_mm256_castps_si256(mask.lanes), x);
}

// The two of a 128-bit lane first, then those of the other.
inline Words unshuffled(__m256 x) {
  return _mm256_permute4x64_epi64(_mm256_castps_si256(x), 0xd8);
}
inline Words even_lanes(Words a, Words b) {
  return unshuffled(_mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0x88));
}
inline Words odd_lanes(Words a, Words b) {
  return unshuffled(_mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0xdd));
}
inline Words interleave_lower(Words a, Words b) {
  return _mm256_permute2x128_si256(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b), 0x20);
}
inline Words interleave_upper(Words a, Words b) {
  return _mm256_permute2x128_si256(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b), 0x31);
}

inline Floats low(Words pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }
inline Floats high(Words pairs) {
  return _mm256_castsi256_ps(_mm256_and_si256(pairs, fill_words(0xffff0000)));
}
inline Words packed_exact(Floats low, Floats high) {
  return _mm256_or_si256(_mm256_srli_epi32(_mm256_castps_si256(low), 16), _mm256_castps_si256(high));
}
// Rounds to bfloat16, which is then the upper half of a lane; the lower one has other bits.
inline __m256i rounded(Floats x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), fill_words(1));
  return _mm256_add_epi32(_mm256_add_epi32(bits, fill_words(0x7fff)), odd);
}
inline Words packed(Floats low, Floats high) {
  // 0xaa: the upper halves of the second.
  return _mm256_blend_epi16(_mm256_srli_epi32(rounded(low), 16), rounded(high), 0xaa);
}

constexpr bool PAIRS = false;
using Item = float;
using Items = Floats;

template <int ROWS>
inline void transpose(const Item* from, size_t stride, Item* to, size_t to_stride) {
  __m256 r[8], s[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) r[i] = i < ROWS ? load(from + i * stride) : zero();
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    s[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    s[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(s[i], s[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(s[i], s[i + 2], 0xee);
    r[i + 2] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
    store(to + c * to_stride, _mm256_permute2f128_ps(r[c], r[4 + c], 0x20));
    store(to + (4 + c) * to_stride, _mm256_permute2f128_ps(r[c], r[4 + c], 0x31));
  }
}

// There are 16 registers.
constexpr OutputBlocks outputs_at_once(int outputs, int) {
  return outputs == 32 ? OutputBlocks{6, 4, 8} : outputs == 18 ? OutputBlocks{6, 2, 0} : OutputBlocks{6, 4, 4};
}
constexpr int vectors_at_once(int, int) { return 2; }
constexpr int rows_at_once(int rows) { return rows % 6 == 0 ? 6 : rows % 3 == 0 ? 3 : 5; }
constexpr int PARTS_AT_ONCE = 2;
constexpr bool TAPS_TOGETHER = false;
constexpr bool WINOGRAD = true;

}  // namespace
}  // namespace native
