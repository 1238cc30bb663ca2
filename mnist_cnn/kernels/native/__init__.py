"""The training step and the augmentation as compiled code, for CPUs with AVX512-BF16.

The mathematics is that of `mnist_cnn.model` under bfloat16 autocast and of `mnist_cnn.augment`,
with fewer passes over memory; see step.hpp and network.hpp. There are two kinds: "avx512"
(avx512_network.cpp) computes with AVX512-BF16, "amx" (amx_network.cpp) with AMX matrix tiles, on
processors that have them. The library is compiled when the package is installed (hatch_build.py).
Without a compiler or the instructions, torch's own operators do the work. Results do not depend on
the number of threads.
"""

from mnist_cnn.kernels.native.augmentation import augment as augment, augments as augments
from mnist_cnn.kernels.native.library import (
    KINDS as KINDS,
    LAYERS as LAYERS,
    set_threads as set_threads,
    take_layer_seconds as take_layer_seconds,
    unavailable_reason as unavailable_reason,
)
from mnist_cnn.kernels.native.network import (
    NativeKernel as NativeKernel,
    NativeNetwork as NativeNetwork,
)
from mnist_cnn.kernels.native.sgd import NativeSgd as NativeSgd
