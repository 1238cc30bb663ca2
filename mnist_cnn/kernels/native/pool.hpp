// A few threads that do numbered pieces of work together.
#pragma once

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

namespace native {

// Each thread starts with its own range of pieces, because its cache may still contain their results
// of the last time. A thread that has finished its range helps the others, so that one slow core
// delays the others little. Results must therefore not depend on the thread: each piece, not each
// thread, has its own sums.
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
  // Whether this thread is doing a piece of work.
  static bool& at_work() {
    static thread_local bool here = false;
    return here;
  }

  // Calls work(thread, piece) once for each piece; returns when all are done. Each call goes through
  // the range in the opposite direction of the last one, because the newest results are still in
  // cache. A piece that itself calls this does that work alone, as thread 0.
  void run(int pieces, const std::function<void(int, int)>& work) {
    if (at_work()) {
      static thread_local bool backwards = false;
      backwards = !backwards;
      for (int k = 0; k < pieces; k++) work(0, backwards ? pieces - 1 - k : k);
      return;
    }
    work_ = &work;
    pieces_ = pieces;
    backwards_ = !backwards_;
    for (auto& next : next_) next = 0;
    busy_ = int(threads_.size());
    round_.fetch_add(1);
    round_.notify_all();
    take(0);
    for (int left; (left = busy_.load()) != 0;) wait_while(busy_, left);
  }

 private:
  void serve(int thread) {
    for (int seen = 0;;) {
      while (round_.load() == seen) wait_while(round_, seen);
      seen++;
      if (stop_) return;
      take(thread);
      if (busy_.fetch_sub(1) == 1) busy_.notify_all();
    }
  }
  void take(int thread) {
    at_work() = true;
    for (int t = 0; t < threads(); t++) {
      const int owner = (thread + t) % threads();
      const int begin = pieces_ * owner / threads(), end = pieces_ * (owner + 1) / threads();
      for (int k; begin + (k = next_[owner].fetch_add(1)) < end;)
        (*work_)(thread, backwards_ ? end - 1 - k : begin + k);
    }
    at_work() = false;
  }
  // The next round usually starts within microseconds; a sleeping thread takes longer to wake.
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
  std::atomic<int> busy_{0}, round_{0};
  std::vector<std::atomic<int>> next_;  // one per range
};

// This process's pool, with the number of threads last set.
Pool& pool();

}  // namespace native
