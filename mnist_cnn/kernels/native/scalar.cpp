// Plain C++, on any processor.

#include "vector_scalar.hpp"

#include "set_of_vectors.hpp"

namespace native {

static bool claimed() {
  return true;
}

extern const InstructionSet scalar;
const InstructionSet scalar = {"scalar", claimed, probe, multiply, make_network, warp};

}  // namespace native
