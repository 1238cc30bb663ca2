// AVX2 with FMA, on x86-64.

#include "vector_avx2.hpp"

#include "set_of_vectors.hpp"

namespace native {

static bool claimed() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

extern const InstructionSet avx2;
const InstructionSet avx2 = {"avx2", claimed, probe, multiply, make_network, warp};

}  // namespace native
