"""The training step and the augmentation as compiled code, for CPUs with AVX512-BF16.

The same mathematics as `mnist_cnn.model` under bfloat16 autocast and `mnist_cnn.augment`, in fewer
passes over memory; see step.hpp and network.hpp. There are two kinds: "avx512"
(avx512_network.cpp) multiplies pairs of vectors, "amx" (amx_network.cpp) matrix tiles, where the
processor has those too. The library is built as the package is installed (hatch_build.py); where
there is no compiler, or the processor lacks the instructions, torch's own operators do the work.
Results do not depend on the number of threads.
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
