// Matrix tiles (AMX-BF16): eight registers of 16 rows of 64 bytes, and the instruction that
// multiplies them: C[16][16] += A[16][32] . B[32][16], where B has the rows of a pair side by side.
//
// GCC's intrinsics do not declare that they read memory, so it may move earlier stores behind them.
#pragma once

#include <cstdint>
#include <cstring>

namespace native {
namespace {

// Row r of the tile is at from + r * stride bytes. Both must be multiples of 64: rows that cross a
// cache line take six times as long (measured: 58 instead of 9 cycles per tile).
template <int TILE>
inline void tile_load(const void* from, long stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(TILE) : "memory");
}
template <int TILE>
inline void tile_store(void* to, long stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(TILE) : "memory");
}
template <int TILE>
inline void tile_zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(TILE));
}
// C += A . B
template <int C, int A, int B>
inline void tile_dot() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}

// The shapes of this thread's tiles.
struct TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  static TileShapes all_full() {
    TileShapes shapes;
    for (int t = 0; t < 8; t++) shapes.row_bytes[t] = 64, shapes.rows[t] = 16;
    return shapes;
  }
  static TileShapes now() {
    TileShapes shapes;
    asm volatile("sttilecfg %0" : "=m"(shapes)::"memory");
    return shapes;
  }
  void load() const { asm volatile("ldtilecfg %0" ::"m"(*this) : "memory"); }
};
static_assert(sizeof(TileShapes) == 64);

}  // namespace
}  // namespace native
