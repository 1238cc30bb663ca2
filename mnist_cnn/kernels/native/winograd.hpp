// 3x3 convolutions and their gradients with half of the multiplications: Winograd's minimal filtering
// F(4, 3) down the columns of the image. Sources: Winograd 1980, "Arithmetic complexity of
// computations"; Lavin & Gray 2016, "Fast algorithms for convolutional neural networks".
//
// Four outputs of a column, of six inputs x and three weights w, are A (G w * B x), where * multiplies
// element by element: six products instead of twelve. B x is computed once for all output channels, A
// once for all input channels, G w once a step. The gradient of the weights is, by the same sum,
// G' (A' dy * B x), where ' transposes. Along the rows, the three taps are as in `convolve`.
//
// Only where items are float32: with instructions for pairs of bfloat16, B x would be rounded.
#pragma once

#include "convolution.hpp"

namespace native {
namespace {

constexpr int PRODUCTS = 6, TILE = 4;

// Points 0, 1, -1, 2, -2 and infinity.
constexpr float WEIGHT_TRANSFORM[PRODUCTS][3] = {
    {1 / 4.f, 0, 0},
    {-1 / 6.f, -1 / 6.f, -1 / 6.f},
    {-1 / 6.f, 1 / 6.f, -1 / 6.f},
    {1 / 24.f, 1 / 12.f, 1 / 6.f},
    {1 / 24.f, -1 / 12.f, 1 / 6.f},
    {0, 0, 1},
};

// The planes of tiles of grid G. A band is REACH rows, and a tile is a column of four bands: a pixel of
// each, which a kernel of that dilation combines. A plane has the tiles as a band has its pixels, so a
// shift along the row is the same.
template <class G>
struct Tiles {
  static constexpr int REACH = G::REACH, BAND = REACH * G::PITCH;
  static_assert(G::SIDE % REACH == 0);
  static constexpr int BANDS = G::SIDE / REACH, DOWN = (BANDS + TILE - 1) / TILE;
  static constexpr int COUNT = DOWN * BAND;
  static constexpr int VECTORS = (COUNT + WIDTH - 1) / WIDTH;
  static constexpr int FLAT = VECTORS * WIDTH;
  static constexpr int LEAD = 16;
  static_assert(REACH <= LEAD);
  static constexpr int PLANE = ((LEAD + (COUNT + 15) / 16 * 16 + LEAD) / 16 | 1) * 16;
  static constexpr int ROWS = COUNT, ROWS_IN_CACHE = G::ROWS_IN_CACHE;

  // A band in vectors: the last one ends with the band and so repeats pixels of the one before.
  static constexpr int PARTS = (BAND + WIDTH - 1) / WIDTH;
  static constexpr int LANES = BAND < WIDTH ? BAND : WIDTH;
  static constexpr int start(int part) {
    return part < PARTS - 1 || BAND < WIDTH ? part * WIDTH : BAND - WIDTH;
  }
  // Bits of the lanes of a part that are pixels and in no part before.
  static constexpr u32 new_pixels(int part) {
    u32 bits = 0;
    for (int k = 0; k < LANES; k++)
      if (start(part) + k >= part * WIDTH && (start(part) + k) % G::PITCH < G::SIDE) bits |= 1u << k;
    return bits;
  }

  // The three taps along a row.
  static constexpr int tap(int t) { return (t - 1) * REACH; }
};
template <class G>
struct Across {
  static constexpr int N = 3;
  static constexpr int at(int t) { return Tiles<G>::tap(t); }
};
// k is the tap along the row by one of 18 channels; see ByTap.
template <class G>
struct ByTapAcross : Channels<Item> {
  static constexpr int at(int k) {
    return TAPS_TOGETHER ? k / 3 * Tiles<G>::PLANE + Tiles<G>::tap(k % 3)
                         : k % 18 * Tiles<G>::PLANE + Tiles<G>::tap(k / 18);
  }
  static constexpr int step(int k) { return at(k) - at(0); }
};

// Memory of one thread. The zeros around the tiles are never written.
template <class G>
struct TileMemory {
  using T = Tiles<G>;
  Buffer<Item> planes18{size_t(WINOGRAD) * PRODUCTS * 18 * T::PLANE + GUARD};
  Buffer<Item> planes32{size_t(WINOGRAD) * PRODUCTS * 32 * T::PLANE + GUARD};
  Buffer<float> products{size_t(WINOGRAD) * PRODUCTS * 32 * T::FLAT + GUARD};

  template <int CHANNELS>
  Item* at() const {
    return (CHANNELS == 18 ? planes18 : planes32).start + T::LEAD;
  }
};

inline Floats scaled(float factor, Floats x) { return fill(factor) * x; }
inline Floats add_scaled(Floats sum, float factor, Floats x) { return fma(fill(factor), x, sum); }

// Calls each(source, target) for every vector of every band of tiles of each channel: flat indices of
// its first band of pixels and of its tiles.
template <class G, int CHANNELS, class Each>
[[gnu::always_inline]] inline void each_tiles(Each each) {
  using T = Tiles<G>;
  for (int c = 0; c < CHANNELS; c++)
    for (int down = 0; down < T::DOWN; down++)
      for (int part = 0; part < T::PARTS; part++) {
        const int start = T::start(part);
        each(c * G::PLANE + TILE * down * T::BAND + start, c * T::PLANE + down * T::BAND + start);
      }
}
template <class G, int CHANNELS>
inline void store_products(float* to, const Floats (&v)[PRODUCTS]) {
  using T = Tiles<G>;
#pragma GCC unroll 6
  for (int m = 0; m < PRODUCTS; m++)
    store_first<T::LANES>(to + m * CHANNELS * T::PLANE, v[m]);
}

// B x: [product][channel][tile].
template <class G, int CHANNELS>
[[gnu::noinline]] void transform_inputs(const float* __restrict from, float* __restrict to) {
  each_tiles<G, CHANNELS>([&](int source, int target) __attribute__((always_inline)) {
    Floats x[PRODUCTS];
#pragma GCC unroll 6
    for (int i = 0; i < PRODUCTS; i++) x[i] = load(from + source + (i - 1) * Tiles<G>::BAND);
    const Floats a = add_scaled(x[4], -4, x[2]), b = add_scaled(x[3], -4, x[1]);
    const Floats c = x[4] - x[2], d = x[3] - x[1];
    const Floats first = add_scaled(add_scaled(x[4], -5, x[2]), 4, x[0]);
    const Floats last = add_scaled(add_scaled(x[5], -5, x[3]), 4, x[1]);
    const Floats v[PRODUCTS] = {first, a + b, a - b, add_scaled(c, 2, d), add_scaled(c, -2, d), last};
    store_products<G, CHANNELS>(to + target, v);
  });
}
// A' dy.
template <class G, int CHANNELS>
[[gnu::noinline]] void transform_gradients(const float* __restrict from, float* __restrict to) {
  each_tiles<G, CHANNELS>([&](int source, int target) __attribute__((always_inline)) {
    Floats y[TILE];
#pragma GCC unroll 4
    for (int i = 0; i < TILE; i++) y[i] = load(from + source + i * Tiles<G>::BAND);
    const Floats even = y[0] + y[2], odd = y[1] + y[3];
    const Floats a = add_scaled(y[0], 4, y[2]), b = add_scaled(scaled(2, y[1]), 8, y[3]);
    const Floats v[PRODUCTS] = {y[0], even + odd, even - odd, a + b, a - b, y[3]};
    store_products<G, CHANNELS>(to + target, v);
  });
}
// The four outputs of a channel's tiles, from products a `stride` apart.
[[gnu::always_inline]] inline void outputs_of(const float* from, int stride, Floats (&y)[TILE]) {
  Floats m[PRODUCTS];
#pragma GCC unroll 6
  for (int i = 0; i < PRODUCTS; i++) m[i] = load(from + i * stride);
  const Floats a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4];
  y[0] = m[0] + a + c;
  y[1] = add_scaled(b, 2, d);
  y[2] = add_scaled(a, 4, c);
  y[3] = add_scaled(b, 8, d) + m[5];
}
// A m, to pairs of channels; the sums are those of `ToPairs`.
template <class G, int OUT, bool STATS>
[[gnu::noinline]] void transform_outputs(const float* __restrict from, u32* __restrict to,
                                           float* __restrict sums) {
  using T = Tiles<G>;
  for (int o = 0; o < OUT; o += 2) {
    Floats sum[2], square[2];
    for (int h = 0; STATS && h < 2; h++) {
      sum[h] = load(sums + (o + h) * 2 * WIDTH);
      square[h] = load(sums + (o + h) * 2 * WIDTH + WIDTH);
    }
    for (int down = 0; down < T::DOWN; down++)
      for (int part = 0; part < T::PARTS; part++) {
        const int start = T::start(part);
        Floats y[2][TILE];
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++)
          outputs_of(from + (o + h) * T::FLAT + down * T::BAND + start, OUT * T::FLAT, y[h]);
        u32* at = to + o / 2 * G::FLAT + TILE * down * T::BAND + start;
        const int bands = T::BANDS - TILE * down;
#pragma GCC unroll 4
        for (int i = 0; i < TILE; i++) {
          if (i >= bands) break;
          store_first<T::LANES>(at + i * T::BAND, packed(y[0][i], y[1][i]));
          if constexpr (STATS) {
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) {
              const Floats a = where(mask_of(T::new_pixels(part)), y[h][i]);
              sum[h] = sum[h] + a;
              square[h] = fma(a, a, square[h]);
            }
          }
        }
      }
    for (int h = 0; STATS && h < 2; h++) {
      store(sums + (o + h) * 2 * WIDTH, sum[h]);
      store(sums + (o + h) * 2 * WIDTH + WIDTH, square[h]);
    }
  }
}

// A convolution with a 3x3 kernel whose weights `pack_weights` has stored for it.
template <class G, int IN, int OUT, bool STATS>
inline void convolve3x3(const Item* x, const Item* w, const TileMemory<G>& memory, u32* y,
                        float* sums) {
  if constexpr (WINOGRAD) {
    using T = Tiles<G>;
    Item* tiles = memory.template at<IN>();
    transform_inputs<G, IN>(x, tiles);
    for (int m = 0; m < PRODUCTS; m++) {
      const ToPlanes<T> output{memory.products.start + m * OUT * T::FLAT};
      convolve<T, Across<G>, IN, OUT>(tiles + m * IN * T::PLANE, w + m * 3 * IN * OUT, output);
    }
    transform_outputs<G, OUT, STATS>(memory.products.start, y, sums);
  } else
    convolve<G, Square<G>, IN, OUT>(x, w, ToPairs<G, STATS>{y, sums});
}

// Adds what the m-th product contributes to the gradient of each row of the kernels: G' of it alone.
inline void add_weight_transform(const float* products, int m, float* acc) {
  for (int row = 0; row < 3; row++) {
    const float factor = WEIGHT_TRANSFORM[m][row];
    if (factor == 0) continue;
    for (int channel = 0; channel < 18; channel++)
      for (int tap = 0; tap < 3; tap++) {
        const float* from = products + (TAPS_TOGETHER ? channel * 3 + tap : tap * 18 + channel) * 32;
        float* to = acc + row_of(18, channel, 3 * row + tap) * 32;
        for (int o = 0; o < 32; o += WIDTH)
          store(to + o, add_scaled(load(to + o), factor, load(from + o)));
      }
  }
}

// Adds the gradient of such a kernel from 18 to 32 channels, of the input x and the output's gradient
// d: acc[row_of(18, channel, tap)][32 outputs]. t: scratch for transposed planes.
template <class G>
inline void weight_gradient3x3(const Item* x, const Item* d, u16* plain,
                               const TileMemory<G>& memory, Item* t, float* acc) {
  if constexpr (WINOGRAD) {
    using T = Tiles<G>;
    transform_inputs<G, 18>(x, memory.template at<18>());
    transform_gradients<G, 32>(d, memory.template at<32>());
    for (int m = 0; m < PRODUCTS; m++) {
      to_transposed<T, 32>(memory.template at<32>() + m * 32 * T::PLANE, t);
      alignas(64) float products[3 * 18 * 32] = {};
      weight_gradient<T, 3 * 18, ByTapAcross<G>>(t, memory.template at<18>() + m * 18 * T::PLANE, products);
      add_weight_transform(products, m, acc);
    }
  } else {
    to_transposed<G, 32>(d, t);
    weight_gradient<G, 162, ByTap<G, 18>>(t, to_plain<G, 18>(x, plain), acc);
  }
}

}  // namespace
}  // namespace native
