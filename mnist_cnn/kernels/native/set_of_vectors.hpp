// What the files of vector instruction sets give to the library; one of the vector_*.hpp is included
// before.
#pragma once

#include "augmentation.hpp"
#include "instruction_set.hpp"
#include "vector_network.hpp"

namespace native {
namespace {

// A few of the set's instructions, whose result the compiler cannot know.
void probe() {
  volatile u32 source = 0x3f803f80;
  u32 words[WIDTH];
  for (u32& word : words) word = source;
  Item items[WIDTH];
  for (Item& item : items) item = Item(source);
  const Floats products = fma(load(items), load(items), low(load(words)));
  store(words, where(greater(products, zero()), packed(products, products)));
  source = words[0];
}

double multiply(long rounds) {
  constexpr int ACCUMULATORS = 12;
  Item items[WIDTH];
  for (Item& item : items) item = Item(0x3f80);
  const Items factor = load(items);
  // Other values in each, so that no compiler computes one for all.
  Floats sums[ACCUMULATORS];
  for (int k = 0; k < ACCUMULATORS; k++) sums[k] = fill(float(k));
  for (long r = 0; r < rounds; r++)
#pragma GCC unroll 12
    for (int k = 0; k < ACCUMULATORS; k++) sums[k] = fma(factor, factor, sums[k]);
  float lanes[WIDTH], total = 0;
  for (const Floats& sum : sums) {
    store(lanes, sum);
    total += lanes[0];
  }
  // It is a number, but the compiler must compute it to know.
  return total == total ? 2. * double(rounds) * ACCUMULATORS * WIDTH * (PAIRS ? 2 : 1) : 0;
}

}  // namespace
}  // namespace native
