// Batch norm and ReLU in one pass forward and one backward; gradients are those of a layer's raw
// output. C2: channel pairs.
#pragma once

#include "dropout.hpp"
#include "grid.hpp"

namespace native {
namespace {

// A factor and a term for each channel of a pair.
struct Affine {
  Floats factor[2], term[2];
  Affine(const float* factors, const float* terms, int c)
      : factor{fill(factors[2 * c]), fill(factors[2 * c + 1])},
        term{fill(terms[2 * c]), fill(terms[2 * c + 1])} {}
  Floats low(Words pairs) const { return fma(native::low(pairs), factor[0], term[0]); }
  Floats high(Words pairs) const { return fma(native::high(pairs), factor[1], term[1]); }
};

// out = dropout(relu(scale * raw + shift)), with zeros between the rows.
template <class G, int C2>
inline void activate(const u32* __restrict raw, const Norm& norm, const Dropout& dropout,
                     Item* __restrict out) {
  for (int c = 0; c < C2; c++) {
    const Affine normalise(norm.scale, norm.shift, c);
#pragma GCC unroll 2
    for (int v = 0; v < G::VECTORS; v++) {
      const Words y = load(raw + c * G::FLAT + v * WIDTH);
      Floats low = max(zero(), normalise.low(y)), high = max(zero(), normalise.high(y));
      if (dropout.dropped) drop(dropout, c, v * WIDTH, low, high);
      put<G>(out, c, v * WIDTH, G::mask(v), low, high);
    }
  }
}

// Sums of two channels' values and of their products with the raw outputs, lane by lane.
struct PairSums {
  Floats sum[2], dot[2];
  float* const at;
  PairSums(float* sums, int c) : at(sums + 4 * c * WIDTH) {
    for (int h = 0; h < 2; h++) sum[h] = load(at + 2 * h * WIDTH), dot[h] = load(at + (2 * h + 1) * WIDTH);
  }
  void add(int h, Floats d, Floats y) {
    sum[h] = sum[h] + d;
    dot[h] = fma(d, y, dot[h]);
  }
  void write() const {
    for (int h = 0; h < 2; h++) store(at + 2 * h * WIDTH, sum[h]), store(at + (2 * h + 1) * WIDTH, dot[h]);
  }
};

// Turns the gradient of an activation into that of the ReLU's argument, in place, and computes its
// sums. apply(c, v, y, d): lets the v-th vector of channel pair c's gradients d through, or zero.
template <class G, int C2, class Apply>
[[gnu::always_inline]] inline void gate(u32* __restrict dy, const u32* __restrict raw,
                                        float* __restrict sums, Apply apply) {
  for (int c = 0; c < C2; c++) {
    PairSums pair(sums, c);
    for (int v = 0; v < G::VECTORS; v++) {
      const Words y = load(raw + c * G::FLAT + v * WIDTH);
      const Words both = load(dy + c * G::FLAT + v * WIDTH);
      Floats d[2] = {low(both), high(both)};
      apply(c, v, y, d);
      pair.add(0, d[0], low(y));
      pair.add(1, d[1], high(y));
      store(dy + c * G::FLAT + v * WIDTH, packed(d[0], d[1]));
    }
    pair.write();
  }
}
// Of relu(scale * raw + shift).
template <class G, int C2>
inline void gate(u32* dy, const u32* raw, const Norm& norm, float* sums) {
  gate<G, C2>(dy, raw, sums, [&](int c, int v, Words y, Floats (&d)[2]) {
    const Affine normalise(norm.scale, norm.shift, c);
    const Mask pixels = G::mask(v);
    d[0] = where(both(pixels, greater(normalise.low(y), zero())), d[0]);
    d[1] = where(both(pixels, greater(normalise.high(y), zero())), d[1]);
  });
}
// Of `activation`, which `activate` has computed with this dropout: it is zero where the ReLU is or
// where a value was dropped, so neither is computed again.
template <class G, int C2>
inline void gate(u32* dy, const u32* raw, const Item* activation, const Dropout& dropout, float* sums) {
  const Floats scale = fill(dropout.scale);
  gate<G, C2>(dy, raw, sums, [&](int c, int v, Words, Floats (&d)[2]) {
    Floats a[2];
    get<G>(activation, c, v * WIDTH, a[0], a[1]);
    d[0] = where(greater(a[0], zero()), d[0] * scale);
    d[1] = where(greater(a[1], zero()), d[1] * scale);
  });
}

// d raw = a * dy + b * raw + c, with zeros between the rows.
template <class G, int C2>
inline void through_norm(const u32* __restrict dy, const u32* __restrict raw, const Norm& norm,
                         Item* __restrict out) {
  for (int c = 0; c < C2; c++) {
    const Affine rest(norm.b, norm.c, c);
    const Floats a0 = fill(norm.a[2 * c]), a1 = fill(norm.a[2 * c + 1]);
#pragma GCC unroll 2
    for (int v = 0; v < G::VECTORS; v++) {
      const Words y = load(raw + c * G::FLAT + v * WIDTH);
      const Words d = load(dy + c * G::FLAT + v * WIDTH);
      put<G>(out, c, v * WIDTH, G::mask(v), fma(low(d), a0, rest.low(y)),
             fma(high(d), a1, rest.high(y)));
    }
  }
}

}  // namespace
}  // namespace native
