// Seconds that all networks of this process have spent in each layer in training, forward and
// backward; the rest of a step is spent outside of layers. Where threads work in different layers,
// a second of one thread counts as one second divided by the number of threads.
#pragma once

#include <atomic>
#include <chrono>

#include "network.hpp"
#include "pool.hpp"

namespace native {

extern std::atomic<double> layer_seconds[LAYERS][2];

// Adds its own lifetime to one of these.
class LayerTimer {
 public:
  LayerTimer(int layer, bool backward) : to_(layer_seconds[layer][backward]) {}
  LayerTimer(const LayerTimer&) = delete;
  ~LayerTimer() {
    const std::chrono::duration<double> lived = std::chrono::steady_clock::now() - start_;
    add(lived.count() / (Pool::at_work() ? pool().threads() : 1));
  }

 private:
  // Clang's library has no += for this type.
  void add(double seconds) {
    for (double old = to_; !to_.compare_exchange_weak(old, old + seconds);) continue;
  }

  std::atomic<double>& to_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace native
