// AVX-512 without BF16, on x86-64.

#include "vector_avx512.hpp"

#include "set_of_vectors.hpp"

namespace native {

static bool claimed() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

extern const InstructionSet avx512;
const InstructionSet avx512 = {"avx512", claimed, probe, multiply, make_network, warp};

}  // namespace native
