// A few threads that go through numbered pieces of work together.
#pragma once

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

namespace native {

// Whoever is free takes the next piece, so a core that is slowed down by others slows the rest
// little. Results must therefore not depend on who did what: sums are kept a piece, not a thread.
class Pool {
 public:
  explicit Pool(int threads) {
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

  // work(thread, piece) for each piece once; returns when all are done.
  void run(int pieces, const std::function<void(int, int)>& work) {
    work_ = &work;
    pieces_ = pieces;
    next_ = 0;
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
    for (int piece; (piece = next_.fetch_add(1)) < pieces_;) (*work_)(thread, piece);
  }
  // The next round is usually microseconds away; asleep, a thread needs longer than that to wake.
  static void wait_while(const std::atomic<int>& value, int old) {
    for (int spin = 0; spin < 4000; spin++) {
      if (value.load() != old) return;
      __builtin_ia32_pause();
    }
    value.wait(old);
  }

  std::vector<std::thread> threads_;
  const std::function<void(int, int)>* work_ = nullptr;
  int pieces_ = 0;
  std::atomic<bool> stop_{false};
  std::atomic<int> next_{0}, at_work_{0}, round_{0};
};

// This process's pool, of the number of threads last asked for.
Pool& pool();

}  // namespace native
