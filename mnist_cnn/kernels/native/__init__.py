"""The training step and the augmentation as compiled code, for any CPU.

The mathematics is that of `mnist_cnn.model` under bfloat16 autocast and of `mnist_cnn.augment`,
with fewer passes over memory; see step.hpp and network.hpp. What layers pass on is bfloat16; sums
are float32. One library has a file for each instruction set of its architecture, and the machine's
fastest is chosen when it runs. vector_network.hpp is the step for all but AMX; it is written over a
few functions on vectors, which vector_avx512.hpp and its like define. Where the processor
multiplies pairs of bfloat16 ("avx512-bf16", "neon-bf16", "amx"), so does the step; elsewhere it
multiplies in float32. "scalar" is plain C++, the judge of the others.

The library is compiled when the package is installed (hatch_build.py). Without it, torch's own
operators do the work. Results do not depend on the number of threads.
"""

from mnist_cnn.kernels.native.augmentation import augment as augment, augments as augments
from mnist_cnn.kernels.native.library import (
    FAST_KINDS as FAST_KINDS,
    FLOAT32_OF_PAIRS as FLOAT32_OF_PAIRS,
    KINDS as KINDS,
    LAYERS as LAYERS,
    multiply as multiply,
    set_threads as set_threads,
    take_layer_seconds as take_layer_seconds,
    unavailable_reason as unavailable_reason,
)
from mnist_cnn.kernels.native.network import (
    NativeKernel as NativeKernel,
    NativeNetwork as NativeNetwork,
)
from mnist_cnn.kernels.native.sgd import NativeSgd as NativeSgd
