// Plain C++ for any processor: the judge of the other instruction sets, and what each function means.
//
// A vector has WIDTH lanes. Floats are float32. Words are 32 unsigned bits; where they are called
// pairs, these are two bfloat16, the lower half first. An item is what one multiplication takes:
// a pair where an instruction multiplies and adds pairs (PAIRS), else one float32.
#pragma once

#include <cmath>

#include "bfloat16.hpp"
#include "register_blocking.hpp"

namespace native {
namespace {

constexpr int WIDTH = 8;
template <class T>
struct Vector {
  T lane[WIDTH];
};
using Floats = Vector<float>;
using Words = Vector<u32>;
using Mask = Vector<bool>;

// Calls f(k) for each lane k, and takes the results as a vector.
template <class T, class F>
[[gnu::always_inline]] inline Vector<T> lanes(F f) {
  Vector<T> v;
  for (int k = 0; k < WIDTH; k++) v.lane[k] = f(k);
  return v;
}
inline Floats operator+(Floats a, Floats b) {
  return lanes<float>([&](int k) { return a.lane[k] + b.lane[k]; });
}
inline Floats operator-(Floats a, Floats b) {
  return lanes<float>([&](int k) { return a.lane[k] - b.lane[k]; });
}
inline Floats operator*(Floats a, Floats b) {
  return lanes<float>([&](int k) { return a.lane[k] * b.lane[k]; });
}
inline Words operator&(Words a, Words b) {
  return lanes<u32>([&](int k) { return a.lane[k] & b.lane[k]; });
}
inline Words operator|(Words a, Words b) {
  return lanes<u32>([&](int k) { return a.lane[k] | b.lane[k]; });
}
inline Words operator^(Words a, Words b) {
  return lanes<u32>([&](int k) { return a.lane[k] ^ b.lane[k]; });
}

inline Floats fill(float x) { return lanes<float>([&](int) { return x; }); }
inline Floats zero() { return fill(0); }
// Loads and stores need no alignment.
inline Floats load(const float* from) { return lanes<float>([&](int k) { return from[k]; }); }
inline void store(float* to, Floats x) { std::memcpy(to, x.lane, sizeof x); }
// a * b + c; other sets round once.
inline Floats fma(Floats a, Floats b, Floats c) { return a * b + c; }
// b where a is not the larger one, also if b is not a number.
inline Floats max(Floats a, Floats b) {
  return lanes<float>([&](int k) { return a.lane[k] > b.lane[k] ? a.lane[k] : b.lane[k]; });
}
inline Floats min(Floats a, Floats b) {
  return lanes<float>([&](int k) { return a.lane[k] < b.lane[k] ? a.lane[k] : b.lane[k]; });
}
inline Floats floor(Floats x) {
  return lanes<float>([&](int k) { return std::floor(x.lane[k]); });
}

inline Words fill_words(u32 x) { return lanes<u32>([&](int) { return x; }); }
inline Words load(const u32* from) { return lanes<u32>([&](int k) { return from[k]; }); }
inline void store(u32* to, Words x) { std::memcpy(to, x.lane, sizeof x); }
// 0, 1, 2 and so on.
inline Words iota() { return lanes<u32>([](int k) { return u32(k); }); }
inline Words add(Words a, Words b) {
  return lanes<u32>([&](int k) { return a.lane[k] + b.lane[k]; });
}
inline Words multiply(Words a, Words b) {
  return lanes<u32>([&](int k) { return a.lane[k] * b.lane[k]; });
}
template <int BITS>
inline Words shift_right(Words x) {
  return lanes<u32>([&](int k) { return x.lane[k] >> BITS; });
}
// Of floats that are whole, as signed numbers; the bits of floats; and numbers below 2^31.
inline Words to_words(Floats x) {
  return lanes<u32>([&](int k) { return u32(int(x.lane[k])); });
}
inline Words as_words(Floats x) {
  Words bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline Floats to_floats(Words x) {
  return lanes<float>([&](int k) { return float(x.lane[k]); });
}
// The 32 bits from item `index` of `from` on, a signed number.
inline Words gather(const u16* from, Words index) {
  return lanes<u32>([&](int k) {
    u32 bits;
    std::memcpy(&bits, from + int(index.lane[k]), 4);
    return bits;
  });
}

// The first COUNT lanes alone; a load sets the others to zero.
template <int COUNT>
inline void store_first(float* to, Floats x) {
  std::memcpy(to, x.lane, COUNT * sizeof(float));
}
template <int COUNT>
inline void store_first(u32* to, Words x) {
  std::memcpy(to, x.lane, COUNT * sizeof(u32));
}
template <int COUNT>
inline Words load_first(const u32* from) {
  return lanes<u32>([&](int k) { return k < COUNT ? from[k] : 0; });
}
template <int COUNT>
inline Mask first_lanes() {
  return lanes<bool>([](int k) { return k < COUNT; });
}
// Lane k is set if bit k is.
inline Mask mask_of(u32 bits) {
  return lanes<bool>([&](int k) { return (bits >> k & 1) != 0; });
}
inline Mask both(Mask a, Mask b) {
  return lanes<bool>([&](int k) { return a.lane[k] && b.lane[k]; });
}
inline Mask either(Mask a, Mask b) {
  return lanes<bool>([&](int k) { return a.lane[k] || b.lane[k]; });
}
inline Mask without(Mask a, Mask b) {
  return lanes<bool>([&](int k) { return a.lane[k] && !b.lane[k]; });
}
inline Mask greater(Floats a, Floats b) {
  return lanes<bool>([&](int k) { return a.lane[k] > b.lane[k]; });
}
inline Mask equal(Floats a, Floats b) {
  return lanes<bool>([&](int k) { return a.lane[k] == b.lane[k]; });
}
inline Mask at_least(Words a, Words b) {
  return lanes<bool>([&](int k) { return a.lane[k] >= b.lane[k]; });
}
// x where the mask is set, else zero or the other.
inline Floats where(Mask mask, Floats x) {
  return lanes<float>([&](int k) { return mask.lane[k] ? x.lane[k] : 0; });
}
inline Floats where(Mask mask, Floats x, Floats other) {
  return lanes<float>([&](int k) { return mask.lane[k] ? x.lane[k] : other.lane[k]; });
}
// a + b where the mask is set, else a.
inline Floats add_where(Mask mask, Floats a, Floats b) { return where(mask, a + b, a); }
inline Words where(Mask mask, Words x) {
  return lanes<u32>([&](int k) { return mask.lane[k] ? x.lane[k] : 0; });
}

// Of the lanes of a, then b: every second one.
inline Words even_lanes(Words a, Words b) {
  return lanes<u32>([&](int k) { return k < WIDTH / 2 ? a.lane[2 * k] : b.lane[2 * k - WIDTH]; });
}
inline Words odd_lanes(Words a, Words b) {
  return lanes<u32>(
      [&](int k) { return k < WIDTH / 2 ? a.lane[2 * k + 1] : b.lane[2 * k + 1 - WIDTH]; });
}
// Lanes of a and b in turn: of their first halves, and of their second halves.
inline Words interleave_lower(Words a, Words b) {
  return lanes<u32>([&](int k) { return k % 2 ? b.lane[k / 2] : a.lane[k / 2]; });
}
inline Words interleave_upper(Words a, Words b) {
  return lanes<u32>(
      [&](int k) { return k % 2 ? b.lane[(k + WIDTH) / 2] : a.lane[(k + WIDTH) / 2]; });
}

// The two halves of pairs, and pairs from values, rounded to the nearest, ties to even.
inline Floats low(Words pairs) {
  return lanes<float>([&](int k) { return from_bf16(pairs.lane[k] & 0xffff); });
}
inline Floats high(Words pairs) {
  return lanes<float>([&](int k) { return from_bf16(pairs.lane[k] >> 16); });
}
inline Words packed(Floats low, Floats high) {
  return lanes<u32>([&](int k) { return pair_bf16(low.lane[k], high.lane[k]); });
}
// The same of values that bfloat16 holds exactly.
inline Words packed_exact(Floats low, Floats high) { return packed(low, high); }

constexpr bool PAIRS = false;
using Item = float;
using Items = Floats;

// to[p][c] = from[c][p] for WIDTH values of c, ROWS of them at `from` and the others zero. Of items
// that are pairs, from[c / 2][p] has channels (c, c + 1) of a pixel, and to[p / 2][c] pixels
// (p, p + 1) of a channel.
template <int ROWS>
inline void transpose(const Item* from, size_t stride, Item* to, size_t to_stride) {
  for (int c = 0; c < WIDTH; c++)
    for (int p = 0; p < WIDTH; p++) to[p * to_stride + c] = c < ROWS ? from[c * stride + p] : 0;
}

// What the registers accumulate at once, of `outputs` channels on a grid of `vectors`: so many
// channels, and for the last ones another number, by so many vectors of pixels.
constexpr OutputBlocks outputs_at_once(int, int) { return {2, 2, 0}; }
constexpr int vectors_at_once(int, int) { return 2; }
// The same of the gradients of weights: of `rows` by 32 outputs, so many rows by vectors of outputs;
// and whether a 3x3 kernel's rows are in the order of channels, then taps, or the reverse.
constexpr int rows_at_once(int) { return 1; }
constexpr int PARTS_AT_ONCE = 1;
constexpr bool TAPS_TOGETHER = true;
// Whether 3x3 layers multiply as winograd.hpp says. Not here, to judge those that do.
constexpr bool WINOGRAD = false;

}  // namespace
}  // namespace native
