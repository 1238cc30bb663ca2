// The random affine step of mnist_cnn/augment.py (its bilinear kind), normalisation included.

#include "layout.hpp"
#include "pool.hpp"

namespace native {

// A copy of the image with zeros around it, so that no source pixel needs a test.
constexpr int MARGIN = 1, WIDTH = 32, HEIGHT = 31;

void warp(const uint8_t* image, const float* row, float scale, float offset, float* out) {
  alignas(64) float padded[HEIGHT * WIDTH] = {};
  for (int y = 0; y < 28; y++) {
    const uint8_t* from = image + y * 28;
    float* to = padded + (y + MARGIN) * WIDTH + MARGIN;
    auto grey = [&](__m128i bytes) {
      return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)), _mm512_set1_ps(scale));
    };
    _mm512_storeu_ps(to, grey(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
    _mm512_mask_storeu_ps(to + 16, 0xfff, grey(_mm_maskz_loadu_epi8(0xfff, from + 16)));
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
      const float* base = padded + MARGIN * WIDTH + MARGIN;
      const __m512 p00 = _mm512_i32gather_ps(at, base, 4);
      const __m512 p01 = _mm512_i32gather_ps(at, base + 1, 4);
      const __m512 p10 = _mm512_i32gather_ps(at, base + WIDTH, 4);
      const __m512 p11 = _mm512_i32gather_ps(at, base + WIDTH + 1, 4);
      const __m512 upper = _mm512_fmadd_ps(_mm512_sub_ps(p01, p00), fx, p00);
      const __m512 lower = _mm512_fmadd_ps(_mm512_sub_ps(p11, p10), fx, p10);
      const __m512 value = _mm512_fmadd_ps(_mm512_sub_ps(lower, upper), fy, upper);
      _mm512_mask_storeu_ps(out + y * 28 + x, keep, _mm512_sub_ps(value, _mm512_set1_ps(offset)));
    }
}

}  // namespace native

extern "C" {

// out[i] = warped images[chosen[i]] * scale - offset. table: ten numbers an image, as
// mnist_cnn.augment.Distortions has them.
void augment(const uint8_t* images, const int64_t* chosen, int count, const float* table,
             float scale, float offset, float* out) {
  native::pool().run(count, [&](int, int i) {
    native::warp(images + chosen[i] * 784, table + size_t(i) * 10, scale, offset,
                 out + size_t(i) * 784);
  });
}

}  // extern "C"
