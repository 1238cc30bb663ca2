// Convolutions and their gradients as products of items, float32 accumulators in registers. Weights
// are repacked for each; see `pack_weights` in vector_network.hpp.
#pragma once

#include "grid.hpp"

namespace native {
namespace {

inline Floats broadcast(const float* from) { return fill(*from); }
inline Words broadcast(const u32* from) { return fill_words(*from); }

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

// Where a convolution writes OB output channels, from the o-th on, by PB vectors of pixels, from the
// v-th on: to pairs of channels. With STATS, each channel's sum and sum of squares over the pixels
// are added to sums[o][0][lane] and sums[o][1][lane].
template <class G, bool STATS>
struct ToPairs {
  u32* __restrict y;
  float* __restrict sums;

  template <int OB, int PB>
  [[gnu::always_inline]] void write(const Floats (&acc)[OB][PB], int v, int o) const {
#pragma GCC unroll 32
    for (int k = 0; k < OB; k += 2)
#pragma GCC unroll 8
      for (int j = 0; j < PB; j++)
        store(y + (o + k) / 2 * G::FLAT + (v + j) * WIDTH, packed(acc[k][j], acc[k + 1][j]));
    if (STATS) {
#pragma GCC unroll 32
      for (int k = 0; k < OB; k++) {
        float* s = sums + (o + k) * 2 * WIDTH;
        Floats sum = load(s), square = load(s + WIDTH);
#pragma GCC unroll 8
        for (int j = 0; j < PB; j++) {
          const Floats a = where(G::mask(v + j), acc[k][j]);
          sum = sum + a;
          square = fma(a, a, square);
        }
        store(s, sum);
        store(s + WIDTH, square);
      }
    }
  }
};
// The same, to float32 planes.
template <class G>
struct ToPlanes {
  float* __restrict y;

  template <int OB, int PB>
  [[gnu::always_inline]] void write(const Floats (&acc)[OB][PB], int v, int o) const {
#pragma GCC unroll 32
    for (int k = 0; k < OB; k++)
#pragma GCC unroll 8
      for (int j = 0; j < PB; j++) store(y + (o + k) * G::FLAT + (v + j) * WIDTH, acc[k][j]);
  }
};

// One block of outputs; see `convolve`.
template <class G, class Taps, int IN, int OB, int PB, class Output>
[[gnu::always_inline]] inline void convolve_block(const Item* __restrict x,
                                                  const Item* __restrict w, Output output, int v,
                                                  int o) {
  Floats acc[OB][PB];
#pragma GCC unroll 32
  for (int k = 0; k < OB; k++)
#pragma GCC unroll 8
    for (int j = 0; j < PB; j++) acc[k][j] = zero();
#pragma GCC unroll 1
  for (int t = 0; t < Taps::N; t++) {
    const Item* from = x + v * WIDTH + Taps::at(t);
#pragma GCC unroll 1
    for (int c = 0; c < IN; c++) {
      Items in[PB];
#pragma GCC unroll 8
      for (int j = 0; j < PB; j++) in[j] = load(from + WIDTH * j);
#pragma GCC unroll 32
      for (int k = 0; k < OB; k++) {
        const Items weight = broadcast(w + k);
#pragma GCC unroll 8
        for (int j = 0; j < PB; j++) acc[k][j] = fma(in[j], weight, acc[k][j]);
      }
      from += G::PLANE;
      w += OB;
    }
  }
  output.write(acc, v, o);
}

// All output channels of PB vectors.
template <class G, class Taps, int IN, int OUT, int PB, class Output>
[[gnu::always_inline]] inline void convolve_vectors(const Item* __restrict x,
                                                    const Item* __restrict w, Output output, int v) {
  constexpr OutputBlocks at_once = outputs_at_once(OUT, G::VECTORS);
  constexpr int MOST = at_once.size, LAST = at_once.last_size, CHANGE = OUT - at_once.last_channels;
  static_assert(CHANGE % MOST == 0 && at_once.last_channels % LAST == 0 && MOST % 2 == 0 && LAST % 2 == 0);
  for (int o = 0; o < CHANGE; o += MOST)
    convolve_block<G, Taps, IN, MOST, PB>(x, w + o * Taps::N * IN, output, v, o);
  for (int o = CHANGE; o < OUT; o += LAST)
    convolve_block<G, Taps, IN, LAST, PB>(x, w + o * Taps::N * IN, output, v, o);
}

// y[o][p] = sum over taps t and input planes c of x[c][p + t] . w[o][t][c], y where `output` says. IN:
// input planes; OUT: output channels.
//
// Not inlined, here and below: what a caller keeps in registers would push accumulators out of them.
template <class G, class Taps, int IN, int OUT, class Output>
[[gnu::noinline]] void convolve(const Item* __restrict x, const Item* __restrict w, Output output) {
  constexpr int PB = vectors_at_once(OUT, G::VECTORS), REST = G::VECTORS % PB;
  for (int v = 0; v + PB <= G::VECTORS; v += PB)
    convolve_vectors<G, Taps, IN, OUT, PB>(x, w, output, v);
  if constexpr (REST > 0) convolve_vectors<G, Taps, IN, OUT, REST>(x, w, output, G::VECTORS - REST);
}

// Channels of a transposed row that are accumulated at once; others of the 32 are in a row further on.
constexpr int ROW = PARTS_AT_ONCE * WIDTH;

// acc[k][32 channels] += sum over rows p of t[p][32 channels] . plain[shift of k + p].
//
// The gradient of the weights. Pairs are pairs of pixels here, so one operand is transposed and the
// other has one plane per channel. N values of k, STEP of them by PARTS vectors of channels in
// registers at a time. All of them go over a part of the image before the next part, so that it
// stays in the nearest cache.
template <class G, int N, class Shift>
[[gnu::noinline]] void weight_gradient(const Item* __restrict t, const typename Shift::Plain* __restrict plain,
                                       float* __restrict acc) {
  constexpr int STEP = rows_at_once(N), PARTS = PARTS_AT_ONCE;
  static_assert(N % STEP == 0);
  for (int first = 0; first < G::ROWS; first += G::ROWS_IN_CACHE) {
    const int count = G::ROWS - first < G::ROWS_IN_CACHE ? G::ROWS - first : G::ROWS_IN_CACHE;
    for (int base = 0; base < N; base += STEP)
      for (int channel = 0; channel < 32; channel += ROW) {
        Floats a[STEP][PARTS];
        float* to = acc + base * 32 + channel;
#pragma GCC unroll 16
        for (int k = 0; k < STEP; k++)
#pragma GCC unroll 8
          for (int h = 0; h < PARTS; h++) a[k][h] = load(to + k * 32 + h * WIDTH);
        const Item* row = t + channel * G::FLAT + first * ROW;
        const typename Shift::Plain* from = plain + Shift::at(base) + first * Shift::EACH;
#pragma GCC unroll 1
        for (int p = 0; p < count; p++) {
          Items part[PARTS];
#pragma GCC unroll 8
          for (int h = 0; h < PARTS; h++) part[h] = load(row + h * WIDTH);
#pragma GCC unroll 16
          for (int k = 0; k < STEP; k++) {
            const Items b = Shift::broadcast(from + Shift::step(k));
#pragma GCC unroll 8
            for (int h = 0; h < PARTS; h++) a[k][h] = fma(part[h], b, a[k][h]);
          }
          row += ROW;
          from += Shift::EACH;
        }
#pragma GCC unroll 16
        for (int k = 0; k < STEP; k++)
#pragma GCC unroll 8
          for (int h = 0; h < PARTS; h++) store(to + k * 32 + h * WIDTH, a[k][h]);
      }
  }
}

// Planes of one channel: of bfloat16 where items are pairs, else the scratch planes themselves.
template <class I>
struct Channels {
  using Plain = u16;
  static constexpr int EACH = 2;  // values that a row takes
  static Words broadcast(const u16* from) {
    u32 bits;
    std::memcpy(&bits, from, 4);
    return fill_words(bits);
  }
};
template <>
struct Channels<float> {
  using Plain = float;
  static constexpr int EACH = 1;
  static Floats broadcast(const float* from) { return fill(*from); }
};
using Plain = Channels<Item>::Plain;

// `step`: from the shift of the first of the k that are accumulated at once, which have one tap or one
// channel in common, to the shift of the k-th of them.
//
// k is the tap by the channel of a 3x3 kernel on 18 channels, or of one channel.
template <class G, int CHANNELS>
struct ByTap : Channels<Item> {
  static constexpr int at(int k) {
    return TAPS_TOGETHER ? k / 9 * G::PLANE + G::tap(k % 9)
                         : k % CHANNELS * G::PLANE + G::tap(k / CHANNELS);
  }
  static constexpr int step(int k) { return at(k) - at(0); }
};
// k for a tap and a channel.
constexpr int row_of(int channels, int channel, int tap) {
  return TAPS_TOGETHER ? channel * 9 + tap : tap * channels + channel;
}
// k = channel.
template <class G>
struct ByChannel : Channels<Item> {
  static constexpr int step(int k) { return at(k); }
  static constexpr int at(int k) { return k * G::PLANE; }
};

// The v-th vector of pixels, channels from FROM on; see `to_transposed`.
template <class G, int CHANNELS, int FROM>
[[gnu::always_inline]] inline void transpose_vector(const Item* x, Item* t, int v) {
  if constexpr (FROM < 32) {
    constexpr int LEFT = planes(CHANNELS - FROM), MOST = planes(WIDTH);
    transpose<(LEFT < 0 ? 0 : LEFT < MOST ? LEFT : MOST)>(
        x + planes(FROM) * G::PLANE + v * WIDTH, G::PLANE,
        t + FROM / ROW * ROW * G::FLAT + v * planes(WIDTH) * ROW + FROM % ROW, ROW);
    transpose_vector<G, CHANNELS, FROM + WIDTH>(x, t, v);
  }
}
// x[plane][pixel] -> t[row][channel], ROW channels after all rows of those before; channels beyond
// CHANNELS are zero.
template <class G, int CHANNELS>
inline void to_transposed(const Item* __restrict x, Item* __restrict t) {
  for (int v = 0; v < G::VECTORS; v++) transpose_vector<G, CHANNELS, 0>(x, t, v);
}

// Pairs of channels -> plain[channel][pixel]; float32 planes are plain already.
template <class G, int CHANNELS>
inline const u16* to_plain(const u32* __restrict x, u16* __restrict plain) {
  for (int c = 0; c < CHANNELS / 2; c++)
    for (int v = 0; v < G::VECTORS; v += 2) {
      const u32* from = x + c * G::PLANE + v * WIDTH;
      const Words next = v + 1 < G::VECTORS ? load(from + WIDTH) : fill_words(0);
      u16* to = plain + 2 * c * G::PLANE + v * WIDTH;
      deinterleave(load(from), next, to, to + G::PLANE);
    }
  return plain;
}
template <class G, int CHANNELS>
inline const float* to_plain(const float* x, u16*) {
  return x;
}

}  // namespace
}  // namespace native
