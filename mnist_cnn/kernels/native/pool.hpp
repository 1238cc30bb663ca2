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
  explicit Pool(int threads);
  Pool(const Pool&) = delete;
  ~Pool();

  int threads() const { return int(threads_.size()) + 1; }
  // Whether this thread is doing a piece of work.
  static bool& at_work();

  // Calls work(thread, piece) once for each piece; returns when all are done. Each call goes through
  // the range in the opposite direction of the last one, because the newest results are still in
  // cache. A piece that itself calls this does that work alone, as thread 0.
  void run(int pieces, const std::function<void(int, int)>& work);

 private:
  void end();
  void serve(int thread);
  void take(int thread);

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
