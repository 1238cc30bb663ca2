// How a convolution divides its output channels into blocks that the registers accumulate at once.
#pragma once

namespace native {

struct OutputBlocks {
  int size;           // channels of a block
  int last_size;      // channels of each of the last blocks, where `size` does not divide all
  int last_channels;  // channels of the last blocks together
};

}  // namespace native
