"""Loads the compiled library, checks whether this machine can use it, and sets its threads."""

from __future__ import annotations

import ctypes
import hashlib
from functools import cache
from pathlib import Path

from mnist_cnn.errors import UsageError
from mnist_cnn.kernels import build
from mnist_cnn.recipe import Kernels

LIBRARY = Path(__file__).with_name("libnative.so")
"""Path of the library."""

KINDS: tuple[Kernels, ...] = ("amx", "avx512")
"""The kinds of compiled code, the fastest first."""

LAYERS = ("stem", "block1", "transition1", "block2", "transition2", "block3", "classifier")
"""Names of the network's layers, in its order."""


def unavailable_reason(kernels: Kernels = "avx512") -> str | None:
    """Why this machine cannot use compiled code of that kind; None where it can.

    Raises:
        UsageError: the library is older than its source files.
    """
    if not LIBRARY.exists():
        return build.missing_reason()
    if not library().supported():
        return "this processor has no AVX512-BF16, or not AVX512-VBMI beside it"
    if kernels == "amx" and not library().tiles_supported():
        return "this processor has no AMX-BF16, or this system does not let it be used"
    return None


def set_threads(threads: int) -> None:
    """Set the number of threads that compute in this process; it starts with one."""
    library().set_threads(threads)


def take_layer_seconds() -> dict[str, float]:
    """Seconds that compiled training steps have spent in each layer since the last call.

    Returns:
        Seconds by "stem forward", "stem backward" and so on. Where threads work in different
        layers, a thread's seconds are divided by the number of threads. With AMX nearly all of the
        stem's backward pass counts as block 1's.
    """
    seconds = (ctypes.c_double * (2 * len(LAYERS)))()
    library().take_layer_seconds(seconds)
    names = [f"{layer} {direction}" for layer in LAYERS for direction in ("forward", "backward")]
    return dict(zip(names, seconds, strict=True))


@cache
def library() -> ctypes.CDLL:
    """Load the library once, with the types of its functions.

    Raises:
        UsageError: it is older than its source files.
    """
    loaded = ctypes.CDLL(str(LIBRARY))
    loaded.sources.restype = ctypes.c_char_p
    if loaded.sources().decode() != source_sum():
        raise UsageError(f"the compiled code is not that of this source; {build.remedy()}")
    pointer, integer, real = ctypes.c_void_p, ctypes.c_int, ctypes.c_float
    signatures = {
        "step_new": (pointer, [integer, integer]),
        "step_free": (None, [pointer]),
        "step_train": (
            None,
            [*[pointer] * 4, integer, real, real, real, ctypes.c_uint32, real, pointer],
        ),
        "step_infer": (None, [pointer, pointer, pointer, integer, pointer]),
        "step_kept": (None, [pointer, integer, integer, pointer]),
        "sgd": (None, [pointer, pointer, pointer, integer, real, real, real]),
        "augment": (None, [pointer, pointer, integer, pointer, real, real, pointer]),
        "take_layer_seconds": (None, [pointer]),
        "set_threads": (None, [integer]),
        "threads": (integer, []),
        "supported": (integer, []),
        "tiles_supported": (integer, []),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


def source_sum() -> str:
    """SHA-256 of the source files, in order of their names; hatch_build.py computes the same."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.[ch]pp")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
