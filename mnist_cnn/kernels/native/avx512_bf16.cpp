// AVX-512 with BF16, on x86-64.

#include "vector_avx512.hpp"

#include "set_of_vectors.hpp"

namespace native {

static bool claimed() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bf16");
}

extern const InstructionSet avx512_bf16;
const InstructionSet avx512_bf16 = {"avx512-bf16", claimed, probe, multiply, make_network, warp};

}  // namespace native
