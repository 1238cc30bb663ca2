// NEON, which every 64-bit Arm processor has: registers of four float32. With its BF16 extension,
// products of bfloat16 pairs. See vector_scalar.hpp for what each function means.
#pragma once

#include <arm_neon.h>

#include "bfloat16.hpp"
#include "register_blocking.hpp"

namespace native {
namespace {

constexpr int WIDTH = 4;
using Floats = float32x4_t;
using Words = uint32x4_t;
struct Mask {
  uint32x4_t lanes;  // all bits of a lane, or none
};

inline Floats zero() { return vdupq_n_f32(0); }
inline Floats fill(float x) { return vdupq_n_f32(x); }
inline Floats load(const float* from) { return vld1q_f32(from); }
inline void store(float* to, Floats x) { vst1q_f32(to, x); }
inline Floats fma(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
inline Floats max(Floats a, Floats b) { return vmaxq_f32(a, b); }
inline Floats min(Floats a, Floats b) { return vminq_f32(a, b); }
inline Floats floor(Floats x) { return vrndmq_f32(x); }

inline Words fill_words(u32 x) { return vdupq_n_u32(x); }
inline Words load(const u32* from) { return vld1q_u32(from); }
inline void store(u32* to, Words x) { vst1q_u32(to, x); }
inline Words iota() {
  static constexpr u32 lane[4] = {0, 1, 2, 3};
  return vld1q_u32(lane);
}
inline Words add(Words a, Words b) { return vaddq_u32(a, b); }
inline Words multiply(Words a, Words b) { return vmulq_u32(a, b); }
template <int BITS>
inline Words shift_right(Words x) {
  return vshrq_n_u32(x, BITS);
}
inline Words to_words(Floats x) { return vreinterpretq_u32_s32(vcvtnq_s32_f32(x)); }
inline Words as_words(Floats x) { return vreinterpretq_u32_f32(x); }
inline Floats to_floats(Words x) { return vcvtq_f32_u32(x); }
inline Words gather(const u16* from, Words index) {
  u32 at[4], values[4];
  vst1q_u32(at, index);
  for (int k = 0; k < 4; k++) std::memcpy(values + k, from + int(at[k]), 4);
  return vld1q_u32(values);
}

template <int COUNT>
inline void store_first(u32* to, Words x) {
  if constexpr (COUNT == WIDTH) return store(to, x);
  if constexpr (COUNT >= 2) vst1_u32(to, vget_low_u32(x));
  if constexpr (COUNT % 2 == 1) vst1q_lane_u32(to + COUNT - 1, x, COUNT - 1);
}
template <int COUNT>
inline void store_first(float* to, Floats x) {
  store_first<COUNT>(reinterpret_cast<u32*>(to), vreinterpretq_u32_f32(x));
}
template <int COUNT>
inline Mask first_lanes() {
  return {vcgtq_u32(vdupq_n_u32(COUNT), iota())};
}
template <int COUNT>
inline Words load_first(const u32* from) {
  if constexpr (COUNT == WIDTH) return load(from);
  u32 values[4] = {};
  std::memcpy(values, from, COUNT * sizeof(u32));
  return load(values);
}
inline Mask mask_of(u32 bits) {
  static constexpr u32 lane[4] = {1, 2, 4, 8};
  return {vtstq_u32(vdupq_n_u32(bits), vld1q_u32(lane))};
}
inline Mask both(Mask a, Mask b) { return {vandq_u32(a.lanes, b.lanes)}; }
inline Mask either(Mask a, Mask b) { return {vorrq_u32(a.lanes, b.lanes)}; }
inline Mask without(Mask a, Mask b) { return {vbicq_u32(a.lanes, b.lanes)}; }
inline Mask greater(Floats a, Floats b) { return {vcgtq_f32(a, b)}; }
inline Mask equal(Floats a, Floats b) { return {vceqq_f32(a, b)}; }
inline Mask at_least(Words a, Words b) { return {vcgeq_u32(a, b)}; }
inline Words where(Mask mask, Words x) { return vandq_u32(mask.lanes, x); }
inline Floats where(Mask mask, Floats x) {
  return vreinterpretq_f32_u32(where(mask, vreinterpretq_u32_f32(x)));
}
inline Floats where(Mask mask, Floats x, Floats other) { return vbslq_f32(mask.lanes, x, other); }
inline Floats add_where(Mask mask, Floats a, Floats b) { return a + where(mask, b); }

inline Words even_lanes(Words a, Words b) { return vuzp1q_u32(a, b); }
inline Words odd_lanes(Words a, Words b) { return vuzp2q_u32(a, b); }
inline Words interleave_lower(Words a, Words b) { return vzip1q_u32(a, b); }
inline Words interleave_upper(Words a, Words b) { return vzip2q_u32(a, b); }

inline Floats low(Words pairs) { return vreinterpretq_f32_u32(vshlq_n_u32(pairs, 16)); }
inline Floats high(Words pairs) {
  return vreinterpretq_f32_u32(vandq_u32(pairs, vdupq_n_u32(0xffff0000)));
}
inline Words packed_exact(Floats low, Floats high) {
  return vsriq_n_u32(vreinterpretq_u32_f32(high), vreinterpretq_u32_f32(low), 16);
}
// Rounds to bfloat16, which is then the upper half of a lane; the lower one has other bits.
inline Words rounded(Floats x) {
  const Words bits = vreinterpretq_u32_f32(x);
  const Words odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  return vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
}
inline Words packed(Floats low, Floats high) { return vsriq_n_u32(rounded(high), rounded(low), 16); }

#ifdef __ARM_FEATURE_BF16_VECTOR_ARITHMETIC
constexpr bool PAIRS = true;
using Item = u32;
using Items = Words;
inline Floats fma(Items a, Items b, Floats c) {
  return vbfdotq_f32(c, vreinterpretq_bf16_u32(a), vreinterpretq_bf16_u32(b));
}

inline void deinterleave(Words a, Words b, u16* low, u16* high) {
  const uint16x8_t x = vreinterpretq_u16_u32(a), y = vreinterpretq_u16_u32(b);
  vst1q_u16(low, vuzp1q_u16(x, y));
  vst1q_u16(high, vuzp2q_u16(x, y));
}

template <int ROWS>
inline void transpose(const Item* from, size_t stride, Item* to, size_t to_stride) {
  // In each 64 bits, channels (0, 1) of pixels (0, 1) to pixels (0, 1) of channels (0, 1).
  static constexpr uint8_t order[16] = {0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15};
  auto row = [&](int i) {
    const uint8x16_t bytes =
        i < ROWS ? vreinterpretq_u8_u32(load(from + i * stride)) : vdupq_n_u8(0);
    return vreinterpretq_u64_u8(vqtbl1q_u8(bytes, vld1q_u8(order)));
  };
  const uint64x2_t a = row(0), b = row(1);
  store(to, vreinterpretq_u32_u64(vzip1q_u64(a, b)));
  store(to + to_stride, vreinterpretq_u32_u64(vzip2q_u64(a, b)));
}
#else
constexpr bool PAIRS = false;
using Item = float;
using Items = Floats;

template <int ROWS>
inline void transpose(const Item* from, size_t stride, Item* to, size_t to_stride) {
  auto row = [&](int i) { return i < ROWS ? load(from + i * stride) : zero(); };
  const Floats a = row(0), b = row(1), c = row(2), d = row(3);
  auto join = [](Floats x, Floats y) {
    return float64x2x2_t{vzip1q_f64(vreinterpretq_f64_f32(x), vreinterpretq_f64_f32(y)),
                         vzip2q_f64(vreinterpretq_f64_f32(x), vreinterpretq_f64_f32(y))};
  };
  const float64x2x2_t even = join(vtrn1q_f32(a, b), vtrn1q_f32(c, d)),
                      odd = join(vtrn2q_f32(a, b), vtrn2q_f32(c, d));
  store(to, vreinterpretq_f32_f64(even.val[0]));
  store(to + to_stride, vreinterpretq_f32_f64(odd.val[0]));
  store(to + 2 * to_stride, vreinterpretq_f32_f64(even.val[1]));
  store(to + 3 * to_stride, vreinterpretq_f32_f64(odd.val[1]));
}
#endif

// There are 32 registers.
constexpr OutputBlocks outputs_at_once(int outputs, int) {
  return outputs == 32 ? OutputBlocks{8, 8, 0} : outputs == 18 ? OutputBlocks{6, 6, 0} : OutputBlocks{10, 10, 0};
}
constexpr int vectors_at_once(int outputs, int) {
  return outputs == 32 ? 3 : outputs == 18 ? 4 : 2;
}
constexpr int rows_at_once(int rows) { return rows % 6 == 0 ? 6 : rows % 3 == 0 ? 3 : 5; }
constexpr int PARTS_AT_ONCE = 4;
constexpr bool TAPS_TOGETHER = false;
constexpr bool WINOGRAD = !PAIRS;

}  // namespace
}  // namespace native
