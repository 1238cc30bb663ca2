// The memory layout of images for vectors of pixels.
//
// What a layer stores for others is [channel pair][pixel], two bfloat16 channels in a word. What is
// multiplied is in scratch planes of items: of such pairs, or of float32, one channel a plane.
#pragma once

#include "buffer.hpp"
// One of the vector_*.hpp has been included before.

namespace native {
namespace {

// Extra words at the end of a buffer, into which its last vectors may extend.
constexpr int GUARD = 64;

// A square image in a flat array. Rows are PITCH apart and the columns between them are zero, so that
// one shift of the flat index shifts every row, and a convolution needs no special borders. Scratch
// planes have LEAD zeros before and after the image, for shifts beyond it.
template <int SIDE_, int PITCH_, int REACH_>
struct Grid {
  static constexpr int SIDE = SIDE_, PITCH = PITCH_, REACH = REACH_;
  static constexpr int COUNT = SIDE * PITCH;
  static constexpr int VECTORS = (COUNT + WIDTH - 1) / WIDTH;
  static constexpr int FLAT = VECTORS * WIDTH;
  static constexpr int LEAD = (REACH * PITCH + REACH + 15) / 16 * 16;
  // An odd number of cache lines, so that the same pixel of many planes is not in a few cache sets.
  static constexpr int PLANE = ((LEAD + (COUNT + 31) / 32 * 32 + LEAD) / 16 | 1) * 16;
  // Items of one channel that follow each other and are multiplied by one transposed row.
  static constexpr int ROWS = PAIRS ? COUNT / 2 : COUNT;
  // How many of them the nearest cache keeps beside the planes: about four rows of the largest image.
  static constexpr int ROWS_IN_CACHE = PAIRS ? ROWS : 116;
  // Bits of the lanes of each vector that are pixels; the others are zeros between rows.
  struct Masks {
    u16 bits[VECTORS];
    constexpr Masks() : bits() {
      for (int p = 0; p < COUNT; p++)
        if (p % PITCH < SIDE) bits[p / WIDTH] |= u16(1 << p % WIDTH);
    }
  };
  static constexpr Masks masks{};
  static Mask mask(int vector) { return mask_of(masks.bits[vector]); }
  // The flat shift of tap t, 0..8 row by row, of a 3x3 kernel with dilation REACH.
  static constexpr int tap(int t) { return (t / 3 - 1) * REACH * PITCH + (t % 3 - 1) * REACH; }
};
// The grids on which the 3x3 kernels of dilation 1, 2 and 1 work.
using G28 = Grid<28, 29, 1>;
using G14 = Grid<14, 16, 2>;
using G7 = Grid<7, 8, 1>;

// Number of planes of items for that many channels.
constexpr int planes(int channels) { return PAIRS ? channels / 2 : channels; }

// Scratch planes of one image.
template <class G, int CHANNELS>
struct Planes {
  Buffer<Item> buffer{size_t(planes(CHANNELS)) * G::PLANE + GUARD};
  Item* const at = buffer.start + G::LEAD;
};

// Writes a vector of two channels to the planes of channel pair c, from pixel p on, zero without the
// mask.
template <class G>
inline void put(u32* pairs, int c, int p, Mask mask, Floats low, Floats high) {
  store(pairs + c * G::PLANE + p, where(mask, packed(low, high)));
}
template <class G>
inline void put(float* plain, int c, int p, Mask mask, Floats low, Floats high) {
  store(plain + 2 * c * G::PLANE + p, where(mask, low));
  store(plain + (2 * c + 1) * G::PLANE + p, where(mask, high));
}
// The vectors that `put` has written.
template <class G>
inline void get(const u32* pairs, int c, int p, Floats& low, Floats& high) {
  const Words both = load(pairs + c * G::PLANE + p);
  low = native::low(both), high = native::high(both);
}
template <class G>
inline void get(const float* plain, int c, int p, Floats& low, Floats& high) {
  low = load(plain + 2 * c * G::PLANE + p), high = load(plain + (2 * c + 1) * G::PLANE + p);
}
// Only the first COUNT pixels.
template <class G, int COUNT>
inline void put_first(u32* pairs, int c, int p, Floats low, Floats high) {
  store_first<COUNT>(pairs + c * G::PLANE + p, packed(low, high));
}
template <class G, int COUNT>
inline void put_first(float* plain, int c, int p, Floats low, Floats high) {
  store_first<COUNT>(plain + 2 * c * G::PLANE + p, low);
  store_first<COUNT>(plain + (2 * c + 1) * G::PLANE + p, high);
}
// Twice COUNT pixels, of two vectors in turn: `first` has pixels p, p + 2 and so on.
template <int COUNT>
inline void store_interleaved(u32* to, Words first, Words second) {
  store_first<(2 * COUNT < WIDTH ? 2 * COUNT : WIDTH)>(to, interleave_lower(first, second));
  if constexpr (2 * COUNT > WIDTH)
    store_first<2 * COUNT - WIDTH>(to + WIDTH, interleave_upper(first, second));
}
template <class G, int COUNT>
inline void put_interleaved(u32* pairs, int c, int p, const Floats (&low)[2], const Floats (&high)[2]) {
  store_interleaved<COUNT>(pairs + c * G::PLANE + p, packed(low[0], high[0]), packed(low[1], high[1]));
}
template <class G, int COUNT>
inline void put_interleaved(float* plain, int c, int p, const Floats (&low)[2], const Floats (&high)[2]) {
  u32* to = reinterpret_cast<u32*>(plain + 2 * c * G::PLANE + p);
  store_interleaved<COUNT>(to, as_words(low[0]), as_words(low[1]));
  store_interleaved<COUNT>(to + G::PLANE, as_words(high[0]), as_words(high[1]));
}
// Adds to the first COUNT pixels.
template <class G, int COUNT>
inline void add_first(u32* pairs, int c, int p, Floats low, Floats high) {
  u32* at = pairs + c * G::PLANE + p;
  const Words old = load_first<COUNT>(at);
  store_first<COUNT>(at, packed(native::low(old) + low, native::high(old) + high));
}
template <class G, int COUNT>
inline void add_first(float* plain, int c, int p, Floats low, Floats high) {
  float* at = plain + 2 * c * G::PLANE + p;
  store_first<COUNT>(at, load(at) + low);
  store_first<COUNT>(at + G::PLANE, load(at + G::PLANE) + high);
}

}  // namespace
}  // namespace native
