// How many output channels of a convolution the registers accumulate at once.
#pragma once

namespace native {

struct Outputs {
  int most;     // at first
  int last;     // for the last channels
  int lasting;  // how many these are
};

}  // namespace native
