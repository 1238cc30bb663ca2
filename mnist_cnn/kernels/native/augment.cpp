// The bilinear distortion of mnist_cnn/augment.py, with the normalisation.

#include <algorithm>

#include "layout.hpp"
#include "pool.hpp"

namespace native {

// Two bytes per pixel: the pixel and the one below it. Zeros surround the image, so no source pixel
// needs a bounds check, and any 32 bits are the four pixels around a source position.
constexpr int MARGIN = 1, WIDTH = 32, HEIGHT = 31;

void warp(const uint8_t* image, const float* row, float scale, float offset, float* out) {
  alignas(64) u16 padded[HEIGHT * WIDTH] = {};
  __m256i above = _mm256_setzero_si256();
  for (int y = -1; y < 28; y++) {
    const __m256i below =
        y < 27 ? _mm256_maskz_loadu_epi8(0xfffffff, image + (y + 1) * 28) : _mm256_setzero_si256();
    const __m512i both = _mm512_or_si512(_mm512_cvtepu8_epi16(above),
                                         _mm512_slli_epi16(_mm512_cvtepu8_epi16(below), 8));
    _mm512_mask_storeu_epi16(padded + (y + MARGIN) * WIDTH + MARGIN, 0xfffffff, both);
    above = below;
  }
  // Source = rotation @ (affine @ (destination - move)), from the centre, in pixels.
  const float cosine = row[0], sine = row[1], a = row[2], b = row[3], c = row[4], d = row[5];
  const float xx = cosine * a - sine * c, xy = cosine * b - sine * d;
  const float yx = sine * a + cosine * c, yy = sine * b + cosine * d;
  const __m512 least = _mm512_set1_ps(-1), most = _mm512_set1_ps(28);
  const __m512 columns = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i width = _mm512_set1_epi32(WIDTH);
  for (int y = 0; y < 28; y++)
    for (int x = 0; x < 28; x += 16) {
      const __mmask16 keep = x ? 0xfff : 0xffff;
      const float v = float(y) - 13.5f - row[7];
      const __m512 u = _mm512_add_ps(columns, _mm512_set1_ps(float(x) - 13.5f - row[6]));
      __m512 sx = _mm512_fmadd_ps(u, _mm512_set1_ps(xx), _mm512_set1_ps(xy * v + 13.5f));
      __m512 sy = _mm512_fmadd_ps(u, _mm512_set1_ps(yx), _mm512_set1_ps(yy * v + 13.5f));
      sx = _mm512_min_ps(_mm512_max_ps(sx, least), most);
      sy = _mm512_min_ps(_mm512_max_ps(sy, least), most);
      const __m512 left = _mm512_roundscale_ps(sx, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
      const __m512 top = _mm512_roundscale_ps(sy, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
      const __m512 fx = _mm512_sub_ps(sx, left), fy = _mm512_sub_ps(sy, top);
      const __m512i at =
          _mm512_add_epi32(_mm512_mullo_epi32(_mm512_cvtps_epi32(top), width), _mm512_cvtps_epi32(left));
      const __m512i four = _mm512_i32gather_epi32(at, padded + MARGIN * WIDTH + MARGIN, 2);
      auto grey = [&](int byte) {
        return _mm512_cvtepi32_ps(
            _mm512_and_si512(_mm512_srli_epi32(four, 8 * byte), _mm512_set1_epi32(0xff)));
      };
      const __m512 p00 = grey(0), p10 = grey(1), p01 = grey(2), p11 = grey(3);
      const __m512 upper = _mm512_fmadd_ps(_mm512_sub_ps(p01, p00), fx, p00);
      const __m512 lower = _mm512_fmadd_ps(_mm512_sub_ps(p11, p10), fx, p10);
      const __m512 value = _mm512_fmadd_ps(_mm512_sub_ps(lower, upper), fy, upper);
      _mm512_mask_storeu_ps(out + y * 28 + x, keep,
                            _mm512_fmsub_ps(value, _mm512_set1_ps(scale), _mm512_set1_ps(offset)));
    }
}

}  // namespace native

extern "C" {

// out[i] = warped images[chosen[i]] * scale - offset. table: ten numbers an image, as
// mnist_cnn.augment.Distortions has them.
void augment(const uint8_t* images, const int64_t* chosen, int count, const float* table,
             float scale, float offset, float* out) {
  constexpr int PIECE = 16;
  native::pool().run((count + PIECE - 1) / PIECE, [&](int, int piece) {
    const int start = piece * PIECE, end = std::min(count, start + PIECE);
    // The images are scattered over 47 MB: prefetching all at once is faster than loading one by one.
    for (int i = start; i < end; i++)
      for (int byte = 0; byte < 784; byte += 64)
        __builtin_prefetch(images + chosen[i] * 784 + byte, 0, 2);
    for (int i = start; i < end; i++)
      native::warp(images + chosen[i] * 784, table + size_t(i) * 10, scale, offset,
                   out + size_t(i) * 784);
  });
}

}  // extern "C"
