// A few threads that go through numbered pieces of work together.
#pragma once

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

namespace native {

// Each thread has a run of the pieces that is its own, for its cache may hold what it made of them
// the last time; whoever is done with it helps the others, so a core that is slowed down by others
// slows the rest little. Results must therefore not depend on who did what: sums are kept a piece,
// not a thread.
class Pool {
 public:
  explicit Pool(int threads) : next_(threads) {
    for (int t = 1; t < threads; t++) threads_.emplace_back([this, t] { serve(t); });
  }
  Pool(const Pool&) = delete;
  ~Pool() {
    stop_ = true;
    round_.fetch_add(1);
    round_.notify_all();
    for (auto& thread : threads_) thread.join();
  }

  int threads() const { return int(threads_.size()) + 1; }

  // work(thread, piece) for each piece once; returns when all are done. A run is gone through
  // forwards and backwards by turns: what was made last is what is still in the cache.
  void run(int pieces, const std::function<void(int, int)>& work) {
    work_ = &work;
    pieces_ = pieces;
    backwards_ = !backwards_;
    for (auto& next : next_) next = 0;
    at_work_ = int(threads_.size());
    round_.fetch_add(1);
    round_.notify_all();
    take(0);
    for (int left; (left = at_work_.load()) != 0;) wait_while(at_work_, left);
  }

 private:
  void serve(int thread) {
    for (int seen = 0;;) {
      while (round_.load() == seen) wait_while(round_, seen);
      seen++;
      if (stop_) return;
      take(thread);
      if (at_work_.fetch_sub(1) == 1) at_work_.notify_all();
    }
  }
  void take(int thread) {
    for (int t = 0; t < threads(); t++) {
      const int owner = (thread + t) % threads();
      const int begin = pieces_ * owner / threads(), end = pieces_ * (owner + 1) / threads();
      for (int k; begin + (k = next_[owner].fetch_add(1)) < end;)
        (*work_)(thread, backwards_ ? end - 1 - k : begin + k);
    }
  }
  // The next round is usually microseconds away; asleep, a thread needs longer than that to wake.
  static void wait_while(const std::atomic<int>& value, int old) {
    for (int spin = 0; spin < 20000; spin++) {
      if (value.load() != old) return;
      __builtin_ia32_pause();
    }
    value.wait(old);
  }

  std::vector<std::thread> threads_;
  const std::function<void(int, int)>* work_ = nullptr;
  int pieces_ = 0;
  std::atomic<bool> stop_{false};
  bool backwards_ = false;
  std::atomic<int> at_work_{0}, round_{0};
  std::vector<std::atomic<int>> next_;  // a run
};

// This process's pool, of the number of threads last asked for.
Pool& pool();

}  // namespace native
