// Activations for matrix tiles: one record per pixel, with its 32 channels in bfloat16 side by side
// (64 bytes; channels that a layer does not have are zero). A shift by pixels keeps the alignment
// that fast tile loads need. Also batch norm, ReLU and pooling on records, the transposes for weight
// gradients, and the products.
#pragma once

#include "vector_avx512.hpp"

#include "dropout.hpp"
#include "tiles.hpp"

namespace native {
namespace {

struct alignas(64) Record {
  u16 channel[32];
};
// A pixel's 32 channels in float32: channels 0 to 15, and 16 to 31.
struct Pixel {
  __m512 v[2];
};

// Indices that move the bytes of a record to the upper halves of 32-bit lanes: one shuffle per half,
// where widening and shifting are two instructions.
struct Widen {
  alignas(64) uint8_t index[2][64];
  constexpr Widen() : index() {
    for (int h = 0; h < 2; h++)
      for (int k = 0; k < 64; k++) index[h][k] = uint8_t(h * 32 + k / 4 * 2 + k % 2);
  }
};
constexpr Widen widen;
inline Pixel unpacked(const Record& r) {
  const __m512i v = _mm512_load_si512(&r);
  constexpr __mmask64 UPPER = 0xcccccccccccccccc;
  auto half = [&](int h) {
    return _mm512_castsi512_ps(
        _mm512_maskz_permutexvar_epi8(UPPER, _mm512_load_si512(widen.index[h]), v));
  };
  return {{half(0), half(1)}};
}
inline __m512i packed(const Pixel& p) { return (__m512i)_mm512_cvtne2ps_pbh(p.v[1], p.v[0]); }
inline void store(Record& r, __m512i v) { _mm512_store_si512(&r, v); }
inline __m512i load(const Record& r) { return _mm512_load_si512(&r); }

// A square image, or some of its rows, in a flat array: rows are PITCH records apart with zeros
// between them, and LEAD zero records before and after them, for shifts beyond the image.
template <int SIDE_, int PITCH_, int REACH_, int ROWS_ = SIDE_>
struct Image {
  static constexpr int SIDE = SIDE_, PITCH = PITCH_, REACH = REACH_, ROWS = ROWS_;
  static constexpr int COUNT = ROWS * PITCH;
  static constexpr int BLOCKS = (COUNT + 31) / 32;  // of 32 records
  static constexpr int FLAT = BLOCKS * 32;
  static constexpr int LEAD = (REACH * PITCH + REACH + 31) / 32 * 32;
  static constexpr int PIXELS = SIDE * ROWS;
  static constexpr int at(int y, int x) { return y * PITCH + x; }
  // The shift of tap t of a 3x3 kernel of dilation REACH.
  static constexpr int tap(int t) { return (t / 3 - 1) * REACH * PITCH + (t % 3 - 1) * REACH; }
  // Mask of the records of each block that are pixels.
  struct Masks {
    u32 m[BLOCKS];
    constexpr Masks() : m() {
      for (int p = 0; p < COUNT; p++)
        if (p % PITCH < SIDE) m[p / 32] |= 1u << p % 32;
    }
  };
  static constexpr Masks masks{};
};
using S28 = Image<28, 29, 1>;
using S14 = Image<14, 16, 2>;
using S7 = Image<7, 8, 1>;
// The two rows under a row of pooled pixels.
template <class G>
using Two = Image<G::SIDE, G::PITCH, 0, 2>;

// Calls each(p) for the flat position of every pixel, or of those in one block of 32.
template <class G, class Each>
[[gnu::always_inline]] inline void each_pixel(Each each) {
  for (int y = 0; y < G::ROWS; y++)
    for (int x = 0; x < G::SIDE; x++) each(G::at(y, x));
}
template <class G, class Each>
[[gnu::always_inline]] inline void each_pixel(int block, Each each) {
  for (u32 left = G::masks.m[block]; left;) {
    const int first = __builtin_ctz(left);
    const u32 run = left >> first;
    const int count = ~run ? __builtin_ctz(~run) : 32;
    for (int k = first; k < first + count; k++) each(block * 32 + k);
    left = first + count < 32 ? left >> (first + count) << (first + count) : 0;
  }
}

// A constant for each of the 32 channels.
inline Pixel channels(const float* c) { return {{_mm512_loadu_ps(c), _mm512_loadu_ps(c + 16)}}; }
inline Pixel affine(const Pixel& x, const Pixel& s, const Pixel& b) {
  return {{_mm512_fmadd_ps(x.v[0], s.v[0], b.v[0]), _mm512_fmadd_ps(x.v[1], s.v[1], b.v[1])}};
}
inline Pixel relu(const Pixel& x) {
  const __m512 zero = _mm512_setzero_ps();
  return {{_mm512_max_ps(zero, x.v[0]), _mm512_max_ps(zero, x.v[1])}};
}

// Two sums per channel over an image's pixels, of d and of d * y.
struct Sums {
  Pixel sum{}, dot{};
  static constexpr int FLOATS = 2 * 32;

  void add(const Pixel& d, const Pixel& y) {
    for (int h = 0; h < 2; h++) {
      sum.v[h] = _mm512_add_ps(sum.v[h], d.v[h]);
      dot.v[h] = _mm512_fmadd_ps(d.v[h], y.v[h], dot.v[h]);
    }
  }
  void add_to(float* sums) const {
    for (int h = 0; h < 2; h++) {
      _mm512_store_ps(sums + 16 * h, _mm512_add_ps(_mm512_load_ps(sums + 16 * h), sum.v[h]));
      _mm512_store_ps(sums + 32 + 16 * h, _mm512_add_ps(_mm512_load_ps(sums + 32 + 16 * h), dot.v[h]));
    }
  }
};

// Mask of the 32 channels that dropout keeps of the pixel at flat position p.
inline __mmask32 kept_record(const Dropout& dropout, int p) {
  const Words bits = mixed(add(iota(), fill_words(dropout.key + u32(p) * 16)));
  return _mm512_cmpge_epu16_mask(bits, _mm512_set1_epi16(short(dropout.dropped)));
}

// dropout(relu(scale * y + shift)) of one pixel.
struct Activation {
  const Pixel scale, shift;
  const Dropout dropout;
  Activation(const Norm& norm, const Dropout& d)
      : scale(channels(norm.scale)), shift(channels(norm.shift)), dropout(d) {}
  [[gnu::always_inline]] Pixel operator()(const Pixel& y, int p) const {
    Pixel a = relu(affine(y, scale, shift));
    if (dropout.dropped) {
      const __mmask32 kept = kept_record(dropout, p);
      a.v[0] = _mm512_maskz_mul_ps(__mmask16(kept), a.v[0], fill(dropout.scale));
      a.v[1] = _mm512_maskz_mul_ps(__mmask16(kept >> 16), a.v[1], fill(dropout.scale));
    }
    return a;
  }
  // Turns the gradient of the value x into that of the ReLU's argument: a positive x has passed both
  // the ReLU and the dropout.
  [[gnu::always_inline]] Pixel gate(const Pixel& d, const Record& x) const {
    const __mmask32 open = _mm512_cmpgt_epi16_mask(load(x), _mm512_setzero_si512());
    const __m512 factor = _mm512_set1_ps(dropout.scale);
    return {{_mm512_maskz_mul_ps(__mmask16(open), d.v[0], factor),
             _mm512_maskz_mul_ps(__mmask16(open >> 16), d.v[1], factor)}};
  }
};

// Computes the gradient of a layer's raw outputs from that of batch norm's outputs:
// a * dy + b * y + c.
struct ThroughNorm {
  const Pixel a, b, c;
  explicit ThroughNorm(const Norm& norm)
      : a(channels(norm.a)), b(channels(norm.b)), c(channels(norm.c)) {}
  [[gnu::always_inline]] Pixel operator()(const Pixel& dy, const Pixel& y) const {
    return affine(dy, a, affine(y, b, c));
  }
};

// Turns two records into 32 channels by two pixels, pixels side by side. In the order of the
// shuffles, half 0 has channels 0-3, 8-11, 16-19 and 24-27, and half 1 the others.
constexpr int side_by_side(int half, int k) { return k / 4 * 8 + half * 4 + k % 4; }
struct Place {
  int k, half;
};
constexpr Place placed(int channel) { return {channel / 8 * 4 + channel % 4, channel / 4 % 2}; }
struct alignas(64) Pair {
  u16 half[2][32];
  void store(int h, __m512i v) { _mm512_store_si512(half[h], v); }
};

// Transposes 16 pairs' halves of 16 channels to 16 channels of 32 pixels.
inline void transpose(const Pair* pairs, int half, u16* to) {
  // 128 bits are four channels of a pair. Loads join those of pairs k, 4 + k, 8 + k and 12 + k, so
  // that shuffles within 128 bits are enough.
#pragma GCC unroll 4
  for (int quarter = 0; quarter < 4; quarter++) {
    __m512i a[4], b[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
      auto from = [&](int pair) {
        return reinterpret_cast<const __m128i*>(pairs[pair].half[half]) + quarter;
      };
      a[k] = _mm512_castsi128_si512(_mm_load_si128(from(k)));
      a[k] = _mm512_mask_broadcast_i32x4(a[k], 0x00f0, _mm_load_si128(from(4 + k)));
      a[k] = _mm512_mask_broadcast_i32x4(a[k], 0x0f00, _mm_load_si128(from(8 + k)));
      a[k] = _mm512_mask_broadcast_i32x4(a[k], 0xf000, _mm_load_si128(from(12 + k)));
    }
    b[0] = _mm512_unpacklo_epi32(a[0], a[1]), b[1] = _mm512_unpackhi_epi32(a[0], a[1]);
    b[2] = _mm512_unpacklo_epi32(a[2], a[3]), b[3] = _mm512_unpackhi_epi32(a[2], a[3]);
    u16* out = to + 4 * quarter * 32;
    _mm512_store_si512(out, _mm512_unpacklo_epi64(b[0], b[2]));
    _mm512_store_si512(out + 32, _mm512_unpackhi_epi64(b[0], b[2]));
    _mm512_store_si512(out + 64, _mm512_unpacklo_epi64(b[1], b[3]));
    _mm512_store_si512(out + 96, _mm512_unpackhi_epi64(b[1], b[3]));
  }
}

// A block's weights: 16 input pairs by 16 outputs, [tap][half of the outputs][pair][output][2].
constexpr int TILE = 512;

// The shifts of a kernel: all nine, or none.
template <class G>
struct Nine {
  static constexpr int N = 9;
  static constexpr int at(int t) { return G::tap(t); }
};
struct One {
  static constexpr int N = 1;
  static constexpr int at(int) { return 0; }
};

// Calls each(p, sum over taps t and channels of x[p + t] . w[t]) for every pixel p of G in one block;
// x is the block's first record.
template <class G, class Taps, class Each>
[[gnu::always_inline]] inline void convolve_block(int block, const Record* x, const u16* w,
                                                  Each each) {
  alignas(64) float c[32][32];
  tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
#pragma GCC unroll 9
  for (int t = 0; t < Taps::N; t++) {
    const Record* from = x + Taps::at(t);
    tile_load<4>(from, 64), tile_load<6>(w + 2 * t * TILE, 64);
    tile_dot<0, 4, 6>();
    tile_load<7>(w + (2 * t + 1) * TILE, 64);
    tile_dot<1, 4, 7>();
    tile_load<5>(from + 16, 64);
    tile_dot<2, 5, 6>(), tile_dot<3, 5, 7>();
  }
  tile_store<0>(c[0], 128), tile_store<1>(c[0] + 16, 128);
  tile_store<2>(c[16], 128), tile_store<3>(c[16] + 16, 128);
  each_pixel<G>(block, [&](int p) __attribute__((always_inline)) { each(p, channels(c[p % 32])); });
}
template <class G, class Taps, class Each>
[[gnu::always_inline]] inline void convolve(const Record* x, const u16* w, Each each) {
  for (int block = 0; block < G::BLOCKS; block++)
    convolve_block<G, Taps>(block, x + block * 32, w, each);
}

// A 1x1 convolution of two rows of G, for pooling by two: calls each(k, y) for every pair k of
// columns, where y[q] is the sum over channels of x . w at the q-th of the four pixels.
template <class G, class Each>
[[gnu::always_inline]] inline void convolve_by_twos(const Record* x, const u16* w, Each each) {
  static_assert(G::SIDE <= 32);
  alignas(64) float c[4][16][32];
  tile_load<6>(w, 64), tile_load<7>(w + TILE, 64);
  auto pixels = [&](const Record* from, float (&to)[16][32]) {
    tile_zero<0>(), tile_zero<1>();
    tile_load<4>(from, 128);
    tile_dot<0, 4, 6>(), tile_dot<1, 4, 7>();
    tile_store<0>(to[0], 128), tile_store<1>(to[0] + 16, 128);
  };
  pixels(x, c[0]), pixels(x + 1, c[1]);
  pixels(x + G::PITCH, c[2]), pixels(x + G::PITCH + 1, c[3]);
  for (int k = 0; k < G::SIDE / 2; k++)
    each(k, {channels(c[0][k]), channels(c[1][k]), channels(c[2][k]), channels(c[3][k])});
}

// Index of the largest of four values, the first one of equal values; one mask per bit.
struct Choice {
  __mmask16 low, high;
  __mmask16 is(int q) const { return (q & 1 ? low : ~low) & (q & 2 ? high : ~high); }
};

// sums[half][half'][16][16] += sum over pixels p of d[p][channel] * x[p][channel'].
//
// d: [block][channel][32 pixels], see `transpose`; x: pairs of pixels. Channels are in the order of
// `side_by_side`.
template <class G>
inline void weight_gradient(const u16* d, const Pair* x, float* sums) {
  tile_load<0>(sums, 64), tile_load<1>(sums + 256, 64);
  tile_load<2>(sums + 512, 64), tile_load<3>(sums + 768, 64);
  for (int block = 0; block < G::BLOCKS; block++, x += 16, d += 2 * TILE) {
    tile_load<4>(d, 64), tile_load<6>(x->half[0], 128);
    tile_dot<0, 4, 6>();
    tile_load<7>(x->half[1], 128);
    tile_dot<1, 4, 7>();
    tile_load<5>(d + TILE, 64);
    tile_dot<2, 5, 6>(), tile_dot<3, 5, 7>();
  }
  tile_store<0>(sums, 64), tile_store<1>(sums + 256, 64);
  tile_store<2>(sums + 512, 64), tile_store<3>(sums + 768, 64);
}

// The same for a 3x3 kernel on 18 channels, sums[half][NINE_OF_18][16][16]: for each tap the first
// sixteen channels of x, then for each row of taps the last two at its three taps, as
// `Pairs::read_18` puts them side by side.
constexpr int NINE_OF_18 = 9 + 3;
template <class G>
inline void weight_gradient_18(const u16* d, const Pair* const (&x)[2], float* sums) {
  auto pair = [&](int shift) { return x[shift & 1] + (shift >> 1); };
  auto add = [&](const u16* a, std::initializer_list<const u16*> b, float* to) {
    const u16* const* from = b.begin();
    tile_load<0>(to, 64), tile_load<1>(to + 256, 64), tile_load<2>(to + 512, 64);
    tile_load<3>(to + 768, 64), tile_load<4>(to + 1024, 64), tile_load<5>(to + 1280, 64);
    for (int block = 0; block < G::BLOCKS; block++) {
      const int at = block * 16 * 64;
      tile_load<6>(a + 2 * block * TILE, 64);
      tile_load<7>(from[0] + at, 128), tile_dot<0, 6, 7>();
      tile_load<7>(from[1] + at, 128), tile_dot<1, 6, 7>();
      tile_load<7>(from[2] + at, 128), tile_dot<2, 6, 7>();
      tile_load<7>(from[3] + at, 128), tile_dot<3, 6, 7>();
      tile_load<7>(from[4] + at, 128), tile_dot<4, 6, 7>();
      tile_load<7>(from[5] + at, 128), tile_dot<5, 6, 7>();
    }
    tile_store<0>(to, 64), tile_store<1>(to + 256, 64), tile_store<2>(to + 512, 64);
    tile_store<3>(to + 768, 64), tile_store<4>(to + 1024, 64), tile_store<5>(to + 1280, 64);
  };
  auto sixteen = [&](int t) { return pair(G::tap(t))->half[0]; };
  auto two = [&](int row) { return pair(G::tap(3 * row + 1))->half[1]; };
  for (int h = 0; h < 2; h++, sums += NINE_OF_18 * 256) {
    const u16* half = d + h * TILE;
    add(half, {sixteen(0), sixteen(1), sixteen(2), sixteen(3), sixteen(4), sixteen(5)}, sums);
    add(half, {sixteen(6), sixteen(7), sixteen(8), two(0), two(1), two(2)}, sums + 6 * 256);
  }
}

// first[16][16] = sum over pixels p of a[p][channel] * b[p][channel'], of a one half of the channels,
// [block][channel][32 pixels], of b half 0; and second the same of its half 1.
template <class G>
inline void products_of_half(const u16* a, const Pair* b, float* first, float* second = nullptr) {
  tile_zero<0>(), tile_zero<1>();
  for (int block = 0; block < G::BLOCKS; block++, a += TILE, b += 16) {
    tile_load<4>(a, 64), tile_load<6>(b->half[0], 128);
    tile_dot<0, 4, 6>();
    if (second) tile_load<7>(b->half[1], 128), tile_dot<1, 4, 7>();
  }
  tile_store<0>(first, 64);
  if (second) tile_store<1>(second, 64);
}

}  // namespace
}  // namespace native
