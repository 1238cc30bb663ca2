// NEON with BF16, on 64-bit Arm.

#include "vector_neon.hpp"

#include "set_of_vectors.hpp"

#if defined(__linux__)
#include <sys/auxv.h>
static bool arm_has_bf16() {
  constexpr unsigned long BF16 = 1ul << 14;  // HWCAP2_BF16
  return getauxval(AT_HWCAP2) & BF16;
}
#elif defined(__APPLE__)
#include <sys/sysctl.h>
static bool arm_has_bf16() {
  int has = 0;
  size_t size = sizeof has;
  return sysctlbyname("hw.optional.arm.FEAT_BF16", &has, &size, nullptr, 0) == 0 && has;
}
#else
static bool arm_has_bf16() { return false; }
#endif

namespace native {

static bool claimed() {
  return arm_has_bf16();
}

extern const InstructionSet neon_bf16;
const InstructionSet neon_bf16 = {"neon-bf16", claimed, probe, multiply, make_network, warp};

}  // namespace native
