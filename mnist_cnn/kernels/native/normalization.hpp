// Batch norm and ReLU in one pass forward and one backward; gradients are those of a layer's raw
// output.
#pragma once

#include <algorithm>
#include <cmath>

#include "dropout.hpp"

namespace native {

// Batch norm of one layer.
struct Norm {
  float mean[32], variance[32], inverse[32], scale[32], shift[32];
  float a[32], b[32], c[32];  // d raw = a * dy + b * raw + c

  // Sources: Ioffe & Szegedy 2015; torch.nn.BatchNorm2d, its default epsilon.
  //
  // Sets channel o from the sums of y and of y * y over `count` values.
  void finish_forward(int o, double sum, double squares, double count, float gamma, float beta) {
    const double m = sum / count;
    set(o, float(m), float(std::max(0.0, squares / count - m * m)), gamma, beta);
  }
  void set(int o, float mean_, float variance_, float gamma, float beta) {
    mean[o] = mean_;
    variance[o] = variance_;
    inverse[o] = 1 / std::sqrt(variance[o] + 1e-5f);
    scale[o] = gamma * inverse[o];
    shift[o] = beta - mean[o] * scale[o];
  }
  // Uses the sums of dy and of dy * y; adds to the gradients of gamma and beta.
  void finish_backward(int o, double sum, double dot, double count, float* dgamma, float* dbeta) {
    const double dg = inverse[o] * (dot - double(mean[o]) * sum);
    *dgamma += float(dg);
    *dbeta += float(sum);
    a[o] = scale[o];
    b[o] = float(-double(scale[o]) * inverse[o] * dg / count);
    c[o] = float(-double(scale[o]) * sum / count - double(b[o]) * mean[o]);
  }
};

// out = dropout(relu(scale * raw + shift)), with zeros between the rows.
template <class G, int C2>
inline void activate(const u32* __restrict raw, const Norm& norm, const Dropout& dropout,
                     u32* __restrict out) {
  const __m512 zero = _mm512_setzero_ps();
  for (int c = 0; c < C2; c++) {
    const __m512 s0 = _mm512_set1_ps(norm.scale[2 * c]), b0 = _mm512_set1_ps(norm.shift[2 * c]);
    const __m512 s1 = _mm512_set1_ps(norm.scale[2 * c + 1]),
                 b1 = _mm512_set1_ps(norm.shift[2 * c + 1]);
#pragma GCC unroll 2
    for (int v = 0; v < G::VECTORS; v++) {
      __m512i y = _mm512_loadu_si512(raw + c * G::FLAT + v * 16);
      __m512 r0 = _mm512_max_ps(zero, _mm512_fmadd_ps(low(y), s0, b0));
      __m512 r1 = _mm512_max_ps(zero, _mm512_fmadd_ps(high(y), s1, b1));
      if (dropout.dropped) dropout.apply(dropout.kept(c, v * 16), r0, r1);
      _mm512_storeu_si512(out + c * G::PLANE + v * 16,
                          _mm512_maskz_mov_epi32(G::masks.m[v], pack(r0, r1)));
    }
  }
}

// Turns the gradient of dropout(relu(scale * raw + shift)) into that of the ReLU's argument, in
// place, and computes its sums.
template <class G, int C2>
inline void gate(u32* __restrict dy, const u32* __restrict raw, const Norm& norm,
                 const Dropout& dropout, float* __restrict sums) {
  const __m512 zero = _mm512_setzero_ps();
  for (int c = 0; c < C2; c++) {
    const __m512 s0 = _mm512_set1_ps(norm.scale[2 * c]), b0 = _mm512_set1_ps(norm.shift[2 * c]);
    const __m512 s1 = _mm512_set1_ps(norm.scale[2 * c + 1]),
                 b1 = _mm512_set1_ps(norm.shift[2 * c + 1]);
    float* s = sums + 2 * c * 32;
    __m512 sum0 = _mm512_load_ps(s), dot0 = _mm512_load_ps(s + 16);
    __m512 sum1 = _mm512_load_ps(s + 32), dot1 = _mm512_load_ps(s + 48);
    for (int v = 0; v < G::VECTORS; v++) {
      __m512i y = _mm512_loadu_si512(raw + c * G::FLAT + v * 16);
      __m512i d = _mm512_loadu_si512(dy + c * G::FLAT + v * 16);
      __m512 y0 = low(y), y1 = high(y);
      __mmask16 valid = G::masks.m[v];
      __mmask16 k0 = _mm512_mask_cmp_ps_mask(valid, _mm512_fmadd_ps(y0, s0, b0), zero, _CMP_GT_OQ);
      __mmask16 k1 = _mm512_mask_cmp_ps_mask(valid, _mm512_fmadd_ps(y1, s1, b1), zero, _CMP_GT_OQ);
      __m512 d0 = _mm512_maskz_mov_ps(k0, low(d)), d1 = _mm512_maskz_mov_ps(k1, high(d));
      if (dropout.dropped) dropout.apply(dropout.kept(c, v * 16), d0, d1);
      sum0 = _mm512_add_ps(sum0, d0);
      dot0 = _mm512_fmadd_ps(d0, y0, dot0);
      sum1 = _mm512_add_ps(sum1, d1);
      dot1 = _mm512_fmadd_ps(d1, y1, dot1);
      _mm512_storeu_si512(dy + c * G::FLAT + v * 16, pack(d0, d1));
    }
    _mm512_store_ps(s, sum0);
    _mm512_store_ps(s + 16, dot0);
    _mm512_store_ps(s + 32, sum1);
    _mm512_store_ps(s + 48, dot1);
  }
}

// d raw = a * dy + b * raw + c, with zeros between the rows.
template <class G, int C2>
inline void through_norm(const u32* __restrict dy, const u32* __restrict raw, const Norm& norm,
                         u32* __restrict out) {
  for (int c = 0; c < C2; c++) {
    const __m512 a0 = _mm512_set1_ps(norm.a[2 * c]), b0 = _mm512_set1_ps(norm.b[2 * c]),
                 c0 = _mm512_set1_ps(norm.c[2 * c]);
    const __m512 a1 = _mm512_set1_ps(norm.a[2 * c + 1]), b1 = _mm512_set1_ps(norm.b[2 * c + 1]),
                 c1 = _mm512_set1_ps(norm.c[2 * c + 1]);
#pragma GCC unroll 2
    for (int v = 0; v < G::VECTORS; v++) {
      __m512i y = _mm512_loadu_si512(raw + c * G::FLAT + v * 16);
      __m512i d = _mm512_loadu_si512(dy + c * G::FLAT + v * 16);
      __m512 r0 = _mm512_fmadd_ps(low(d), a0, _mm512_fmadd_ps(low(y), b0, c0));
      __m512 r1 = _mm512_fmadd_ps(high(d), a1, _mm512_fmadd_ps(high(y), b1, c1));
      _mm512_storeu_si512(out + c * G::PLANE + v * 16,
                          _mm512_maskz_mov_epi32(G::masks.m[v], pack(r0, r1)));
    }
  }
}

}  // namespace native
