"""Loads the compiled library, checks whether this machine can use it, and sets its threads."""

from __future__ import annotations

import ctypes
import hashlib
import platform
from functools import cache
from pathlib import Path
from typing import get_args

from mnist_cnn.errors import UsageError
from mnist_cnn.kernels import build
from mnist_cnn.recipe import Kernels, NativeKernels

LIBRARY = Path(__file__).with_name("libnative.so")
"""Path of the library."""

KINDS: tuple[NativeKernels, ...] = get_args(NativeKernels)
"""The instruction sets that compiled code knows, the fastest first where a processor multiplies
pairs of bfloat16 faster than float32; a library has those of its architecture."""

FAST_KINDS = KINDS[:-1]
"""The same without "scalar", the judge, which is slower than torch's operators."""

FLOAT32_OF_PAIRS: dict[NativeKernels, NativeKernels] = {
    "avx512-bf16": "avx512",
    "neon-bf16": "neon",
}
"""For sets that multiply pairs of bfloat16: the set of equal vectors that multiplies in float32."""

LAYERS = ("stem", "block1", "transition1", "block2", "transition2", "block3", "classifier")
"""Names of the network's layers, in its order."""


def unavailable_reason(kernels: Kernels = "scalar") -> str | None:
    """Why this machine cannot use compiled code of that instruction set; None where it can.

    Every library has the plain one.

    Raises:
        UsageError: the library is older than its source files.
    """
    if not LIBRARY.exists():
        return build.missing_reason()
    try:
        loaded = library()
    except OSError as error:
        return f"its library cannot be loaded here ({error}); {build.remedy()}"
    built = loaded.instruction_sets().decode().split()
    if kernels not in built:
        return f"this library is for {platform.machine()}: it has {', '.join(built)}"
    if not _runs(kernels):
        return f"this processor, or this system, does not execute {kernels} instructions"
    return None


@cache
def _runs(kernels: Kernels) -> bool:
    return bool(library().runs(kernels.encode()))


def set_threads(threads: int) -> None:
    """Set the number of threads that compute in this process; it starts with one.

    Raises:
        UsageError: the system starts no more threads for this process.
    """
    if not library().set_threads(threads):
        raise UsageError(
            f"the system does not start {threads} threads for this process: use fewer with "
            "--threads, or raise its limit (ulimit -u, pids.max)"
        )


def multiply(kernels: NativeKernels, rounds: int) -> float:
    """Multiply and add from registers on all threads, `rounds` times on each.

    Returns:
        The number of operations; a multiplication and an addition count as two.
    """
    return float(library().multiply(kernels.encode(), rounds))


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
    text = ctypes.c_char_p
    signatures = {
        "step_new": (pointer, [integer, text]),
        "step_free": (None, [pointer]),
        "step_train": (
            None,
            [*[pointer] * 4, integer, real, real, real, ctypes.c_uint32, real, pointer],
        ),
        "step_measure": (None, [pointer, pointer, pointer, integer]),
        "step_infer": (None, [pointer, pointer, pointer, integer, pointer]),
        "step_kept": (None, [pointer, integer, integer, pointer]),
        "sgd": (None, [pointer, pointer, pointer, integer, real, real, real]),
        "augment": (None, [text, pointer, pointer, integer, pointer, real, real, pointer]),
        "take_layer_seconds": (None, [pointer]),
        "set_threads": (integer, [integer]),
        "threads": (integer, []),
        "instruction_sets": (text, []),
        "runs": (integer, [text]),
        "multiply": (ctypes.c_double, [text, integer]),
        "executes": (integer, [pointer]),
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
