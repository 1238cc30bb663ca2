// The bilinear distortion of mnist_cnn/augment.py, with the normalisation.
#pragma once

#include "grid.hpp"

namespace native {
namespace {

// Writes COUNT pixels of a row, from column x on; see `warp`.
template <int COUNT, class Source>
[[gnu::always_inline]] inline void warp_vector(const u16* padded, int width, int x, Source source,
                                               Floats scale, Floats offset, float* out) {
  Floats sx, sy;
  source(x, sx, sy);
  const Floats least = fill(-1), most = fill(28);
  sx = min(max(sx, least), most), sy = min(max(sy, least), most);
  const Floats left = floor(sx), top = floor(sy);
  const Floats fx = sx - left, fy = sy - top;
  const Words at = to_words(fma(top, fill(float(width)), left));
  const Words four = gather(padded, at);
  const Words byte = fill_words(0xff);
  const Floats p00 = to_floats(four & byte), p10 = to_floats(shift_right<8>(four) & byte);
  const Floats p01 = to_floats(shift_right<16>(four) & byte), p11 = to_floats(shift_right<24>(four));
  const Floats upper = fma(p01 - p00, fx, p00), lower = fma(p11 - p10, fx, p10);
  const Floats value = fma(lower - upper, fy, upper);
  store_first<COUNT>(out, fma(value, scale, offset));
}

template <int X, class Source>
[[gnu::always_inline]] inline void warp_row(const u16* padded, int width, Source source, Floats scale,
                                            Floats offset, float* out) {
  if constexpr (X < 28) {
    warp_vector<(28 - X < WIDTH ? 28 - X : WIDTH)>(padded, width, X, source, scale, offset, out + X);
    warp_row<X + WIDTH>(padded, width, source, scale, offset, out);
  }
}

// out = warped image * scale - offset. row: ten numbers, as mnist_cnn.augment.Distortions has them.
inline void warp(const uint8_t* image, const float* row, float scale, float offset, float* out) {
  // Two bytes per pixel: the pixel and the one below it. Zeros surround the image, so no source pixel
  // needs a bounds check, and any 32 bits are the four pixels around a source position.
  constexpr int MARGIN = 1, SPACING = 32, HEIGHT = 31;
  alignas(64) u16 padded[HEIGHT * SPACING] = {};
  for (int y = -1; y < 28; y++) {
    u16* to = padded + (y + MARGIN) * SPACING + MARGIN;
    const uint8_t* above = image + y * 28;
    for (int x = 0; x < 28; x++)
      to[x] = u16((y >= 0 ? above[x] : 0) | (y < 27 ? above[x + 28] << 8 : 0));
  }
  // Source = rotation @ (affine @ (destination - move)), from the centre, in pixels.
  const float cosine = row[0], sine = row[1], a = row[2], b = row[3], c = row[4], d = row[5];
  const float xx = cosine * a - sine * c, xy = cosine * b - sine * d;
  const float yx = sine * a + cosine * c, yy = sine * b + cosine * d;
  for (int y = 0; y < 28; y++) {
    const float v = float(y) - 13.5f - row[7];
    auto source = [&](int x, Floats& sx, Floats& sy) __attribute__((always_inline)) {
      const Floats u = to_floats(iota()) + fill(float(x) - 13.5f - row[6]);
      sx = fma(u, fill(xx), fill(xy * v + 13.5f));
      sy = fma(u, fill(yx), fill(yy * v + 13.5f));
    };
    warp_row<0>(padded + MARGIN * SPACING + MARGIN, SPACING, source, fill(scale), fill(-offset),
                out + y * 28);
  }
}

}  // namespace
}  // namespace native
