// Dropout whose mask is a function of a value's position, so that it is not stored: the backward
// pass computes it again.
#pragma once

#include "network.hpp"

namespace native {
namespace {

inline Words mixed(Words x) {
  x = multiply(x ^ shift_right<16>(x), fill_words(0x7feb352du));
  x = multiply(x ^ shift_right<15>(x), fill_words(0x846ca68bu));
  return x ^ shift_right<16>(x);
}

// Drops values of channel pair c at WIDTH flat positions, STEP apart from `start` on, and scales the
// others.
template <int STEP = 1>
inline void drop(const Dropout& dropout, int c, int start, Floats& low, Floats& high) {
  const u32 first = dropout.key + u32(c) * 1024 + u32(start);
  const Words positions = STEP == 1 ? iota() : multiply(iota(), fill_words(STEP));
  const Words bits = mixed(add(positions, fill_words(first)));
  const Words limit = fill_words(dropout.dropped);
  const Floats scale = fill(dropout.scale);
  low = where(at_least(bits & fill_words(0xffff), limit), low * scale);
  high = where(at_least(shift_right<16>(bits), limit), high * scale);
}

}  // namespace
}  // namespace native
