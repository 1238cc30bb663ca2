// Batch norm, 2x2 max-pool and ReLU in one pass forward and one backward, and the skip connection.
#pragma once

#include "normalization.hpp"

namespace native {

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

// The four pixels under each pooled pixel, in order, for one channel of a pair of rows.
struct Quad {
  __m512 v[4];
};
template <class F>
inline Quad quad(const __m512i (&row)[2][2], F channel) {
  const __m512i even = _mm512_load_si512(lanes.even), odd = _mm512_load_si512(lanes.odd);
  Quad q;
#pragma GCC unroll 2
  for (int r = 0; r < 2; r++) {
    __m512 a = channel(row[r][0]), b = channel(row[r][1]);
    q.v[2 * r] = _mm512_permutex2var_ps(a, even, b);
    q.v[2 * r + 1] = _mm512_permutex2var_ps(a, odd, b);
  }
  return q;
}
inline Quad affine(const Quad& q, __m512 s, __m512 b) {
  Quad r;
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) r.v[i] = _mm512_fmadd_ps(q.v[i], s, b);
  return r;
}
inline __m512 greatest(const Quad& q) {
  return _mm512_max_ps(_mm512_max_ps(q.v[0], q.v[1]), _mm512_max_ps(q.v[2], q.v[3]));
}
// Index of the largest of the four; the first one if several are equal.
struct Which {
  __mmask16 k[4];
};
inline Which first(const Quad& q, __m512 m) {
  Which w;
  __mmask16 taken = 0;
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    w.k[i] = _mm512_cmp_ps_mask(q.v[i], m, _CMP_EQ_OQ) & ~taken;
    taken |= w.k[i];
  }
  return w;
}
template <class G>
inline void load_rows(const u32* plane, int y, __m512i (&row)[2][2]) {
  constexpr int wide = G::SIDE > 16;
#pragma GCC unroll 2
  for (int r = 0; r < 2; r++) {
    const u32* p = plane + (2 * y + r) * G::PITCH;
    row[r][0] = _mm512_loadu_si512(p);
    row[r][1] = wide ? _mm512_maskz_loadu_epi32((1 << (G::SIDE - 16)) - 1, p + 16)
                     : _mm512_setzero_si512();
  }
}

// out = relu(pool(scale * raw + shift)): from grid G to grid H of half its side.
template <class G, class H, int C2>
inline void pool_activate(const u32* __restrict raw, const Norm& norm, u32* __restrict out) {
  const __m512 zero = _mm512_setzero_ps();
  constexpr __mmask16 keep = (1 << H::SIDE) - 1;
  for (int c = 0; c < C2; c++) {
    const __m512 s0 = _mm512_set1_ps(norm.scale[2 * c]), b0 = _mm512_set1_ps(norm.shift[2 * c]);
    const __m512 s1 = _mm512_set1_ps(norm.scale[2 * c + 1]),
                 b1 = _mm512_set1_ps(norm.shift[2 * c + 1]);
    for (int y = 0; y < H::SIDE; y++) {
      __m512i row[2][2];
      load_rows<G>(raw + c * G::FLAT, y, row);
      __m512 m0 = _mm512_max_ps(zero, greatest(affine(quad(row, low), s0, b0)));
      __m512 m1 = _mm512_max_ps(zero, greatest(affine(quad(row, high), s1, b1)));
      _mm512_mask_storeu_epi32(out + c * H::PLANE + y * H::PITCH, keep, pack(m0, m1));
    }
  }
}

// g (grid H) is the gradient of relu(pool(..)). Applies the ReLU's mask in place, and computes the
// sums of g and of g * raw.
template <class G, class H, int C2>
inline void pool_gate(u32* __restrict g, const u32* __restrict raw, const Norm& norm,
                      float* __restrict sums) {
  const __m512 zero = _mm512_setzero_ps();
  constexpr __mmask16 keep = (1 << H::SIDE) - 1;
  for (int c = 0; c < C2; c++) {
    __m512 sum[2], dot[2], out[2];
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
      sum[h] = _mm512_load_ps(sums + (2 * c + h) * 32);
      dot[h] = _mm512_load_ps(sums + (2 * c + h) * 32 + 16);
    }
    for (int y = 0; y < H::SIDE; y++) {
      __m512i row[2][2];
      load_rows<G>(raw + c * G::FLAT, y, row);
      u32* at = g + c * H::FLAT + y * H::PITCH;
      __m512i d = _mm512_maskz_loadu_epi32(keep, at);
#pragma GCC unroll 2
      for (int h = 0; h < 2; h++) {
        Quad q = h ? quad(row, high) : quad(row, low);
        Quad z = affine(q, _mm512_set1_ps(norm.scale[2 * c + h]),
                        _mm512_set1_ps(norm.shift[2 * c + h]));
        __m512 m = greatest(z);
        __mmask16 k = _mm512_mask_cmp_ps_mask(keep, m, zero, _CMP_GT_OQ);
        __m512 dh = _mm512_maskz_mov_ps(k, h ? high(d) : low(d));
        Which w = first(z, m);
        __m512 chosen = q.v[0];
#pragma GCC unroll 3
        for (int i = 1; i < 4; i++) chosen = _mm512_mask_mov_ps(chosen, w.k[i], q.v[i]);
        sum[h] = _mm512_add_ps(sum[h], dh);
        dot[h] = _mm512_fmadd_ps(dh, _mm512_maskz_mov_ps(keep, chosen), dot[h]);
        out[h] = dh;
      }
      _mm512_mask_storeu_epi32(at, keep,
                               _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(out[0]), 16),
                                               _mm512_castps_si512(out[1])));
    }
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
      _mm512_store_ps(sums + (2 * c + h) * 32, sum[h]);
      _mm512_store_ps(sums + (2 * c + h) * 32 + 16, dot[h]);
    }
  }
}

// Computes d raw on grid G from the masked gradient g on grid H.
template <class G, class H, int C2>
inline void pool_through_norm(const u32* __restrict g, const u32* __restrict raw, const Norm& norm,
                              u32* __restrict out) {
  const __m512i left = _mm512_load_si512(lanes.left), right = _mm512_load_si512(lanes.right);
  constexpr bool wide = G::SIDE > 16;
  constexpr __mmask16 keep = wide ? 0xffff : (1 << (G::SIDE % 16)) - 1;
  for (int c = 0; c < C2; c++)
    for (int y = 0; y < H::SIDE; y++) {
      __m512i row[2][2];
      load_rows<G>(raw + c * G::FLAT, y, row);
      __m512i d = _mm512_loadu_si512(g + c * H::FLAT + y * H::PITCH);
      Quad r[2];
#pragma GCC unroll 2
      for (int h = 0; h < 2; h++) {
        const int o = 2 * c + h;
        Quad q = h ? quad(row, high) : quad(row, low);
        Quad z = affine(q, _mm512_set1_ps(norm.scale[o]), _mm512_set1_ps(norm.shift[o]));
        Which w = first(z, greatest(z));
        __m512 dh = _mm512_mul_ps(h ? high(d) : low(d), _mm512_set1_ps(norm.a[o]));
        const __m512 b = _mm512_set1_ps(norm.b[o]), k = _mm512_set1_ps(norm.c[o]);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
          __m512 rest = _mm512_fmadd_ps(q.v[i], b, k);
          r[h].v[i] = _mm512_mask_add_ps(rest, w.k[i], rest, dh);
        }
      }
#pragma GCC unroll 2
      for (int i = 0; i < 2; i++) {
        u32* to = out + c * G::PLANE + (2 * y + i) * G::PITCH;
        __m512i p0 = pack(r[0].v[2 * i], r[1].v[2 * i]), p1 = pack(r[0].v[2 * i + 1], r[1].v[2 * i + 1]);
        _mm512_mask_storeu_epi32(to, keep, _mm512_permutex2var_epi32(p0, left, p1));
        if (wide)
          _mm512_mask_storeu_epi32(to + 16, (1 << (G::SIDE - 16)) - 1,
                                   _mm512_permutex2var_epi32(p0, right, p1));
      }
    }
}

// x (grid G14) += every second pixel of every second row of skip (grid G28, activations).
inline void add_subsampled(const u32* __restrict raw0, const Norm& norm, const Dropout& dropout,
                           u32* __restrict x) {
  const __m512i even = _mm512_load_si512(lanes.even);
  const __m512 zero = _mm512_setzero_ps();
  constexpr __mmask16 keep = (1 << 14) - 1;
  for (int c = 0; c < 9; c++)
    for (int y = 0; y < 14; y++) {
      const u32* p = raw0 + c * G28::FLAT + 2 * y * G28::PITCH;
      __m512i v = _mm512_permutex2var_epi32(_mm512_loadu_si512(p), even,
                                            _mm512_maskz_loadu_epi32(0xfff, p + 16));
      __m512 s0 = _mm512_max_ps(zero, _mm512_fmadd_ps(low(v), _mm512_set1_ps(norm.scale[2 * c]),
                                                _mm512_set1_ps(norm.shift[2 * c])));
      __m512 s1 = _mm512_max_ps(zero, _mm512_fmadd_ps(high(v), _mm512_set1_ps(norm.scale[2 * c + 1]),
                                                _mm512_set1_ps(norm.shift[2 * c + 1])));
      if (dropout.dropped) dropout.apply(dropout.kept(c, 2 * y * G28::PITCH, 2), s0, s1);
      u32* at = x + c * G14::PLANE + y * G14::PITCH;
      __m512i old = _mm512_maskz_loadu_epi32(keep, at);
      _mm512_mask_storeu_epi32(at, keep,
                               pack(_mm512_add_ps(low(old), s0), _mm512_add_ps(high(old), s1)));
    }
}
// d (grid G28) += g (grid G14) at every second pixel of every second row.
inline void add_upsampled(const u32* __restrict g, u32* __restrict d) {
  const __m512i left = _mm512_load_si512(lanes.left), right = _mm512_load_si512(lanes.right);
  const __m512i none = _mm512_setzero_si512();
  for (int c = 0; c < 9; c++)
    for (int y = 0; y < 14; y++) {
      __m512i v = _mm512_maskz_loadu_epi32((1 << 14) - 1, g + c * G14::FLAT + y * G14::PITCH);
      u32* at = d + c * G28::FLAT + 2 * y * G28::PITCH;
      __m512i l = _mm512_permutex2var_epi32(v, left, none), r = _mm512_permutex2var_epi32(v, right, none);
      __m512i o = _mm512_loadu_si512(at);
      _mm512_storeu_si512(at, pack(_mm512_add_ps(low(o), low(l)), _mm512_add_ps(high(o), high(l))));
      o = _mm512_maskz_loadu_epi32(0xfff, at + 16);
      _mm512_mask_storeu_epi32(at + 16, 0xfff,
                               pack(_mm512_add_ps(low(o), low(r)), _mm512_add_ps(high(o), high(r))));
    }
}

}  // namespace native
