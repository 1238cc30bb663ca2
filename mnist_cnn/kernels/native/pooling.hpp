// Batch norm, 2x2 max-pool and ReLU in one pass forward and one backward, and the skip connection.
// From grid G to grid H of half its side. C2: channel pairs.
#pragma once

#include "normalization.hpp"

namespace native {
namespace {

// The four pixels under each of WIDTH pooled pixels, in order, as pairs of channels.
struct Quad {
  Words pairs[4];
};
// `from`: the first of them in the upper row.
template <class G>
inline Quad load_quad(const u32* from) {
  Quad q;
#pragma GCC unroll 2
  for (int r = 0; r < 2; r++) {
    const Words left = load(from + r * G::PITCH), right = load(from + r * G::PITCH + WIDTH);
    q.pairs[2 * r] = even_lanes(left, right);
    q.pairs[2 * r + 1] = odd_lanes(left, right);
  }
  return q;
}
inline Floats greatest(const Floats (&x)[4]) {
  return max(max(x[0], x[1]), max(x[2], x[3]));
}

// Calls each.operator()<COUNT>(x, start) for the blocks of a row of pooled pixels: COUNT pixels from x
// on, `start` their first source column.
template <int SIDE, int X = 0, class Each>
[[gnu::always_inline]] inline void each_block(Each each) {
  if constexpr (X < SIDE) {
    each.template operator()<(SIDE - X < WIDTH ? SIDE - X : WIDTH)>(X, 2 * X);
    each_block<SIDE, X + WIDTH>(each);
  }
}

// out = relu(pool(scale * raw + shift)).
template <class G, class H, int C2>
inline void pool_activate(const u32* __restrict raw, const Norm& norm, Item* __restrict out) {
  for (int c = 0; c < C2; c++) {
    const Affine normalise(norm.scale, norm.shift, c);
    for (int y = 0; y < H::SIDE; y++)
      each_block<H::SIDE>([&]<int COUNT>(int x, int from) __attribute__((always_inline)) {
        const Quad q = load_quad<G>(raw + c * G::FLAT + 2 * y * G::PITCH + from);
        Floats low[4], high[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
          low[i] = normalise.low(q.pairs[i]), high[i] = normalise.high(q.pairs[i]);
        put_first<H, COUNT>(out, c, y * H::PITCH + x, max(zero(), greatest(low)),
                            max(zero(), greatest(high)));
      });
  }
}

// g (grid H) is the gradient of relu(pool(..)). Applies the ReLU's mask in place, and computes the
// sums of g and of g * raw.
template <class G, class H, int C2>
inline void pool_gate(u32* __restrict g, const u32* __restrict raw, const Norm& norm,
                      float* __restrict sums) {
  for (int c = 0; c < C2; c++) {
    const Affine normalise(norm.scale, norm.shift, c);
    PairSums pair(sums, c);
    for (int y = 0; y < H::SIDE; y++)
      each_block<H::SIDE>([&]<int COUNT>(int x, int from) __attribute__((always_inline)) {
        const Quad q = load_quad<G>(raw + c * G::FLAT + 2 * y * G::PITCH + from);
        u32* at = g + c * H::FLAT + y * H::PITCH + x;
        const Words d = load_first<COUNT>(at);
        const Mask pixels = first_lanes<COUNT>();
        Floats out[2];
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
          Floats value[4], z[4];
#pragma GCC unroll 4
          for (int i = 0; i < 4; i++) {
            value[i] = h ? high(q.pairs[i]) : low(q.pairs[i]);
            z[i] = fma(value[i], normalise.factor[h], normalise.term[h]);
          }
          const Floats most = greatest(z);
          out[h] = where(both(pixels, greater(most, zero())), h ? high(d) : low(d));
          // The first of the largest.
          Floats chosen = value[3];
#pragma GCC unroll 3
          for (int i = 2; i >= 0; i--) chosen = where(equal(z[i], most), value[i], chosen);
          pair.add(h, out[h], where(pixels, chosen));
        }
        store_first<COUNT>(at, packed_exact(out[0], out[1]));
      });
    pair.write();
  }
}

// Computes d raw on grid G from the masked gradient g on grid H.
template <class G, class H, int C2>
inline void pool_through_norm(const u32* __restrict g, const u32* __restrict raw, const Norm& norm,
                              Item* __restrict out) {
  for (int c = 0; c < C2; c++) {
    const Affine normalise(norm.scale, norm.shift, c), rest(norm.b, norm.c, c);
    const Floats a[2] = {fill(norm.a[2 * c]), fill(norm.a[2 * c + 1])};
    for (int y = 0; y < H::SIDE; y++)
      each_block<H::SIDE>([&]<int COUNT>(int x, int from) __attribute__((always_inline)) {
        const Quad q = load_quad<G>(raw + c * G::FLAT + 2 * y * G::PITCH + from);
        const Words d = load(g + c * H::FLAT + y * H::PITCH + x);
        Floats r[2][2][2];  // [channel][row][column]
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
          Floats value[4], z[4];
#pragma GCC unroll 4
          for (int i = 0; i < 4; i++) {
            value[i] = h ? high(q.pairs[i]) : low(q.pairs[i]);
            z[i] = fma(value[i], normalise.factor[h], normalise.term[h]);
          }
          const Floats most = greatest(z), through = (h ? high(d) : low(d)) * a[h];
          // Only the first of the largest gets the gradient.
          Mask taken = equal(z[0], most), chosen = taken;
#pragma GCC unroll 4
          for (int i = 0; i < 4; i++) {
            r[h][i / 2][i % 2] =
                add_where(chosen, fma(value[i], rest.factor[h], rest.term[h]), through);
            if (i == 3) break;
            const Mask next = equal(z[i + 1], most);
            chosen = without(next, taken);
            taken = either(taken, next);
          }
        }
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++)
          put_interleaved<G, COUNT>(out, c, (2 * y + i) * G::PITCH + from, r[0][i], r[1][i]);
      });
  }
}
// x (grid G14) += every second pixel of every second row of skip (grid G28, activations).
inline void add_subsampled(const u32* __restrict raw0, const Norm& norm, const Dropout& dropout,
                           Item* __restrict x) {
  for (int c = 0; c < 9; c++) {
    const Affine normalise(norm.scale, norm.shift, c);
    for (int y = 0; y < 14; y++)
      each_block<14>([&]<int COUNT>(int column, int from) __attribute__((always_inline)) {
        const u32* at = raw0 + c * G28::FLAT + 2 * y * G28::PITCH + from;
        const Words v = even_lanes(load(at), load(at + WIDTH));
        Floats low = max(zero(), normalise.low(v)), high = max(zero(), normalise.high(v));
        if (dropout.dropped) drop<2>(dropout, c, 2 * y * G28::PITCH + from, low, high);
        add_first<G14, COUNT>(x, c, y * G14::PITCH + column, low, high);
      });
  }
}
// d (grid G28) += g (grid G14) at every second pixel of every second row.
inline void add_upsampled(const u32* __restrict g, u32* __restrict d) {
  for (int c = 0; c < 9; c++)
    for (int y = 0; y < 14; y++)
      each_block<14>([&]<int COUNT>(int column, int to) __attribute__((always_inline)) {
        const Words v = load(g + c * G14::FLAT + y * G14::PITCH + column);
        const Words none = fill_words(0);
        u32* at = d + c * G28::FLAT + 2 * y * G28::PITCH + to;
        auto sum = [&](Words old, Words more) {
          return packed(low(old) + low(more), high(old) + high(more));
        };
        constexpr int LEFT = 2 * COUNT < WIDTH ? 2 * COUNT : WIDTH, RIGHT = 2 * COUNT - LEFT;
        store_first<LEFT>(at, sum(load(at), interleave_lower(v, none)));
        if constexpr (RIGHT > 0)
          store_first<RIGHT>(at + WIDTH, sum(load(at + WIDTH), interleave_upper(v, none)));
      });
}

}  // namespace
}  // namespace native
