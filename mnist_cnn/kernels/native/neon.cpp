// NEON, on 64-bit Arm.

#include "vector_neon.hpp"

#include "set_of_vectors.hpp"

namespace native {

static bool claimed() {
  return true;
}

extern const InstructionSet neon;
const InstructionSet neon = {"neon", claimed, probe, multiply, make_network, warp};

}  // namespace native
