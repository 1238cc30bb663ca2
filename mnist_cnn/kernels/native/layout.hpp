// The memory layout of images, and the conversions between bfloat16 and float32.
//
// Activations are bfloat16, two channels in a 32-bit item: [channel pair][pixel]. The dot-product
// instruction (VDPBF16PS) multiplies such items. Shapes in the comments below count items.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace native {

using u16 = uint16_t;
using u32 = uint32_t;

// Extra items at the end of a buffer, into which its last vector may extend.
constexpr int GUARD = 64;

inline __m512bh as_bh(__m512i v) { return (__m512bh)v; }
inline u32 to_bf16(float x) {
  u32 bits;
  std::memcpy(&bits, &x, 4);
  return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}
inline float from_bf16(u32 x) {
  const u32 bits = x << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline u32 pair_bf16(float a, float b) { return to_bf16(a) | to_bf16(b) << 16; }
// 16 pixels of a channel pair.
inline __m512 low(__m512i v) { return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16)); }
inline __m512 high(__m512i v) {
  return _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32(int(0xffff0000))));
}
// Converts two float32 vectors, one per channel, to 16 pixels of the pair.
struct Interleave {
  alignas(64) u16 index[32];
  constexpr Interleave() : index() {
    for (int k = 0; k < 16; k++) index[2 * k] = u16(k), index[2 * k + 1] = u16(16 + k);
  }
};
constexpr Interleave interleave;
inline __m512i pack(__m512 a, __m512 b) {
  __m512i r = (__m512i)_mm512_cvtne2ps_pbh(b, a);
  return _mm512_permutexvar_epi16(_mm512_load_si512(interleave.index), r);
}

// A square image in a flat array. Rows are PITCH apart and the columns between them are zero, so that
// one shift of the flat index shifts every row, and a convolution needs no special borders. Scratch
// planes have LEAD zeros before and after the image, for shifts beyond it.
template <int SIDE_, int PITCH_, int REACH_>
struct Grid {
  static constexpr int SIDE = SIDE_, PITCH = PITCH_, REACH = REACH_;
  static constexpr int COUNT = SIDE * PITCH;
  static constexpr int VECTORS = (COUNT + 15) / 16;
  static constexpr int FLAT = VECTORS * 16;
  static constexpr int PAIRS = COUNT / 2;
  static constexpr int LEAD = (REACH * PITCH + REACH + 15) / 16 * 16;
  static constexpr int PLANE = LEAD + (VECTORS + 1) / 2 * 32 + LEAD;
  static constexpr int PIXELS = SIDE * SIDE;
  // Mask of the lanes of each vector that are pixels; the others are zeros between rows.
  struct Masks {
    __mmask16 m[VECTORS];
    constexpr Masks() : m() {
      for (int v = 0; v < VECTORS; v++) {
        unsigned bits = 0;
        for (int i = 0; i < 16; i++) {
          int p = v * 16 + i;
          if (p < COUNT && p % PITCH < SIDE) bits |= 1u << i;
        }
        m[v] = (__mmask16)bits;
      }
    }
  };
  static constexpr Masks masks{};
  // The flat shift of tap t, 0..8 row by row, of a 3x3 kernel with dilation REACH.
  static constexpr int tap(int t) { return (t / 3 - 1) * REACH * PITCH + (t % 3 - 1) * REACH; }
};
// The grids on which the 3x3 kernels of dilation 1, 2 and 1 work.
using G28 = Grid<28, 29, 1>;
using G14 = Grid<14, 16, 2>;
using G7 = Grid<7, 8, 1>;


template <class T>
T* zeros(size_t count) {
  const size_t bytes = (count * sizeof(T) + 63) / 64 * 64;
  void* p = std::aligned_alloc(64, bytes);
  if (!p) std::abort();
  std::memset(p, 0, bytes);
  return static_cast<T*>(p);
}

template <class T>
struct Buffer {
  T* const start;
  explicit Buffer(size_t count) : start(zeros<T>(count)) {}
  Buffer(const Buffer&) = delete;
  ~Buffer() { std::free(start); }
};

}  // namespace native
