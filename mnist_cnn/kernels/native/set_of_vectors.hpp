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

}  // namespace
}  // namespace native
