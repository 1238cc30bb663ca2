// The one pool of a process.

#include "pool.hpp"

#include <memory>
#include <system_error>

namespace native {

namespace {

std::unique_ptr<Pool> the_pool;

// Tells the processor that this thread waits in a loop.
void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// The next round usually starts within microseconds; a sleeping thread takes longer to wake.
void wait_while(const std::atomic<int>& value, int old) {
  for (int spin = 0; spin < 20000; spin++) {
    if (value.load() != old) return;
    pause();
  }
  value.wait(old);
}

}  // namespace

Pool::Pool(int threads) : next_(threads) {
  try {
    for (int t = 1; t < threads; t++) threads_.emplace_back([this, t] { serve(t); });
  } catch (...) {  // the system gives no more: a thread that is not joined would end the process
    end();
    throw;
  }
}

Pool::~Pool() { end(); }

void Pool::end() {
  stop_ = true;
  round_.fetch_add(1);
  round_.notify_all();
  for (auto& thread : threads_) thread.join();
}

bool& Pool::at_work() {
  static thread_local bool here = false;
  return here;
}

void Pool::run(int pieces, const std::function<void(int, int)>& work) {
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

void Pool::serve(int thread) {
  for (int seen = 0;;) {
    while (round_.load() == seen) wait_while(round_, seen);
    seen++;
    if (stop_) return;
    take(thread);
    if (busy_.fetch_sub(1) == 1) busy_.notify_all();
  }
}

void Pool::take(int thread) {
  at_work() = true;
  for (int t = 0; t < threads(); t++) {
    const int owner = (thread + t) % threads();
    const int begin = pieces_ * owner / threads(), end = pieces_ * (owner + 1) / threads();
    for (int k; begin + (k = next_[owner].fetch_add(1)) < end;)
      (*work_)(thread, backwards_ ? end - 1 - k : begin + k);
  }
  at_work() = false;
}

Pool& pool() {
  if (!the_pool) the_pool = std::make_unique<Pool>(1);
  return *the_pool;
}

}  // namespace native

extern "C" {

// Sets the number of threads of this process's pool; returns 0 where the system refuses them.
int set_threads(int threads) {
  try {
    if (native::pool().threads() != threads)
      native::the_pool = std::make_unique<native::Pool>(threads);
    return 1;
  } catch (const std::system_error&) {
    return 0;
  }
}

int threads() { return native::pool().threads(); }

}  // extern "C"
