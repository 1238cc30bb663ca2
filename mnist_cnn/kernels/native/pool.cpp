// The one pool of a process.

#include "pool.hpp"

#include <memory>

namespace native {

namespace {
std::unique_ptr<Pool> the_pool;
}

Pool& pool() {
  if (!the_pool) the_pool = std::make_unique<Pool>(1);
  return *the_pool;
}

}  // namespace native

extern "C" {

// Sets the number of threads of this process's pool.
void set_threads(int threads) {
  if (native::pool().threads() != threads)
    native::the_pool = std::make_unique<native::Pool>(threads);
}

int threads() { return native::pool().threads(); }

}  // extern "C"
