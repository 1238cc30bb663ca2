// Chooses among the instruction sets at run time.

#include "instruction_sets.hpp"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>

#include <cstring>
#include <mutex>
#include <string>

namespace native {

#if defined(__x86_64__)
extern const InstructionSet amx, avx512_bf16, avx512, avx2, scalar;
#elif defined(__aarch64__)
extern const InstructionSet neon_bf16, neon, scalar;
#else
extern const InstructionSet scalar;
#endif

namespace {

const InstructionSet* const sets[] = {
#if defined(__x86_64__)
    &amx, &avx512_bf16, &avx512, &avx2,
#elif defined(__aarch64__)
    &neon_bf16, &neon,
#endif
    &scalar};

thread_local sigjmp_buf after_probe;

}  // namespace

bool executes(void (*probe)()) {
  // One at a time, since a signal's action belongs to the whole process.
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  struct sigaction action = {}, before;
  action.sa_handler = [](int) { siglongjmp(after_probe, 1); };
  action.sa_flags = SA_NODEFER;
  sigaction(SIGILL, &action, &before);
  const bool fine = sigsetjmp(after_probe, 1) == 0;
  if (fine) probe();
  sigaction(SIGILL, &before, nullptr);
  return fine;
}

const InstructionSet* instruction_set(const char* name) {
  for (const InstructionSet* set : sets)
    if (std::strcmp(name, set->name) == 0) return set;
  return nullptr;
}

bool runs(const InstructionSet& set) { return set.claimed() && executes(set.probe); }

const char* instruction_set_names() {
  static const std::string names = [] {
    std::string joined;
    for (const InstructionSet* set : sets) {
      if (!joined.empty()) joined += ' ';
      joined += set->name;
    }
    return joined;
  }();
  return names.c_str();
}

}  // namespace native
