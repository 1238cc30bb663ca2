// Scalar conversions between float32 and bfloat16, its upper half.
#pragma once

#include <cstdint>
#include <cstring>

namespace native {

using u16 = uint16_t;
using u32 = uint32_t;

// Internal linkage, here and in all headers that files of several instruction sets include: each
// file must use its own copy, because the linker would keep one for all, compiled for any of them.
namespace {

// Rounds to the nearest, ties to even.
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

}  // namespace
}  // namespace native
