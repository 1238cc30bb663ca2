// Convolutions and their gradients as dot products of bfloat16 pairs, float32 accumulators in
// registers. Weights are repacked for each; see `pack_weights` in avx512_network.cpp.
#pragma once

#include "layout.hpp"

namespace native {

// The shifts of a kernel: all nine, a column of three, one.
template <class G>
struct Square {
  static constexpr int N = 9;
  static constexpr int at(int t) { return G::tap(t); }
};
template <class G>
struct Column {
  static constexpr int N = 3;
  static constexpr int at(int t) { return (t - 1) * G::PITCH; }
};
struct Point {
  static constexpr int N = 1;
  static constexpr int at(int) { return 0; }
};

// y[o][p] = sum over taps t and channel pairs c of x[c][p + t] . w[o][t][c].
//
// Registers hold OB output channels by PB vectors of 16 pixels at a time. With STATS, each channel's
// sum and sum of squares over the pixels are added to sums[o][0..15] and [16..31], lane by lane.
// C2: input channel pairs; OUT: output channels.
template <class G, class Taps, int C2, int OUT, int OB, int PB, bool STATS>
inline void convolve(const u32* __restrict x, const u32* __restrict w, u32* __restrict y,
                     float* __restrict sums) {
  static_assert(OUT % OB == 0 && OB % 2 == 0 && G::VECTORS % PB == 0);
  for (int v = 0; v < G::VECTORS; v += PB) {
    const u32* wp = w;
    for (int ob = 0; ob < OUT; ob += OB) {
      __m512 acc[OB][PB];
#pragma GCC unroll 32
      for (int o = 0; o < OB; o++)
#pragma GCC unroll 8
        for (int j = 0; j < PB; j++) acc[o][j] = _mm512_setzero_ps();
#pragma GCC unroll 1
      for (int t = 0; t < Taps::N; t++) {
        const u32* xp = x + v * 16 + Taps::at(t);
#pragma GCC unroll 1
        for (int c = 0; c < C2; c++) {
          __m512bh in[PB];
#pragma GCC unroll 8
          for (int j = 0; j < PB; j++) in[j] = as_bh(_mm512_loadu_si512(xp + 16 * j));
#pragma GCC unroll 32
          for (int o = 0; o < OB; o++) {
            __m512bh b = as_bh(_mm512_set1_epi32(int(wp[o])));
#pragma GCC unroll 8
            for (int j = 0; j < PB; j++) acc[o][j] = _mm512_dpbf16_ps(acc[o][j], in[j], b);
          }
          xp += G::PLANE;
          wp += OB;
        }
      }
#pragma GCC unroll 32
      for (int o = 0; o < OB; o += 2)
#pragma GCC unroll 8
        for (int j = 0; j < PB; j++)
          _mm512_storeu_si512(y + (ob + o) / 2 * G::FLAT + (v + j) * 16,
                              pack(acc[o][j], acc[o + 1][j]));
      if (STATS) {
#pragma GCC unroll 32
        for (int o = 0; o < OB; o++) {
          float* s = sums + (ob + o) * 32;
          __m512 sum = _mm512_load_ps(s), square = _mm512_load_ps(s + 16);
#pragma GCC unroll 8
          for (int j = 0; j < PB; j++) {
            __m512 a = _mm512_maskz_mov_ps(G::masks.m[v + j], acc[o][j]);
            sum = _mm512_add_ps(sum, a);
            square = _mm512_fmadd_ps(a, a, square);
          }
          _mm512_store_ps(s, sum);
          _mm512_store_ps(s + 16, square);
        }
      }
    }
  }
}

// acc[k][32 channels] += sum over pixel pairs p of t[p][32 channels] . plain[shift of k + p].
//
// The gradient of the weights. Pairs are pairs of pixels here, so one operand is transposed and the
// other has one plane per channel. N values of k, STEP of them in registers at a time.
template <int STEP, int N, class Shift>
inline void weight_gradient(const u16* __restrict t, int pairs, const u16* __restrict plain,
                            float* __restrict acc) {
  static_assert(N % STEP == 0);
  for (int base = 0; base < N; base += STEP) {
    __m512 a[STEP][2];
#pragma GCC unroll 16
    for (int k = 0; k < STEP; k++) {
      a[k][0] = _mm512_load_ps(acc + (base + k) * 32);
      a[k][1] = _mm512_load_ps(acc + (base + k) * 32 + 16);
    }
    const u16* row = t;
    const u16* from = plain + Shift::base(base);
#pragma GCC unroll 1
    for (int p = 0; p < pairs; p++) {
      __m512bh t0 = as_bh(_mm512_load_si512(row)), t1 = as_bh(_mm512_load_si512(row + 32));
#pragma GCC unroll 16
      for (int k = 0; k < STEP; k++) {
        int bits;
        std::memcpy(&bits, from + Shift::step(k), 4);
        __m512bh b = as_bh(_mm512_set1_epi32(bits));
        a[k][0] = _mm512_dpbf16_ps(a[k][0], t0, b);
        a[k][1] = _mm512_dpbf16_ps(a[k][1], t1, b);
      }
      row += 64;
      from += 2;
    }
#pragma GCC unroll 16
    for (int k = 0; k < STEP; k++) {
      _mm512_store_ps(acc + (base + k) * 32, a[k][0]);
      _mm512_store_ps(acc + (base + k) * 32 + 16, a[k][1]);
    }
  }
}
// k = channel * 9 + tap.
template <class G>
struct ByTap {
  static constexpr int base(int b) { return b / 9 * G::PLANE; }
  static constexpr int step(int k) { return G::tap(k); }
};
// k = channel.
template <class G>
struct ByChannel {
  static constexpr int base(int b) { return b * G::PLANE; }
  static constexpr int step(int k) { return k * G::PLANE; }
};

// x[channel pair][pixel] -> t[pixel pair][32 channels][2], channels beyond 2 * C2 zero.
template <class G, int C2>
inline void to_transposed(const u32* __restrict x, u16* __restrict t) {
  const __m512i words = _mm512_broadcast_i32x4(
      _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
  for (int v = 0; v < G::VECTORS; v++) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
      __m512i r[8], s[8];
#pragma GCC unroll 8
      for (int i = 0; i < 8; i++)
        r[i] = h * 8 + i < C2 ? _mm512_shuffle_epi8(
                                    _mm512_loadu_si512(x + (h * 8 + i) * G::PLANE + v * 16), words)
                              : _mm512_setzero_si512();
      // 8x8 transpose of 64-bit items.
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) {
        s[2 * i] = _mm512_unpacklo_epi64(r[2 * i], r[2 * i + 1]);
        s[2 * i + 1] = _mm512_unpackhi_epi64(r[2 * i], r[2 * i + 1]);
      }
      // s[2i + b]: lanes of 128 bits L = items (2L + b) of rows 2i, 2i+1.
#pragma GCC unroll 2
      for (int b = 0; b < 2; b++) {
        __m512i a0 = _mm512_shuffle_i64x2(s[0 + b], s[2 + b], 0x88);  // L 0,2 of rows 01 | 23
        __m512i a1 = _mm512_shuffle_i64x2(s[0 + b], s[2 + b], 0xdd);  // L 1,3
        __m512i a2 = _mm512_shuffle_i64x2(s[4 + b], s[6 + b], 0x88);
        __m512i a3 = _mm512_shuffle_i64x2(s[4 + b], s[6 + b], 0xdd);
        u16* to = t + (v * 8 + b) * 64 + h * 32;
        _mm512_store_si512(to, _mm512_shuffle_i64x2(a0, a2, 0x88));            // L 0
        _mm512_store_si512(to + 2 * 64, _mm512_shuffle_i64x2(a1, a3, 0x88));   // L 1
        _mm512_store_si512(to + 4 * 64, _mm512_shuffle_i64x2(a0, a2, 0xdd));   // L 2
        _mm512_store_si512(to + 6 * 64, _mm512_shuffle_i64x2(a1, a3, 0xdd));   // L 3
      }
    }
  }
}

struct Unzip {
  alignas(64) u16 even[32], odd[32];
  constexpr Unzip() : even(), odd() {
    for (int k = 0; k < 32; k++) even[k] = u16(2 * k), odd[k] = u16(2 * k + 1);
  }
};
constexpr Unzip unzip;

// x[channel pair][pixel] -> plain[channel][pixel].
template <class G, int C2>
inline void to_plain(const u32* __restrict x, u16* __restrict plain) {
  const __m512i even = _mm512_load_si512(unzip.even), odd = _mm512_load_si512(unzip.odd);
  for (int c = 0; c < C2; c++)
    for (int v = 0; v < G::VECTORS; v += 2) {
      __m512i a = _mm512_loadu_si512(x + c * G::PLANE + v * 16);
      __m512i b = v + 1 < G::VECTORS ? _mm512_loadu_si512(x + c * G::PLANE + v * 16 + 16) : _mm512_setzero_si512();
      _mm512_storeu_si512(plain + (2 * c) * G::PLANE + v * 16, _mm512_permutex2var_epi16(a, even, b));
      _mm512_storeu_si512(plain + (2 * c + 1) * G::PLANE + v * 16, _mm512_permutex2var_epi16(a, odd, b));
    }
}

}  // namespace native
