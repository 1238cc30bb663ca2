// Dropout whose mask is a function of a value's position, so that it is not stored: the backward
// pass computes it again.
#pragma once

#include "layout.hpp"

namespace native {

// The mixing function "lowbias32" (Wellons 2018, "Prospecting for hash functions").
inline u32 mixed(u32 x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}
inline __m512i mixed(__m512i x) {
  x = _mm512_mullo_epi32(_mm512_xor_si512(x, _mm512_srli_epi32(x, 16)),
                         _mm512_set1_epi32(0x7feb352d));
  x = _mm512_mullo_epi32(_mm512_xor_si512(x, _mm512_srli_epi32(x, 15)),
                         _mm512_set1_epi32(int(0x846ca68bu)));
  return _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
}

// One layer's dropout of one image's activations.
struct Dropout {
  u32 key = 0;
  u32 dropped = 0;  // of 65,536; 0: no dropout
  float scale = 1;  // factor of the kept values

  static constexpr float STEPS = 65536;

  struct Kept {
    __mmask16 low, high;
  };
  // Mask of the kept values of channel pair c at 16 flat positions.
  Kept kept(int c, __m512i positions) const {
    const __m512i x = mixed(_mm512_add_epi32(positions, _mm512_set1_epi32(int(key + c * 1024u))));
    const __m512i limit = _mm512_set1_epi32(int(dropped));
    return {_mm512_cmpge_epu32_mask(_mm512_and_si512(x, _mm512_set1_epi32(0xffff)), limit),
            _mm512_cmpge_epu32_mask(_mm512_srli_epi32(x, 16), limit)};
  }
  Kept kept(int c, int start, int step = 1) const {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return kept(c, _mm512_add_epi32(_mm512_mullo_epi32(lanes, _mm512_set1_epi32(step)),
                                    _mm512_set1_epi32(start)));
  }
  // The same for the 32 channels of the pixel at flat position p.
  __mmask32 kept_record(int p) const {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i x = mixed(_mm512_add_epi32(lanes, _mm512_set1_epi32(int(key + p * 16u))));
    return _mm512_cmpge_epu16_mask(x, _mm512_set1_epi16(short(dropped)));
  }
  void apply(__mmask32 k, __m512& a, __m512& b) const {
    apply(Kept{__mmask16(k), __mmask16(k >> 16)}, a, b);
  }
  // Scales the kept values and sets the others to zero.
  void apply(const Kept& k, __m512& a, __m512& b) const {
    a = _mm512_maskz_mul_ps(k.low, a, _mm512_set1_ps(scale));
    b = _mm512_maskz_mul_ps(k.high, b, _mm512_set1_ps(scale));
  }
};

}  // namespace native
