// What a file of one instruction set gives to the rest of the library. Its code may only run on a
// processor that has the instructions.
#pragma once

#include "network.hpp"

namespace native {

struct InstructionSet {
  const char* name;
  // Whether the processor says that it has these instructions, and the system lets them be used.
  bool (*claimed)();
  // Executes some of them.
  void (*probe)();
  // Multiplies and adds from registers, `rounds` times, and returns the number of operations.
  double (*multiply)(long rounds);
  // A network with its own weights and room for a batch of `capacity` images.
  Network* (*make_network)(int capacity);
  // Distorts one image: see augmentation.hpp.
  void (*warp)(const uint8_t* image, const float* row, float scale, float offset, float* out);
};

}  // namespace native
