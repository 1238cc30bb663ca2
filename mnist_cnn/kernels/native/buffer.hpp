// Memory for vectors: aligned to 64 bytes and zero at first.
#pragma once

#include <cstddef>
#include <cstdlib>

namespace native {

// Ends the process if there is no memory.
void* zeroed(size_t bytes);

template <class T>
struct Buffer {
  T* const start;
  explicit Buffer(size_t count) : start(static_cast<T*>(zeroed(count * sizeof(T)))) {}
  Buffer(const Buffer&) = delete;
  ~Buffer() { std::free(start); }
};

}  // namespace native
