// AVX-512 (F, BW, DQ, VL): registers of sixteen float32. With AVX512-BF16, products of bfloat16
// pairs. See vector_scalar.hpp for what each function means.
#pragma once

#include <immintrin.h>

#include "bfloat16.hpp"
#include "register_blocking.hpp"

namespace native {
namespace {

constexpr int WIDTH = 16;
using Floats = __m512;
using Words = __m512i;
using Mask = __mmask16;

inline Floats zero() { return _mm512_setzero_ps(); }
inline Floats fill(float x) { return _mm512_set1_ps(x); }
inline Floats load(const float* from) { return _mm512_loadu_ps(from); }
inline void store(float* to, Floats x) { _mm512_storeu_ps(to, x); }
inline Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
inline Floats min(Floats a, Floats b) { return _mm512_min_ps(a, b); }
inline Floats floor(Floats x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}

inline Words fill_words(u32 x) { return _mm512_set1_epi32(int(x)); }
inline Words load(const u32* from) { return _mm512_loadu_si512(from); }
inline void store(u32* to, Words x) { _mm512_storeu_si512(to, x); }
inline Words iota() {
  return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
inline Words add(Words a, Words b) { return _mm512_add_epi32(a, b); }
inline Words multiply(Words a, Words b) { return _mm512_mullo_epi32(a, b); }
template <int BITS>
inline Words shift_right(Words x) {
  return _mm512_srli_epi32(x, BITS);
}
inline Words to_words(Floats x) { return _mm512_cvtps_epi32(x); }
inline Words as_words(Floats x) { return _mm512_castps_si512(x); }
inline Floats to_floats(Words x) { return _mm512_cvtepi32_ps(x); }
inline Words gather(const u16* from, Words index) { return _mm512_i32gather_epi32(index, from, 2); }

template <int COUNT>
inline constexpr Mask FIRST = Mask((1 << COUNT) - 1);
template <int COUNT>
inline void store_first(float* to, Floats x) {
  if constexpr (COUNT == WIDTH) return store(to, x);
  _mm512_mask_storeu_ps(to, FIRST<COUNT>, x);
}
template <int COUNT>
inline void store_first(u32* to, Words x) {
  if constexpr (COUNT == WIDTH) return store(to, x);
  _mm512_mask_storeu_epi32(to, FIRST<COUNT>, x);
}
template <int COUNT>
inline Words load_first(const u32* from) {
  return _mm512_maskz_loadu_epi32(FIRST<COUNT>, from);
}
template <int COUNT>
inline Mask first_lanes() {
  return FIRST<COUNT>;
}
inline Mask mask_of(u32 bits) { return Mask(bits); }
inline Mask both(Mask a, Mask b) { return a & b; }
inline Mask either(Mask a, Mask b) { return a | b; }
inline Mask without(Mask a, Mask b) { return Mask(a & ~b); }
inline Mask greater(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
inline Mask equal(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
inline Mask at_least(Words a, Words b) { return _mm512_cmpge_epu32_mask(a, b); }
inline Floats where(Mask mask, Floats x) { return _mm512_maskz_mov_ps(mask, x); }
inline Floats where(Mask mask, Floats x, Floats other) { return _mm512_mask_mov_ps(other, mask, x); }
inline Floats add_where(Mask mask, Floats a, Floats b) { return _mm512_mask_add_ps(a, mask, a, b); }
inline Words where(Mask mask, Words x) { return _mm512_maskz_mov_epi32(mask, x); }

struct Lanes {
  alignas(64) int even[16], odd[16], left[16], right[16];
  constexpr Lanes() : even(), odd(), left(), right() {
    for (int k = 0; k < 16; k++) {
      even[k] = 2 * k, odd[k] = 2 * k + 1;
      left[k] = (k % 2) * 16 + k / 2, right[k] = (k % 2) * 16 + k / 2 + 8;
    }
  }
};
constexpr Lanes lanes;
inline Words even_lanes(Words a, Words b) {
  return _mm512_permutex2var_epi32(a, _mm512_load_si512(lanes.even), b);
}
inline Words odd_lanes(Words a, Words b) {
  return _mm512_permutex2var_epi32(a, _mm512_load_si512(lanes.odd), b);
}
inline Words interleave_lower(Words a, Words b) {
  return _mm512_permutex2var_epi32(a, _mm512_load_si512(lanes.left), b);
}
inline Words interleave_upper(Words a, Words b) {
  return _mm512_permutex2var_epi32(a, _mm512_load_si512(lanes.right), b);
}

inline Floats low(Words pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
inline Floats high(Words pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(pairs, fill_words(0xffff0000)));
}
inline Words packed_exact(Floats low, Floats high) {
  return _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(low), 16), _mm512_castps_si512(high));
}

#ifdef __AVX512BF16__
struct Interleave {
  alignas(64) u16 index[32];
  constexpr Interleave() : index() {
    for (int k = 0; k < 16; k++) index[2 * k] = u16(k), index[2 * k + 1] = u16(16 + k);
  }
};
constexpr Interleave interleave;
inline Words packed(Floats low, Floats high) {
  const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(high, low);
  return _mm512_permutexvar_epi16(_mm512_load_si512(interleave.index), both);
}

constexpr bool PAIRS = true;
using Item = u32;
using Items = Words;
inline Floats fma(Items a, Items b, Floats c) {
  return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
}

struct Unzip {
  alignas(64) u16 even[32], odd[32];
  constexpr Unzip() : even(), odd() {
    for (int k = 0; k < 32; k++) even[k] = u16(2 * k), odd[k] = u16(2 * k + 1);
  }
};
constexpr Unzip unzip;
inline void deinterleave(Words a, Words b, u16* low, u16* high) {
  _mm512_storeu_si512(low, _mm512_permutex2var_epi16(a, _mm512_load_si512(unzip.even), b));
  _mm512_storeu_si512(high, _mm512_permutex2var_epi16(a, _mm512_load_si512(unzip.odd), b));
}

template <int ROWS>
inline void transpose(const Item* from, size_t stride, Item* to, size_t to_stride) {
  const __m512i words = _mm512_broadcast_i32x4(
      _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
  __m512i r[8], s[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++)
    r[i] = i < ROWS ? _mm512_shuffle_epi8(load(from + i * stride), words) : _mm512_setzero_si512();
  // 8x8 transpose of 64-bit items.
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    s[2 * i] = _mm512_unpacklo_epi64(r[2 * i], r[2 * i + 1]);
    s[2 * i + 1] = _mm512_unpackhi_epi64(r[2 * i], r[2 * i + 1]);
  }
  // s[2i + b]: lanes of 128 bits L = items (2L + b) of rows 2i, 2i+1.
#pragma GCC unroll 2
  for (int b = 0; b < 2; b++) {
    const __m512i a0 = _mm512_shuffle_i64x2(s[0 + b], s[2 + b], 0x88);  // L 0,2 of rows 01 | 23
    const __m512i a1 = _mm512_shuffle_i64x2(s[0 + b], s[2 + b], 0xdd);  // L 1,3
    const __m512i a2 = _mm512_shuffle_i64x2(s[4 + b], s[6 + b], 0x88);
    const __m512i a3 = _mm512_shuffle_i64x2(s[4 + b], s[6 + b], 0xdd);
    Item* row = to + b * to_stride;
    store(row, _mm512_shuffle_i64x2(a0, a2, 0x88));                  // L 0
    store(row + 2 * to_stride, _mm512_shuffle_i64x2(a1, a3, 0x88));  // L 1
    store(row + 4 * to_stride, _mm512_shuffle_i64x2(a0, a2, 0xdd));  // L 2
    store(row + 6 * to_stride, _mm512_shuffle_i64x2(a1, a3, 0xdd));  // L 3
  }
}
#else
// Rounds to bfloat16, which is then the upper half of a lane; the lower one has other bits.
inline __m512i rounded(Floats x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), fill_words(1));
  return _mm512_add_epi32(_mm512_add_epi32(bits, fill_words(0x7fff)), odd);
}
inline Words packed(Floats low, Floats high) {
  // 0xf8: a | (b & c).
  return _mm512_ternarylogic_epi32(_mm512_srli_epi32(rounded(low), 16), rounded(high),
                                   fill_words(0xffff0000), 0xf8);
}

constexpr bool PAIRS = false;
using Item = float;
using Items = Floats;

template <int ROWS>
inline void transpose(const Item* from, size_t stride, Item* to, size_t to_stride) {
  __m512 r[16], s[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) r[i] = i < ROWS ? load(from + i * stride) : zero();
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    s[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    s[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  auto join = [](Floats a, Floats b, bool high) {
    const __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
    return _mm512_castpd_ps(high ? _mm512_unpackhi_pd(x, y) : _mm512_unpacklo_pd(x, y));
  };
  // r[4 i + c]: in each 128 bits L, item 4 L + c of rows 4 i to 4 i + 3.
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    r[i] = join(s[i], s[i + 2], false), r[i + 1] = join(s[i], s[i + 2], true);
    r[i + 2] = join(s[i + 1], s[i + 3], false), r[i + 3] = join(s[i + 1], s[i + 3], true);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
    const __m512 a0 = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88);  // L 0, 2 of rows 0-3 | 4-7
    const __m512 a1 = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);  // L 1, 3
    const __m512 a2 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
    const __m512 a3 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
    Item* row = to + c * to_stride;
    store(row, _mm512_shuffle_f32x4(a0, a2, 0x88));
    store(row + 4 * to_stride, _mm512_shuffle_f32x4(a1, a3, 0x88));
    store(row + 8 * to_stride, _mm512_shuffle_f32x4(a0, a2, 0xdd));
    store(row + 12 * to_stride, _mm512_shuffle_f32x4(a1, a3, 0xdd));
  }
}
#endif

// There are 32 registers.
constexpr OutputBlocks outputs_at_once(int outputs, int vectors) {
  if (!PAIRS && vectors <= 4 && outputs == 32) return vectors == 1 ? OutputBlocks{16, 16, 0} : OutputBlocks{12, 8, 8};
  if (!PAIRS && vectors == 1 && outputs == 18) return {18, 18, 0};
  if (outputs == 32) return vectors <= 4 ? OutputBlocks{4, 4, 0} : OutputBlocks{8, 8, 0};
  return outputs == 18 ? OutputBlocks{6, 6, 0} : OutputBlocks{10, 10, 0};
}
constexpr int vectors_at_once(int outputs, int vectors) {
  if (!PAIRS && vectors <= 4 && outputs == 32) return 2;
  if (vectors <= 4) return outputs == 10 ? 2 : 4;
  if (PAIRS) return vectors % 3 == 0 ? 3 : 2;
  return outputs == 18 ? 4 : 3;
}
constexpr int rows_at_once(int rows) { return rows % 9 == 0 ? 9 : rows; }
constexpr int PARTS_AT_ONCE = 2;
constexpr bool TAPS_TOGETHER = true;
constexpr bool WINOGRAD = !PAIRS;

}  // namespace
}  // namespace native
